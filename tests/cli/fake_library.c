/*
 * fake_library.c - hypura.h without models, drives or llama.cpp, so that the
 * program's own logic is tested: what it hands to the library, and what it makes
 * of every answer. The name of the model file chooses the behaviour of opening
 * it, the prompt that of answering; a file still has to exist.
 *
 *     stops.gguf    a bench of it is stopped after the first cell
 *     moe.gguf      works            slow.gguf    opening reports progress for 1.2 s
 *     broken.gguf   is no model      endless.gguf the same until it is told to stop
 *     differs.gguf  does not verify
 */
#include "hypura.h"
#include "hypura_server.h"

#include "base/size.h"
#include "base/status.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FLOOR_BYTES 1000000u

static const hypura_tensor tensors[] = {
    {"token_embd.weight", 2, "q4_0", 2, {64, 100, 1, 1}, HYPURA_ROLE_EMBEDDING, -1, -1, 0, 4096, 3600, 36, 0},
    {"blk.0.attn_q.weight", 2, "q4_0", 2, {64, 64, 1, 1}, HYPURA_ROLE_TRUNK, 0, -1, 0, 8192, 2304, 36, 0},
    {"blk.0.ffn_up_exps.weight", 2, "q4_0", 3, {64, 32, 8, 1}, HYPURA_ROLE_EXPERT, 0, 0, 0, 12288, 9216, 36, 1152},
    {"blk.1.ffn_up_exps.weight", 2, "q4_0", 3, {64, 32, 8, 1}, HYPURA_ROLE_EXPERT, 1, 1, 0, 24576, 9216, 36, 1152},
};
static const hypura_bundle bundles[] = {{0, 8, 1, {2}, 1152}, {1, 8, 1, {3}, 1152}};

struct hypura_model {
    hypura_map map;
    hypura_plan *plan;
    const char *file;
    uint64_t file_bytes;
    int n_turns;
};

const char *hypura_role_name(hypura_role role)
{
    static const char *const names[] = {"trunk",           "ffn",    "expert", "shared_expert", "router", "embedding",
                                        "layer_embedding", "output", "mtp"};
    return names[role];
}

const char *hypura_mode_name(hypura_mode mode)
{
    static const char *const names[] = {"resident", "experts", "dense", "mixed"};
    return names[mode];
}

const char *hypura_form_name(hypura_form form)
{
    static const char *const names[] = {"file", "repacked", "output"};
    return names[form];
}

const char *hypura_budget_reason_name(hypura_budget_reason reason)
{
    return reason == HYPURA_BUDGET_SQUEEZE ? "squeeze" : "fixed";
}

const char *hypura_reads_name(hypura_reads reads)
{
    return reads == HYPURA_READS_NOT_CACHED ? "direct: not cached" : "fixed";
}

