/*
 * internal.h - the pager's own structures, shared by its files alone.
 *
 *     pager.c    open and close, the thread, statistics
 *     schedule.c the queues of reads, and which goes to the drive next
 *     experts.c  slots of experts: lease, release
 *     waits.c    threads that compute wait for these, and are told
 *     expert_reads.c  their matrices on the way: asked for, arrived, given up
 *     records.c  the same from the sidecar, one read for each expert
 *     parts.h    how a matrix is read in parts, and which rows are whole then
 *     ahead.c    experts that are read before they are selected
 *     guess.c    who says which these may be, and whether that pays
 *     warm.c     experts of earlier runs, read into empty slots
 *     routers.c  copies of the routers, to be asked before their layer's turn
 *     dense.c    the ring of chunks, rows on demand
 *     pinned.c   rows of dense weights that are kept
 *     resize.c   more or less memory for pools and pinned rows, while in use
 *     source.c   reads past the page cache, or through it
 *     keeper.c   the thread that says how much, where no limit was given
 *     helpers.c  threads that repack what was read, and that touch the pools first
 *     pieces.c   memory of pools that a GPU copies from
 *     repack.h   weights in the form that the CPU multiplies fastest
 *     vram.h     slots in the GPU's memory, in files of their own (vram_internal.h)
 *
 * `lock` guards everything below it. `changed` is signalled whenever a read ends.
 */
#ifndef HYPURA_PAGER_INTERNAL_H
#define HYPURA_PAGER_INTERNAL_H

#include "cache/cache.h"
#include "gguf/records.h"
#include "io/io.h"
#include "pager/pager.h"
#include "plan/source.h"
#include "predict/brake.h"
#include "predict/look.h"

#include <pthread.h>
#include <stdatomic.h>

#define PAGER_POOL_MAPPING (HYPURA_OS_MAP_HUGE | HYPURA_OS_MAP_NORESERVE)
#define PAGER_PIECE_BYTES  (UINT64_C(8) << 20) /* of memory that is taken in use, with a look around after each */

#define PAGER_MAX_ROWS 1024 /* rows of one read_rows step */

/* What a read belongs to, packed into the completion's user word. */
enum pager_owner { OWNER_EXPERT = 0, OWNER_CHUNK = 1, OWNER_ROW = 2 };

enum pager_priority { PAGER_DEMAND = 0, PAGER_AHEAD, PAGER_N_PRIORITIES };

static inline uint64_t pager_user(enum pager_owner owner, uint32_t pool, uint32_t matrix, uint32_t slot)
{
    return (uint64_t)owner << 56 | (uint64_t)pool << 48 | (uint64_t)matrix << 40 | slot;
}

static inline enum pager_owner pager_user_owner(uint64_t user)
{
    return (enum pager_owner)(user >> 56);
}

static inline uint32_t pager_user_pool(uint64_t user)
{
    return (uint32_t)(user >> 48) & 0xff;
}

static inline uint32_t pager_user_matrix(uint64_t user)
{
    return (uint32_t)(user >> 40) & 0xff;
}

/* Which part of the matrix; 0 where it is read as a whole. */
static inline uint32_t pager_user_part(uint64_t user)
{
    return (uint32_t)(user >> 32) & 0xff;
}

static inline uint64_t pager_user_next_part(uint64_t user)
{
    return user + (UINT64_C(1) << 32);
}

static inline uint32_t pager_user_slot(uint64_t user)
{
    return (uint32_t)user;
}

typedef struct pager_slot {
    uint8_t  ready;   /* bit per matrix: its bytes are all there */
    uint8_t  spoiled; /* bit per matrix: some of its bytes will never come */
    uint8_t  filling; /* matrices being read; they hold one pin together */
    bool     failed;
    bool     expected; /* one pin is that of an expectation */
    bool     lands;    /* elsewhere: it has none of these bytes itself */
    uint32_t cut_bytes; /* a part of a matrix is at least this long */
    uint16_t n_requests[HYPURA_MAX_BUNDLE]; /* of each matrix: waiting, under way, or being repacked */
    uint64_t arrived[HYPURA_MAX_BUNDLE];    /* bit per part of each matrix that is repacked */
} pager_slot;

/* Memory for a GPU to copy from comes in pieces of slots: pieces.c. */
typedef struct pager_piece {
    char    *memory;
    uint64_t bytes;
    void    *buffer; /* ggml_backend_buffer_t that it lies in; NULL: mapped by us */
} pager_piece;

