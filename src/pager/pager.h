/*
 * pager.h - owns every weight byte that Hypura holds: expert slots, the ring of
 * dense chunks, pinned rows. The executor asks for weights and leases them; the
 * pager's own thread reads what is missing.
 *
 * One pager per loaded model, shared by all its contexts. Computing threads enter
 * between hypura_pager_enter and hypura_pager_leave, one at a time: leases of two
 * graphs could otherwise each hold half of the slots and wait for the other half.
 *
 * A slot of an expert pool:
 *
 *        lease (miss)    reads done, repacked          victim of another lease
 *     EMPTY ------> FILLING ---------------> READY ------------------> FILLING
 *                      |  a read failed                 (of the new key)
 *                      +---> FAILED ---> EMPTY, once the last lease is released
 *
 * What always holds:
 *  1. A leased slot, and one with reads under way, is pinned: never a victim.
 *  2. Bytes may be looked at only after a wait returned OK, until the release.
 *  3. The pager's thread alone touches the I/O engine; others queue requests.
 *  4. A failed read fails every wait that needs it, naming file, offset and
 *     tensor, and leaves the slot EMPTY: no stale bytes are ever READY.
 *  5. After open nothing is allocated: tables are made for the largest pools, and
 *     resizing takes pages, not addresses.
 */
#ifndef HYPURA_PAGER_PAGER_H
#define HYPURA_PAGER_PAGER_H

#include "hypura.h"
#include "io/io.h"
#include "pager/repack.h"
#include "predict/coactivation.h"

typedef struct hypura_pager hypura_pager;

/* What a router selected. */
typedef struct hypura_selection {
    int             bundle;
    hypura_selected selected;
} hypura_selection;

typedef void (*hypura_selection_fn)(void *user, const hypura_selection *selection);

/* What a layer will probably select for a token of the batch under way, of which n_used: n
 * experts, the likeliest first. */
typedef void (*hypura_foretell_fn)(void *user, int layer, uint32_t token, uint32_t n_used, uint32_t *experts,
                                   uint32_t n);

typedef struct hypura_pager_options {
    const hypura_map  *map;  /* outlives the pager */
    const hypura_plan *plan; /* outlives the pager */
    const char        *io_engine;
    hypura_form        form;             /* in which weights are held: repacked as libllama does it (repack.h) */
    int                n_repack_threads; /* 0: one */
    bool               gives_way; /* computing takes every processor: a lease lets the pager's thread in first */
    int                n_compute; /* threads that do; 0: not told */
    bool               looks; /* processors are to spare: threads that wait look for the end (predict/look.h) */
    uint64_t           io_limit_bytes_per_s; /* see io.h; loading what stays is not limited */
    hypura_foresight   foresight;
    hypura_io_hook     hook; /* test instrument, see io.h; by the thread that loads, then by the pager's */
    void              *hook_user;
    hypura_selection_fn on_selection; /* NULL, or told what hypura_pager_note_selection is */
    void               *on_selection_user;
    hypura_foretell_fn  foretell; /* NULL, or asked in place of the scores of routers */
    void               *foretell_user;
    /* The GPUs that experts are computed on (ggml_backend_dev_t), in the plan's order, with
     * its slots in their memory: see vram.h. None: the CPU reads the pools in place. */
    int                n_gpus;
    struct ggml_backend_device *const *gpus;
    hypura_gpu_misses  gpu_misses;
} hypura_pager_options;

/* How many threads should repack beside so many that compute: processors that would be
 * idle do, and otherwise one for every four. */
int hypura_pager_repack_threads(int n_compute_threads);

/* Whether so many leave no processor to the pager's own thread. */
bool hypura_pager_gives_way(int n_compute_threads);

/* Whether so many leave enough processors to others that they may look for what they wait for. Not over a
 * GPU, where one thread waits. */
bool hypura_pager_looks(int n_compute_threads, hypura_form form);

/* The processors for threads that compute, one for each of them: where as many compute as there are, and that is worth it;
 * else 0. */
int hypura_pager_processors(const hypura_pager *pager, const int **processors);

/* Takes all memory, reads the pinned rows, starts the thread. */
hypura_status hypura_pager_open(const hypura_pager_options *options, hypura_pager **pager, hypura_error *error);
void          hypura_pager_close(hypura_pager *pager);

/* As they were given at open. Any thread. */
const hypura_map  *hypura_pager_map(const hypura_pager *pager);
const hypura_plan *hypura_pager_plan(const hypura_pager *pager);

/* Of all contexts together, since open or reset. Any thread. */
void hypura_pager_statistics(hypura_pager *pager, hypura_statistics *statistics);
void hypura_pager_reset_statistics(hypura_pager *pager);
/* As hypura_model_layer_hits. */
void hypura_pager_layer_hits(hypura_pager *pager, hypura_layer_hits *layers, int n);