static void wait_ms(long ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* Threads that compute are told how to wait before the library is there: every command that computes sees to it. */
static hypura_status check_waiting(hypura_error *error)
{
#ifdef __linux__
    if (!getenv("GOMP_SPINCOUNT") && !getenv("OMP_WAIT_POLICY")) {
        return hypura_fail(error, HYPURA_ERR_BACKEND, "threads are not told how to wait");
    }
#endif
    (void)error;
    return HYPURA_OK;
}

static bool named(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    return strcmp(slash ? slash + 1 : path, name) == 0;
}

/* ---- machine and map ------------------------------------------------------- */

hypura_status hypura_profile_get(const hypura_profile_options *options, hypura_profile *profile, hypura_error *error)
{
    (void)error;
    *profile = (hypura_profile){
        .version = 1,
        .cpu = "Fake CPU",
        .n_cpus = 2,
        .ram_total_bytes = (uint64_t)16 << 30,
        .ram_available_bytes = (uint64_t)8 << 30,
        .ram_limit_bytes = (uint64_t)12 << 30,
        .memory_bytes_per_s = 1e10,
        .io_engine = "uring",
        .direct_io = true,
        .io_align_offset_bytes = 512,
        .io_align_memory_bytes = 4096,
        .io_block_bytes = 1 << 20,
        .io_depth = 8,
        .direct_bytes_per_s = 1e9,
        .read_latency_us = options->force ? 77.0 : 80.0,
        .measured_unix_s = 1700000000,
        .n_devices = 1,
        .devices = {{"CPU", "Fake CPU", "cpu", 1, 2}},
    };
    snprintf(profile->storage_path, sizeof profile->storage_path, "%s",
             options->cache_dir ? options->cache_dir : "(nowhere)");
    return HYPURA_OK;
}

static hypura_status check_file(const char *path, hypura_error *error)
{
    if (access(path, R_OK) != 0) {
        return hypura_fail_errno(error, errno, "cannot open %s", path);
    }
    return named(path, "broken.gguf") ? hypura_fail(error, HYPURA_ERR_FORMAT, "%s is not a GGUF file", path)
                                      : HYPURA_OK;
}

hypura_status hypura_map_open(const char *path, hypura_map **map, hypura_error *error)
{
    static const uint64_t file_bytes[] = {(uint64_t)1 << 30};
    hypura_status status = check_file(path, error);
    if (status != HYPURA_OK) {
        return status;
    }
    const char **files = malloc(sizeof *files);
    *map = malloc(sizeof **map);
    files[0] = path;
    **map = (hypura_map){
        .path = path,
        .arch = "fakemoe",
        .name = "Fake \xff MoE",
        .n_layers = 2,
        .n_experts = 8,
        .n_experts_used = 2,
        .context_length = 2048,
        .embedding_length = 64,
        .n_files = 1,
        .files = files,
        .file_bytes = file_bytes,
        .n_tensors = 4,
        .tensors = tensors,
        .n_bundles = 2,
        .bundles = bundles,
        .tensor_bytes = 3600 + 2304 + 2 * 9216,
    };
    return HYPURA_OK;
}

void hypura_map_close(hypura_map *map)
{
    if (map) {
        free((void *)(uintptr_t)map->files);
    }
    free(map);
}

const char *hypura_io_cache_name(hypura_io_cache cache)
{
    static const char *const names[] = {"direct", "cold", "warm"};
    return names[cache];
}

/* Rates tell what was asked for. */
hypura_status hypura_iobench(const hypura_iobench_options *options, hypura_iobench_report *report, hypura_error *error)
{
    static const hypura_iobench_row rows[] = {
        {"uring", HYPURA_IO_DIRECT, false, 4096, 1, 1e8, false},
        {"uring", HYPURA_IO_DIRECT, false, 4096, 16, 1e9, false},
        {"uring", HYPURA_IO_DIRECT, false, 1 << 20, 1, 9e9, true},
        {"pool", HYPURA_IO_WARM, true, 1 << 20, 1, 9e9, false},
    };
    hypura_status status = access(options->path, R_OK) == 0
                               ? HYPURA_OK
                               : hypura_fail_errno(error, errno, "cannot stat %s", options->path);
    *report = (hypura_iobench_report){.direct_io = true,
                                      .file_bytes = options->read_bytes,
                                      .ceiling_bytes_per_s = 4e9,
                                      .ceiling = "PCIe 8.0 GT/s x4",
                                      .best = 1,
                                      .n_rows = 4};
    snprintf(report->path, sizeof report->path, "%s", options->path);
    memcpy(report->rows, rows, sizeof rows);
    return status;
}

/* ---- plan ------------------------------------------------------------------ */

/* Two GPUs, A and B, of one layer and the output, each full to its limit. */
static void use_gpus(const hypura_model_options *options, hypura_plan *plan)
{
    plan->n_gpus = 2;
    plan->n_gpu_layers = 3;
    for (int g = 0; g < 2; g++) {
        plan->gpus[g] = (hypura_gpu_plan){.first_layer = g,
                                          .n_layers = 1 + g,
                                          .vram_bytes = options->gpu_vram_bytes[g],
                                          .resident_bytes = options->gpu_vram_bytes[g]};
        plan->vram_bytes += plan->gpus[g].vram_bytes;
        snprintf(plan->gpus[g].name, sizeof plan->gpus[g].name, "%c", 'A' + g);
    }
    snprintf(plan->gpu, sizeof plan->gpu, "%s", options->gpu);
}

hypura_status hypura_estimate(const hypura_model_options *options, hypura_plan **plan, hypura_error *error)
{
    uint64_t limit = options->weights_bytes ? options->weights_bytes : options->memory_bytes;
    hypura_status status = check_waiting(error);
    status = status == HYPURA_OK ? check_file(options->path, error) : status;
    if (status != HYPURA_OK) {
        return status;
    }
    if (limit > 0 && limit < FLOOR_BYTES) {
        return hypura_fail(error, HYPURA_ERR_BUDGET, "the budget of %llu bytes is below the floor of %u bytes",
                           (unsigned long long)limit, FLOOR_BYTES);
    }
    *plan = malloc(sizeof **plan);
    **plan = (hypura_plan){
        .mode = limit || options->force_paging ? HYPURA_MODE_EXPERTS : HYPURA_MODE_RESIDENT,
        .memory_bytes = options->memory_bytes,
        .weights_bytes = options->weights_bytes,
        .ram_limit_bytes = (uint64_t)16 << 30,
        .kv_bytes = (uint64_t)options->n_context * 1024,
        .resident_bytes = 5904,
        .pool_bytes = 4608,
        .n_ubatch = options->n_ubatch ? options->n_ubatch : 512,
        .best_ubatch = 1024,
        .floor_weights_bytes = FLOOR_BYTES,
        .n_pools = 1,
        .pools = {{1152, 4096, 4, 16, 2}},
        .decode_tok_s = 12.5,
        .bound_tok_s = 20.0,
        .hit_rate = 0.5,
        .read_bytes_per_token = 2304.0,
        .bound_by = "storage",
    };
    static hypura_placement placements[16] = {[0] = {.gpu = -1}};
    (*plan)->placements = placements; /* all on the first GPU but the first tensor */
    if (options->gpu) {
        use_gpus(options, *plan);
    }
    return HYPURA_OK;
}

uint64_t hypura_plan_vram_at(const hypura_plan *plan, uint32_t percent)
{
    (void)plan;
    return percent;
}

void hypura_plan_free(hypura_plan *plan)
{
    free(plan);
}

/* ---- model ----------------------------------------------------------------- */

hypura_status hypura_model_open(const hypura_model_options *options, hypura_model **model, hypura_error *error)
{
    hypura_map *map = NULL;
    hypura_plan *plan = NULL;
    hypura_status status = hypura_map_open(options->path, &map, error);
    if (status == HYPURA_OK) {
        status = hypura_estimate(options, &plan, error);
    }
    const bool endless = named(options->path, "endless.gguf");
    const int n_steps = endless ? INT_MAX : named(options->path, "slow.gguf") ? 24 : 0;
    for (int i = 0; status == HYPURA_OK && i < n_steps; i++) {
        wait_ms(50);
        if (!options->progress(options->progress_user, "reading weights", (uint64_t)i, (uint64_t)n_steps)) {
            status = hypura_fail(error, HYPURA_ERR_CANCELLED, "interrupted");
        }
    }
    if (status == HYPURA_OK) {
        *model = calloc(1, sizeof **model);
        (*model)->map = *map;
        (*model)->plan = plan;
        free(map); /* what it points to is the model's now */
    } else {
        hypura_plan_free(plan);
        hypura_map_close(map);
    }
    return status;
}

void hypura_model_close(hypura_model *model)
{
    if (model) {
        free((void *)(uintptr_t)model->map.files);
        free(model->plan);
    }
    free(model);
}

const hypura_map *hypura_model_map(const hypura_model *model)
{
    return &model->map;
}

const hypura_plan *hypura_model_plan(const hypura_model *model)
{
    return model->plan;
}

void hypura_model_statistics(const hypura_model *model, hypura_statistics *statistics)
{
    (void)model;
    *statistics = (hypura_statistics){.bytes_read = 8000,
                                      .bytes_needed = 10000,
                                      .bytes_hit = 2500,
                                      .n_reads = 8,
                                      .device_busy_s = 0.5,
                                      .io_engine = "uring",
                                      .direct_io = true};
}

typedef struct writer {
    const hypura_generate_options *options;
    hypura_result *result;
    size_t used;
} writer;

/* One token: told to the caller, kept in the result. */
static bool emit(writer *to, const char *piece)
{
    size_t length = strlen(piece);
    to->result->text = realloc(to->result->text, to->used + length + 1);
    memcpy(to->result->text + to->used, piece, length + 1);
    to->used += length;
    to->result->tokens++;
    return to->options->on_text(to->options->on_text_user, piece, length);
}

hypura_status hypura_generate(hypura_model *model, const hypura_generate_options *options, hypura_result *result,
                              hypura_error *error)
{
    const hypura_sampling *sampling = &options->sampling;
    const char *prompt = options->prompt;
    writer to = {options, result, 0};
    char text[512];
    *result = (hypura_result){.prompt_tokens = 3, .prompt_s = 0.5, .decode_s = 2.0};
    model->n_turns++;
    if (strcmp(prompt, "too long") == 0) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the prompt has 9999 tokens, the context 4096");
    }
    if (strcmp(prompt, "fail") == 0) {
        emit(&to, "half an ans");
        return hypura_fail(error, HYPURA_ERR_IO, "reading expert 3 of layer 1 failed");
    }
    if (strcmp(prompt, "options") == 0) {
        snprintf(text, sizeof text, "temp %.2f top_p %.2f min_p %.2f top_k %d seed %s max %u raw %d",
                 (double)sampling->temperature, (double)sampling->top_p, (double)sampling->min_p, sampling->top_k,
                 sampling->seed == 7 ? "7" : "other", options->max_tokens, options->raw);
        emit(&to, text);
    } else if (strcmp(prompt, "seed") == 0) {
        snprintf(text, sizeof text, "%u", sampling->seed);
        emit(&to, text);
    } else if (strcmp(prompt, "bytes") == 0) {
        emit(&to, "caf\xc3\xa9 \xff\xed\xa0\x80.\n");
    } else if (strcmp(prompt, "long") == 0) {
        for (uint32_t i = 0; i < options->max_tokens; i++) {
            wait_ms(10);
            if (!emit(&to, "word ")) {
                result->stopped_by_user = true;
                break;
            }
        }
    } else {
        snprintf(text, sizeof text, "[%d] ", model->n_turns);
        (void)(emit(&to, text) && emit(&to, prompt));
    }
    return HYPURA_OK;
}