/* Memory is reserved for n_slots; the first n_open are in use (resize.c). Over a GPU
 * all are, in pieces of piece_slots, and `memory` is NULL. */
typedef struct pager_pool {
    hypura_cache *cache;
    char         *memory;
    uint64_t      memory_bytes; /* reserved */
    pager_piece  *pieces;
    uint32_t      n_pieces;
    uint32_t      piece_slots;
    uint64_t      stride_bytes;
    uint32_t      n_slots;
    uint32_t      n_open; /* changed with both locks held, `resizing` and `lock` */
    pager_slot   *slots;
    uint32_t      n_keys;
} pager_pool;

static inline char *pager_slot_memory(const pager_pool *pool, uint32_t slot)
{
    return pool->memory ? pool->memory + (uint64_t)slot * pool->stride_bytes
                        : pool->pieces[slot / pool->piece_slots].memory +
                              (uint64_t)(slot % pool->piece_slots) * pool->stride_bytes;
}

/* A bundle's place in its pool. */
typedef struct pager_bundle {
    uint32_t pool;
    uint32_t first_key; /* key of expert 0 */
    uint32_t prompt_tokens; /* of the last batch of a prompt that came here; UINT32_MAX: all */
    uint64_t data_offset[HYPURA_MAX_BUNDLE]; /* of the matrix in a slot */
    uint64_t region_end[HYPURA_MAX_BUNDLE];  /* of the memory that reads may spill into */
    uint64_t region_begin[HYPURA_MAX_BUNDLE];
} pager_bundle;

/* A dense weight that streams, cut into chunks; see pinned.c. */
typedef struct pager_dense {
    char    *pinned;      /* where row 0 lies, when it is kept */
    int64_t  first_rows;  /* of the first chunk */
    int64_t  chunk_rows;  /* of the others; the last may be shorter */
    uint32_t first_chunk; /* in the sequence */
    uint32_t n_chunks;
    uint32_t n_pinned; /* the first of them: computed with in memory */
    uint32_t n_copied; /* in memory from the next use on */
    uint32_t n_wanted; /* whose memory is taken */
} pager_dense;

typedef struct pager_ring_slot {
    uint32_t chunk; /* position in the sequence */
    bool     filling;
    bool     failed;
    bool     told; /* failed while somebody waited for it, who then reports it */
    char    *data; /* of the chunk's first byte */
} pager_ring_slot;

typedef struct pager_ring {
    char            *memory;
    uint64_t         memory_bytes;
    uint64_t         stride_bytes;
    uint32_t         n_slots;
    pager_ring_slot *slots;
    uint32_t         head;  /* oldest occupied slot */
    uint32_t         count; /* occupied, oldest first */
    uint32_t         next;  /* next chunk of the sequence to read */
    uint32_t         n_chunks; /* of the sequence, pinned ones included */
    uint32_t         n_copied; /* of these, in memory */
    int32_t         *tensor_of; /* sequence position -> tensor */
    uint32_t         wanted;    /* chunk that the executor waits for, or UINT32_MAX */
} pager_ring;

typedef struct pager_queue {
    hypura_io_read *reads;
    uint32_t        capacity; /* power of two */
    uint32_t        head;
    uint32_t        tail;
} pager_queue;

/* A slot pinned for a layer that has not come yet. */
typedef struct pager_held {
    uint32_t slot;
    bool     read; /* for this expectation */
} pager_held;

/* What one layer is expected to select (ahead.c). */
typedef struct pager_ahead {
    int         bundle; /* -1: none */
    uint32_t    capacity;
    uint32_t    n;
    uint32_t    next; /* of experts, not looked at yet */
    hypura_certainty certainty; /* of what is expected */
    uint32_t   *experts;
    uint32_t    n_held;
    pager_held *held;
} pager_ahead;

/* A batch of fewer tokens is likely of conversations, or of tokens that are tried, and passes like it follow; of more, of
 * a prompt. */
#define PAGER_PROMPT_TOKENS 32

/* Whether guesses pay in passes of one number of tokens: what one pass takes cannot be compared with what another does. */
typedef struct pager_trials {
    hypura_brake by_routers;      /* decide where that is AUTO */
    hypura_brake by_coactivation; /* counts while routers are OFF */
    uint32_t     n_read;  /* guesses of this trial of a brake that were read */
    uint32_t     n_right; /* of them */
    uint64_t     plain_us;        /* of passes of this trial without guesses */
    uint64_t     plain_waited_us; /* of that, waited for reads */
} pager_trials;

