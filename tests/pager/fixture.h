/*
 * fixture.h - a model file whose every byte tells where it lies, with a map and a
 * plan made by hand, so that any byte the pager hands out can be checked.
 */
#ifndef HYPURA_TESTS_PAGER_FIXTURE_H
#define HYPURA_TESTS_PAGER_FIXTURE_H

#include "hypura.h"
#include "pager/pager.h"

enum {
    FIXTURE_LAYERS = 3,
    FIXTURE_EXPERTS = 16,
    FIXTURE_MATRICES = 3,
    FIXTURE_DENSE = 3, /* dense weights, after the experts */
};

typedef struct fixture {
    char             path[64];
    hypura_map       map;
    hypura_plan      plan;
    hypura_tensor    tensors[FIXTURE_LAYERS * FIXTURE_MATRICES + FIXTURE_DENSE + 1];
    hypura_bundle    bundles[FIXTURE_LAYERS];
    hypura_placement placements[FIXTURE_LAYERS * FIXTURE_MATRICES + FIXTURE_DENSE + 1];
    int              order[FIXTURE_LAYERS * FIXTURE_MATRICES + FIXTURE_DENSE + 1];
    const char      *files[1];
    uint64_t         file_bytes[1];
} fixture;

typedef struct fixture_options {
    uint64_t expert_bytes[FIXTURE_MATRICES]; /* of one slice */
    uint32_t n_slots;
    uint32_t n_ring_slots;
    int64_t  pinned_rows;
} fixture_options;

extern const fixture_options fixture_defaults;

/* Writes the file and fills map and plan. The embedding is the last tensor. */
void fixture_open(fixture *f, const fixture_options *options);
void fixture_close(fixture *f);

int fixture_dense(int index);     /* tensor number of a dense weight */
int fixture_embedding(void);      /* tensor number of the embedding */

/* True when the bytes are those of the file at this offset. */
bool fixture_is(const char *bytes, uint64_t offset, uint64_t n);

/* True when every matrix of the expert lies in this slot as in the file. */
bool fixture_expert_is_right(const fixture *f, hypura_pager *pager, int bundle, uint32_t expert, uint32_t slot);

/* io_uring where the number is even and the kernel allows it, else the pool. */
const char *fixture_engine(size_t number);

/* Skips a test that goes through them by number where another run of the program does so. */
void fixture_name_engines(void);

/* A pager over the fixture; engine NULL: the best there is. Fails the test when it cannot be opened. */
hypura_pager *fixture_open_pager(fixture *f, const char *engine, hypura_io_hook hook, void *user);

/* Leases experts, checks the bytes of those leased, releases. Returns how many. */
uint32_t fixture_use_experts(fixture *f, hypura_pager *pager, int bundle, const uint32_t *experts, uint32_t n);

/* One pass over the dense weights [first, last) as a token makes it, checking every byte. Returns the
 * bytes pinned. */
uint64_t fixture_pass_dense(fixture *f, hypura_pager *pager, int first, int last);

#endif
