/*
 * bench.c - cells, rounds and series.
 *
 *     for each cell:   plan it
 *       for each round:   each series once, in the other order than the round before
 *
 * A series is a variant of a cell: Hypura at its limit, plain libllama at the same
 * limit. So drift of the machine falls on all series of a cell alike, and ratios
 * are taken within a round.
 *
 * What always holds: the read-ahead of the drive is what it was found to be,
 * except while a run that asks for another one is under way.
 */
#include "engine/measure/bench.h"

#include "base/status.h"
#include "engine/measure/route.h"
#include "engine/prepare/estimate.h"
#include "engine/prepare/experience.h"
#include "engine/prepare/idle.h"
#include "os/confine.h"
#include "os/os.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEFAULT_TOKENS = 64,
    DEFAULT_PROMPT = 512,
    DEFAULT_RUNS = 3,
    MAX_RUNS = 1000,
    MAX_PARALLEL = 256, /* libllama's own limit on sequences */
    MAX_TOKENS = 1 << 24,
    SMALL_READ_AHEAD_KB = 128, /* the kernel's own default, and what random faults want */
};

#define FETCHED_BYTES (UINT64_C(256) << 20) /* of memory, between two looks at whether the bench is stopped */

/* What a series does; its figures go to the report. */
typedef struct series {
    hypura_bench_task task;
    uint64_t limit_bytes;       /* of memory, by a control group */
    uint32_t set_read_ahead_kb; /* 0: as found */
    bool failed;
} series;

typedef struct bench {
    const hypura_bench_options *options;
    hypura_bench_report *report;
    int n_cells;                      /* to be measured */
    uint32_t read_ahead_kb;           /* as found; 0: not known */
    series series[HYPURA_MAX_SERIES]; /* of the cell at hand */
    double *values;                   /* [series][metric][run]; NaN where a run failed */
    uint64_t done;                    /* runs, for progress */
    uint64_t total;
} bench;

static double *value_of(const bench *b, int s, int metric, uint32_t run)
{
    return &b->values[((size_t)s * HYPURA_N_METRICS + (size_t)metric) * b->report->runs + run];
}

/* ---- one run ------------------------------------------------------------- */

static bool forward_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    const bench *b = user;
    (void)done;
    (void)total;
    return !b->options->model.progress || b->options->model.progress(b->options->model.progress_user, what, b->done, b->total);
}

/* Virtual machines may give memory that nobody uses back to their host, and taking it anew can
 * be slower than reading a model. A run, of whichever program, finds as much of it as it may
 * take: touched a moment ago, by this process, which holds none of it any more. */
static void fetch_memory(bench *b, uint64_t bytes)
{
    hypura_os_memory now;
    hypura_error ignored;
    if (hypura_os_memory_read(&now, &ignored) != HYPURA_OK || now.available_bytes / 4 * 3 < bytes) {
        return; /* it would push others out */
    }
    char *memory = hypura_os_memory_map((size_t)bytes, HYPURA_OS_MAP_HUGE | HYPURA_OS_MAP_NORESERVE);
    for (uint64_t at = 0; memory && at < bytes && forward_progress(b, "measuring", 0, 0); at += FETCHED_BYTES) {
        (void)hypura_os_memory_populate(memory + at, (size_t)(bytes - at < FETCHED_BYTES ? bytes - at : FETCHED_BYTES));
    }
    hypura_os_memory_unmap(memory, (size_t)bytes);
}

static hypura_status run_task(bench *b, const series *s, uint64_t memory_bytes, hypura_bench_sample *sample,
                              hypura_error *error)
{
    if (!forward_progress(b, "measuring", 0, 0)) {
        return hypura_fail(error, HYPURA_ERR_CANCELLED, "the bench was stopped");
    }
    if (!b->options->worker) {
        return hypura_bench_run(&s->task, sample, error);
    }
    fetch_memory(b, memory_bytes);
    return hypura_bench_run_apart(&s->task, b->options->worker, s->limit_bytes, forward_progress, b, sample, error);
}