/* Who guesses what layers will select (guess.c). */
typedef struct pager_guess {
    bool         has_routers; /* that can be asked */
    bool         given;       /* selections are not theirs */
    pager_trials trials[PAGER_PROMPT_TOKENS]; /* by the tokens of a pass; of 0: none */
    uint32_t     n_tokens;     /* of the last pass that was guessed for, or could have been */
    uint64_t     lacked_bytes; /* by this pass: experts absent, or there because they were guessed */
    double       uploading_us; /* of this pass: the same, by slots of GPUs */
    struct hypura_coactivation *seen; /* of the computing thread; NULL: nothing is foreseen, or of one layer alone */
    float       *chances; /* room for one layer, with its frequencies and scores */
    uint32_t    *experts; /* the same */
} pager_guess;

/* What was used in earlier runs, to fill empty slots with. */
typedef struct pager_warm {
    hypura_hot_expert *experts;
    uint32_t           n;
    uint32_t           next;
    bool               fills;  /* with all others too; from these on */
    int                bundle;
    uint32_t           expert;
} pager_warm;

#define PAGER_MAX_HELPERS 4

#define PAGER_JOBS_OF_READ HYPURA_MAX_BUNDLE /* a record brings all matrices */

/* Rows that were read and wait to be repacked. */
typedef struct pager_job {
    uint64_t user; /* of the read */
    int64_t  first_row;
    int64_t  n_rows;
} pager_job;

typedef struct pager_jobs {
    pager_job *jobs;
    uint32_t   capacity; /* power of two */
    uint32_t   head;
    uint32_t   tail;
    bool       full; /* reads were held back for them */
} pager_jobs;

typedef struct pager_keeper pager_keeper;

struct hypura_pager {
    const hypura_map  *map;
    const hypura_plan *plan;
    const char        *engine;
    uint64_t           io_limit_bytes_per_s;
    hypura_io_hook     hook;
    void              *hook_user;
    hypura_records     *records; /* experts are read from there; NULL: from the model's files */
    char                records_note[256]; /* why one that is there is not used */
    hypura_selection_fn on_selection;
    void               *on_selection_user;
    hypura_foretell_fn  foretell;
    void               *foretell_user;
    struct ggml_backend_device *gpu; /* the first one; NULL: none */
    bool                computes_misses; /* the processor what GPUs lack */

    hypura_io      *io;
    uint32_t        io_max_reads;
    pthread_t       thread;
    bool            thread_started;
    pthread_t       prefault;
    bool            prefault_started;
    pthread_t       helpers[PAGER_MAX_HELPERS];
    int             n_helpers_wanted;
    int             n_helpers_started;
    int             n_helpers; /* that have taken their part of the scratch memory */
    char           *scratch; /* of all helpers, one after the other */
    hypura_form     form;
    hypura_repacker *repacker; /* NULL: everything stays plain */
    pthread_mutex_t executor; /* held between enter and leave */
    pthread_mutex_t gate;     /* taken before it: who waits here comes before the executor's next entry */
    pager_keeper   *keeper; /* NULL: the size is what was planned or asked for */
    pthread_mutex_t resizing; /* held while memory of the pools is taken or given back */
    atomic_uint     n_resizes; /* asked for so far: one that grows makes way for the next */

    pthread_mutex_t lock;
    pthread_cond_t  changed;
    uint32_t        n_waiting;
    pthread_cond_t  arrived; /* what threads that follow a wait want is there, or never comes */
    uint32_t        n_following;
    const pager_slot *followed; /* by all of them: one graph is computed at a time. NULL: it is there */
    uint8_t         followed_matrices;
    atomic_uint     n_arrivals; /* of what was followed: what threads that look see change */
    bool            gives_way;
    bool            looks;
    int             n_compute;
    int            *processors; /* of threads that compute; NULL: they may run anywhere */
    uint32_t        n_passes; /* of the pager's thread through the queues */
    bool            news; /* something changed that a waiting thread may look for */
    bool            stop;
    bool            prefault_stop;
    pager_queue     queues[PAGER_N_PRIORITIES];
    hypura_router  *routers; /* by bundle; rows NULL: none */
    char           *router_memory;
    hypura_foresight foresight;
    pager_guess     guess;
    uint64_t        pass_begin_us;  /* of the few tokens that pass through the layers; 0: a prompt does, or nothing */
    uint64_t        pass_waited_us; /* `waited_us` when it began */
    uint64_t        pass_end_us;    /* when an expert was last given back; 0: none yet */
    uint64_t        waited_us;       /* for reads, ever */
    int             last_bundle;    /* visited last */
    uint32_t        batch_tokens;   /* of the batch under way, in the first of its layers */
    uint64_t        window_bytes; /* under way together, as the reads asked for last want it */
    pager_ahead     ahead;
    pager_warm      warm;
    pthread_cond_t  jobs_changed;
    pager_jobs      jobs;
    uint32_t        n_outstanding; /* accepted by the engine, not completed */
    uint64_t        outstanding_bytes;
    uint64_t        demanded_bytes; /* queued as demands, not yet with the engine */

