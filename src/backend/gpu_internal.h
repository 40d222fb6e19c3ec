/*
 * gpu_internal.h - what the files over a GPU share.
 *
 *     gpu_device.c    the device that stands for a GPU, its buffer type for experts
 *     gpu_instance.c  one instance of it for each context: forwards what is asked of it
 *     gpu_executor.c  cuts a graph where experts are selected, makes them present
 *     gpu_pieces.c    one token: what lies between cuts, and may be computed twice
 *     gpu_ahead.c     one token: runs past a cut before the selection is known
 *     gpu_foresee.c   one token: guesses what the next layer selects
 *     gpu_hybrid.c    experts that slots lack, computed by the processor
 *     gpu_guard.cpp   calls of the GPU's backend that may throw
 */
#ifndef HYPURA_BACKEND_GPU_INTERNAL_H
#define HYPURA_BACKEND_GPU_INTERNAL_H

#include "backend/gpu.h"
#include "backend/gpu_guard.h"
#include "backend/internal.h"
#include "pager/vram.h"

struct hypura_gpu {
    struct ggml_backend_device      device; /* context is this structure */
    struct ggml_backend_reg         registry;
    struct ggml_backend_buffer_type experts;
    struct ggml_backend_buffer_type memory; /* the GPU's own by another name; see gpu_device.c */
    ggml_backend_dev_t              inner;
    int                             index; /* among the plan's GPUs */
    hypura_pager                   *pager;
    char                            name[64];
    char                            experts_name[80];
    bool                            records_late; /* ggml-vulkan: see gpu_executor.c */
    hypura_foresight                foresight;    /* AUTO: runs ahead where that pays */
    hypura_gpu_misses               misses;
    int                             n_threads;    /* with which the processor computes them */
    bool                            can_look_up;  /* the device has rows of numbers looked up */
    hypura_gpu_select_fn            select;
    void                           *select_user;
    hypura_gpu_watch_fn             watch;
    void                           *watch_user;
};

#define GPU_MAX_EXPERTS 1024
#define GPU_MAX_REPORTS 2

/* The nodes of a graph from the first product of a selection up to the next one's. */
typedef struct gpu_cut {
    int                   at;
    const backend_weight *weight; /* of the first product */
    struct ggml_tensor   *ids;
} gpu_cut;

/* What the processor may compute of the nodes behind a cut, see gpu_hybrid.c. */
typedef struct gpu_chain {
    bool                known; /* it can */
    int                 end;   /* node after the last product */
    struct ggml_tensor *input; /* that the first ones read */
    backend_chain       found;
} gpu_chain;

typedef struct gpu_hybrid gpu_hybrid;

/* All cuts of a graph, and what was found out about the pieces between them. */
typedef struct gpu_piece {
    gpu_cut cut;
    int     end;        /* node after the last */
    int     middle;     /* the node that alone reads the last matrix; end: there is none */
    int     late_matrix; /* that one; -1 */
    uint64_t uid;       /* of its nodes with the lookup in front, as ggml numbers graphs */
    uint64_t first_uid; /* of those before the middle with the lookup in front */
    uint64_t rest_uid;
    bool    repeatable; /* computing it a second time gives the same */
    gpu_chain chain;    /* known: `middle` is its end, and there is no late matrix */
    bool    rest_repeatable; /* what follows the chain, with what it put out left as it is */
    bool    reports;     /* a node brings its ids to the host, see pager/vram_report.c */
    bool    reports_row; /* and another one the row that the host asks a router with */
    struct ggml_tensor *row; /* that its experts read, as the router of the next piece might; NULL: it cannot */
    bool    gpu_asks;        /* that router; else the host does */
} gpu_piece;

typedef struct gpu_pieces {
    uint64_t   uid; /* of the graph, as ggml numbers them; 0: none */
    bool       given; /* lookups read ids from elsewhere than a router */
    int        n;
    int        capacity;
    gpu_piece *list;
    struct ggml_tensor **nodes; /* of one piece, its lookup and reports, in turn */
    int                  max_nodes;
    struct ggml_tensor  *reports[GPU_MAX_REPORTS]; /* nodes that go with those up to this one, behind them */
    int                  n_reports;
    int                  reported_at;
} gpu_pieces;

