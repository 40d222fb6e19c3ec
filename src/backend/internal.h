/*
 * internal.h - structures shared by the backend's files alone.
 *
 *     device.c    registry, device, which operations are claimed
 *     buffer.c    the buffer type: weights without bytes, ordinary compute buffers
 *     executor.c  one backend instance; walks a graph and hands its parts out
 *     place.c     a processor for each thread that computes
 *     shadow.c    nodes and graphs that live for one call, taken from fixed memory
 *     chain.c     finds runs of expert products and what lies between them
 *     experts.c   leases the slots of a chain and decides what is computed when
 *     expert_rows.c  computes it for a group of experts
 *     expert_batch.c where several rows of an expert may be one product
 *     foresee.c   what the next layer will probably select
 *     dense.c     products with streamed dense weights, rows of embeddings
 *     gpu_*.c     the same over a GPU: see gpu_internal.h
 */
#ifndef HYPURA_BACKEND_INTERNAL_H
#define HYPURA_BACKEND_INTERNAL_H

#include "hw/since.h"
#include "pager/pager.h"
#include "predict/alone.h"

#include "ggml-backend-impl.h"
#include "ggml-impl.h"

/* What a weight in our buffer carries in `extra`. */
typedef struct backend_weight {
    hypura_pager *pager;
    int           tensor; /* of the pager's map */
    hypura_place  place;
    int           bundle; /* EXPERTS: bundle, and the matrix's index in it */
    int           matrix;
} backend_weight;

/* The record of the weight that a node reads as its first source, when that lies
 * in our buffer, else NULL. Views have none: the executor pages whole weights. */
const backend_weight *backend_weight_of(const struct ggml_tensor *node);

/* The same while claims are made: a weight being loaded has a name and an empty
 * buffer of ours, and the attached pager's plan answers for it. */
bool backend_find_source(const struct ggml_tensor *node, backend_weight *weight);

/* Test instrument: answers for every node in place of the records, so that
 * operations on tensors that no file holds go through the executor too. begin is
 * called before each graph; find with computing false asks for a claim alone. */
typedef struct backend_instrument {
    void (*begin)(void);
    const backend_weight *(*find)(const struct ggml_tensor *node, bool computing);
} backend_instrument;

/* Test instrument: every expert in a group of its own, present or not, so that what
 * otherwise depends on when reads end happens in every graph. */
void backend_set_single_groups(bool on);

/* The same: batches of any size are wide, and products take scratch memory of their own whatever they need. */
void backend_set_wide(bool always);

/* How often most rows of a batch were computed at once while others were waited for, since the start. */
uint64_t backend_count_most(void);

/* Test instrument, on at first. Off: what a GPU selected is waited for without polling, which is in vain where nothing
 * arrives by itself. */
void backend_set_poll(bool on);

/* Test instrument: kinds of expert weights that were tried for computing several rows together, and rows that were. */
void backend_count_batches(uint64_t *n_tried, uint64_t *n_rows);

void backend_set_instrument(const backend_instrument *instrument);
void backend_begin_graph(void);

/* Whether a node is a product with a matrix of a LoRA adapter for a weight that streams: plain memory of the processor. */
bool backend_is_adapter_product(const struct ggml_tensor *node);

/* The pager that claims weights of that name now, or NULL. Fills the record. */
bool backend_find_weight(const char *name, backend_weight *weight);

/* The same for a given pager; false when it is not one that the plan streams. */
bool backend_describe_weight(hypura_pager *pager, const char *name, backend_weight *weight);

/* A buffer without bytes for weights that the pager streams; each gets a record. */
ggml_backend_buffer_t backend_alloc_weights(ggml_backend_buffer_type_t type, hypura_pager *pager,
                                            struct ggml_tensor **tensors, int n);

ggml_backend_buffer_type_t backend_buffer_type(void);
ggml_backend_dev_t         backend_device(void);
ggml_backend_t             backend_new_instance(ggml_backend_dev_t device);
void                      *backend_instance_function(const char *name);