    uint32_t     *visit_keys; /* room for the experts of one bundle */
    uint32_t      n_pools;
    pager_pool    pools[HYPURA_MAX_POOLS];
    pager_bundle *bundles;
    hypura_vram  *vrams[HYPURA_MAX_GPUS]; /* NULL where a GPU of the plan has no slots */

    pager_dense *dense; /* one for each tensor; zero where not dense */
    int          first_dense;    /* the tensor with which a pass through a dense model begins; -1: there is none */
    uint64_t    *resident_bytes; /* n_layers + 1: of the weights that such a pass computes with and that always stay; the
                                  * last: of no layer */
    char        *pinned;
    uint64_t     pinned_bytes;  /* reserved */
    uint32_t    *wanted_chunks; /* while resizing: two for each tensor */
    pager_ring   ring;

    uint32_t rows_pending;
    bool     rows_failed;

    hypura_source        source;
    hypura_budget_reason budget_reason;
    uint32_t             n_resized;

    hypura_error      error; /* the first failure not yet taken */
    hypura_statistics statistics;
    hypura_layer_hits *layers; /* one for each */
    hypura_io_counters counters_base; /* at the last reset */
};

/* With the lock held: these matrices are there, or will never be. */
static inline bool pager_has_matrices(const pager_slot *slot, uint32_t matrices)
{
    return (slot->ready & matrices) == matrices || slot->failed;
}

/* With the lock held: those of passes like the last one. */
static inline pager_trials *pager_trials_now(hypura_pager *pager)
{
    return &pager->guess.trials[pager->guess.n_tokens];
}

/* With the lock held: computing needed bytes of this layer's weights (-1: of no layer),
 * of which so many were there. */
static inline void pager_count(hypura_pager *pager, int layer, uint64_t needed_bytes, uint64_t hit_bytes)
{
    pager->statistics.bytes_needed += needed_bytes;
    pager->statistics.bytes_hit += hit_bytes;
    if (layer >= 0) {
        pager->layers[layer].bytes_needed += needed_bytes;
        pager->layers[layer].bytes_hit += hit_bytes;
    }
}

static inline const hypura_tensor *pager_matrix(const hypura_pager *pager, int bundle, int index)
{
    return &pager->map->tensors[pager->map->bundles[bundle].tensors[index]];
}

/* Whether a bundle's experts pass through slots; else they are all in memory, and the pager has nothing of them. */
static inline bool pager_streams(const hypura_pager *pager, int bundle)
{
    return pager->plan->placements[pager->map->bundles[bundle].tensors[0]].place == HYPURA_PLACE_EXPERTS;
}

hypura_status pager_open_queues(hypura_pager *pager, hypura_error *error);
void          pager_close_queues(hypura_pager *pager);

/* With the lock held: queues a read for the thread. A queue never fills: it is as
 * large as everything that can be under way at once. */
void pager_push(hypura_pager *pager, enum pager_priority priority, const hypura_io_read *read);

/* With the lock held, the pager's thread: hands to the engine what may go now. */
void pager_submit(hypura_pager *pager);

/* With the lock held: what is queued of a slot's reads ahead becomes a demand, or is
 * never read (pager_drop_read is told of each). */
void pager_promote(hypura_pager *pager, uint32_t pool, uint32_t slot);
void pager_drop_ahead(hypura_pager *pager, uint32_t pool, uint32_t slot);

/* With the lock held: how long requests are to be for so many bytes more, of which so
 * many are under way together from now on that the drive gives its rate. */
uint64_t pager_cut_bytes(hypura_pager *pager, uint64_t bytes);

/* What reading so many bytes takes at the rate of all reads so far; 0: nothing was read yet. */
double pager_reading_us(const hypura_pager *pager, uint64_t bytes);

/* With the lock held: hypura_pager_pending_us. */
uint64_t pager_pending_us(const hypura_pager *pager);