typedef struct swapped_node {
    struct ggml_tensor *node;
    struct ggml_tensor *weights;
    struct ggml_tensor *ids;
} swapped_node;

typedef struct gpu_instance {
    hypura_gpu          *gpu;
    ggml_backend_t       inner;
    swapped_node        *swapped; /* grows with the largest graph */
    int                  n_swapped;
    int                  max_swapped;
    int32_t             *ids; /* read back; grows with the largest batch */
    size_t               max_ids;
    int                  next_stage;
    bool                 stage_used[HYPURA_MAX_STAGES];
    ggml_backend_event_t stage_done[HYPURA_MAX_STAGES]; /* NULL: the device has no events */
    bool                 unsure; /* what was queued may not have been done: something failed, or threw */
    uint64_t             cut_us; /* when the ids had arrived, until the GPU has its next work */
    uint32_t             experts[GPU_MAX_EXPERTS];
    uint32_t             slots[GPU_MAX_EXPERTS];
    uint32_t             slot_of[GPU_MAX_EXPERTS];
    int                  n_poll_failures; /* in a row */
    gpu_pieces           pieces; /* of the last graph that was run ahead */
    hypura_guesser       guesser; /* for the token that is computed */
    int                  arrived_at; /* the place where the ids of the last piece arrived */
    float               *row;      /* the row that a router reads, in the form that it does */
    float                scores[GPU_MAX_EXPERTS];
    uint32_t             foreseen[GPU_MAX_EXPERTS];
    gpu_hybrid          *hybrid; /* NULL: what slots lack is uploaded */
    float               *odds;   /* of each bundle: that a selection has nothing missing; NULL: no memory */
    uint32_t            *n_late; /* of each bundle: how often several experts came late; NULL: no memory */
} gpu_instance;

typedef struct gpu_walk {
    gpu_instance       *instance;
    hypura_vram        *vram;
    struct ggml_cgraph *graph;
} gpu_walk;

/* ---- gpu_executor.c ------------------------------------------------------------- */

/* gpu_walk to enum ggml_status, for gpu_guard: computes the graph. */
enum ggml_status gpu_walk_graph(void *walk);
/* What a node reads of it is streamed; else NULL. */
const backend_weight *gpu_streamed_weight(const gpu_instance *instance, const struct ggml_tensor *node);
/* The first cut at or after a node whose selection is another than that of `last`. */
gpu_cut gpu_next_cut(const gpu_instance *instance, const struct ggml_cgraph *graph, int from, const gpu_cut *last);
/* Exchanges the sources of a cut's products. ids: NULL keeps them; set: -1 for slots. */
enum ggml_status gpu_swap_products(const gpu_walk *walk, const gpu_cut *cut, int end, struct ggml_tensor *ids, int set);
void             gpu_swap_back(gpu_instance *instance);
/* The distinct experts of *values; -1 when one is out of range. */
int gpu_find_distinct(gpu_instance *instance, const int32_t *values, size_t n, uint32_t n_experts);
/* Hands over nodes [first, last): as they are, or as a piece that the GPU waits for.
 * lead: a node computed before them, for which pieces.nodes has room; NULL: none. Reports that wait for
 * the last of them follow. uid: a number
 * that these very nodes alone have, with which CUDA's backend need not compare them; 0: none. */
enum ggml_status gpu_run(const gpu_walk *walk, struct ggml_tensor *lead, int first, int last, uint64_t uid);
enum ggml_status gpu_run_cut(const gpu_walk *walk, struct ggml_tensor *lead, int first, int last, uint64_t uid,
                             bool one_token);
/* ggml-vulkan hands over what follows at once, and not in portions. */
void gpu_forget_portions(const gpu_walk *walk);

/* For whoever watches: the time now, and what was done since. */
uint64_t gpu_begin(const gpu_walk *walk);
void     gpu_done(const gpu_walk *walk, hypura_gpu_work work, const gpu_cut *cut, uint64_t begin_us);

/* ---- gpu_pieces.c --------------------------------------------------------------- */

