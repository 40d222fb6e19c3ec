/*
 * internal.h - what the files of the planner share while one plan is solved.
 *
 *     streamable.c   what may leave memory at all: the kind of each tensor
 *     pools.c        experts: size classes and floors
 *     share.c        experts: slots of each class for a number of bytes
 *     ring.c         dense weights: stages, the ring, pinned rows
 *     gpus.c         which GPUs are used, and which layers each has
 *     gpu.c          what goes to a GPU's memory; the rest is planned as without one
 *     forecast.c     bytes a token reads, time, what bounds it
 *     recall.c       what earlier runs know of these
 *     plan.c         the budget, the choice, the refusal
 */
#ifndef HYPURA_PLAN_INTERNAL_H
#define HYPURA_PLAN_INTERNAL_H

#include "plan/plan.h"

/* What may be done with a tensor, not what is done. */
typedef enum plan_kind {
    PLAN_KIND_FIXED = 0, /* has to be in memory */
    PLAN_KIND_ROWS,      /* read by rows alone */
    PLAN_KIND_EXPERTS,   /* slices of a bundle that only routed products read */
    PLAN_KIND_DENSE,     /* read front to back by one product a token */
    PLAN_KIND_VRAM,      /* held by the GPU: not the host's */
} plan_kind;

/* A weight that can be streamed. Rows are pinned and cut in groups. */
typedef struct plan_dense {
    int tensor;
    int rank; /* which leave first: 0 FFN, 1 others, 2 output, 3 bulky */
    uint32_t order;
    uint64_t row_bytes;
    uint64_t bytes;
    int64_t n_rows;
    int64_t group_rows;
    uint64_t n_groups;
    uint64_t n_pinned_groups;
    uint64_t group_bytes; /* the smallest chunk */
} plan_dense;

/* A choice of what to stream: the first n_weights of the dense weights. */
typedef struct plan_stage {
    size_t n_weights;
    uint64_t bytes;
    uint64_t pinned_bytes; /* if all rows were pinned, alignment included */
    uint64_t largest_bytes;
    uint64_t min_payload_bytes; /* the smallest permissible chunk */
    uint64_t min_ring_bytes;
} plan_stage;

typedef struct plan_class {
    int n_matrices;
    uint64_t matrix_bytes[HYPURA_MAX_BUNDLE];
    uint64_t slot_bytes;
    uint64_t stride_bytes;
    uint32_t n_units;
    uint32_t n_floor;
} plan_class;

typedef struct planner {
    const hypura_map *map;
    const hypura_survey *survey;
    const hypura_profile *profile;
    const hypura_rates *rates;     /* NULL: not measured */
    const hypura_lessons *lessons; /* NULL: none */
    bool force_paging;
    bool adapts; /* the budget follows free memory: what is held can become less at any time */
    uint64_t tensor_bytes; /* of the host: all but those that a GPU holds */
    uint64_t kv_bytes;
    uint64_t compute_bytes;
    hypura_plan_gpus gpus; /* those that are used, once that is decided: as in the plan; before, none that is remote */
    hypura_plan_gpus remotes;
    int end_layer; /* the layers before it are for the GPUs here and the host, the others for remote devices */
    uint64_t sent_bytes; /* of a GPU's memory: for weights that the host holds and prompts send there, one at a time */
    uint64_t shared_bytes; /* of the host's memory, what GPUs hold that have none of their own */
    uint64_t host_bytes;   /* at least as much of it stays with the host */
    bool has_slots; /* GPUs have slots for experts, for which pools stand behind them */

    plan_kind *kinds;    /* by tensor */
    int *class_of;       /* by bundle; -1: not paged */
    plan_class *classes; /* one for each bundle at most; HYPURA_MAX_POOLS are kept */
    int n_classes;
    uint32_t slot_align_bytes;

    plan_dense *dense; /* in the order in which they leave memory */
    size_t n_dense;
    plan_stage *stages; /* [0] streams none; each holds the one before it */
    size_t n_stages;

    uint64_t paged_bytes;      /* experts and rows: not in memory as soon as anything is paged */
    uint64_t pool_floor_bytes; /* all pools with their fewest slots */
} planner;

/* Experts that one token uses in a layer of this bundle. */
uint32_t plan_experts_used(const hypura_map *map, const hypura_bundle *bundle);

/* Fills kinds and dense, the latter in any order. */
void plan_find_streamable(planner *p);

/* Fills classes and the unit of slots; bundles of more classes than there can be
 * pools become FIXED. Call after plan_find_streamable. */
void plan_find_classes(planner *p);

/* Orders the dense weights and lays out the stages. */
void plan_find_stages(planner *p);
/* Fewest bytes that the dense weights of a stage need. */
uint64_t plan_stage_floor_bytes(const plan_stage *stage);
/* Spends budget_bytes (not below the stage's floor) on ring and pinned rows and
 * writes them and the placements to plan. */
void plan_spend_on_dense(planner *p, const plan_stage *stage, uint64_t budget_bytes, hypura_plan *plan);

/* Layers [first, end); the output is the one after the last. */
typedef struct plan_layers {
    int first;
    int end;
} plan_layers;

/* What some layers take of a GPU's memory. */
typedef struct plan_gpu_need {
    uint64_t trunk_bytes; /* weights without pageable experts */
    uint64_t kv_bytes;
    uint64_t compute_bytes;
    uint64_t expert_bytes;
    uint64_t stage_bytes;
    uint64_t slots_floor_bytes;
    int      n_paged; /* bundles */
    int      n_classes; /* of them: a pool each at least */
} plan_gpu_need;

plan_gpu_need plan_find_gpu_need(const planner *p, plan_layers layers);
/* With all weights; with the fewest slots; with nothing left to upload. */
uint64_t plan_gpu_whole_bytes(const plan_gpu_need *need);
uint64_t plan_gpu_floor_bytes(const plan_gpu_need *need);
uint64_t plan_gpu_full_bytes(const plan_gpu_need *need);
/* What a cut of a graph costs there; 0: not known. */
double plan_cut_us(const hypura_plan_gpu *gpu);

typedef struct plan_gpu_fill {
    bool     pages;  /* experts go to slots; else all weights are held */
    uint64_t bytes;  /* at least what that needs */
    double   in_ram; /* part of the experts for which the host has memory */
} plan_gpu_fill;

/* What a token costs there with such a filling; the rate of its memory is known. */
double plan_gpu_cost_s(planner *p, int g, plan_layers layers, const plan_gpu_fill *fill);

/* Decides what GPU g holds of its layers: marks it VRAM, and writes everything about
 * it to plan->gpus[g]. plan->n_gpus is known. */
void plan_fill_gpu(planner *p, hypura_plan *plan, int g, plan_layers layers, const plan_gpu_fill *fill);

/* Decides what GPUs hold, drops it from the dense weights, and writes everything about
 * GPUs to plan. Call after plan_find_streamable; what is left is the host's. */
void plan_place_on_gpus(planner *p, hypura_plan *plan, uint64_t host_budget_bytes);

/* Part of the experts' bytes that slots lack, when they hold this part of all
 * experts and a token uses that part. */
double plan_miss_rate(double held, double used, double busy);

/* Writes the forecast. Everything else of plan is complete. */
void plan_forecast(const planner *p, hypura_plan *plan);

#endif
