/*
 * hypura_measure.h - what is proved and measured: that no bit of the output differs, how fast decoding and drives are,
 * what caches would hit; and the sidecar of experts, which is written where it is measured to help.
 *
 * The rules of hypura.h hold here too.
 */
#ifndef HYPURA_MEASURE_H
#define HYPURA_MEASURE_H

#include "hypura.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- proof -------------------------------------------------------------- */

#define HYPURA_VERIFY_GPUS 128

typedef struct hypura_verify_case {
    uint64_t weights_bytes; /* limit; 0: none */
    uint64_t vram_bytes;    /* limit on the memory of GPUs, or the sum of limits on each; 0: no GPU */
    char     gpus[HYPURA_VERIFY_GPUS]; /* on both sides, and the layers of each: "Vulkan0 0-11, Vulkan1 12-24" */
    uint32_t prompt_tokens;
    uint32_t tokens; /* decoded after the prompt */
    uint32_t ubatch;
    hypura_form form;
    char     io_engine[16];
    uint64_t differing; /* logits whose bits differ */
    uint64_t bytes_read;
    uint64_t n_resizes; /* with resize: how often what is held changed meanwhile */
    uint64_t bytes_uploaded;
    uint64_t n_ahead;    /* layers over a GPU handed over before it was known that their experts are there */
    uint64_t n_repeated; /* and of these, computed again */
    double   most_differing; /* the largest difference of two logits; NAN: not known, as only sums were kept */
    uint64_t n_cpu_rows;     /* with gpu_misses, see hypura_statistics */
} hypura_verify_case;

typedef struct hypura_verify_report {
    bool                identical;
    int                 n_cases;
    hypura_verify_case *cases;
} hypura_verify_report;

typedef struct hypura_verify_options {
    /* Of both sides. Limits, n_context, n_ubatch, io_engine, foresight and the form of weights are those of the cases;
     * what is of one run alone (speculation, projector, first, trace) is not compared, and has to be none. Plain libllama
     * is also asked without the adapters: where no logit differs then, they were not applied, and the comparison fails.
     * With misses that the CPU computes logits are expected to differ, by how much is told. */
    hypura_model_options model;
    const uint64_t *weights_bytes; /* budgets; NULL: floor, 25, 50 and 100 % of the weights; over a GPU: none */
    int             n_weights;
    const uint64_t *vram_bytes; /* budgets of GPU memory; NULL: floor, 25, 50 and 100 % */
    int             n_vram;
    const uint64_t (*gpu_vram_bytes)[HYPURA_MAX_GPUS]; /* of each GPU, where one of these is 0; NULL: none */
    const uint32_t *prompt_tokens; /* NULL: 1, 7, 64 */
    int             n_prompts;
    const uint32_t *ubatches; /* NULL: as a model is opened with, see hypura_model_options */
    int             n_ubatches;
    const char *const *io_engines; /* NULL: every engine there is */
    int             n_io_engines;
    uint32_t        tokens; /* decoded after each prompt; 0: 16 */
    bool            no_repack; /* HYPURA_FORM_FILE on both sides; of these three at most one */
    bool            repack;    /* HYPURA_FORM_REPACKED; none: the form that a model is opened with at that budget, */
    bool            repack_output; /* HYPURA_FORM_OUTPUT; by rates in cache_dir, see hypura_model_options */
    bool            resize; /* what is held changes at random all the time, up to the budget */
} hypura_verify_options;

/* Decodes the same prompts through plain libllama and through Hypura at each
 * budget, and compares the bits of every logit. Over GPUs plain libllama has the same
 * layers on the same devices, all of them in their memory. */
HYPURA_API hypura_status hypura_verify(const hypura_verify_options *options, hypura_verify_report *report,
                                       hypura_error *error);
HYPURA_API void          hypura_verify_report_clear(hypura_verify_report *report);

/* ---- measurement -------------------------------------------------------- */

