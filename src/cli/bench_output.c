/*
 * bench_output.c - see bench_output.h.
 */
#include "cli/bench_output.h"

#include "cli/output.h"
#include "cli/placement.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- JSON ------------------------------------------------------------------ */

double hypura_bench_layer_hit_rate(const hypura_layer_hits *layer)
{
    const bool over_gpu = layer->vram_bytes_needed > 0;
    const double needed = (double)(over_gpu ? layer->vram_bytes_needed : layer->bytes_needed);
    return needed > 0.0 ? (double)(over_gpu ? layer->vram_bytes_hit : layer->bytes_hit) / needed : NAN;
}

/* In the order of layers; null where nothing was paged. */
static json_t *layers_json(const hypura_bench_series *series)
{
    json_t *array = json_array();
    int n = HYPURA_MAX_BENCH_LAYERS;
    while (n > 0 && series->layers[n - 1].bytes_needed + series->layers[n - 1].vram_bytes_needed == 0) {
        n--;
    }
    for (int l = 0; l < n; l++) {
        const double rate = hypura_bench_layer_hit_rate(&series->layers[l]);
        hypura_json_append(&array, isnan(rate) ? json_null() : json_real(rate));
    }
    return array;
}

/* All metrics of a series through one reading of a spread; those of prompts are another series'. */
static void add_metrics(json_t **object, const hypura_bench_series *series, const hypura_bench_series *prompts,
                        double (*pick)(const hypura_spread *))
{
    for (int m = 0; m < HYPURA_N_METRICS; m++) {
        const bool of_prompts = strncmp(hypura_metric_name((hypura_metric)m), "prefill_", strlen("prefill_")) == 0;
        const double value = pick(&(of_prompts ? prompts : series)->metrics[m]);
        if (!isnan(value)) {
            hypura_json_real(object, hypura_metric_name((hypura_metric)m), value);
        }
    }
}

static double pick_median(const hypura_spread *spread)
{
    return spread->median;
}

static double pick_min(const hypura_spread *spread)
{
    return spread->min;
}

static double pick_max(const hypura_spread *spread)
{
    return spread->max;
}

static json_t *series_json(const hypura_bench_series *series, const hypura_bench_series *prompts)
{
    json_t *object = json_object();
    json_t *min = json_object();
    json_t *max = json_object();
    add_metrics(&object, series, prompts, pick_median);
    add_metrics(&min, series, prompts, pick_min);
    add_metrics(&max, series, prompts, pick_max);
    if (series->bound_by) {
        hypura_json_text(&object, "bound_by", series->bound_by);
    }
    hypura_json_text(&object, "label", series->label);
    hypura_json_integer(&object, "runs", series->n_runs);
    hypura_json_integer(&object, "read_ahead_kb", series->read_ahead_kb);
    if (prompts != series) {
        hypura_json_integer(&object, "prefill_read_ahead_kb", prompts->read_ahead_kb);
    }
    hypura_json_integer(&object, "limit_bytes", series->limit_bytes);
    hypura_json_text(&object, "form", hypura_form_name(series->form));
    hypura_json_bool(&object, "waits_longer", series->waits_longer);
    if (series->note[0]) {
        hypura_json_text(&object, "note", series->note);
    }
    hypura_json_set(&object, "layer_hit_rates", layers_json(series));
    hypura_json_set(&object, "min", min);
    hypura_json_set(&object, "max", max);
    return object;
}

/* Decoding's where no prompt was measured. */
static const hypura_bench_series *prefill_baseline(const hypura_bench_cell *cell)
{
    return &cell->series[cell->prefill_baseline > 0 ? cell->prefill_baseline : cell->decode_baseline];
}

static json_t *spread_json(const hypura_spread *spread)
{
    json_t *object = json_object();
    hypura_json_real(&object, "median", spread->median);
    hypura_json_real(&object, "min", spread->min);
    hypura_json_real(&object, "max", spread->max);
    return object;
}