/* Before memory is given to a graph: what a piece reads stays while it may be repeated. */
void gpu_keep_inputs(const gpu_instance *instance, struct ggml_cgraph *graph,
                     struct ggml_backend_graph_optimize_params *params);
/* Those of the walk's graph, in its instance; false: it is not one token's, or memory is short. */
bool gpu_find_pieces(const gpu_walk *walk);

/* ---- gpu_ahead.c ---------------------------------------------------------------- */

/* Whether the graph is one token's, and may be walked this way; then does. */
bool             gpu_runs_ahead(const gpu_walk *walk);
enum ggml_status gpu_walk_ahead(const gpu_walk *walk);
/* Numbers of 32 bits that are copied to the host, none of which has arrived yet; and until all have: looks for
 * them, and in the end has await wait. */
void gpu_expect_numbers(void *numbers, size_t n);
void gpu_await_numbers(const gpu_walk *walk, const void *numbers, size_t n, void (*await)(hypura_vram *));

/* ---- gpu_foresee.c -------------------------------------------------------------- */

/* By what the layers of a token are guessed now. */
hypura_guesser gpu_find_guesser(const gpu_walk *walk);
/* Who guesses asks a router with the row that a piece's experts read. */
bool gpu_asks_next(const gpu_walk *walk, const gpu_piece *piece);
/* Who could ask the router of the piece behind this one, which is the next in its list. */
void gpu_find_router(const gpu_walk *walk, gpu_piece *piece);
/* Has the row fetched that a piece's experts read, before its ids; or the next router asked with it on the GPU, whose
 * answer arrives at the same place as the ids. */
void             gpu_fetch_row(const gpu_walk *walk, const gpu_piece *piece);
enum ggml_status gpu_ask_router(const gpu_walk *walk, const gpu_piece *piece, int place);
/* What few tokens selected: n_used of each, one behind the other. */
void gpu_note_selection(const gpu_walk *walk, const gpu_cut *cut, const int32_t *ids);
/* Before a piece is handed over, and when the ids of the one before have arrived: what it
 * will probably select is uploaded. n_runs: of the piece before, 2 where it is computed again. */
hypura_status gpu_foresee(const gpu_walk *walk, const gpu_piece *piece, uint32_t n_runs);

/* ---- gpu_hybrid.c ---------------------------------------------------------------- */

/* With all memory that it will need; NULL: there is too little. */
gpu_hybrid *gpu_open_hybrid(const hypura_gpu *gpu);
void        gpu_close_hybrid(gpu_hybrid *hybrid);
/* Whether, and what the processor could compute of nodes [cut, end), before sources are exchanged. */
void gpu_find_chain(const gpu_walk *walk, const gpu_cut *cut, int end, gpu_chain *chain);
/* Has the rows fetched that a known chain reads; turn: 0 or 1, those of the layer before the other. */
void gpu_fetch_input(const gpu_walk *walk, const gpu_chain *chain, int turn);
/* True: of the n distinct experts (instance->experts) slots lack some, which the processor will compute: from
 * RAM, where they are leased until send. ids: what the layer selected, one token's behind the other's.
 * instance->slots: of the others, else HYPURA_CACHE_NONE. Else nothing has changed. */
bool     gpu_take_missing(const gpu_walk *walk, const gpu_chain *chain, const gpu_cut *cut, uint32_t n,
                          const int32_t *ids);
uint32_t gpu_n_missing(const gpu_walk *walk);
/* Computes them, with the chain handed over, and hands over the copy of their rows. */
enum ggml_status gpu_compute_missing(const gpu_walk *walk, const gpu_chain *chain, const gpu_cut *cut, int turn);
/* With what follows handed over: those worth it are sent to slots for later tokens. */
enum ggml_status gpu_send_missing(const gpu_walk *walk, const gpu_cut *cut);

/* ---- gpu_instance.c ------------------------------------------------------------- */

ggml_backend_t gpu_new_instance(hypura_gpu *gpu);
/* The GPU's own instance behind one of ours, any other as it is. */
ggml_backend_t gpu_inner_instance(ggml_backend_t backend);

#endif