/* What is measured of every series. Of a run: a prompt of pseudo-random tokens
 * (prefill), then a window of decoded tokens with whatever the prompt left in
 * memory (cold), then the window that the figures without another name are taken
 * from (warm). A time or a rate is of one token. */
typedef enum hypura_metric {
    HYPURA_METRIC_DECODE_TOK_S = 0,
    HYPURA_METRIC_DECODE_COLD_TOK_S,
    HYPURA_METRIC_PREFILL_TOK_S,
    HYPURA_METRIC_HIT_RATE_BYTES,  /* present when needed / needed; 1 when nothing is paged */
    HYPURA_METRIC_BYTES_PER_TOKEN, /* read from the drive */
    HYPURA_METRIC_BOUND_TOK_S,     /* 1 / max(compute, bytes per token / direct rate) */
    HYPURA_METRIC_BOUND_SHARE,     /* decode_tok_s / bound_tok_s */
    HYPURA_METRIC_COMPUTE_S,       /* neither of the two below */
    HYPURA_METRIC_READ_WAIT_S,
    HYPURA_METRIC_OVERHEAD_S,
    HYPURA_METRIC_PLACED_SHARE,    /* of the time in paged nodes, in which each thread kept to a processor of its own */
    HYPURA_METRIC_STORAGE_S,       /* bytes per token / direct rate */
    HYPURA_METRIC_DEVICE_BUSY,     /* share of the time with a read under way */
    HYPURA_METRIC_AHEAD_BYTES_PER_TOKEN, /* of those, read before they were asked for */
    HYPURA_METRIC_AHEAD_USEFUL,          /* share of them that was asked for then */
    HYPURA_METRIC_PREFILL_BYTES_PER_TOKEN,
    HYPURA_METRIC_PREFILL_READS_PER_WEIGHT, /* bytes read / bytes that the prompt's batches asked for, each once a batch */
    HYPURA_METRIC_PREFILL_BOUND_TOK_S,
    HYPURA_METRIC_PREFILL_BOUND_SHARE,
    HYPURA_METRIC_DIRECT_BYTES_PER_S, /* of the drive, measured right before the run */
    HYPURA_METRIC_CPU_S,         /* of all threads; on a busy machine steadier than rates */
    HYPURA_METRIC_PREFILL_CPU_S,
    HYPURA_METRIC_OTHERS, /* processors that other programs had in the warm window; 0 too where it took less than a second */
    HYPURA_METRIC_PEAK_RSS_BYTES,
    /* over a GPU */
    HYPURA_METRIC_VRAM_HIT_RATE_BYTES,
    HYPURA_METRIC_UPLOADED_BYTES_PER_TOKEN,
    HYPURA_METRIC_READBACKS_PER_TOKEN,
    HYPURA_METRIC_READBACK_S, /* waiting for selected experts, what leads to them being computed meanwhile */
    HYPURA_METRIC_SUBMIT_S,   /* from there until the GPU's next work */
    HYPURA_METRIC_FORESEEN_BYTES_PER_TOKEN, /* uploaded before they were asked for */
    HYPURA_METRIC_FORESEEN_USEFUL,          /* part of these that then was */
    HYPURA_METRIC_ASKED_BY_GPU_PER_TOKEN,   /* routers of a next layer, for that */
    HYPURA_METRIC_ASKED_BY_HOST_PER_TOKEN,
    HYPURA_METRIC_AHEAD_PER_TOKEN,    /* read-backs during which the GPU went on computing */
    HYPURA_METRIC_REPEATED_PER_TOKEN, /* of these, in vain */
    HYPURA_METRIC_CPU_ROWS_PER_TOKEN, /* with HYPURA_GPU_MISSES_CPU: see hypura_statistics */
    HYPURA_METRIC_CPU_LAYERS_PER_TOKEN,
    HYPURA_METRIC_CPU_ROWS_S,
    HYPURA_METRIC_NOT_CPU_PER_TOKEN, /* layers whose missing experts were uploaded all the same */
    HYPURA_METRIC_BESIDE_BYTES_PER_TOKEN,
    HYPURA_METRIC_PREFILL_UPLOADED_BYTES_PER_TOKEN,
    HYPURA_METRIC_LINK_BUSY, /* what was uploaded, of what the links of the plan's GPUs carry in that time */
    HYPURA_N_METRICS,
} hypura_metric;