/* Operations that may stand between the products of a chain: each row of the
 * result depends on the same row of the sources alone. */
bool backend_is_rowwise(const struct ggml_tensor *node);

/* ---- one backend instance ------------------------------------------------- */

#define SHADOW_MAX_TENSORS 4096

/* Memory that only grows, outside decoding: the largest batch sets its size. */
typedef struct backend_arena {
    char  *memory;
    size_t bytes;
    size_t used;
} backend_arena;

/* What was found out about a kind of expert weights, see expert_batch.c. */
typedef struct backend_batch {
    enum ggml_type type;
    const void *traits; /* of its repacked form; NULL: as in the file */
    int64_t width;
    bool pays;
} backend_batch;

#define BACKEND_MAX_BATCHES 16

typedef struct backend_instance {
    ggml_backend_t        inner; /* computes; the CPU backend */
    ggml_backend_buffer_t host;  /* a host buffer that shadow tensors name as theirs */
    struct ggml_threadpool *threadpool;
    int                   threadpool_threads;
    int                   n_threads; /* that compute */
    hypura_since          placed; /* what others had of the processors when threads were last told which to keep to; at 0: never */
    const int            *processors; /* the pager's, that they were told */
    int                   n_processors;
    bool                  keeps_places; /* each to its own */
    bool                  moved;        /* elsewhere, by the user: for good */
    int                   n_waits; /* for what was computed, since something was */
    hypura_alone          alone;        /* over experts */
    hypura_alone          alone_chunks; /* over dense weights */
    ggml_abort_callback   abort; /* libllama's, or NULL */
    void                 *abort_user;
    bool                  read_failed; /* in the graph under way */
    struct ggml_tensor   *tensors; /* SHADOW_MAX_TENSORS */
    int                   n_tensors;
    struct ggml_tensor  **nodes;
    struct ggml_cgraph    graph;
    backend_arena         rows;    /* gathered and computed rows */
    backend_arena         indices; /* ids, row numbers, lists of pairs */
    char                 *sparse; /* scratch of products over many slots: address space, of which little is touched */
    size_t                sparse_bytes;
    uint32_t              sparse_slots; /* that graphs selected there since its pages were given back */
    backend_arena         converted; /* activations of a dense product, as its kernel takes them */
    uint64_t              compute_us; /* of the graph being computed */
    const hypura_pager   *visited_pager; /* the selection whose products came last */
    int                   visited_bundle;
    uint32_t              visited_matrices;
    backend_batch         batches[BACKEND_MAX_BATCHES];
    int                   n_batches;
} backend_instance;

/* executor.c: what of it computes, without a backend around it; closed also where opening it failed. */
bool backend_ends_here(void *instance); /* a graph, between two of its nodes */
bool backend_open_worker(backend_instance *instance);
void backend_close_worker(backend_instance *instance);
void backend_set_worker_threads(backend_instance *instance, int n_threads);

/* ---- shadow.c: tensors and graphs for one call ----------------------------- */

void shadow_begin(backend_instance *instance);

/* A tensor of f32 or i32 values at data, contiguous. */
struct ggml_tensor *shadow_tensor(backend_instance *instance, enum ggml_type type, int64_t ne0, int64_t ne1,
                                  int64_t ne2, void *data);
/* A copy of a tensor that owns nothing: no view, no extra, no buffer but the host's. */
struct ggml_tensor *shadow_copy(backend_instance *instance, const struct ggml_tensor *tensor);
/* Marks weights as held by the pager: repacked or plain. */
void                backend_set_form(struct ggml_tensor *weights, const hypura_pager *pager, int tensor);
void                shadow_add(backend_instance *instance, struct ggml_tensor *node);
bool                shadow_has_room(const backend_instance *instance, int n_tensors);
/* Computes what was added and empties the graph; tensors stay until begin. */
enum ggml_status shadow_run(backend_instance *instance);
/* The same where products over many slots need much scratch memory, of which they touch a few numbers for each slot that
 * rows select: n_slots. False, with nothing computed, where there is no address space for it. */
