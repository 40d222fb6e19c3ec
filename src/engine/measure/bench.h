/*
 * bench.h - the parts of a measurement, as its files share them.
 *
 *     bench.c          cells, rounds and series: who runs when, and what of it is told
 *     bench_cells.c    what is measured: cells and what their series do
 *     bench_run.c      one run in this process: a task makes a sample
 *     bench_worker.c   the same in a process of its own, with less memory
 *     bench_metrics.c  samples to metrics, metrics to spreads (pure)
 */
#ifndef HYPURA_ENGINE_MEASURE_BENCH_H
#define HYPURA_ENGINE_MEASURE_BENCH_H

#include "engine/llama/kv_cache.h"
#include "hypura_measure.h"

#define HYPURA_BENCH_PATH 4096

/* One run. Plain data: it is handed to another process of the same program as it
 * lies in memory. */
typedef struct hypura_bench_task {
    char path[HYPURA_BENCH_PATH];
    char route[HYPURA_BENCH_PATH]; /* "": none */
    char io_engine[16];            /* "": the profile's */
    char gpu[256];                 /* "": as many as it takes */
    char rpc[1024];                /* "": none */
    uint64_t rpc_bytes;
    int n_gpu_layers; /* plain alone, as in hypura_model_options */
    char adapters[HYPURA_MAX_ADAPTERS][HYPURA_BENCH_PATH];
    float adapter_scales[HYPURA_MAX_ADAPTERS];
    int n_adapters;
    char type_k[HYPURA_KV_CACHE_NAME]; /* "": the default */
    char type_v[HYPURA_KV_CACHE_NAME];
    char timeline[HYPURA_BENCH_PATH]; /* file for that of the last token; "": none */
    uint64_t vram_bytes;
    uint64_t gpu_vram_bytes[HYPURA_MAX_GPUS];
    bool plain;
    hypura_form form;
    bool force_paging;
    bool drop_cache; /* the model leaves the page cache first */
    bool waits_longer; /* threads for each other, see base/waiting.h */
    uint32_t n_warm_ups; /* so often the prompt is decoded before it is timed: pools are full then */
    uint64_t memory_bytes;
    uint64_t weights_bytes;
    uint64_t io_limit_bytes_per_s;
    hypura_foresight foresight;
    hypura_gpu_misses gpu_misses;
    double route_recall; /* 0: no guess is emulated */
    uint32_t n_parallel; /* sequences decoded together */
    uint32_t n_prompt;   /* of each, as are the windows */
    uint32_t n_ubatch;
    uint32_t n_tokens; /* of each window */
    int n_threads;
    hypura_profile profile;
} hypura_bench_task;

typedef struct hypura_bench_window {
    uint32_t n_tokens; /* of all sequences */
    double seconds;
    double cpu_seconds; /* of all threads of the process */
    double others;      /* processors that other programs had (hypura_since_others) */
    hypura_statistics statistics; /* of this window alone; of the pager nothing without one */
    uint64_t drive_bytes;         /* that this process made drives read */
} hypura_bench_window;

typedef struct hypura_bench_sample {
    bool paged; /* the pager was in the path */
    hypura_bench_window prefill;
    hypura_bench_window cold;
    hypura_bench_window warm;
    hypura_layer_hits layers[HYPURA_MAX_BENCH_LAYERS]; /* of the warm window */
    double direct_bytes_per_s; /* 0: not measured */
    double upload_bytes_per_s; /* of the links of the plan's GPUs together, by the profile; 0: none */
    uint64_t peak_rss_bytes;
} hypura_bench_sample;

/* ---- bench_cells.c ------------------------------------------------------- */

/* What a series does; its figures go to the report. */
typedef struct bench_series {
    hypura_bench_task task;
    uint64_t limit_bytes;       /* of memory, by a control group */
    uint32_t set_read_ahead_kb; /* 0: as found */
    bool failed;
} bench_series;

typedef struct bench {
    const hypura_bench_options *options;
    hypura_bench_report *report;
    int n_cells;                      /* to be measured */
    uint32_t read_ahead_kb;           /* as found; 0: not known */
    bench_series series[HYPURA_MAX_SERIES]; /* of the cell at hand */
    double *values;                   /* [series][metric][run]; NaN where a run failed */
    uint64_t done;                    /* runs, for progress */
    uint64_t total;
} bench;

/* Sizes and the profile go to the report, with memory for its cells; b has options and report alone before. What
 * contradicts itself is refused. */
hypura_status hypura_bench_prepare(bench *b, hypura_error *error);

/* What cannot be measured is told before hours go into the cells before it. */
hypura_status hypura_bench_check_cells(bench *b, hypura_error *error);

/* The plan of a cell, and its series. */
hypura_status hypura_bench_plan_cell(bench *b, int index, hypura_error *error);

/* One after the other: of two things that did not go as asked for both are told. */
void hypura_bench_note(hypura_bench_series *told, const char *what, const char *why);

/* ---- bench_metrics.c ----------------------------------------------------- */

/* values[HYPURA_N_METRICS]; NaN for what this sample does not tell. */
void hypura_bench_evaluate(const hypura_bench_sample *sample, double *values);

/* Over n values; those that are NaN do not count. Sorts values. */
hypura_spread hypura_bench_spread(double *values, uint32_t n);

/* What limits a series: "compute", "storage"; NULL when there is no bound. */
const char *hypura_bench_bound_by(const hypura_spread *metrics);

/* ---- bench_run.c --------------------------------------------------------- */

hypura_status hypura_bench_run(const hypura_bench_task *task, hypura_bench_sample *sample, hypura_error *error);

/* ---- bench_worker.c ------------------------------------------------------ */

/* Runs the task in a process that was started with this command, in a control
 * group of that limit (0: none). HYPURA_ERR_MEMORY when the process was killed,
 * as the kernel does with one that cannot stay within its limit;
 * HYPURA_ERR_UNSUPPORTED when the limit could not be set, before anything ran. */
hypura_status hypura_bench_run_apart(const hypura_bench_task *task, const char *const *command, uint64_t limit_bytes,
                                     hypura_progress_fn progress, void *progress_user, hypura_bench_sample *sample,
                                     hypura_error *error);

#endif