/* ---- how much is held --------------------------------------------------- */

/* Makes the pools of experts and the pinned rows of dense weights take at most so
 * many bytes together, shared as the plan shares them, but never less than the floor
 * nor more than all of them; returns what they take then: less where memory ran out,
 * or where another resize came while this one grew. Blocks until what is to go is
 * released, and until the new memory is taken. Any thread that is not between enter
 * and leave, at any time between open and close; results of graphs stay the same. */
uint64_t hypura_pager_resize(hypura_pager *pager, uint64_t bytes);

hypura_held hypura_pager_held(hypura_pager *pager);

/* From now on the size follows from what the machine can spare (plan/knee.h), until
 * close. planned_bytes: what this process takes besides, once all of it was touched.
 * Call it once, when the model is loaded. */
hypura_status hypura_pager_keep(hypura_pager *pager, uint64_t planned_bytes, hypura_error *error);

/* ---- loading and files -------------------------------------------------- */

/* One range of a file of the map to read into given memory. */
typedef struct hypura_load {
    int      file;
    uint64_t offset;
    uint64_t bytes;
    void    *dst;
} hypura_load;

/* Reads what stays resident, blocking, past the page cache. Call before the
 * first graph runs. */
hypura_status hypura_pager_load(hypura_pager *pager, const hypura_load *loads, int n, hypura_progress_fn progress,
                                void *progress_user, hypura_error *error);

/* Drops what the page cache holds of the files: reads of others than the pager,
 * libllama's while loading, leave it there. A hint; may do nothing. */
void hypura_pager_uncache(hypura_pager *pager);

/* HYPURA_ERR_IO when a file of the map was written to since the pager was opened:
 * nothing computed since then may be used. While a model opens also when a path
 * leads to another file by now, which libllama might have opened. Any thread. */
hypura_status hypura_pager_check_files(const hypura_pager *pager, bool opening, hypura_error *error);

/* The first failure since the last call of this; HYPURA_OK when there was none. */
hypura_status hypura_pager_take_error(hypura_pager *pager, hypura_error *error);

/* ---- across runs ---------------------------------------------------------- */

typedef struct hypura_hot_expert {
    int      bundle;
    uint32_t expert;
    float    frequency; /* share of the tokens that selected it in earlier runs */
} hypura_hot_expert;

/* Before the first graph: what was used in earlier runs, most frequent first. Slots
 * that are empty are filled with it while the drive is idle. Once. */
hypura_status hypura_pager_warm(hypura_pager *pager, const hypura_hot_expert *experts, uint32_t n, hypura_error *error);

/* The same, and then with all others, where there are slots for all. */
void hypura_pager_fill(hypura_pager *pager);

/* How many tokens selected the expert since open. Any thread. */
uint32_t hypura_pager_uses(hypura_pager *pager, int bundle, uint32_t expert);

/* ---- for the executor, between enter and leave ------------------------- */

/* Waits until no other graph of this model is computed, and no resize is at its pinned rows. What is leased and held is
 * given back before leave. */
void hypura_pager_enter(hypura_pager *pager);
void hypura_pager_leave(hypura_pager *pager);

/* What a tensor of the CPU backend has to carry to read this weight's bytes as the
 * pager holds them; NULL: nothing, they are as in the file. */
const hypura_repack *hypura_pager_repack(const hypura_pager *pager, int tensor);

/* Where matrix `index` of a bundle lies in slot 0 of its pool, and the distance to the next slot. Over a GPU, where pieces
 * of a pool have that distance each, data is NULL. */
typedef struct hypura_slots {
    char    *data;
    uint64_t stride_bytes;
} hypura_slots;

hypura_slots hypura_pager_slots(const hypura_pager *pager, int bundle, int index);

/* Tells whoever records routes, and learns what is selected together. A selection may be
 * told of more than once. Its ids are valid. */
void hypura_pager_note_selection(hypura_pager *pager, const hypura_selection *selection);

/* A layer begins, of a batch of which so many tokens reach it. Tells when a token begins, and
 * with it how long the last one took. Before its visit; where GPUs hold all experts of a layer,
 * which they then ask nothing of, for the first one of a graph alone. */
void hypura_pager_begin_layer(hypura_pager *pager, int bundle, uint32_t n_tokens);

/* What a router selected, for the choice of what to keep: n distinct experts of a
 * batch of n_tokens. n_uses[i] of these selected experts[i], and ages[i] came after
 * the last that did. Once for each selection, before its leases. */
void hypura_pager_visit_experts(hypura_pager *pager, int bundle, uint32_t n_tokens, const uint32_t *experts, uint32_t n,
                                const uint32_t *n_uses, const uint32_t *ages);