static json_t *cell_json(const hypura_bench_cell *cell)
{
    json_t *object = json_object();
    json_t *baselines = json_array();
    hypura_json_integer(&object, "weights_bytes", cell->weights_bytes);
    hypura_json_integer(&object, "memory_bytes", cell->memory_bytes);
    hypura_json_text(&object, "mode", hypura_mode_name(cell->plan.mode));
    hypura_json_integer(&object, "ubatch", cell->plan.n_ubatch);
    hypura_json_text(&object, "cache_type_k", cell->plan.kv_cache.type_k);
    hypura_json_text(&object, "cache_type_v", cell->plan.kv_cache.type_v);
    if (cell->plan.gpu[0]) {
        hypura_json_text(&object, "gpu", cell->plan.gpu);
        hypura_json_integer(&object, "gpu_layers", (uint64_t)cell->plan.n_gpu_layers);
        hypura_json_integer(&object, "vram_bytes", cell->plan.vram_bytes);
        hypura_json_integer(&object, "vram_resident_bytes", cell->plan.vram_resident_bytes);
        hypura_json_integer(&object, "vram_slot_bytes", cell->plan.vram_slot_bytes);
        hypura_json_integer(&object, "vram_stage_bytes", cell->plan.vram_stage_bytes);
        hypura_json_set(&object, "gpus", hypura_placement_gpus(&cell->plan));
    }
    hypura_json_set(&object, "hypura", series_json(&cell->series[0], &cell->series[0]));
    for (int i = 1; i < cell->n_series; i++) {
        hypura_json_append(&baselines, series_json(&cell->series[i], &cell->series[i]));
    }
    if (cell->decode_baseline > 0) {
        hypura_json_set(&object, "baseline", series_json(&cell->series[cell->decode_baseline], prefill_baseline(cell)));
        hypura_json_set(&object, "decode_ratio", spread_json(&cell->decode_ratio));
        hypura_json_set(&object, "prefill_ratio", spread_json(&cell->prefill_ratio));
    }
    hypura_json_set(&object, "baselines", baselines);
    return object;
}

static json_t *machine_json(const hypura_profile *profile)
{
    json_t *object = json_object();
    hypura_json_text(&object, "cpu", profile->cpu);
    hypura_json_integer(&object, "n_cpus", (uint64_t)profile->n_cpus);
    hypura_json_integer(&object, "ram_limit_bytes", profile->ram_limit_bytes);
    hypura_json_real(&object, "memory_bytes_per_s", profile->memory_bytes_per_s);
    hypura_json_real(&object, "direct_bytes_per_s", profile->direct_bytes_per_s);
    hypura_json_text(&object, "io_engine", profile->io_engine);
    hypura_json_bool(&object, "direct_io", profile->direct_io);
    return object;
}

json_t *hypura_bench_json(const hypura_bench_report *report)
{
    json_t *object = json_object();
    json_t *cells = json_array();
    for (int i = 0; i < report->n_cells; i++) {
        hypura_json_append(&cells, cell_json(&report->cells[i]));
    }
    hypura_json_set(&object, "machine", machine_json(&report->profile));
    hypura_json_text(&object, "model", report->model);
    hypura_json_integer(&object, "model_bytes", report->model_bytes);
    hypura_json_integer(&object, "tokens", report->tokens);
    hypura_json_integer(&object, "prompt_tokens", report->prompt_tokens);
    hypura_json_integer(&object, "parallel", report->parallel);
    hypura_json_integer(&object, "ubatch", report->ubatch);
    hypura_json_integer(&object, "runs", report->runs);
    hypura_json_integer(&object, "threads", (uint64_t)report->n_threads);
    hypura_json_text(&object, "io_engine", report->io_engine);
    hypura_json_integer(&object, "io_limit_bytes_per_s", report->io_limit_bytes_per_s);
    hypura_json_bool(&object, "route", report->route);
    hypura_json_real(&object, "emulated_recall", report->route_recall);
    hypura_json_set(&object, "cells", cells);
    return object;
}

/* ---- table ----------------------------------------------------------------- */