/* One after the other: of two things that did not go as asked for both are told. */
static void add_note(hypura_bench_series *told, const char *what, const char *why)
{
    const size_t used = strlen(told->note);
    (void)snprintf(told->note + used, sizeof(told->note) - used, "%s%s%s", used > 0 ? "; " : "", what, why);
}

static void add_hits(hypura_layer_hits *sum, const hypura_layer_hits *hits)
{
    sum->bytes_needed += hits->bytes_needed;
    sum->bytes_hit += hits->bytes_hit;
    sum->vram_bytes_needed += hits->vram_bytes_needed;
    sum->vram_bytes_hit += hits->vram_bytes_hit;
}

/* A failed baseline is an outcome, told in its note; anything else ends the bench. */
static hypura_status run_series(bench *b, hypura_bench_cell *cell, int index, uint32_t round, hypura_error *error)
{
    series *s = &b->series[index];
    hypura_bench_series *told = &cell->series[index];
    hypura_bench_sample sample;
    hypura_status status = HYPURA_OK;
    if (s->failed) {
        return HYPURA_OK;
    }
    if (s->set_read_ahead_kb > 0) {
        status = hypura_os_read_ahead_set(s->task.path, s->set_read_ahead_kb, error);
    }
    if (status == HYPURA_OK) {
        status = run_task(b, s, cell->memory_bytes, &sample, error);
    }
    if (s->set_read_ahead_kb > 0) {
        hypura_error ignored;
        (void)hypura_os_read_ahead_set(s->task.path, b->read_ahead_kb, &ignored);
    }
    b->done++;
    if (status == HYPURA_OK) {
        double values[HYPURA_N_METRICS];
        hypura_bench_evaluate(&sample, values);
        for (int m = 0; m < HYPURA_N_METRICS; m++) {
            *value_of(b, index, m, round) = values[m];
        }
        for (int l = 0; l < HYPURA_MAX_BENCH_LAYERS; l++) {
            add_hits(&told->layers[l], &sample.layers[l]);
        }
        told->n_runs++;
    } else if (s->task.plain && status == HYPURA_ERR_UNSUPPORTED && s->limit_bytes > 0) {
        /* Refused before it ran: it runs without a limit, and says so. */
        add_note(told, "no limit: ", error->message);
        s->limit_bytes = told->limit_bytes = 0;
        b->done--;
        return run_series(b, cell, index, round, error);
    } else if (s->task.plain && index > 0 && status != HYPURA_ERR_CANCELLED) {
        add_note(told, "", error->message);
        s->failed = true;
        status = HYPURA_OK;
    } else {
        hypura_fail_prefix(error, "%s at %llu bytes of weights", told->label, (unsigned long long)cell->weights_bytes);
        return status;
    }
    hypura_error_clear(error);
    return status;
}

/* ---- a cell -------------------------------------------------------------- */

static hypura_spread ratios(const bench *b, int baseline, int metric)
{
    const uint32_t runs = b->report->runs;
    double *quotients = value_of(b, HYPURA_MAX_SERIES, metric, 0); /* scratch behind the last series */
    for (uint32_t r = 0; r < runs; r++) {
        quotients[r] = *value_of(b, 0, metric, r) / *value_of(b, baseline, metric, r);
    }
    return hypura_bench_spread(quotients, runs);
}

/* What Hypura is compared with is the best that llama.cpp has for this metric: a read-ahead that suits decoding may be ten times
 * too small for prompts. -1: no series of llama.cpp's has it. */
static int compare(const bench *b, const hypura_bench_cell *cell, int metric, hypura_spread *ratio)
{
    int best = -1;
    for (int i = 1; i < cell->n_series; i++) {
        const double median = cell->series[i].metrics[metric].median;
        if (median > 0.0 && (best < 0 || median > cell->series[best].metrics[metric].median)) {
            best = i;
        }
    }
    *ratio = best > 0 ? ratios(b, best, metric) : (hypura_spread){NAN, NAN, NAN};
    return best;
}