/* With the lock held: the drive has room for what nobody waits for. */
bool pager_may_read_ahead(const hypura_pager *pager);

/* With the lock held: waits for `changed`, charging the time as read wait. */
void pager_wait(hypura_pager *pager);

/* With the lock held: wakes those that wait, if there is news; who follows a wait, at its end. */
void pager_tell(hypura_pager *pager);

/* The bits of all matrices of a bundle. */
uint8_t pager_all_matrices(const hypura_pager *pager, int bundle);

/* With the lock held: notes a failure unless one is waiting to be taken. */
void pager_note_failure(hypura_pager *pager, const hypura_io_completion *completion, int tensor, const char *part);

/* helpers.c. start fails with a message; stop joins those that were started. */
hypura_status pager_open_helpers(hypura_pager *pager, hypura_error *error);
hypura_status pager_start_helpers(hypura_pager *pager, hypura_error *error);
void          pager_stop_helpers(hypura_pager *pager);
void          pager_close_helpers(hypura_pager *pager);
/* With the lock held: rows were read; their bytes are still plain. */
void pager_push_job(hypura_pager *pager, const pager_job *job);

hypura_status pager_open_ahead(hypura_pager *pager, uint32_t most_experts, hypura_error *error);
void          pager_close_ahead(hypura_pager *pager);
/* With the lock held: queues the next expert that is expected and absent, if there is one
 * and a slot for it. */
bool pager_start_ahead(hypura_pager *pager);
void pager_close_warm(hypura_pager *pager);
/* With the lock held: the same for an expert of earlier runs and an EMPTY slot. */
bool pager_start_warm(hypura_pager *pager);
/* With the lock held: experts are expected and could be read, given a slot. */
bool pager_waits_ahead(const hypura_pager *pager);
/* guess.c; after pager_open_ahead and pager_open_routers. */
hypura_status pager_open_guess(hypura_pager *pager, hypura_error *error);
void          pager_close_guess(hypura_pager *pager);
/* With the lock held: some guesses were settled; so many tokens begin to pass through the layers. */
void pager_judge_guesses(hypura_pager *pager);
void pager_begin_pass(hypura_pager *pager, uint32_t n_tokens);
/* Whether a layer can be guessed by what those before selected; then its experts with log odds of
 * `least` and more, the likeliest first, in guess.experts. cache: what holds them or not. */
bool     pager_knows_companions(const hypura_pager *pager, int bundle);
uint32_t pager_pick_companions(hypura_pager *pager, const hypura_cache *cache, int bundle, uint32_t first_key, double least);
/* With the lock held: who guesses, for the statistics. */
void pager_tell_foresight(hypura_pager *pager, hypura_statistics *statistics);
/* With the lock held: what the drive was asked for, for the expectation at hand. */
uint64_t pager_expected_bytes(const hypura_pager *pager);
/* With the lock held: ends the expectation, given what its layer selected. */
void pager_settle(hypura_pager *pager, const uint32_t *selected, uint32_t n);

hypura_status pager_open_routers(hypura_pager *pager, hypura_error *error);
void          pager_close_routers(hypura_pager *pager);

/* records.c: the sidecar, where there is one that fits model and plan. */
hypura_status pager_open_records(hypura_pager *pager, hypura_error *error);
/* Its one read of an expert, into slot memory laid out by pager_lay_out_record. */
void           pager_lay_out_record(hypura_pager *pager, int bundle);
hypura_io_read pager_record_read(const hypura_pager *pager, int bundle, uint32_t expert, uint32_t slot);

hypura_status pager_open_experts(hypura_pager *pager, hypura_error *error);
void          pager_close_experts(hypura_pager *pager);
void          pager_unpin(hypura_pager *pager, pager_pool *pool, uint32_t slot);

/* expert_reads.c */
void pager_complete_expert(hypura_pager *pager, const hypura_io_completion *completion);
/* With the lock held: queues the reads of an expert into its slot, or of each matrix to where `to` says,
 * and pins the slot. Returns how many bytes they take. cut_bytes: of a request, from pager_cut_bytes. */
uint64_t pager_read_expert(hypura_pager *pager, enum pager_priority priority, int bundle, uint32_t expert, uint32_t slot,
                           uint64_t cut_bytes, char *const *to);
/* What reading an expert of this bundle takes. */
uint64_t pager_read_bytes(const hypura_pager *pager, int bundle);
/* With the lock held: how much of a queued read is to be its next request; then, what
 * the rest of it carries as `user`. */
