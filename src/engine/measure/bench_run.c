/*
 * bench_run.c - one run in this process:
 *
 *     page cache dropped, model opened
 *       -> prefill -> cold window -> warm window -> closed, direct rate measured
 *
 * The drive is measured after the run and for a while before it counts: what it gives
 * at rest, out of its own memory or its allowance, is not what decoding could have had.
 *
 * What always holds: nothing but decoding happens between the two clock readings
 * of a window, and its statistics are of that time alone. All variants decode the
 * same tokens, whatever they put out.
 */
#include "engine/measure/bench.h"

#include "base/clock.h"
#include "base/status.h"
#include "engine/measure/replay.h"
#include "engine/measure/route.h"
#include "engine/measure/timeline.h"
#include "hw/modules.h"
#include "hw/probe.h"
#include "hw/since.h"
#include "os/confine.h"
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SETTLE_US 1000000u
#define SPAN_US   500000u

typedef struct run {
    hypura_model *model;
    hypura_route_forcing forcing; /* route NULL: none */
    uint32_t n_sequences;         /* decoded together */
    uint32_t n_each;              /* tokens of a sequence: prompt, then both windows */
    llama_token *tokens;          /* of one sequence after the other */
    struct llama_batch batch;     /* room for a ubatch */
    hypura_timeline *timeline;    /* NULL: none */
    uint32_t done;                /* of each sequence */
} run;

static double cpu_seconds(void)
{
    struct timespec spent;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    return (double)spent.tv_sec + (double)spent.tv_nsec * 1e-9;
}

/* From where one sequence is on the route to where the next one is. */
static uint64_t route_stride(const run *r)
{
    uint32_t n_tokens = 0;
    uint32_t n_layers;
    uint32_t n_experts;
    if (r->forcing.route) {
        hypura_route_sizes(r->forcing.route, &n_tokens, &n_layers, &n_experts);
    }
    return n_tokens > r->n_sequences ? n_tokens / r->n_sequences : 1;
}

static void add_token(run *r, uint32_t sequence, uint32_t position, bool with_logits)
{
    struct llama_batch *batch = &r->batch;
    const int32_t i = batch->n_tokens++;
    batch->token[i] = r->tokens[(size_t)sequence * r->n_each + position];
    batch->pos[i] = (llama_pos)position;
    batch->n_seq_id[i] = 1;
    batch->seq_id[i][0] = (llama_seq_id)sequence;
    batch->logits[i] = with_logits;
}

static hypura_status decode_batch(run *r, uint64_t position, uint64_t stride, bool last, hypura_error *error)
{
    r->forcing.position = position;
    r->forcing.stride = stride;
    r->forcing.n_tokens = (uint64_t)r->batch.n_tokens;
    if (r->timeline) {
        hypura_timeline_begin(r->timeline);
    }
    return hypura_model_decode_batch(r->model, &r->batch, last, error);
}

/* The n tokens of a sequence that come next, up to step of them at a time. */
static hypura_status decode_prompt(run *r, uint32_t sequence, uint32_t n, uint32_t step, hypura_error *error)
{
    hypura_status status = HYPURA_OK;
    for (uint32_t i = 0; i < n && status == HYPURA_OK; i += (uint32_t)r->batch.n_tokens) {
        const uint32_t piece = n - i < step ? n - i : step;
        r->batch.n_tokens = 0;
        for (uint32_t t = 0; t < piece; t++) {
            add_token(r, sequence, r->done + i + t, t + 1 == piece);
        }
        status = decode_batch(r, sequence * route_stride(r) + r->done + i, 1, i + piece == n, error);
    }
    return status;
}

/* The n tokens of every sequence that come next, one of each at a time. */
static hypura_status decode_together(run *r, uint32_t n, hypura_error *error)
{
    hypura_status status = HYPURA_OK;
    for (uint32_t i = 0; i < n && status == HYPURA_OK; i++) {
        r->batch.n_tokens = 0;
        for (uint32_t s = 0; s < r->n_sequences; s++) {
            add_token(r, s, r->done + i, true);
        }
        status = decode_batch(r, r->done + i, route_stride(r), true, error);
    }
    return status;
}

/* Decodes n tokens of each sequence, those of a prompt up to step at a time (0: of all sequences together), and tells
 * what that took. */
static hypura_status decode_window(run *r, uint32_t n, uint32_t step, hypura_bench_window *window, hypura_error *error)
{
    hypura_status status = HYPURA_OK;
    uint64_t drive_begin = 0;
    uint64_t drive_end = 0;
    window->n_tokens = n * r->n_sequences;
    hypura_model_reset_statistics(r->model);
    const bool drive_known = hypura_os_drive_bytes(&drive_begin);
    const double cpu_begin = cpu_seconds();
    const hypura_since before = hypura_since_look(hypura_os_others_us);
    const uint64_t begin_us = hypura_clock_us();
    if (step == 0) {
        status = decode_together(r, n, error);
    }
    for (uint32_t s = 0; step > 0 && s < r->n_sequences && status == HYPURA_OK; s++) {
        status = decode_prompt(r, s, n, step, error);
    }
    r->done += n;
    window->seconds = (double)(hypura_clock_us() - begin_us) * 1e-6;
    window->others = hypura_since_others(&before);
    window->cpu_seconds = cpu_seconds() - cpu_begin;
    if (drive_known && hypura_os_drive_bytes(&drive_end)) {
        window->drive_bytes = drive_end - drive_begin;
    }
    hypura_model_statistics(r->model, &window->statistics);
    return status;
}