static void conclude(bench *b, hypura_bench_cell *cell)
{
    double *scratch = value_of(b, HYPURA_MAX_SERIES, 0, 0);
    for (int i = 0; i < cell->n_series; i++) {
        hypura_bench_series *told = &cell->series[i];
        for (int m = 0; m < HYPURA_N_METRICS; m++) {
            memcpy(scratch, value_of(b, i, m, 0), b->report->runs * sizeof(*scratch));
            told->metrics[m] = hypura_bench_spread(scratch, b->report->runs);
        }
        told->bound_by = hypura_bench_bound_by(told->metrics);
    }
    cell->decode_baseline = compare(b, cell, HYPURA_METRIC_DECODE_TOK_S, &cell->decode_ratio);
    cell->prefill_baseline = compare(b, cell, HYPURA_METRIC_PREFILL_TOK_S, &cell->prefill_ratio);
}

/* The forecast of later runs rests on what Hypura's series came to. What guesses that nobody made spared teaches nothing,
 * and it is of one sequence. */
static void learn(const bench *b, const hypura_bench_cell *cell)
{
    if (b->options->route_recall > 0 || b->report->parallel > 1) {
        return;
    }
    const hypura_spread *metrics = cell->series[0].metrics;
    const double limit = (double)b->report->io_limit_bytes_per_s;
    const double direct = b->report->profile.direct_bytes_per_s;
    const bool paged = !isnan(metrics[HYPURA_METRIC_READ_WAIT_S].median);
    const hypura_run_costs costs = {
        .held_bytes = cell->plan.weights_bytes,
        .seconds = 1.0 / metrics[HYPURA_METRIC_DECODE_TOK_S].median,
        .read_wait_s = paged ? metrics[HYPURA_METRIC_READ_WAIT_S].median : 0.0,
        .read_bytes = paged ? metrics[HYPURA_METRIC_BYTES_PER_TOKEN].median : 0.0,
        .others = metrics[HYPURA_METRIC_OTHERS].median,
    };
    hypura_map *map = NULL;
    hypura_error ignored;
    if (hypura_map_open(b->options->model.path, &map, &ignored) == HYPURA_OK) {
        hypura_experience_add(b->options->model.cache_dir, map, &cell->plan, b->report->n_threads,
                              cell->series[0].form, limit > 0.0 && limit < direct ? limit : direct, &costs);
    }
    hypura_map_close(map);
}

static hypura_status run_cell(bench *b, hypura_bench_cell *cell, hypura_error *error)
{
    const uint32_t runs = b->report->runs;
    const size_t n_values = (size_t)(HYPURA_MAX_SERIES + 1) * HYPURA_N_METRICS * runs;
    for (size_t i = 0; i < n_values; i++) {
        b->values[i] = NAN;
    }
    for (int i = 0; i < cell->n_series; i++) { /* a process that runs several was told when it began */
        cell->series[i].waits_longer = b->options->worker && b->series[i].task.waits_longer && !b->series[i].task.plain;
    }
    hypura_status status = HYPURA_OK;
    for (uint32_t round = 0; round < runs && status == HYPURA_OK; round++) {
        for (int i = 0; i < cell->n_series && status == HYPURA_OK; i++) {
            const int index = round % 2 == 0 ? i : cell->n_series - 1 - i;
            status = run_series(b, cell, index, round, error);
        }
    }
    if (status == HYPURA_OK) {
        conclude(b, cell);
        learn(b, cell);
    }
    return status;
}

/* ---- what to run --------------------------------------------------------- */