/* A slot that no expert is ever in, which reads as zeros and takes no memory: for rows whose results are of no use. UINT32_MAX:
 * this pool has none. */
uint32_t    hypura_pager_blank_slot(const hypura_pager *pager, int bundle);
/* The bytes of one matrix in a slot: contiguous, whatever pieces a pool has. */
const char *hypura_pager_expert_data(const hypura_pager *pager, int bundle, uint32_t slot, int index);

/* Leases slots for experts[0..n), which are distinct: those present first, then
 * the others in the order given, until no slot is left, or half of the pool where a
 * layer that comes later is expected to need the rest. slots[i] is the slot or
 * UINT32_MAX. Reads of those missing start at once. Returns how many it leased. */
uint32_t hypura_pager_lease_experts(hypura_pager *pager, int bundle, const uint32_t *experts, uint32_t n,
                                    uint32_t *slots);

/* Memory elsewhere for what would be read into slots: `at` gives the place of a matrix of experts[i], which
 * belongs to the reads until hypura_pager_end_landing. The same lease, but that a slot stands for what is read
 * there and holds none of it. Where experts are read as records they come into slots all the same. */
typedef struct hypura_landing {
    char *(*at)(void *user, uint32_t i, int matrix);
    void *user;
} hypura_landing;

uint32_t hypura_pager_lease_landing(hypura_pager *pager, int bundle, const uint32_t *experts, uint32_t n,
                                    const hypura_landing *landing, uint32_t *slots);
/* Whether the bytes of a leased slot go elsewhere. */
bool hypura_pager_is_landing(hypura_pager *pager, int bundle, uint32_t slot);
/* Ends the lease of one whose bytes do, in place of release: waits until none of its reads is under way. */
void hypura_pager_end_landing(hypura_pager *pager, int bundle, uint32_t slot);

/* A copy of the router of a bundle's layer, to be multiplied with what the experts of
 * the bundle before it read; bundle > 0. NULL where there is none. */
typedef struct hypura_router {
    int          type; /* enum ggml_type of the rows */
    int64_t      n_inputs;
    uint32_t     n_experts;
    void        *rows; /* n_experts, never written to */
    const float *bias; /* NULL: none */
    bool         bias_on_probability; /* added to the sigmoid of a score, not to the score */
} hypura_router;

const hypura_router *hypura_pager_router(const hypura_pager *pager, int bundle);
/* Memory that all copies of a map's routers take, to be charged to the budget. */
uint64_t hypura_pager_router_bytes(const hypura_map *map);
/* And memory of a GPU's that those take which it is given, to be charged to its limit (vram_routers.c). */
uint64_t hypura_vram_router_bytes(const hypura_map *map);

/* True when somebody else foretells (see the options), and has. */
bool hypura_pager_foretell(const hypura_pager *pager, int bundle, uint32_t token, uint32_t n_used, uint32_t *experts,
                           uint32_t n);

/* Of a batch's tokens, how many a later layer will probably see, the last of them: of
 * a prompt the last layer has to do with those alone whose logits are wanted. */
uint32_t hypura_pager_tokens_that_reach(hypura_pager *pager, int bundle, uint32_t n_tokens);

/* By what the next layer's selection is to be guessed at present while decoding, as long
 * as it pays (predict/brake.h). */
typedef enum hypura_guesser {
    HYPURA_GUESS_NOBODY,
    HYPURA_GUESS_ROUTERS,
    HYPURA_GUESS_COACTIVATION, /* by hypura_pager_expect_companions, or hypura_vram_expect_companions */
} hypura_guesser;

hypura_guesser hypura_pager_guesser(hypura_pager *pager);

/* Selections are given from now on: what routers would say of them is not asked, unless somebody
 * foretells in their place. */
void hypura_pager_give_selections(hypura_pager *pager, bool given);

/* Expects what is likely by what the layers before selected; nothing of a layer whose experts
 * pass through no slots. By the computing thread, with the selection of the layer before told. */
void hypura_pager_expect_companions(hypura_pager *pager, int bundle);
/* Memory that what is noted for that takes, to be charged to the budget. */
uint64_t hypura_pager_coactivation_bytes(const hypura_map *map);

/* How much of what is expected will be needed, and how busy the drive is kept with it. */
typedef enum hypura_certainty {
    HYPURA_DOUBTFUL, /* half of it: one request at a time, and none while anything else is read */
    HYPURA_LIKELY,   /* most of it: so little that a demand hardly waits for it */
    HYPURA_CERTAIN,  /* nearly all: as busy as with demands */
} hypura_certainty;

/* What a layer that comes later will probably select, most likely first. Those absent
 * are read while no demand waits; those present stay. Until that layer's visit, or the
 * next expectation. */
void hypura_pager_expect_experts(hypura_pager *pager, int bundle, const uint32_t *experts, uint32_t n,
                                 hypura_certainty certainty);