void hypura_result_clear(hypura_result *result)
{
    free(result->text);
    *result = (hypura_result){.text = NULL};
}

/* ---- experts as records ------------------------------------------------------ */

hypura_status hypura_optimize(const hypura_optimize_options *options, hypura_optimize_report *report,
                              hypura_error *error)
{
    hypura_status status = check_file(options->path, error);
    *report = (hypura_optimize_report){
        .bytes = 1 << 20, .n_records = 16, .n_resumed = 3, .matrix_bytes = 1152, .record_bytes = 3456, .gain = 1.0};
    snprintf(report->path, sizeof report->path, "%s.records", options->path);
    report->gain = options->force ? NAN : 1.25;
    return status;
}

/* ---- recorded routes -------------------------------------------------------- */

/* A row for each number of slots that was asked for; hits follow from it. */
hypura_status hypura_replay(const hypura_replay_options *options, hypura_replay_report *report, hypura_error *error)
{
    hypura_status status = check_file(options->path, error);
    if (status != HYPURA_OK) {
        return status;
    }
    *report = (hypura_replay_report){.n_tokens = 4, .n_layers = 2, .n_experts = 8, .n_uses = 16, .n_distinct = 12};
    report->n_rows = options->n_slots > 0 ? options->n_slots : 1;
    report->rows = calloc((size_t)report->n_rows, sizeof *report->rows);
    for (int i = 0; i < options->n_slots; i++) {
        const hypura_slot_count *slots = &options->slots[i];
        const uint32_t n = slots->percent > 0.0 ? (uint32_t)(16.0 * slots->percent / 100.0) : slots->count;
        report->rows[i] = (hypura_replay_row){n, n / 32.0, n / 24.0, n / 16.0};
    }
    return HYPURA_OK;
}