static hypura_bench_task base_task(const bench *b)
{
    const hypura_bench_options *o = b->options;
    hypura_bench_task task = {.io_limit_bytes_per_s = o->model.io_limit_bytes_per_s,
                              .foresight = o->model.foresight,
                              .gpu_misses = o->model.gpu_misses,
                              .route_recall = o->route_recall,
                              .n_parallel = b->report->parallel,
                              .n_prompt = b->report->prompt_tokens,
                              .n_ubatch = b->report->ubatch,
                              .n_tokens = b->report->tokens,
                              .n_threads = b->report->n_threads,
                              .drop_cache = true,
                              .profile = b->report->profile};
    snprintf(task.path, sizeof(task.path), "%s", o->model.path);
    snprintf(task.route, sizeof(task.route), "%s", o->route ? o->route : "");
    snprintf(task.timeline, sizeof(task.timeline), "%s", o->timeline ? o->timeline : "");
    snprintf(task.io_engine, sizeof(task.io_engine), "%s", o->model.io_engine ? o->model.io_engine : "");
    snprintf(task.gpu, sizeof(task.gpu), "%s", o->model.gpu ? o->model.gpu : "");
    snprintf(task.rpc, sizeof(task.rpc), "%s", o->model.rpc ? o->model.rpc : "");
    task.rpc_bytes = o->model.rpc_bytes;
    for (int i = 0; i < o->model.n_adapters; i++) {
        snprintf(task.adapters[i], sizeof(task.adapters[i]), "%s", o->model.adapters[i].path);
        task.adapter_scales[i] = o->model.adapters[i].scale;
    }
    task.n_adapters = o->model.n_adapters;
    snprintf(task.type_k, sizeof(task.type_k), "%s", o->model.kv_cache.type_k ? o->model.kv_cache.type_k : "");
    snprintf(task.type_v, sizeof(task.type_v), "%s", o->model.kv_cache.type_v ? o->model.kv_cache.type_v : "");
    return task;
}

static series *add_series(bench *b, hypura_bench_cell *cell, const char *label, hypura_form form)
{
    hypura_bench_series *told = &cell->series[cell->n_series];
    series *s = &b->series[cell->n_series++];
    *s = (series){.task = base_task(b)};
    s->task.form = form;
    s->task.waits_longer = s->task.gpu_misses == HYPURA_GPU_MISSES_CPU ||
                           hypura_plan_computes_alone(&cell->plan, b->report->profile.n_cpus);
    *told = (hypura_bench_series){.read_ahead_kb = b->read_ahead_kb, .form = form};
    snprintf(told->label, sizeof(told->label), "%s", label);
    return s;
}

/* Over a GPU the first prompt has its driver's first use in it, and the host's part of the weights is read; with the second
 * one CUDA's backend records the graph, which takes a sixth of such a prompt, and is done once. */
#define GPU_WARM_UPS 2

static uint32_t warm_ups(const hypura_bench_cell *cell, uint32_t elsewhere)
{
    return cell->plan.gpu[0] != '\0' ? GPU_WARM_UPS : elsewhere;
}

/* On another machine plain llama.cpp gets the same layers: it knows no limit there. 0: all that GPUs here take. */
static int plain_layers(const hypura_bench_cell *cell)
{
    return cell->plan.n_gpus > 0 && cell->plan.gpus[0].remote ? cell->plan.n_gpu_layers : 0;
}

static void add_baselines(bench *b, hypura_bench_cell *cell)
{
    const bool limited = b->options->n_memory > 0 || b->options->n_weights > 0 || b->options->n_vram > 0;
    const uint64_t limit_bytes = limited ? cell->memory_bytes : 0;
    /* Repacked weights are a copy in memory that cannot be dropped: a stock program
     * that is short of memory has to do without. */
    const bool fits = limit_bytes == 0 || cell->weights_bytes >= b->report->model_bytes;
    static const char *const labels[] = {"llama.cpp, read-ahead as found", "llama.cpp, read-ahead 128 KiB"};
    const int n = b->read_ahead_kb == SMALL_READ_AHEAD_KB || !limited ? 1 : 2;
    for (int i = 0; i < n; i++) {
        series *s = add_series(b, cell, labels[i], fits ? HYPURA_FORM_REPACKED : HYPURA_FORM_FILE);
        hypura_bench_series *told = &cell->series[cell->n_series - 1];
        hypura_error refused;
        s->task.plain = true;
        s->task.n_gpu_layers = plain_layers(cell);
        s->task.n_warm_ups = warm_ups(cell, 0);
        s->limit_bytes = b->options->worker ? limit_bytes : 0;
        told->limit_bytes = s->limit_bytes;
        if (limited && !b->options->worker) {
            add_note(told, "no limit: ", "it ran in the process of the caller");
        }
        if (i > 0) {
            s->set_read_ahead_kb = SMALL_READ_AHEAD_KB;
            told->read_ahead_kb = SMALL_READ_AHEAD_KB;
            /* Tried now and put back, so that a refusal is told and not met in a round. */
            if (b->read_ahead_kb == 0 ||
                hypura_os_read_ahead_set(s->task.path, b->read_ahead_kb, &refused) != HYPURA_OK) {
                cell->n_series--;
                add_note(&cell->series[1], "read-ahead as found alone: ",
                         b->read_ahead_kb == 0 ? "the drive's is not known" : "it may not be changed here");
                b->total -= b->report->runs;
            }
        }
    }
}

