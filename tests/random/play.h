/*
 * play.h - random work for contexts of one model, done twice: first by plain libllama, whose outputs are kept, then by Hypura,
 * whose outputs have to have their bits.
 *
 * What is done follows from the seed and from what both sides have in common: how many tokens a sequence holds, and what
 * libllama answers. What one side alone does - reads that fail, GPUs that do, what is held that changes - changes no output of
 * the other side: where it may end in an error, all is forgotten behind it on both sides.
 */
#ifndef HYPURA_TEST_RANDOM_PLAY_H
#define HYPURA_TEST_RANDOM_PLAY_H

#include "drawn.h"

#include "engine/model/model.h"

#include <stdatomic.h>

/* Outputs in their order. */
typedef struct play_record {
    float   *values;
    size_t   n_values, most_values;
    struct play_row {
        size_t at, n;
        int    op; /* which one of the script put it out */
    } *rows;
    size_t n_rows, most_rows;
} play_record;

void play_record_clear(play_record *record);

/* How reads go, as the hook of the I/O engine has it. */
typedef struct play_reads {
    atomic_int fails_after; /* reads until one fails; negative: none */
    uint32_t   short_percent;
    uint32_t   sleep_percent;
    _Atomic(uint64_t) random;
} play_reads;

int64_t play_on_read(void *user, uint64_t nth, int64_t result);

typedef struct play_result {
    uint64_t n_rows;
    uint64_t n_values;
    uint64_t n_differing; /* of these */
    int      first_op;    /* where the first one differs */
    char     first_text[96];
    uint64_t n_errors; /* that were provoked, and told */
    uint64_t n_cancelled;
    uint64_t n_decodes;
    char     failure[512]; /* what should not have failed, or "" */
} play_result;

enum { PLAY_CONTEXTS = 2, PLAY_SEQUENCES = 5 };

typedef struct play {
    uint64_t      seed;
    int           n_ops;
    bool          plain;
    bool          over_standins;
    bool          verbose;
    bool          can_shift; /* libllama can turn keys of that type */
    hypura_model *model;
    struct llama_context *contexts[PLAY_CONTEXTS];
    int           n_contexts;
    struct llama_adapter_lora *adapters[DRAWN_ADAPTERS];
    int           n_adapters;
    standin_faults faults; /* while none is provoked */
    play_reads   *reads;   /* NULL: plain */
    play_record  *record;  /* written by plain, compared with otherwise */
    play_result   result;
} play;

/* True where nothing differs and nothing failed that should not. */
bool play_all(play *p);

#endif