static hypura_status decode_all(run *r, const hypura_bench_task *task, hypura_bench_sample *sample, hypura_error *error)
{
    const hypura_model *model = r->model;
    const size_t n_vocab = (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model->llama));
    if (!llama_get_memory(model->ctx) || llama_model_has_encoder(model->llama)) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "%s does not decode token by token: there is nothing to measure", task->path);
    }
    const uint32_t n_ubatch = model->prepared.context.n_ubatch;
    r->n_each = task->n_prompt + 2 * task->n_tokens;
    const uint32_t n = r->n_each * r->n_sequences;
    r->tokens = malloc((size_t)n * sizeof(*r->tokens));
    r->batch = llama_batch_init((int32_t)n_ubatch, 0, 1);
    if (!r->tokens || n_vocab == 0) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %u tokens of a vocabulary of %zu", n, n_vocab);
    }
    hypura_replay_fill(r->tokens, n, n_vocab);
    hypura_status status = HYPURA_OK;
    for (uint32_t i = 0; i < task->n_warm_ups && status == HYPURA_OK; i++) {
        status = decode_window(r, task->n_prompt, n_ubatch, &sample->prefill, error);
        (void)hypura_shim_forget(model->ctx);
        sample->prefill = (hypura_bench_window){.n_tokens = 0};
        r->done = 0;
    }
    if (status == HYPURA_OK) {
        status = decode_window(r, task->n_prompt, n_ubatch, &sample->prefill, error);
    }
    if (status == HYPURA_OK) {
        status = decode_window(r, task->n_tokens, 0, &sample->cold, error);
    }
    if (status == HYPURA_OK) {
        status = decode_window(r, task->n_tokens, 0, &sample->warm, error);
        hypura_model_layer_hits(r->model, sample->layers, HYPURA_MAX_BENCH_LAYERS);
    }
    if (status == HYPURA_OK && r->timeline) {
        status = hypura_timeline_write(r->timeline, task->timeline, error);
    }
    if (status == HYPURA_OK && r->forcing.route && r->forcing.n_forced == 0) {
        status = hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                             "%s has no router whose selection could be overwritten: measure it without a route",
                             task->path);
    }
    sample->paged = model->pager != NULL;
    return status;
}

/* What the drive of a paged run is measured with: the blocks and the depth of its plan. */
typedef struct drive {
    bool paged;
    bool over_gpu;
    double upload_bytes_per_s;
    char path[HYPURA_BENCH_PATH];
    char io_engine[16];
    uint64_t block_bytes;
    uint32_t depth;
} drive;

/* Of all links together. A profile has each GPU once, under the name that the first of its drivers has for it. */
static double uploads_of(const hypura_profile *profile, const hypura_load_gpu *gpus)
{
    double bytes_per_s = 0.0;
    for (int g = 0; g < gpus->n_here; g++) {
        const char *listed = ggml_backend_dev_name(hypura_modules_first_of(gpus->devices[g]));
        for (int i = 0; i < profile->n_devices; i++) {
            const hypura_device *device = &profile->devices[i];
            bytes_per_s += strcmp(device->name, listed) == 0 ? device->upload_bytes_per_s : 0.0;
        }
    }
    return bytes_per_s;
}

static hypura_status find_drive(const hypura_bench_task *task, const hypura_model_options *options, drive *d,
                                hypura_error *error)
{
    hypura_preparation prepared;
    hypura_status status = hypura_prepare_sequences(options, &task->profile, task->n_parallel, &prepared, error);
    if (status != HYPURA_OK) {
        return status;
    }
    d->over_gpu = prepared.plan->n_vram_pools > 0;
    d->upload_bytes_per_s = uploads_of(&task->profile, &prepared.gpus);
    d->paged = prepared.plan->mode != HYPURA_MODE_RESIDENT;
    d->block_bytes = prepared.plan->io_block_bytes;
    d->depth = prepared.plan->io_depth;
    snprintf(d->path, sizeof(d->path), "%s", prepared.map->files[0]);
    snprintf(d->io_engine, sizeof(d->io_engine), "%s", prepared.io_engine);
    hypura_prepare_clear(&prepared);
    return HYPURA_OK;
}

static hypura_status measure_drive(const hypura_bench_task *task, const drive *d, hypura_bench_sample *sample,
                                   hypura_error *error)
{
    const hypura_probe_rate_options probe = {.path = d->path,
                                             .io_engine = d->io_engine[0] ? d->io_engine : NULL,
                                             .block_bytes = d->block_bytes,
                                             .depth = d->depth,
                                             .settle_us = SETTLE_US,
                                             .span_us = SPAN_US,
                                             .limit_bytes_per_s = task->io_limit_bytes_per_s};
    return hypura_probe_rate(&probe, &sample->direct_bytes_per_s, error);
}