/* limits: the model of all series, with those of the cell. In silence. */
static hypura_status plan_cell(bench *b, hypura_bench_cell *cell, const hypura_model_options *limits,
                               hypura_error *error)
{
    hypura_preparation prepared;
    hypura_model_options wanted = *limits;
    wanted.progress = NULL;
    wanted.n_context = b->report->prompt_tokens + 2 * b->report->tokens;
    hypura_status status = hypura_prepare_sequences(&wanted, &b->report->profile, b->report->parallel, &prepared, error);
    if (status != HYPURA_OK) {
        return status;
    }
    cell->plan = *prepared.plan;
    cell->plan.placements = NULL;
    cell->plan.order = NULL;
    cell->plan.n_placements = 0;
    cell->weights_bytes = limits->weights_bytes > 0 ? limits->weights_bytes : prepared.plan->weights_bytes;
    cell->memory_bytes = limits->memory_bytes > 0 ? limits->memory_bytes
                                                  : cell->weights_bytes + prepared.plan->kv_bytes +
                                                        prepared.plan->compute_bytes + prepared.plan->overhead_bytes;
    b->report->n_threads = prepared.context.n_threads;
    b->report->ubatch = prepared.context.n_ubatch;
    b->report->model_bytes = prepared.map->tensor_bytes;
    snprintf(b->report->model, sizeof(b->report->model), "%s", prepared.map->name);
    hypura_prepare_clear(&prepared);
    return HYPURA_OK;
}

/* Plans the cell, and refuses what cannot be measured in it. */
static hypura_status plan_limited(bench *b, hypura_bench_cell *cell, const hypura_model_options *limits,
                                  hypura_error *error)
{
    const hypura_bench_options *o = b->options;
    hypura_status status = plan_cell(b, cell, limits, error);
    if (status == HYPURA_OK && o->n_vram > 0 && cell->plan.gpu[0] == '\0') {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "a limit on GPU memory, and no GPU computes here");
    }
    if (status == HYPURA_OK && o->timeline && cell->plan.gpu[0] == '\0') {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "a time line is of a GPU, and none computes here");
    }
    return status;
}

static hypura_status limited_cell(bench *b, hypura_bench_cell *cell, const hypura_model_options *limits,
                                  hypura_error *error)
{
    hypura_status status = plan_limited(b, cell, limits, error);
    if (status != HYPURA_OK) {
        return status;
    }
    series *s = add_series(b, cell, "hypura", cell->plan.form);
    s->task.memory_bytes = limits->memory_bytes;
    s->task.weights_bytes = limits->weights_bytes;
    s->task.vram_bytes = limits->vram_bytes;
    memcpy(s->task.gpu_vram_bytes, limits->gpu_vram_bytes, sizeof(s->task.gpu_vram_bytes));
    s->task.n_warm_ups = warm_ups(cell, 0);
    if (b->options->baseline) {
        add_baselines(b, cell);
    }
    return run_cell(b, cell, error);
}

/* Paged false: Hypura out of the path against stock. True: everything goes through
 * the pager and hits, against libllama with weights in the file's own layout. */