void hypura_replay_report_clear(hypura_replay_report *report)
{
    free(report->rows);
}

/* ---- proof ----------------------------------------------------------------- */

/* Reports one case for each value of each list, so that a test sees what was asked. */
hypura_status hypura_verify(const hypura_verify_options *options, hypura_verify_report *report, hypura_error *error)
{
    bool differs = named(options->path, "differs.gguf");
    hypura_status status = check_waiting(error);
    status = status == HYPURA_OK ? check_file(options->path, error) : status;
    if (status != HYPURA_OK) {
        return status;
    }
    int n_weights = options->n_weights ? options->n_weights : 1;
    int n_prompts = options->n_prompts ? options->n_prompts : 1;
    int n_ubatches = options->n_ubatches ? options->n_ubatches : 1;
    int n_engines = options->n_io_engines ? options->n_io_engines : 1;
    int n = n_weights * n_prompts * n_ubatches * n_engines;
    *report = (hypura_verify_report){!differs, n, calloc((size_t)n, sizeof(hypura_verify_case))};
    for (int i = 0; i < n; i++) {
        hypura_verify_case *one = &report->cases[i];
        int ubatch = i / n_engines;
        int prompt = ubatch / n_ubatches;
        int weights = prompt / n_prompts;
        one->weights_bytes = options->n_weights ? options->weights_bytes[weights] : FLOOR_BYTES;
        one->prompt_tokens = options->n_prompts ? options->prompt_tokens[prompt % n_prompts] : 1;
        one->ubatch = options->n_ubatches ? options->ubatches[ubatch % n_ubatches] : 512;
        one->tokens = options->tokens ? options->tokens : 16;
        one->differing = differs && i == 0 ? 5 : 0;
        one->bytes_read = 123;
        snprintf(one->io_engine, sizeof one->io_engine, "%s",
                 options->n_io_engines ? options->io_engines[i % n_engines] : "uring");
    }
    return HYPURA_OK;
}

