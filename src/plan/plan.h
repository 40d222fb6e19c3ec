/*
 * plan.h - from profile, map, survey and budget to a placement. Pure: no I/O,
 * no clock, no globals; the same input gives the same plan.
 *
 * The survey is what llama.cpp's own graph says about the model: which operation
 * reads each weight, in which order, and what the context costs. The engine
 * takes it from a load that reads no weights; tests write it by hand.
 */
#ifndef HYPURA_PLAN_PLAN_H
#define HYPURA_PLAN_PLAN_H

#include "hypura.h"

enum {
    HYPURA_USE_MUL_MAT = 1,    /* dense product, as src[0], two-dimensional */
    HYPURA_USE_MUL_MAT_ID = 2, /* product with selected experts */
    HYPURA_USE_GET_ROWS = 4,   /* rows selected by token */
    HYPURA_USE_OTHER = 8,      /* anything the executor cannot page */
};

typedef struct hypura_use {
    uint32_t flags;
    uint32_t n_mul_mat; /* products that read it in one decode graph */
    uint32_t order;     /* position of the first of them; UINT32_MAX when unused */
} hypura_use;

typedef struct hypura_survey {
    int         n_uses; /* one for each tensor of the map */
    hypura_use *uses;
    uint64_t    kv_bytes; /* in the host's memory */
    uint64_t    compute_bytes;
    uint64_t    checkpoint_bytes; /* a copy of what no conversation can take back token by token; of all of them */
    uint64_t    adapter_bytes; /* of all adapters, wherever they lie */
    uint64_t    device_kv_bytes; /* in that of the one GPU that the survey was taken with, all layers on it */
    uint64_t    device_compute_bytes; /* with the adapters that lie there */
    uint32_t    n_context;
    uint32_t    n_ubatch;
} hypura_survey;

/* A GPU that may be used. Rates of 0 are not known. */
typedef struct hypura_plan_gpu {
    const char *name;
    uint64_t    bytes;            /* what is free there, or the limit given for it: layers are shared out by that */
    uint64_t    most_bytes;       /* that may be placed there, whatever limits say; 0: as much as these */
    uint64_t    free_bytes;       /* for the plan to tell: see hypura_gpu_plan */
    uint64_t    max_buffer_bytes; /* that one tensor may have; 0: no limit */
    double      upload_bytes_per_s;
    double      memory_bytes_per_s;
    double      round_trip_us;
    double      hand_over_us;
    double      operation_us;
    bool        addressable; /* the host may write there, at the address of its tensors */
    bool        unified; /* its memory is the host's: what is placed there counts against the same limit */
    bool        remote; /* of another machine: upload_bytes_per_s is that of the network */
} hypura_plan_gpu;

/* All of them, in the order in which they are taken and have their layers; remote ones last. */
typedef struct hypura_plan_gpus {
    int             n;
    hypura_plan_gpu list[HYPURA_MAX_GPUS];
    uint64_t        total_bytes; /* limit on what is placed on all together that are not remote; 0: none but each one's own */
    bool            named;       /* all of these are used; else no more than it takes to hold the whole model */
} hypura_plan_gpus;

/* How much of the context attention passes over where the forecast is to come true, or all
 * of it: with 513 to 768 tokens llama.cpp divides 768 among its threads. */
#define HYPURA_FORECAST_TOKENS 768

#define HYPURA_MAX_RATES   16
#define HYPURA_MAX_LESSONS 16

/* How fast the processor computes, where that was measured. */
typedef struct hypura_rates {
    int n;
    struct {
        int    type;    /* of weights, enum ggml_type */
        bool   experts; /* products with selected experts */
        int64_t columns; /* of these; 0: any, and always for others */
        double bytes_per_s;
        double product_s;          /* what a product takes beside, whatever its size */
        double prompt_bytes_per_s; /* in a prompt, of every token; 0: not measured */
    } by_type[HYPURA_MAX_RATES];
    double others_s; /* what a token computes beside products with weights; 0: not measured */
    double output_bytes_per_s; /* of the output matrix, where its form is not that of its type; else 0 */
    double output_product_s;
} hypura_rates;

/* What a token came to in a run of this model. */
typedef struct hypura_lesson {
    double held;       /* weights that were in memory / all, 0 to 1 */
    double compute_s;  /* all but waiting for reads */
    double read_bytes;
    double read_factor; /* how many times as long as at the drive's full rate reading took; 0: not known */
} hypura_lesson;

typedef struct hypura_lessons {
    int           n;
    hypura_lesson items[HYPURA_MAX_LESSONS]; /* by held, ascending */
} hypura_lessons;

typedef struct hypura_plan_options {
    uint64_t memory_bytes;   /* 0: no limit but what the profile says is available */
    uint64_t weights_bytes;  /* 0: no limit of its own */
    uint64_t overhead_bytes; /* fixed cost outside weights, KV and compute */
    const hypura_rates   *rates;   /* for the forecast; NULL: computing is taken to run at memory's rate */
    const hypura_lessons *lessons; /* for the forecast; NULL: none */
    bool     force_paging;   /* never RESIDENT: experts (or, in a dense model, dense weights) go through the pager */
    const hypura_plan_gpus *gpus; /* NULL: none */
} hypura_plan_options;

/* Fails with HYPURA_ERR_BUDGET, naming the floor, when the budget is below it. */
hypura_status hypura_plan_solve(const hypura_map *map, const hypura_survey *survey, const hypura_profile *profile,
                                const hypura_plan_options *options, hypura_plan **plan, hypura_error *error);

/* What took a token of this plan so long, in a run: see read_factor above. storage_s: reading alone at the
 * drive's full rate. */
double hypura_plan_read_factor(const hypura_plan *plan, double seconds, double compute_s, double storage_s);

/* Between two of these, one or both of which may not be known. */
double hypura_plan_mix_factors(double a, double b, double part);

/* Slots of every pool within budget_bytes, of which strides, units and floors are
 * given: never below the floors, and more bytes never take a slot away. */
void hypura_plan_share_slots(const hypura_pool_plan *pools, int n_pools, uint64_t budget_bytes, uint32_t *n_slots);

/* A cautious survey from the map's roles, for where no graph can be asked. The
 * caller frees survey->uses. */
hypura_status hypura_survey_by_role(const hypura_map *map, hypura_survey *survey, hypura_error *error);

#endif