static hypura_status resident_cell(bench *b, hypura_bench_cell *cell, bool paged, hypura_error *error)
{
    const uint64_t everything = UINT64_C(1) << 60;
    const hypura_form form = paged ? HYPURA_FORM_FILE : HYPURA_FORM_REPACKED;
    hypura_model_options limits = b->options->model;
    limits.weights_bytes = everything;
    limits.force_paging = paged;
    hypura_status status = plan_cell(b, cell, &limits, error);
    if (status != HYPURA_OK) {
        return status;
    }
    cell->memory_bytes -= cell->weights_bytes - cell->plan.weights_bytes;
    cell->weights_bytes = cell->plan.weights_bytes;
    series *s = add_series(b, cell, paged ? "hypura, all in its pools" : "hypura, resident", form);
    s->task.weights_bytes = everything;
    s->task.force_paging = paged;
    s->task.drop_cache = false;
    s->task.n_warm_ups = warm_ups(cell, 1);
    s = add_series(b, cell, paged ? "llama.cpp without repacking" : "llama.cpp", form);
    s->task.plain = true;
    s->task.n_gpu_layers = plain_layers(cell);
    s->task.drop_cache = false;
    s->task.n_warm_ups = warm_ups(cell, 1);
    return run_cell(b, cell, error);
}

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value > 0 ? value : otherwise;
}

static hypura_status prepare(bench *b, hypura_error *error)
{
    const hypura_bench_options *o = b->options;
    hypura_bench_report *r = b->report;
    const bool limited = o->n_memory > 0 || o->n_weights > 0 || o->n_vram > 0;
    r->tokens = or_default(o->tokens, DEFAULT_TOKENS);
    r->prompt_tokens = or_default(o->prompt_tokens, DEFAULT_PROMPT);
    r->parallel = or_default(o->parallel, 1);
    r->runs = or_default(o->runs, DEFAULT_RUNS);
    r->ubatch = o->model.n_ubatch;
    r->n_threads = o->model.n_threads;
    r->io_limit_bytes_per_s = o->model.io_limit_bytes_per_s;
    r->route = o->route != NULL;
    r->route_recall = o->route_recall;
    if (!o->model.path || strlen(o->model.path) >= HYPURA_BENCH_PATH || (o->route && strlen(o->route) >= HYPURA_BENCH_PATH) ||
        (o->timeline && strlen(o->timeline) >= HYPURA_BENCH_PATH)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "no model was named, or a path is too long");
    }
    if (r->tokens > MAX_TOKENS || r->prompt_tokens > MAX_TOKENS || r->runs > MAX_RUNS) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%u tokens after a prompt of %u, %u times, is out of range",
                           r->tokens, r->prompt_tokens, r->runs);
    }
    const uint32_t n_each = r->prompt_tokens + 2 * r->tokens;
    const uint32_t most = o->model.n_ubatch > 0 && o->model.n_ubatch < MAX_PARALLEL ? o->model.n_ubatch : MAX_PARALLEL;
    if (r->parallel > most || r->parallel > n_each) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "%u sequences cannot be decoded together: %u at most, in a ubatch of as many tokens, which is no "
                           "longer than the %u of a prompt and its windows",
                           r->parallel, MAX_PARALLEL, n_each);
    }
    if (o->route_recall != 0 && (!o->route || !(o->route_recall > 0 && o->route_recall <= 1))) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "the recall of a guess is above 0 and at most 1, and needs a route");
    }
    if (o->resident && (limited || o->baseline)) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "the comparison with everything resident has no limit and always a baseline");
    }
    const hypura_profile_options wanted = {.cache_dir = o->model.cache_dir,
                                           .storage_path = o->model.path,
                                           .gpu = o->model.gpu,
                                           .progress = o->model.progress,
                                           .progress_user = o->model.progress_user};
    hypura_status status = hypura_profile_get(&wanted, &r->profile, error);
    if (status != HYPURA_OK) {
        return status;
    }
    snprintf(r->io_engine, sizeof(r->io_engine), "%s", o->model.io_engine ? o->model.io_engine : r->profile.io_engine);
    hypura_error ignored;
    if (hypura_os_read_ahead_get(o->model.path, &b->read_ahead_kb, &ignored) != HYPURA_OK) {
        b->read_ahead_kb = 0;
    }
    const int n_host = o->n_memory + o->n_weights;
    b->n_cells = o->resident ? 2 : !limited ? 1 : (n_host > 0 ? n_host : 1) * (o->n_vram > 0 ? o->n_vram : 1);
    const uint64_t n_series = o->resident                                          ? 2
                              : !o->baseline                                       ? 1
                              : limited && b->read_ahead_kb != SMALL_READ_AHEAD_KB ? 3
                                                                                   : 2;
    b->total = (uint64_t)b->n_cells * n_series * r->runs;
    r->cells = calloc((size_t)b->n_cells, sizeof(*r->cells));
    b->values = calloc((size_t)(HYPURA_MAX_SERIES + 1) * HYPURA_N_METRICS * r->runs, sizeof(*b->values));
    return r->cells && b->values
               ? HYPURA_OK
               : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the figures of %d cells", b->n_cells);
}