uint64_t pager_request_bytes(const hypura_pager *pager, const hypura_io_read *rest);
uint64_t pager_next_request(hypura_pager *pager, uint64_t user);
/* With the lock held: this read will not be made. */
void pager_drop_read(hypura_pager *pager, const hypura_io_read *read);
/* Repack what a job names, without the lock; then, with it, make it visible. */
void pager_repack_expert(hypura_pager *pager, const pager_job *job, char *scratch);
void pager_finish_expert(hypura_pager *pager, uint64_t user);

/* pieces.c. Takes the memory of a pool whose sizes are known; free is safe after a failure. */
hypura_status pager_take_pieces(hypura_pager *pager, uint32_t pool, hypura_error *error);
void          pager_free_pieces(pager_pool *pool);

/* resize.c. With the lock held: what the open slots of all pools take. */
uint64_t pager_pool_bytes(const hypura_pager *pager);
uint64_t pager_resize(hypura_pager *pager, uint64_t bytes, hypura_budget_reason reason);
/* By so much what is held grows at a time, or by less: the largest slot, or chunk. */
uint64_t pager_unit_bytes(const hypura_pager *pager);
void     pager_stop_keeper(hypura_pager *pager);
/* Takes the memory of the open slots, in the background after open. */
void pager_prefault(hypura_pager *pager);
/* What grows: until another resize waits for this one's end. */
typedef struct pager_growth {
    unsigned ticket;
    bool     kept; /* the keeper's: while there is memory to spare */
} pager_growth;
/* False when the pager closes, or another resize waits. */
bool pager_may_grow(hypura_pager *pager, const pager_growth *growth);
/* Makes reserved pages accessible and takes them; false, all as before, without memory, or when it may not grow any more. */
bool pager_take_memory(hypura_pager *pager, const pager_growth *growth, char *begin, uint64_t bytes);

/* keeper.c. By its thread, so much of a slot or chunk being taken: a pause, and whether to take more. */
bool pager_keeper_goes_on(hypura_pager *pager, uint64_t taken_bytes);

/* source.c. At open, and then with the lock held, by the pager's thread after reads. */
void pager_open_source(hypura_pager *pager);
void pager_choose_source(hypura_pager *pager);

/* pinned.c */
hypura_status pager_open_pinned(hypura_pager *pager, hypura_error *error);
void          pager_close_pinned(hypura_pager *pager);
/* By the executor, which has computed with a chunk of the ring: keeps a copy when it
 * is the next one that is to be pinned. */
void          pager_keep_chunk(hypura_pager *pager, int tensor, uint32_t chunk, const char *data);
/* With `resizing` held, in this order. */
void          pager_shrink_pinned(hypura_pager *pager, uint64_t budget_bytes);
void          pager_grow_pinned(hypura_pager *pager, const pager_growth *growth);
uint64_t      pager_pinned_bytes(const hypura_pager *pager);
uint64_t      pager_pinned_most_bytes(const hypura_pager *pager);
/* 0: nothing of them streams. */
uint64_t      pager_largest_chunk_bytes(const hypura_pager *pager);

static inline bool pager_is_dense(const hypura_pager *pager, int tensor)
{
    return pager->plan->placements[tensor].place == HYPURA_PLACE_DENSE;
}

static inline int64_t pager_rows_of(const hypura_tensor *tensor)
{
    return tensor->ne[1] * tensor->ne[2] * tensor->ne[3];
}

/* Where chunk n of a dense weight begins; its rows for n_chunks. */
static inline int64_t pager_first_row(const hypura_pager *pager, int tensor, uint32_t n)
{
    const pager_dense *dense = &pager->dense[tensor];
    const int64_t      rows = pager_rows_of(&pager->map->tensors[tensor]);
    const int64_t      row = n == 0 ? 0 : dense->first_rows + (int64_t)(n - 1) * dense->chunk_rows;
    return row < rows ? row : rows;
}

hypura_status pager_open_dense(hypura_pager *pager, hypura_error *error);
void          pager_close_dense(hypura_pager *pager);
/* With the lock held: a weight that streams is used; with the first one a pass begins. */
void          pager_count_residents(hypura_pager *pager, int tensor);
void          pager_complete_chunk(hypura_pager *pager, const hypura_io_completion *completion);
void          pager_repack_chunk(hypura_pager *pager, const pager_job *job, char *scratch);
void          pager_finish_chunk(hypura_pager *pager, uint64_t user);
void          pager_complete_row(hypura_pager *pager, const hypura_io_completion *completion);

#endif