/* The key of a metric in JSON: "decode_tok_s". */
HYPURA_API const char *hypura_metric_name(hypura_metric metric);

/* Over the runs; all three are NaN where the metric does not exist for a series. */
typedef struct hypura_spread {
    double median;
    double min;
    double max;
} hypura_spread;

/* More layers than this are not told apart. */
#define HYPURA_MAX_BENCH_LAYERS 256

typedef struct hypura_bench_series {
    char          label[48]; /* "hypura", "llama.cpp, read-ahead as found" */
    uint32_t      n_runs;    /* that ended well */
    hypura_spread metrics[HYPURA_N_METRICS];
    const char   *bound_by;      /* "compute", "storage"; NULL where there is no bound */
    uint32_t      read_ahead_kb; /* of the drive during the runs; 0: not known */
    uint64_t      limit_bytes;   /* of memory, by a control group; 0: none */
    hypura_form   form;
    bool          waits_longer;  /* its threads for each other: nobody else needs their processors, or a GPU waits */
    char          note[256];     /* what did not go as asked for, or "" */
    hypura_layer_hits layers[HYPURA_MAX_BENCH_LAYERS]; /* while decoding (warm), all runs together */
} hypura_bench_series;

#define HYPURA_MAX_SERIES 3

typedef struct hypura_bench_cell {
    uint64_t    weights_bytes; /* limit on the weights, or what the plan holds of them */
    uint64_t    memory_bytes;  /* weights, KV, compute buffers and overhead together */
    hypura_plan plan;          /* figures only: placements and order are NULL */
    int         n_series;
    hypura_bench_series series[HYPURA_MAX_SERIES]; /* Hypura first */
    /* The series that the first is compared with, in decoding and in prompts the better one each; -1: none. */
    int           decode_baseline;
    int           prefill_baseline;
    hypura_spread decode_ratio;  /* first series / baseline, round by round */
    hypura_spread prefill_ratio;
} hypura_bench_cell;

typedef struct hypura_bench_report {
    hypura_profile     profile;
    char               model[256];
    uint64_t           model_bytes;
    uint32_t           tokens;
    uint32_t           prompt_tokens;
    uint32_t           parallel; /* sequences decoded together */
    uint32_t           ubatch;
    uint32_t           runs;
    int                n_threads;
    char               io_engine[16]; /* that Hypura read with */
    uint64_t           io_limit_bytes_per_s;
    bool               route; /* experts were forced: see below */
    double             route_recall; /* guesses were emulated: see below; 0: they were not */
    int                n_cells;
    hypura_bench_cell *cells;
} hypura_bench_report;