/* Those of the host within those of the GPU. */
static hypura_model_options limits_of(const hypura_bench_options *o, int cell)
{
    const int n_host = o->n_memory + o->n_weights;
    const int h = n_host > 0 ? cell % n_host : 0;
    const int v = n_host > 0 ? cell / n_host : cell;
    hypura_model_options limits = o->model;
    limits.memory_bytes = h < o->n_memory ? o->memory_bytes[h] : 0;
    limits.weights_bytes = h >= o->n_memory && h < n_host ? o->weights_bytes[h - o->n_memory] : 0;
    limits.vram_bytes = v < o->n_vram ? o->vram_bytes[v] : 0;
    if (v < o->n_vram && o->gpu_vram_bytes) {
        memcpy(limits.gpu_vram_bytes, o->gpu_vram_bytes[v], sizeof(limits.gpu_vram_bytes));
    }
    return limits;
}

/* What cannot be measured is told before hours went into the cells before it. Each is planned anew when its turn
 * comes: those before it have taught something by then, and memory that is free may be another. */
static hypura_status check_cells(bench *b, hypura_error *error)
{
    const hypura_bench_options *o = b->options;
    hypura_status status = HYPURA_OK;
    if (o->route) {
        hypura_route *route = NULL;
        status = hypura_route_open(o->route, &route, error);
        hypura_route_close(route);
    }
    for (int i = 1; i < b->n_cells && !o->resident && status == HYPURA_OK; i++) {
        const hypura_model_options limits = limits_of(o, i);
        hypura_bench_cell cell;
        status = plan_limited(b, &cell, &limits, error);
    }
    return status;
}

static hypura_status run_cells(bench *b, hypura_error *error)
{
    hypura_bench_report *r = b->report;
    hypura_status status = check_cells(b, error);
    for (int i = 0; i < b->n_cells && status == HYPURA_OK; i++) {
        const hypura_model_options limits = limits_of(b->options, i);
        status = b->options->resident ? resident_cell(b, &r->cells[i], i > 0, error)
                                      : limited_cell(b, &r->cells[i], &limits, error);
        r->n_cells += status == HYPURA_OK;
    }
    return status;
}

hypura_status hypura_bench(const hypura_bench_options *options, hypura_bench_report *report, hypura_error *error)
{
    bench b = {.options = options, .report = report};
    hypura_error local;
    if (!error) {
        error = &local;
    }
    memset(report, 0, sizeof(*report));
    hypura_error_clear(error);
    hypura_status status = prepare(&b, error);
    if (status == HYPURA_OK) {
        status = run_cells(&b, error);
    }
    free(b.values);
    return status;
}

void hypura_bench_report_clear(hypura_bench_report *report)
{
    free(report->cells);
    memset(report, 0, sizeof(*report));
}