static hypura_status drop_files(const char *path, hypura_error *error)
{
    hypura_map *map = NULL;
    hypura_status status = hypura_map_open(path, &map, error);
    for (int i = 0; status == HYPURA_OK && i < map->n_files; i++) {
        hypura_os_cache_drop(map->files[i]);
    }
    hypura_map_close(map);
    return status;
}

static hypura_status watch(run *r, hypura_error *error)
{
    r->timeline = calloc(1, sizeof(*r->timeline));
    if (!r->timeline) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %d stretches of a time line",
                           HYPURA_TIMELINE_SPANS);
    }
    for (int g = 0; g < r->model->gpus.n; g++) {
        hypura_gpu_set_watch(r->model->gpus.list[g], hypura_timeline_note, r->timeline);
    }
    return HYPURA_OK;
}

/* adapters: room for those of the task, which the options point to. */
static hypura_model_options options_of(const hypura_bench_task *task, hypura_adapter *adapters)
{
    hypura_model_options options = {.path = task->path,
                                    .adapters = adapters,
                                    .n_adapters = task->n_adapters,
                                    .memory_bytes = task->memory_bytes,
                                    .weights_bytes = task->weights_bytes,
                                    .n_context = task->n_prompt + 2 * task->n_tokens,
                                    .n_ubatch = task->n_ubatch,
                                    .kv_cache = {.type_k = task->type_k[0] ? task->type_k : NULL,
                                                 .type_v = task->type_v[0] ? task->type_v : NULL},
                                    .n_threads = task->n_threads,
                                    .force_paging = task->force_paging,
                                    .plain = task->plain,
                                    .gpu = task->gpu[0] ? task->gpu : NULL,
                                    .rpc = task->rpc[0] ? task->rpc : NULL,
                                    .rpc_bytes = task->rpc_bytes,
                                    .n_gpu_layers = task->n_gpu_layers,
                                    .vram_bytes = task->vram_bytes,
                                    .io_engine = task->io_engine[0] ? task->io_engine : NULL,
                                    .io_limit_bytes_per_s = task->io_limit_bytes_per_s,
                                    .foresight = task->foresight,
                                    .gpu_misses = task->gpu_misses};
    for (int i = 0; i < task->n_adapters; i++) {
        adapters[i] = (hypura_adapter){.path = task->adapters[i], .scale = task->adapter_scales[i]};
    }
    hypura_prepare_in_form(&options, task->form);
    memcpy(options.gpu_vram_bytes, task->gpu_vram_bytes, sizeof(options.gpu_vram_bytes));
    return options;
}

hypura_status hypura_bench_run(const hypura_bench_task *task, hypura_bench_sample *sample, hypura_error *error)
{
    run r = {.n_sequences = task->n_parallel};
    hypura_route *route = NULL;
    drive d = {.paged = false};
    hypura_adapter adapters[HYPURA_MAX_ADAPTERS];
    const hypura_model_options options = options_of(task, adapters);
    hypura_model_extras extras = {.profile = &task->profile, .n_sequences = task->n_parallel};
    *sample = (hypura_bench_sample){.paged = false};
    hypura_error_clear(error);

    hypura_status status = task->drop_cache ? drop_files(task->path, error) : HYPURA_OK;
    if (status == HYPURA_OK && task->route[0]) {
        status = hypura_route_open(task->route, &route, error);
        extras.on_node = hypura_route_force;
        extras.on_node_user = &r.forcing;
        r.forcing.recall = task->route_recall;
        extras.foretell = task->route_recall > 0 ? hypura_route_foretell : NULL;
        extras.foretell_user = &r.forcing;
    }
    if (status == HYPURA_OK && !task->plain) {
        status = find_drive(task, &options, &d, error);
    }
    sample->upload_bytes_per_s = d.upload_bytes_per_s;
    if (d.over_gpu) {
        extras.on_node = NULL; /* forced where selections pass anyway, see below */
    }
    if (status == HYPURA_OK) {
        status = hypura_model_open_with(&options, &extras, &r.model, error);
    }
    if (status == HYPURA_OK) {
        r.forcing.route = route;
        r.forcing.n_experts = (uint32_t)hypura_model_map(r.model)->n_experts;
        for (int g = 0; route && g < r.model->gpus.n; g++) {
            hypura_gpu_set_select(r.model->gpus.list[g], hypura_route_select, &r.forcing);
        }
        status = task->timeline[0] && r.model->gpus.n > 0 ? watch(&r, error) : HYPURA_OK;
        status = status == HYPURA_OK ? decode_all(&r, task, sample, error) : status;
    }
    sample->peak_rss_bytes = hypura_os_peak_rss_bytes();
    hypura_model_close(r.model);
    hypura_route_close(route);
    free(r.tokens);
    llama_batch_free(r.batch);
    free(r.timeline);
    if (status == HYPURA_OK && d.paged) {
        status = measure_drive(task, &d, sample, error);
    }
    return status;
}