static void cell_spread(hypura_table *table, const hypura_spread *spread)
{
    if (isnan(spread->median)) {
        hypura_table_cell(table, "-");
    } else if (spread->min < spread->max) {
        hypura_table_cell(table, "%.2f (%.2f-%.2f)", spread->median, spread->min, spread->max);
    } else {
        hypura_table_cell(table, "%.2f", spread->median);
    }
}

/* Of a figure that stands beside another one: its median. */
static void cell_median(hypura_table *table, const hypura_spread *spread)
{
    if (isnan(spread->median)) {
        hypura_table_cell(table, "-");
    } else {
        hypura_table_cell(table, "%.2f", spread->median);
    }
}

static void cell_percent(hypura_table *table, const hypura_spread *spread)
{
    if (isnan(spread->median)) {
        hypura_table_cell(table, "-");
    } else {
        hypura_table_cell(table, "%.1f %%", 100.0 * spread->median);
    }
}

static void add_row(hypura_table *table, const hypura_bench_cell *cell, int index)
{
    const hypura_bench_series *series = &cell->series[index];
    const hypura_spread *metrics = series->metrics;
    const hypura_spread *bytes = &metrics[HYPURA_METRIC_BYTES_PER_TOKEN];
    if (index == 0) {
        hypura_table_size(table, cell->weights_bytes);
    } else {
        hypura_table_cell(table, "%s", "");
    }
    hypura_table_cell(table, "%s", series->label);
    cell_spread(table, &metrics[HYPURA_METRIC_DECODE_TOK_S]);
    cell_median(table, &metrics[HYPURA_METRIC_DECODE_COLD_TOK_S]);
    cell_spread(table, &metrics[HYPURA_METRIC_PREFILL_TOK_S]);
    hypura_table_size(table, isnan(bytes->median) ? 0 : (uint64_t)bytes->median);
    cell_percent(table, &metrics[HYPURA_METRIC_HIT_RATE_BYTES]);
    cell_percent(table, &metrics[HYPURA_METRIC_DEVICE_BUSY]);
    if (series->bound_by) {
        hypura_table_cell(table, "%.1f %% of %s", 100.0 * metrics[HYPURA_METRIC_BOUND_SHARE].median, series->bound_by);
    } else {
        hypura_table_cell(table, "-");
    }
}

static void print_one_ratio(const hypura_spread *ratio, const char *of)
{
    hypura_output_printf("%.3fx %s", ratio->median, of);
    if (ratio->max > ratio->min) {
        hypura_output_printf(" (%.3f-%.3f)", ratio->min, ratio->max);
    }
}

static void print_ratio(const hypura_bench_cell *cell)
{
    if (cell->decode_baseline <= 0) {
        return;
    }
    const char *decode = cell->series[cell->decode_baseline].label;
    const char *prefill = prefill_baseline(cell)->label;
    const bool same = prefill == decode;
    hypura_output_printf("%s: ", hypura_output_size(cell->weights_bytes));
    print_one_ratio(&cell->decode_ratio, "decode");
    hypura_output_printf("%s%s, ", same ? "" : " against ", same ? "" : decode);
    print_one_ratio(&cell->prefill_ratio, "prefill");
    hypura_output_printf(" against %s\n", prefill);
}

static double or_none(const hypura_spread *spread)
{
    return isnan(spread->median) ? 0.0 : spread->median;
}

static void print_gpu(const hypura_bench_cell *cell)
{
    const hypura_plan *plan = &cell->plan;
    const hypura_spread *metrics = cell->series[0].metrics;
    if (plan->gpu[0] == '\0') {
        return;
    }
    hypura_output_printf("%s: %s holds %s of weights, %s of expert slots", hypura_output_size(cell->weights_bytes),
                         plan->gpu, hypura_output_size(plan->vram_resident_bytes),
                         hypura_output_size(plan->vram_slot_bytes));
    if (!isnan(metrics[HYPURA_METRIC_VRAM_HIT_RATE_BYTES].median)) {
        const double n_readbacks = or_none(&metrics[HYPURA_METRIC_READBACKS_PER_TOKEN]);
        hypura_output_printf("; %.1f %% of the experts needed were there, %s uploaded for each token, %.0f selections "
                             "read back, %.0f us each",
                             100.0 * metrics[HYPURA_METRIC_VRAM_HIT_RATE_BYTES].median,
                             hypura_output_size((uint64_t)or_none(&metrics[HYPURA_METRIC_UPLOADED_BYTES_PER_TOKEN])),
                             n_readbacks,
                             n_readbacks > 0.0 ? 1e6 * or_none(&metrics[HYPURA_METRIC_READBACK_S]) / n_readbacks : 0.0);
        if (!isnan(metrics[HYPURA_METRIC_LINK_BUSY].median)) {
            hypura_output_printf("; uploads take %.0f %% of what the link carries", 100.0 * metrics[HYPURA_METRIC_LINK_BUSY].median);
        }
    }
    hypura_output_printf("\n");
}