/* True when these matrices (as below) of a leased slot are present; does not wait. */
bool hypura_pager_expert_ready(hypura_pager *pager, int bundle, uint32_t slot, uint32_t matrices);

/* Waits until a slot can be leased. The caller holds no lease in that pool: only
 * reads under way, left over from a graph that failed, can be in the way. */
void hypura_pager_wait_slot(hypura_pager *pager, int bundle);

/* Waits for matrices (bits by their index in the bundle; UINT32_MAX: all) of a
 * leased slot. HYPURA_ERR_IO when a read of it failed. */
hypura_status hypura_pager_wait_expert(hypura_pager *pager, int bundle, uint32_t slot, uint32_t matrices);
/* The same wait for threads that compute together with the one that has called this: they
 * see its end with it, not by it. Whether it failed that one is told. */
void hypura_pager_follow_wait(hypura_pager *pager, int bundle, uint32_t slot, uint32_t matrices);

/* Whether threads look for the end of such a wait, once it is near. */
bool hypura_pager_is_looked_for(const hypura_pager *pager);

/* In what time all is there that was asked for, at the rate of all reads so far; 0: there
 * is nothing under way, or no rate yet. */
uint64_t hypura_pager_pending_us(hypura_pager *pager);

/* Ends a lease: the slot may be a victim from then on. Its bytes are not looked at any more. */
void hypura_pager_release_expert(hypura_pager *pager, int bundle, uint32_t slot);
/* The same for one that was only passing: its slot is the next to be filled, unless
 * somebody else has leased it too. */
void hypura_pager_pass_expert(hypura_pager *pager, int bundle, uint32_t slot);

/* Begins the use of a dense weight by one node. Rows kept of it: rows 0 .. *n_rows - 1
 * at the returned address; they and the chunks stay the same until the next call. */
const char *hypura_pager_pinned(hypura_pager *pager, int tensor, int64_t *n_rows);

/* How many chunks the rows that are not pinned make. */
uint32_t hypura_pager_chunks(const hypura_pager *pager, int tensor);

/* Waits for a chunk of a dense weight; one is held at a time. Reading ahead
 * follows the plan's order and wraps around the token. NULL after a failure. */
const char *hypura_pager_acquire_chunk(hypura_pager *pager, int tensor, uint32_t chunk, int64_t *first_row,
                                       int64_t *n_rows);
void        hypura_pager_release_chunk(hypura_pager *pager);
/* In what time all chunks are there that are being read, at the rate of all reads so far; 0: they are less than half of
 * the ring, so that reading is ahead of computing, or there is no rate yet. */
uint64_t    hypura_pager_ring_pending_us(hypura_pager *pager);

/* Reads n rows of a tensor, packed one after the other into dst. Blocking. */
hypura_status hypura_pager_read_rows(hypura_pager *pager, int tensor, const int64_t *rows, uint32_t n, char *dst);

/* The slots in the GPU's memory; NULL without a GPU. */
typedef struct hypura_vram hypura_vram;
/* Of a GPU of the plan; NULL where it has no slots. */
hypura_vram *hypura_pager_vram(const hypura_pager *pager, int gpu);

/* Whether RAM holds all of an expert at present. */
bool hypura_pager_holds_expert(hypura_pager *pager, int bundle, uint32_t expert);
/* What a layer selected, of which something may be expected: ends any expectation. */
void hypura_pager_settle_experts(hypura_pager *pager, int bundle, const uint32_t *experts, uint32_t n);

/* Time the executor spent, added to the statistics; placed: threads kept to a processor each meanwhile. */
void hypura_pager_add_time(hypura_pager *pager, uint64_t compute_us, uint64_t total_us, bool placed);
/* Over a GPU: a wait for selected experts; the time from its end to the next work. */
void hypura_pager_add_readback(hypura_pager *pager, uint64_t wait_us);
void hypura_pager_add_submit(hypura_pager *pager, uint64_t submit_us);
/* Work was handed over before its experts were known; when they were not all there it is
 * done again. */
void hypura_pager_add_ahead(hypura_pager *pager, bool again);
/* A router was asked over a GPU: by the GPU itself, or by the host. */
void hypura_pager_add_asked(hypura_pager *pager, bool by_gpu);
/* The processor computed so many rows in place of the GPU; or did not, as it may not know the
 * operations, or as RAM has no room. */
typedef enum hypura_not_computed { HYPURA_UNKNOWN_CHAIN, HYPURA_NO_ROOM_IN_RAM } hypura_not_computed;
void hypura_pager_add_computed(hypura_pager *pager, uint32_t n_rows, uint64_t us);
void hypura_pager_add_not_computed(hypura_pager *pager, hypura_not_computed why);

#endif