void hypura_verify_report_clear(hypura_verify_report *report)
{
    free(report->cases);
    *report = (hypura_verify_report){.identical = false};
}

/* ---- measurement ------------------------------------------------------------ */

const char *hypura_metric_name(hypura_metric metric)
{
    static const char *const names[HYPURA_N_METRICS] = {
        [HYPURA_METRIC_DECODE_TOK_S] = "decode_tok_s",       [HYPURA_METRIC_PREFILL_TOK_S] = "prefill_tok_s",
        [HYPURA_METRIC_HIT_RATE_BYTES] = "hit_rate_bytes",   [HYPURA_METRIC_BYTES_PER_TOKEN] = "bytes_per_token",
        [HYPURA_METRIC_BOUND_TOK_S] = "bound_tok_s",         [HYPURA_METRIC_BOUND_SHARE] = "bound_share",
        [HYPURA_METRIC_COMPUTE_S] = "compute_s",             [HYPURA_METRIC_READ_WAIT_S] = "read_wait_s",
        [HYPURA_METRIC_DECODE_COLD_TOK_S] = "decode_cold_tok_s"};
    return names[metric] ? names[metric] : "other";
}

/* Speed grows with memory; the baseline is half as fast and lacks what the pager counts. */
static void fake_series(hypura_bench_series *series, const char *label, double tok_s, bool paged)
{
    for (int m = 0; m < HYPURA_N_METRICS; m++) {
        series->metrics[m] = (hypura_spread){NAN, NAN, NAN};
    }
    snprintf(series->label, sizeof series->label, "%s", label);
    series->n_runs = 3;
    series->read_ahead_kb = 128;
    series->metrics[HYPURA_METRIC_DECODE_TOK_S] = (hypura_spread){tok_s, tok_s - 0.5, tok_s + 0.5};
    series->metrics[HYPURA_METRIC_PREFILL_TOK_S] = (hypura_spread){8 * tok_s, 7 * tok_s, 9 * tok_s};
    if (paged) {
        series->layers[1] = (hypura_layer_hits){.bytes_needed = 4, .bytes_hit = 3}; /* layer 0 stays */
        series->layers[2] = (hypura_layer_hits){.bytes_needed = 4, .vram_bytes_needed = 8, .vram_bytes_hit = 4};
        series->metrics[HYPURA_METRIC_DECODE_COLD_TOK_S] = (hypura_spread){1.25, 1.25, 1.25};
        series->bound_by = "storage";
        series->metrics[HYPURA_METRIC_HIT_RATE_BYTES] = (hypura_spread){0.75, 0.5, 1.0};
        series->metrics[HYPURA_METRIC_BYTES_PER_TOKEN] = (hypura_spread){1e6, 1e6, 1e6};
        series->metrics[HYPURA_METRIC_BOUND_TOK_S] = (hypura_spread){tok_s / 0.8, tok_s, 2 * tok_s};
        series->metrics[HYPURA_METRIC_BOUND_SHARE] = (hypura_spread){0.8, 0.8, 0.8};
        series->metrics[HYPURA_METRIC_COMPUTE_S] = (hypura_spread){0.05, 0.05, 0.05};
        series->metrics[HYPURA_METRIC_READ_WAIT_S] = (hypura_spread){0.03, 0.03, 0.03};
    }
}