typedef struct hypura_bench_options {
    /* Of all series. Limits (memory_bytes, weights_bytes, vram_bytes, gpu_vram_bytes) are those of the cells; what is
     * of one run alone (speculation, projector, first, trace) is not measured, and has to be none. io_limit_bytes_per_s
     * does not limit the baseline. */
    hypura_model_options model;
    const uint64_t *memory_bytes; /* one cell for each limit on everything */
    int             n_memory;
    const uint64_t *weights_bytes; /* and for each limit on weights; neither: one cell, chosen from what is free */
    int             n_weights;
    /* One cell for each limit on the memory of a GPU, with all of the host's for what
     * it lacks, or, where the host's is limited too, for each such pair. There the route
     * is forced without cutting graphs, in layers that are paged and for batches that do
     * not take all experts of a layer anyway: how much is forced, and with it what comes
     * out, depends on the limit. */
    const uint64_t *vram_bytes;
    int             n_vram;
    const uint64_t (*gpu_vram_bytes)[HYPURA_MAX_GPUS]; /* of each GPU, where one of these is 0; NULL: none */
    /* Instead of limits, two cells that show what Hypura costs where it is not
     * needed: everything resident against stock libllama, and everything in the
     * pager's pools against libllama without repacking. */
    bool resident;
    /* Also plain libllama with a mapped file under the same memory limit, with the
     * read-ahead of the drive as found and at 128 KiB; the faster one counts. */
    bool baseline;
    /* A recorded route: lines "token layer expert expert ...", # for comments. The
     * experts that the routers of both variants select are overwritten by it. That
     * cuts the graph at every router, in both variants alike. NULL: none. */
    const char *route;
    /* With a route no router can be asked ahead: it would not select what is forced.
     * Above 0, guesses of this recall are made up from the route and read ahead as those
     * of routers are, which are asked all the same, for the time that takes. */
    float       route_recall;
    /* A file for the time line of the last token over a GPU: lines "WORK LAYER BEGIN
     * END", in us since the token began, of what the host did. NULL: none. */
    const char *timeline;
    uint32_t    tokens;        /* of each window; 0: 64 */
    uint32_t    prompt_tokens; /* 0: 512 */
    /* So many sequences, each with a prompt and windows of its own, are decoded together, a
     * token of each at a time, as a server does with as many clients. Prompts come one after
     * the other. Speeds are of all together, and what is given for a token is for one of them.
     * On a route they begin evenly spread. 0: 1. */
    uint32_t    parallel;
    uint32_t    runs;          /* of each series, interleaved; 0: 3 */
    /* A command, ended by NULL, that calls hypura_bench_worker with its standard
     * input and output: each run is then a process of its own, and memory can be
     * limited. NULL: all runs in this process, the baseline without a limit. */
    const char *const *worker;
} hypura_bench_options;

/* Runs the series of each cell in turn, in alternating order. A read-ahead that
 * was changed is put back before it returns, however it returns. Where it fails or is
 * stopped, the report has the cells that were finished before. Always clear it. */
HYPURA_API hypura_status hypura_bench(const hypura_bench_options *options, hypura_bench_report *report,
                                      hypura_error *error);
HYPURA_API void          hypura_bench_report_clear(hypura_bench_report *report);

/* One run of a bench of the same library: reads what to do from one descriptor
 * and writes what came out, failures of the run included, to the other. */
HYPURA_API hypura_status hypura_bench_worker(int input, int output, hypura_error *error);

/* ---- a drive, in detail ------------------------------------------------- */

typedef enum hypura_io_cache {
    HYPURA_IO_DIRECT = 0, /* past the page cache */
    HYPURA_IO_COLD,       /* through the page cache, which does not hold the file */
    HYPURA_IO_WARM,       /* out of the page cache */
} hypura_io_cache;

/* "direct", "cold", "warm" */
HYPURA_API const char *hypura_io_cache_name(hypura_io_cache cache);

typedef struct hypura_iobench_row {
    const char     *engine; /* "uring", "pool" */
    hypura_io_cache cache;
    bool            sequential; /* else in random order */
    uint64_t        block_bytes;
    uint32_t        depth; /* requests in flight */
    double          bytes_per_s;
    bool            refused; /* above what the drive can have given: a cache answered */
} hypura_iobench_row;

#define HYPURA_IOBENCH_ROWS 64

typedef struct hypura_iobench_report {
    char     path[1024];
    uint64_t file_bytes;     /* of the file that was read */
    bool     direct_io;      /* the file system lets reads pass the page cache */
    double   memory_bytes_per_s;
    double   ceiling_bytes_per_s; /* no read from the drive can be faster */
    char     ceiling[64];    /* whose rate that is: a PCIe link, or "memory" where the link is not known */
    int      best;           /* the fastest direct row that counts; -1: none */
    int      n_rows;
    hypura_iobench_row rows[HYPURA_IOBENCH_ROWS];
} hypura_iobench_report;