/* What the share of the bound rests on. */
static void print_drive(const hypura_bench_cell *cell)
{
    const hypura_spread *rate = &cell->series[0].metrics[HYPURA_METRIC_DIRECT_BYTES_PER_S];
    if (!isnan(rate->median)) {
        hypura_output_printf("%s: the drive gave %s", hypura_output_size(cell->weights_bytes), hypura_output_rate(rate->median));
        if (rate->max > rate->min) {
            hypura_output_printf(" (%s to %s)", hypura_output_rate(rate->min), hypura_output_rate(rate->max));
        }
        hypura_output_printf(", measured after each run\n");
    }
}

static void print_notes(const hypura_bench_report *report)
{
    for (int i = 0; i < report->n_cells; i++) {
        const hypura_bench_cell *cell = &report->cells[i];
        for (int s = 0; s < cell->n_series; s++) {
            if (cell->series[s].note[0]) {
                hypura_output_printf("%s, %s: %s\n", hypura_output_size(cell->weights_bytes), cell->series[s].label,
                                     cell->series[s].note);
            }
        }
    }
    const hypura_kv_cache *kv_cache = &report->cells[0].plan.kv_cache;
    if (strcmp(kv_cache->type_k, "f16") != 0 || strcmp(kv_cache->type_v, "f16") != 0) {
        hypura_output_printf("the KV cache kept keys as %s and values as %s, in all series\n", kv_cache->type_k, kv_cache->type_v);
    }
    if (report->parallel > 1) {
        hypura_output_printf("%u sequences were decoded together: speeds are of all of them, and what is given for a token is "
                             "a part of that of one of each\n",
                             report->parallel);
    }
    if (report->route) {
        hypura_output_printf("experts were forced by a recorded route, which cuts every graph at its routers, in all "
                             "series alike\n");
    }
    if (report->route_recall > 0) {
        hypura_output_printf("reading ahead is emulated: guesses made up from the route, of which %.0f %% come true\n",
                             report->route_recall * 100);
    }
    if (report->io_limit_bytes_per_s > 0) {
        hypura_output_printf("Hypura's reads were slowed down to %s; llama.cpp's were not\n",
                             hypura_output_rate((double)report->io_limit_bytes_per_s));
    }
}

hypura_status hypura_bench_print(const hypura_bench_report *report, hypura_error *error)
{
    static const char *const titles[] = {"weights",    "",     "decode tok/s", "cold", "prefill tok/s",
                                         "read/token", "hits", "drive busy",   "of the bound"};
    hypura_table table;
    hypura_output_printf("%u tokens after a prompt of %u, %d threads, median of %u %s (min-max)\n\n", report->tokens,
                         report->prompt_tokens, report->n_threads, report->runs, report->runs == 1 ? "run" : "runs");
    hypura_table_open(&table, "rlrrrrrrl", titles);
    for (int i = 0; i < report->n_cells; i++) {
        for (int s = 0; s < report->cells[i].n_series; s++) {
            add_row(&table, &report->cells[i], s);
        }
    }
    hypura_status status = hypura_table_print(&table, error);
    hypura_output_printf("\n");
    for (int i = 0; i < report->n_cells; i++) {
        print_gpu(&report->cells[i]);
        print_ratio(&report->cells[i]);
        print_drive(&report->cells[i]);
    }
    print_notes(report);
    return status;
}