bool shadow_run_sparse(backend_instance *instance, uint32_t n_slots, enum ggml_status *status);

/* Between the two the calling thread computes by itself. The end gets what begin returned, and tells alone that so many
 * bytes of weights were read. */
uint64_t shadow_begin_alone(backend_instance *instance);
void     shadow_end_alone(backend_instance *instance, uint64_t begun_us, hypura_alone *alone, uint64_t bytes);

/* Computes nodes [first, last) of a graph as they are: at once, or after what waits in
 * the shadow graph. */
enum ggml_status backend_run_plain(backend_instance *instance, struct ggml_cgraph *graph, int first, int last);

/* False when memory runs out. */
bool  arena_reserve(backend_arena *arena, size_t bytes);
void *arena_take(backend_arena *arena, size_t bytes);
void  arena_free(backend_arena *arena);

/* ---- chain.c ---------------------------------------------------------------- */

#define CHAIN_MAX_NODES 32 /* chain_work has a bit for each */

/* ADAPTER: a product with selected matrices of an adapter (LoRA), which are there. */
enum chain_kind { CHAIN_PRODUCT, CHAIN_ADAPTER, CHAIN_ROWWISE, CHAIN_VIEW };

typedef struct chain_node {
    struct ggml_tensor *node;
    enum chain_kind     kind;
    int                 matrix; /* PRODUCT: index in the bundle */
    int                 src[2]; /* index of the chain node that src[i] is, or -1 */
    bool                keep;   /* somebody outside the chain reads it */
} chain_node;

/* Nodes [first, first + n) of a graph, all for the same bundle and selection. */
typedef struct backend_chain {
    const backend_weight     *weight; /* of the first product */
    const struct ggml_tensor *ids;    /* [n_used, n_tokens] */
    int                       n_used;
    int64_t                   n_tokens;
    int                       n;
    chain_node                nodes[CHAIN_MAX_NODES];
} backend_chain;

/* The longest chain that starts at node `first`, which is a product of ours. Empty
 * when that product reads rows in a layout that cannot be gathered. */
void chain_find(const struct ggml_cgraph *graph, int first, backend_chain *found);

/* ---- foresee.c ---------------------------------------------------------------- */

/* What both take of the instance's memory for indices, for each expert of the next layer. */
size_t backend_foresee_bytes(const backend_chain *chain);
/* Once for each selection, before its leases; experts: room for all of the next layer.
 * False unless the batch is so wide that the next layer will need nearly all. */
bool backend_foresee_batch(backend_instance *instance, const backend_chain *chain, uint32_t *experts);
/* The same after its leases, for one token. */
void backend_foresee(backend_instance *instance, const backend_chain *chain, uint32_t *experts);

/* ---- place.c ---------------------------------------------------------------- */

/* Between shadow_begin and the first node: the threads that compute keep to these processors, where there is one for each
 * of them. n 0: they stay where they are. */
void backend_place_team(backend_instance *instance, const int *processors, int n);
/* It is waited for what was computed: the calling thread goes free until it computes the next time, once nothing more is
 * computed. */
void backend_wait_ends(backend_instance *instance);
/* All of them, for good. */
void backend_let_team_go(backend_instance *instance);

/* ---- the executor's parts -------------------------------------------------- */

/* Between enter and leave of the weight's pager, on the thread of the instance's context. FAILED where a read did: the pager
 * has the reason (hypura_pager_take_error). */
enum ggml_status backend_run_chain(backend_instance *instance, const backend_chain *work);
enum ggml_status backend_run_dense(backend_instance *instance, struct ggml_tensor *node, const backend_weight *weight);
enum ggml_status backend_run_rows(backend_instance *instance, struct ggml_tensor *node, const backend_weight *weight);

#endif