typedef struct hypura_iobench_options {
    const char        *path;       /* a folder, in which a file is written for this, or a large file */
    uint64_t           read_bytes; /* read for each figure; 0: what half a second allows */
    hypura_progress_fn progress;
    void              *progress_user;
} hypura_iobench_options;

/* Reads of every size and depth, in both orders, by both engines, past the page
 * cache; and through it, for comparison. Leaves no file behind. */
HYPURA_API hypura_status hypura_iobench(const hypura_iobench_options *options, hypura_iobench_report *report,
                                        hypura_error *error);

/* ---- recorded routes ----------------------------------------------------- */

/* A route is text: a line "token layer expert expert ..." for each token and
 * layer, # for comments. */

/* A number of expert slots, or a per cent of all experts when percent > 0. */
typedef struct hypura_slot_count {
    uint32_t count;
    double   percent;
} hypura_slot_count;

typedef struct hypura_replay_options {
    const char              *path;  /* of the route */
    const hypura_slot_count *slots; /* NULL: 5, 10, 15, 20, 30, 40, 50, 60 and 80 % */
    int                      n_slots;
    hypura_progress_fn       progress;
    void                    *progress_user;
} hypura_replay_options;

/* Uses that hit, as shares of all uses, from an empty cache of so many slots. */
typedef struct hypura_replay_row {
    uint32_t n_slots;
    double   lru;
    double   ours;   /* what the pager does */
    double   belady; /* the most that any policy without reading ahead could hit */
    double   foreseen;       /* share of what then misses that co-activation names a layer ahead */
    double   foreseen_right; /* share of the absent experts named that are used */
} hypura_replay_row;

typedef struct hypura_replay_report {
    uint32_t n_tokens;
    uint32_t n_layers;   /* that have experts */
    uint32_t n_experts;  /* of a layer: the largest number in the route, and 1 */
    uint64_t n_uses;
    uint64_t n_distinct; /* experts that are used at all */
    int      n_rows;
    hypura_replay_row *rows;
} hypura_replay_report;

/* Takes a recorded route through the pager's cache without any model. */
HYPURA_API hypura_status hypura_replay(const hypura_replay_options *options, hypura_replay_report *report,
                                       hypura_error *error);
HYPURA_API void          hypura_replay_report_clear(hypura_replay_report *report);

/* ---- experts as records -------------------------------------------------- */

typedef struct hypura_optimize_options {
    const char        *path;
    bool               force;     /* without measuring whether it would help */
    const char        *cache_dir; /* for the profile; NULL: measured and not stored */
    hypura_progress_fn progress;
    void              *progress_user;
} hypura_optimize_options;

typedef struct hypura_optimize_report {
    char     path[1024]; /* of the sidecar: the model's first file with ".records" behind its name */
    uint64_t bytes;
    uint64_t n_records;  /* experts of all layers */
    uint64_t n_resumed;  /* of these, written by an earlier run that was stopped */
    bool     existed;    /* it was complete before, and was verified now */
    double   matrix_bytes; /* of an expert, on average: what one read is without the sidecar */
    double   record_bytes; /* and with it */
    double   matrix_bytes_per_s; /* what the drive gives for such reads now */
    double   record_bytes_per_s;
    double   gain; /* how much faster experts are read with the sidecar; NaN: not measured */
} hypura_optimize_report;

/* Writes each expert's matrices as one record to a file beside the model, reads it
 * back and compares checksums. The model stays as it is; from then on it is read from
 * the sidecar as long as both match. HYPURA_ERR_UNSUPPORTED, with the predicted gain,
 * where that is below 5 %. When it is stopped, or the disk is full, a file with
 * ".partial" behind the name stays, and the next call goes on with it. */
HYPURA_API hypura_status hypura_optimize(const hypura_optimize_options *options, hypura_optimize_report *report,
                                         hypura_error *error);

#ifdef __cplusplus
}
#endif

#endif