hypura_status hypura_bench(const hypura_bench_options *options, hypura_bench_report *report, hypura_error *error)
{
    hypura_status status = check_waiting(error);
    status = status == HYPURA_OK ? check_file(options->path, error) : status;
    memset(report, 0, sizeof *report);
    if (status != HYPURA_OK) {
        return status;
    }
    *report = (hypura_bench_report){.model = "Fake <MoE>",
                                    .model_bytes = 20000000,
                                    .tokens = options->tokens ? options->tokens : 64,
                                    .prompt_tokens = options->prompt_tokens ? options->prompt_tokens : 512,
                                    .ubatch = options->ubatch ? options->ubatch : 512,
                                    .runs = options->runs ? options->runs : 3,
                                    .n_threads = options->n_threads,
                                    .io_limit_bytes_per_s = options->io_limit_bytes_per_s,
                                    .route = options->route != NULL,
                                    .route_recall = options->route_recall,
                                    .n_cells = options->n_weights + options->n_memory};
    snprintf(report->io_engine, sizeof report->io_engine, "%s", options->io_engine ? options->io_engine : "uring");
    report->cells = calloc((size_t)report->n_cells + 1, sizeof *report->cells);
    for (int i = 0; i < report->n_cells; i++) {
        hypura_bench_cell *cell = &report->cells[i];
        bool memory = i < options->n_memory;
        uint64_t bytes = memory ? options->memory_bytes[i] : options->weights_bytes[i - options->n_memory];
        cell->weights_bytes = bytes;
        cell->memory_bytes = memory ? bytes : bytes + 1000;
        cell->plan = (hypura_plan){.mode = HYPURA_MODE_EXPERTS, .resident_bytes = bytes / 4, .pool_bytes = bytes / 2};
        cell->n_series = options->baseline ? 2 : 1;
        cell->baseline = options->baseline ? 1 : -1;
        cell->decode_ratio = cell->prefill_ratio = (hypura_spread){2.0, 1.5, 2.5};
        fake_series(&cell->series[0], "hypura", 1.0 + (double)bytes * 1e-6, true);
        if (options->gpu) {
            hypura_spread *metrics = cell->series[0].metrics;
            snprintf(cell->plan.gpu, sizeof cell->plan.gpu, "%s", options->gpu);
            cell->plan.vram_resident_bytes = 1 << 20;
            cell->plan.vram_slot_bytes = 2 << 20;
            metrics[HYPURA_METRIC_VRAM_HIT_RATE_BYTES] = (hypura_spread){0.25, 0.25, 0.25};
            metrics[HYPURA_METRIC_UPLOADED_BYTES_PER_TOKEN] = (hypura_spread){3 << 20, 3 << 20, 3 << 20};
            metrics[HYPURA_METRIC_READBACKS_PER_TOKEN] = (hypura_spread){48, 48, 48};
            metrics[HYPURA_METRIC_READBACK_S] = (hypura_spread){0.0048, 0.0048, 0.0048};
        }
        fake_series(&cell->series[1], "llama.cpp", (1.0 + (double)bytes * 1e-6) / 2, false);
        snprintf(cell->series[1].note, sizeof cell->series[1].note, "no limit: a fake one");
    }
    if (named(options->path, "stops.gguf")) {
        report->n_cells = 1;
        return hypura_fail(error, HYPURA_ERR_CANCELLED, "stopped after the first cell");
    }
    return HYPURA_OK;
}

void hypura_bench_report_clear(hypura_bench_report *report)
{
    free(report->cells);
    *report = (hypura_bench_report){.n_cells = 0};
}

hypura_status hypura_bench_worker(int input, int output, hypura_error *error)
{
    (void)input;
    (void)output;
    return hypura_fail(error, HYPURA_ERR_FORMAT, "a fake worker");
}

/* ---- the server ---------------------------------------------------------- */

hypura_status hypura_server_open(const hypura_server_options *options, hypura_server **server, hypura_error *error)
{
    (void)options;
    *server = NULL;
    return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "the fake library serves nobody");
}

void hypura_server_drain(hypura_server *server)
{
    (void)server;
}

void hypura_server_close(hypura_server *server)
{
    (void)server;
}

hypura_status hypura_client_open(const char *url, const char *api_key, const char *model, hypura_client **client,
                                 hypura_error *error)
{
    (void)api_key;
    (void)model;
    *client = NULL;
    return hypura_fail(error, HYPURA_ERR_IO, "the fake library reaches nobody at %s", url);
}

hypura_status hypura_client_generate(hypura_client *client, const hypura_generate_options *options,
                                     hypura_result *result, hypura_error *error)
{
    (void)client;
    (void)options;
    (void)result;
    return hypura_fail(error, HYPURA_ERR_IO, "the fake library reaches nobody");
}

void hypura_client_close(hypura_client *client)
{
    (void)client;
}
