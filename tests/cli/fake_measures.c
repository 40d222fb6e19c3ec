/*
 * fake_measures.c - the fake library's commands that measure or prove something.
 */
#include "fake_library.h"

#include "base/status.h"
#include "hypura_measure.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- experts as records ------------------------------------------------------ */

hypura_status hypura_optimize(const hypura_optimize_options *options, hypura_optimize_report *report,
                              hypura_error *error)
{
    hypura_status status = fake_check_file(options->path, error);
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
    hypura_status status = fake_check_file(options->path, error);
    if (status != HYPURA_OK) {
        return status;
    }
    *report = (hypura_replay_report){.n_tokens = 4, .n_layers = 2, .n_experts = 8, .n_uses = 16, .n_distinct = 12};
    report->n_rows = options->n_slots > 0 ? options->n_slots : 1;
    report->rows = calloc((size_t)report->n_rows, sizeof *report->rows);
    for (int i = 0; i < options->n_slots; i++) {
        const hypura_slot_count *slots = &options->slots[i];
        const uint32_t n = slots->percent > 0.0 ? (uint32_t)(16.0 * slots->percent / 100.0) : slots->count;
        report->rows[i] = (hypura_replay_row){n, n / 32.0, n / 24.0, n / 16.0, n / 64.0, n / 48.0};
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
    bool differs = fake_named(options->model.path, "differs.gguf");
    hypura_status status = fake_check_waiting(error);
    status = status == HYPURA_OK ? fake_check_file(options->model.path, error) : status;
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
        one->weights_bytes = options->n_weights ? options->weights_bytes[weights] : FAKE_FLOOR_BYTES;
        one->prompt_tokens = options->n_prompts ? options->prompt_tokens[prompt % n_prompts] : 1;
        one->ubatch = options->n_ubatches ? options->ubatches[ubatch % n_ubatches] : 512;
        one->tokens = options->tokens ? options->tokens : 16;
        one->differing = differs && i == 0 ? 5 : 0;
        one->most_differing = differs && i == 0 ? 0.25 : 0.0;
        one->n_cpu_rows = options->model.gpu_misses == HYPURA_GPU_MISSES_CPU ? 40 : 0;
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
    static const char *const names[HYPURA_N_METRICS] = {[HYPURA_METRIC_DECODE_TOK_S] = "decode_tok_s",
                                                        [HYPURA_METRIC_PREFILL_TOK_S] = "prefill_tok_s",
                                                        [HYPURA_METRIC_HIT_RATE_BYTES] = "hit_rate_bytes",
                                                        [HYPURA_METRIC_BYTES_PER_TOKEN] = "bytes_per_token",
                                                        [HYPURA_METRIC_BOUND_TOK_S] = "bound_tok_s",
                                                        [HYPURA_METRIC_BOUND_SHARE] = "bound_share",
                                                        [HYPURA_METRIC_COMPUTE_S] = "compute_s",
                                                        [HYPURA_METRIC_READ_WAIT_S] = "read_wait_s",
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
    hypura_status status = fake_check_waiting(error);
    status = status == HYPURA_OK ? fake_check_file(options->model.path, error) : status;
    memset(report, 0, sizeof *report);
    if (status != HYPURA_OK) {
        return status;
    }
    *report = (hypura_bench_report){.model = "Fake <MoE>",
                                    .model_bytes = 20000000,
                                    .tokens = options->tokens ? options->tokens : 64,
                                    .prompt_tokens = options->prompt_tokens ? options->prompt_tokens : 512,
                                    .parallel = options->parallel ? options->parallel : 1,
                                    .ubatch = options->model.n_ubatch ? options->model.n_ubatch : 512,
                                    .runs = options->runs ? options->runs : 3,
                                    .n_threads = options->model.n_threads,
                                    .io_limit_bytes_per_s = options->model.io_limit_bytes_per_s,
                                    .route = options->route != NULL,
                                    .route_recall = options->route_recall,
                                    .n_cells = options->n_weights + options->n_memory};
    snprintf(report->io_engine, sizeof report->io_engine, "%s", options->model.io_engine ? options->model.io_engine : "uring");
    report->cells = calloc((size_t)report->n_cells + 1, sizeof *report->cells);
    for (int i = 0; i < report->n_cells; i++) {
        hypura_bench_cell *cell = &report->cells[i];
        bool memory = i < options->n_memory;
        uint64_t bytes = memory ? options->memory_bytes[i] : options->weights_bytes[i - options->n_memory];
        cell->weights_bytes = bytes;
        cell->memory_bytes = memory ? bytes : bytes + 1000;
        cell->plan = (hypura_plan){.mode = HYPURA_MODE_EXPERTS,
                                     .kv_cache = {options->model.kv_cache.type_k ? options->model.kv_cache.type_k : "f16",
                                                  options->model.kv_cache.type_v ? options->model.kv_cache.type_v : "f16"},
                                     .resident_bytes = bytes / 4,
                                     .pool_bytes = bytes / 2};
        cell->n_series = options->baseline ? 3 : 1;
        cell->decode_baseline = options->baseline ? 1 : -1;
        cell->prefill_baseline = options->baseline ? 2 : -1;
        cell->decode_ratio = cell->prefill_ratio = report->runs > 1 ? (hypura_spread){2.0, 1.5, 2.5} : (hypura_spread){2.0, 2.0, 2.0};
        fake_series(&cell->series[0], "hypura", 1.0 + (double)bytes * 1e-6, true);
        if (options->model.gpu) {
            hypura_spread *metrics = cell->series[0].metrics;
            snprintf(cell->plan.gpu, sizeof cell->plan.gpu, "%s", options->model.gpu);
            cell->plan.vram_resident_bytes = 1 << 20;
            cell->plan.vram_slot_bytes = 2 << 20;
            metrics[HYPURA_METRIC_VRAM_HIT_RATE_BYTES] = (hypura_spread){0.25, 0.25, 0.25};
            metrics[HYPURA_METRIC_UPLOADED_BYTES_PER_TOKEN] = (hypura_spread){3 << 20, 3 << 20, 3 << 20};
            metrics[HYPURA_METRIC_LINK_BUSY] = (hypura_spread){0.25, 0.25, 0.25};
            metrics[HYPURA_METRIC_READBACKS_PER_TOKEN] = (hypura_spread){48, 48, 48};
            metrics[HYPURA_METRIC_READBACK_S] = (hypura_spread){0.0048, 0.0048, 0.0048};
        }
        fake_series(&cell->series[1], "llama.cpp", (1.0 + (double)bytes * 1e-6) / 2, false);
        snprintf(cell->series[1].note, sizeof cell->series[1].note, "no limit: a fake one");
        fake_series(&cell->series[2], "llama.cpp, larger", (1.0 + (double)bytes * 1e-6) / 4, false);
        cell->series[2].metrics[HYPURA_METRIC_PREFILL_TOK_S] = (hypura_spread){77.0, 77.0, 77.0};
        cell->series[2].read_ahead_kb = 4096;
        cell->series[0].waits_longer = true;
    }
    if (fake_named(options->model.path, "stops.gguf")) {
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
