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
#include "engine/prepare/experience.h"
#include "os/confine.h"
#include "os/os.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FETCHED_BYTES (UINT64_C(256) << 20) /* of memory, between two looks at whether the bench is stopped */

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

static hypura_status run_task(bench *b, const bench_series *s, uint64_t memory_bytes, hypura_bench_sample *sample,
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
    bench_series *s = &b->series[index];
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
        hypura_bench_note(told, "no limit: ", error->message);
        s->limit_bytes = told->limit_bytes = 0;
        b->done--;
        return run_series(b, cell, index, round, error);
    } else if (s->task.plain && index > 0 && status != HYPURA_ERR_CANCELLED) {
        hypura_bench_note(told, "", error->message);
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

static hypura_status run_cells(bench *b, hypura_error *error)
{
    hypura_bench_report *r = b->report;
    hypura_status status = hypura_bench_check_cells(b, error);
    for (int i = 0; i < b->n_cells && status == HYPURA_OK; i++) {
        status = hypura_bench_plan_cell(b, i, error);
        if (status == HYPURA_OK) {
            status = run_cell(b, &r->cells[i], error);
        }
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
    hypura_status status = hypura_bench_prepare(&b, error);
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
