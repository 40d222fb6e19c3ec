/*
 * bench_cells.c - what is measured: whether it can be, the plan of each cell, and what its series do.
 */
#include "engine/measure/bench.h"

#include "base/status.h"
#include "engine/measure/route.h"
#include "engine/prepare/estimate.h"
#include "engine/prepare/idle.h"
#include "os/confine.h"

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

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value > 0 ? value : otherwise;
}

static bool is_limited(const hypura_bench_options *o)
{
    return o->n_memory > 0 || o->n_weights > 0 || o->n_vram > 0;
}

static hypura_status check(const bench *b, hypura_error *error)
{
    const hypura_bench_options *o = b->options;
    const hypura_bench_report *r = b->report;
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
    if (o->resident && (is_limited(o) || o->baseline)) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "the comparison with everything resident has no limit and always a baseline");
    }
    return HYPURA_OK;
}

hypura_status hypura_bench_prepare(bench *b, hypura_error *error)
{
    const hypura_bench_options *o = b->options;
    hypura_bench_report *r = b->report;
    r->tokens = or_default(o->tokens, DEFAULT_TOKENS);
    r->prompt_tokens = or_default(o->prompt_tokens, DEFAULT_PROMPT);
    r->parallel = or_default(o->parallel, 1);
    r->runs = or_default(o->runs, DEFAULT_RUNS);
    r->ubatch = o->model.n_ubatch;
    r->n_threads = o->model.n_threads;
    r->io_limit_bytes_per_s = o->model.io_limit_bytes_per_s;
    r->route = o->route != NULL;
    r->route_recall = o->route_recall;
    hypura_status status = check(b, error);
    if (status != HYPURA_OK) {
        return status;
    }
    const hypura_profile_options wanted = {.cache_dir = o->model.cache_dir,
                                           .storage_path = o->model.path,
                                           .gpu = o->model.gpu,
                                           .progress = o->model.progress,
                                           .progress_user = o->model.progress_user};
    status = hypura_profile_get(&wanted, &r->profile, error);
    if (status != HYPURA_OK) {
        return status;
    }
    snprintf(r->io_engine, sizeof(r->io_engine), "%s", o->model.io_engine ? o->model.io_engine : r->profile.io_engine);
    hypura_error ignored;
    if (hypura_os_read_ahead_get(o->model.path, &b->read_ahead_kb, &ignored) != HYPURA_OK) {
        b->read_ahead_kb = 0;
    }
    const int n_host = o->n_memory + o->n_weights;
    b->n_cells = o->resident ? 2 : !is_limited(o) ? 1 : (n_host > 0 ? n_host : 1) * (o->n_vram > 0 ? o->n_vram : 1);
    const uint64_t n_baselines = is_limited(o) && b->read_ahead_kb != SMALL_READ_AHEAD_KB ? 2 : 1;
    const uint64_t n_series = o->resident ? 2 : !o->baseline ? 1 : 1 + n_baselines;
    b->total = (uint64_t)b->n_cells * n_series * r->runs;
    r->cells = calloc((size_t)b->n_cells, sizeof(*r->cells));
    b->values = calloc((size_t)(HYPURA_MAX_SERIES + 1) * HYPURA_N_METRICS * r->runs, sizeof(*b->values));
    return r->cells && b->values
               ? HYPURA_OK
               : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the figures of %d cells", b->n_cells);
}

void hypura_bench_note(hypura_bench_series *told, const char *what, const char *why)
{
    const size_t used = strlen(told->note);
    (void)snprintf(told->note + used, sizeof(told->note) - used, "%s%s%s", used > 0 ? "; " : "", what, why);
}

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

static bench_series *add_series(bench *b, hypura_bench_cell *cell, const char *label, hypura_form form)
{
    hypura_bench_series *told = &cell->series[cell->n_series];
    bench_series *s = &b->series[cell->n_series++];
    *s = (bench_series){.task = base_task(b)};
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
    const bool limited = is_limited(b->options);
    const uint64_t limit_bytes = limited ? cell->memory_bytes : 0;
    /* Repacked weights are a copy in memory that cannot be dropped: a stock program
     * that is short of memory has to do without. */
    const bool fits = limit_bytes == 0 || cell->weights_bytes >= b->report->model_bytes;
    static const char *const labels[] = {"llama.cpp, read-ahead as found", "llama.cpp, read-ahead 128 KiB"};
    const int n = b->read_ahead_kb == SMALL_READ_AHEAD_KB || !limited ? 1 : 2;
    for (int i = 0; i < n; i++) {
        bench_series *s = add_series(b, cell, labels[i], fits ? HYPURA_FORM_REPACKED : HYPURA_FORM_FILE);
        hypura_bench_series *told = &cell->series[cell->n_series - 1];
        hypura_error refused;
        s->task.plain = true;
        s->task.n_gpu_layers = plain_layers(cell);
        s->task.n_warm_ups = warm_ups(cell, 0);
        s->limit_bytes = b->options->worker ? limit_bytes : 0;
        told->limit_bytes = s->limit_bytes;
        if (limited && !b->options->worker) {
            hypura_bench_note(told, "no limit: ", "it ran in the process of the caller");
        }
        if (i > 0) {
            s->set_read_ahead_kb = SMALL_READ_AHEAD_KB;
            told->read_ahead_kb = SMALL_READ_AHEAD_KB;
            /* Tried now and put back, so that a refusal is told and not met in a round. */
            if (b->read_ahead_kb == 0 ||
                hypura_os_read_ahead_set(s->task.path, b->read_ahead_kb, &refused) != HYPURA_OK) {
                cell->n_series--;
                hypura_bench_note(&cell->series[1], "read-ahead as found alone: ",
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
    bench_series *s = add_series(b, cell, "hypura", cell->plan.form);
    s->task.memory_bytes = limits->memory_bytes;
    s->task.weights_bytes = limits->weights_bytes;
    s->task.vram_bytes = limits->vram_bytes;
    memcpy(s->task.gpu_vram_bytes, limits->gpu_vram_bytes, sizeof(s->task.gpu_vram_bytes));
    s->task.n_warm_ups = warm_ups(cell, 0);
    if (b->options->baseline) {
        add_baselines(b, cell);
    }
    return HYPURA_OK;
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
    bench_series *s = add_series(b, cell, paged ? "hypura, all in its pools" : "hypura, resident", form);
    s->task.weights_bytes = everything;
    s->task.force_paging = paged;
    s->task.drop_cache = false;
    s->task.n_warm_ups = warm_ups(cell, 1);
    s = add_series(b, cell, paged ? "llama.cpp without repacking" : "llama.cpp", form);
    s->task.plain = true;
    s->task.n_gpu_layers = plain_layers(cell);
    s->task.drop_cache = false;
    s->task.n_warm_ups = warm_ups(cell, 1);
    return HYPURA_OK;
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

/* Each is planned anew when its turn comes: those before it have taught something by then, and memory that is free may be
 * another. */
hypura_status hypura_bench_check_cells(bench *b, hypura_error *error)
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

hypura_status hypura_bench_plan_cell(bench *b, int index, hypura_error *error)
{
    hypura_bench_cell *cell = &b->report->cells[index];
    const hypura_model_options limits = limits_of(b->options, index);
    return b->options->resident ? resident_cell(b, cell, index > 0, error) : limited_cell(b, cell, &limits, error);
}
