/*
 * bench_report.c - see bench_output.h.
 *
 * The page: what was measured where, speed over memory, where the time of a token
 * goes, hits, what was placed where, and the figures behind all of it. Nothing is
 * fetched: it can be sent as it is.
 */
#include "cli/bench_output.h"

#include "base/new_file.h"
#include "base/size.h"
#include "base/status.h"
#include "cli/bench_plot.h"
#include "cli/output.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* One for each cell, in the order of memory. */
typedef struct row {
    const hypura_bench_cell *cell;
    const hypura_bench_series *decode_baseline; /* NULL: none */
    const hypura_bench_series *prefill_baseline;
    char label[64];
} row;

typedef struct page {
    FILE *to;
    const hypura_bench_report *report;
    int n;
    row *rows;
    double *x_bytes;
    hypura_spread *spreads[HYPURA_PLOT_MAX_LINES]; /* scratch of the line plots */
    const char **labels;
    double *parts; /* HYPURA_PLOT_MAX_PARTS for each row */
    double *layers; /* HYPURA_MAX_BENCH_LAYERS for each row */
} page;

static const char style[] =
    ":root{color-scheme:light dark;--bg:#fbfbfa;--fg:#1c1d21;--dim:#63666f;--grid:#e2e3e6;--a:#2a63d4;--b:#c2660c;"
    "--c:#8a8d96;--d:#1d8a74;--e:#c23b5a;--f:#7a58c0;--g:#5d7f1f;--in:#fff}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#16171b;--fg:#e6e7ea;--dim:#9a9da6;--grid:#30323a;--a:#7aa2f7;"
    "--b:#f0a35e;--c:#8f929b;--d:#5cc8b0;--e:#ee7a94;--f:#b49bf0;--g:#a9cf62;--in:#14151a}}\n"
    "body{background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;"
    "padding:0 1rem}\n"
    "h1{font-size:1.5rem;margin:0}p{margin:.3rem 0;color:var(--dim)}p b{color:var(--fg)}\n"
    ".plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:1.5rem;margin:1.5rem "
    "0}\n"
    "figure{margin:0}figcaption{font-weight:600;margin-bottom:.4rem}svg{width:100%;height:auto;display:block}\n"
    "svg text{fill:var(--dim);font-size:12px}svg text.inside{fill:var(--in)}\n"
    ".grid{stroke:var(--grid)}.line{fill:none;stroke-width:2}\n"
    ".a{fill:var(--a)}.b{fill:var(--b)}.c{fill:var(--c)}.d{fill:var(--d)}.e{fill:var(--e)}.f{fill:var(--f)}.g{fill:var(--g)}\n"
    ".line.a{fill:none;stroke:var(--a)}.line.b{fill:none;stroke:var(--b)}"
    ".line.c{fill:none;stroke:var(--c);stroke-dasharray:4 4}\n"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:"
    "13px}"
    "th,td{text-align:right;padding:.3rem .35rem;border-bottom:1px solid var(--grid);white-space:nowrap}"
    "th{color:var(--dim);font-weight:500}td:nth-child(2),th:nth-child(2){text-align:left}\n";

/* ---- values ------------------------------------------------------------------ */

static void format_ms(double seconds, char *text, size_t capacity)
{
    (void)snprintf(text, capacity, "%.*f ms", seconds < 0.01 ? 2 : 1, seconds * 1e3);
}

static void format_bytes(double bytes, char *text, size_t capacity)
{
    (void)hypura_size_format((uint64_t)bytes, text, capacity);
}

/* For weights, the GPUs' included. */
static uint64_t memory_of(const hypura_bench_cell *cell)
{
    return cell->weights_bytes + cell->plan.vram_resident_bytes + cell->plan.vram_slot_bytes;
}

static int compare_rows(const void *a, const void *b)
{
    const uint64_t x = memory_of(((const row *)a)->cell);
    const uint64_t y = memory_of(((const row *)b)->cell);
    return (x > y) - (x < y);
}

static void name_row(row *r)
{
    const hypura_bench_cell *cell = r->cell;
    char size[HYPURA_SIZE_TEXT];
    char vram[HYPURA_SIZE_TEXT];
    const char *host = hypura_size_format(cell->weights_bytes, size, sizeof size);
    if (cell->plan.gpu[0] != '\0') {
        (void)snprintf(r->label, sizeof r->label, "GPU %s, %s",
                       hypura_size_format(memory_of(cell) - cell->weights_bytes, vram, sizeof vram), host);
    } else {
        (void)snprintf(r->label, sizeof r->label, "%s (%s)", host, hypura_mode_name(cell->plan.mode));
    }
}

static const hypura_spread *metric_of(const hypura_bench_series *series, hypura_metric metric)
{
    static const hypura_spread none = {NAN, NAN, NAN};
    return series ? &series->metrics[metric] : &none;
}

/* ---- plots ------------------------------------------------------------------- */

/* Speed of both variants, and the bound. */
static void put_speed(page *p, const char *title, hypura_metric speed, hypura_metric bound)
{
    hypura_line_plot plot = {.title = title,
                             .unit = "tokens/s",
                             .scale = 1.0,
                             .n = p->n,
                             .x_bytes = p->x_bytes,
                             .labels = p->labels};
    bool any_baseline = false;
    for (int i = 0; i < p->n; i++) {
        const row *r = &p->rows[i];
        p->spreads[0][i] = *metric_of(&r->cell->series[0], speed);
        p->spreads[1][i] = *metric_of(speed == HYPURA_METRIC_PREFILL_TOK_S ? r->prefill_baseline : r->decode_baseline, speed);
        p->spreads[2][i] = *metric_of(&r->cell->series[0], bound);
        any_baseline = any_baseline || r->decode_baseline;
    }
    plot.lines[plot.n_lines++] = (hypura_plot_line){"bound", "c", p->spreads[2]};
    if (any_baseline) {
        plot.lines[plot.n_lines++] = (hypura_plot_line){"llama.cpp", "b", p->spreads[1]};
    }
    plot.lines[plot.n_lines++] = (hypura_plot_line){"Hypura", "a", p->spreads[0]};
    hypura_plot_lines(p->to, &plot);
}

static void put_hits(page *p)
{
    hypura_line_plot plot = {
        .title = "Hit rate by bytes, of weights that are paged",
        .unit = "%",
        .scale = 100.0,
        .n = p->n,
        .x_bytes = p->x_bytes,
        .labels = p->labels};
    bool over_gpu = false;
    for (int i = 0; i < p->n; i++) {
        const hypura_bench_series *series = &p->rows[i].cell->series[0];
        p->spreads[0][i] = *metric_of(series, HYPURA_METRIC_HIT_RATE_BYTES);
        p->spreads[1][i] = *metric_of(series, HYPURA_METRIC_VRAM_HIT_RATE_BYTES);
        over_gpu = over_gpu || !isnan(p->spreads[1][i].median);
    }
    if (over_gpu) {
        plot.lines[plot.n_lines++] = (hypura_plot_line){"in the GPU's memory", "b", p->spreads[1]};
    }
    plot.lines[plot.n_lines++] = (hypura_plot_line){over_gpu ? "of the rest, in RAM" : "Hypura", "a", p->spreads[0]};
    hypura_plot_lines(p->to, &plot);
}

static void put_layers(page *p)
{
    bool over_gpu = false;
    hypura_column_plot plot = {
        .axis = "layer", .class_name = "a", .n = p->n, .labels = p->labels, .values = p->layers};
    for (int i = 0; i < p->n; i++) {
        const hypura_layer_hits *layers = p->rows[i].cell->series[0].layers;
        for (int l = 0; l < HYPURA_MAX_BENCH_LAYERS; l++) {
            over_gpu = over_gpu || layers[l].vram_bytes_needed > 0;
            if (!isnan(hypura_bench_layer_hit_rate(&layers[l])) && l >= plot.n_columns) {
                plot.n_columns = l + 1;
            }
        }
    }
    for (int i = 0; i < p->n; i++) {
        for (int l = 0; l < plot.n_columns; l++) {
            p->layers[i * plot.n_columns + l] = hypura_bench_layer_hit_rate(&p->rows[i].cell->series[0].layers[l]);
        }
    }
    plot.title = over_gpu ? "Hit rate by layer, in the GPU's memory" : "Hit rate by layer";
    if (plot.n_columns > 0) {
        hypura_plot_columns(p->to, &plot);
    }
}

static void put_time(page *p)
{
    static const hypura_metric metrics[] = {HYPURA_METRIC_COMPUTE_S, HYPURA_METRIC_READ_WAIT_S,
                                            HYPURA_METRIC_OVERHEAD_S};
    hypura_bar_plot plot = {.title = "Time of a decoded token, Hypura",
                            .n_parts = 3,
                            .parts = {{"compute", "d"}, {"read wait", "e"}, {"overhead", "c"}},
                            .n = p->n,
                            .labels = p->labels,
                            .values = p->parts,
                            .format = format_ms};
    for (int i = 0; i < p->n; i++) {
        for (int part = 0; part < plot.n_parts; part++) {
            p->parts[i * plot.n_parts + part] = metric_of(&p->rows[i].cell->series[0], metrics[part])->median;
        }
    }
    hypura_plot_bars(p->to, &plot);
}

static void put_placement(page *p)
{
    hypura_bar_plot plot = {
        .title = "Placement of the weights",
        .n_parts = 7,
        .parts = {{"GPU", "g"},
                  {"GPU slots", "e"},
                  {"resident", "a"},
                  {"pinned", "d"},
                  {"expert pool", "f"},
                  {"ring", "b"},
                  {"drive alone", "c"}},
        .n = p->n,
        .labels = p->labels,
        .values = p->parts,
        .format = format_bytes};
    for (int i = 0; i < p->n; i++) {
        const hypura_plan *plan = &p->rows[i].cell->plan;
        const uint64_t bytes[] = {plan->vram_resident_bytes, plan->vram_slot_bytes, plan->resident_bytes,
                                  plan->pinned_bytes,        plan->pool_bytes,      plan->ring_bytes,
                                  plan->nvme_bytes};
        for (int part = 0; part < plot.n_parts; part++) {
            p->parts[i * plot.n_parts + part] = (double)bytes[part];
        }
    }
    hypura_plot_bars(p->to, &plot);
}

/* ---- text -------------------------------------------------------------------- */

static void put_head(page *p)
{
    const hypura_bench_report *r = p->report;
    char size[HYPURA_SIZE_TEXT];
    char ram[HYPURA_SIZE_TEXT];
    fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>hypura bench: ",
          p->to);
    hypura_plot_text(p->to, r->model);
    fprintf(p->to, "</title>\n<style>\n%s</style></head><body>\n<h1>", style);
    hypura_plot_text(p->to, r->model[0] ? r->model : "model without a name");
    fprintf(p->to,
            "</h1>\n<p>%s of weights, %u tokens decoded after a prompt of %u, %d threads, median of %u %s; "
            "whiskers from the slowest to the fastest</p>\n<p>",
            hypura_size_format(r->model_bytes, size, sizeof size), r->tokens, r->prompt_tokens, r->n_threads, r->runs,
            r->runs == 1 ? "run" : "runs");
    hypura_plot_text(p->to, r->profile.cpu);
    fprintf(p->to, ", %d processors, %s, drive %s (%s%s)</p>\n", r->profile.n_cpus,
            hypura_size_format(r->profile.ram_limit_bytes, ram, sizeof ram),
            hypura_output_rate(r->profile.direct_bytes_per_s), r->io_engine, r->profile.direct_io ? ", direct" : "");
    if (r->io_limit_bytes_per_s > 0) {
        fprintf(p->to, "<p>Hypura's reads were slowed down to %s; llama.cpp's were not.</p>\n",
                hypura_output_rate((double)r->io_limit_bytes_per_s));
    }
    if (r->parallel > 1) {
        fprintf(p->to, "<p>%u sequences were decoded together: speeds are of all of them, and what is given for a token is "
                       "a part of that of one of each.</p>\n", r->parallel);
    }
    if (r->route) {
        fputs("<p>Experts were forced by a recorded route, which cuts every graph at its routers, in all series "
              "alike.</p>\n",
              p->to);
    }
    if (r->route_recall > 0) {
        fprintf(p->to, "<p>Reading ahead is emulated: guesses made up from the route, of which %.0f %% come true.</p>\n",
                r->route_recall * 100);
    }
}

static void put_number(FILE *to, const hypura_spread *spread, double scale, const char *unit)
{
    if (isnan(spread->median)) {
        fputs("<td>&ndash;</td>", to);
    } else {
        const double value = spread->median * scale;
        fprintf(to, "<td title=\"%.4g to %.4g\">%.*f%s</td>", spread->min * scale, spread->max * scale,
                value < 10.0 ? 2 : 1, value, unit);
    }
}

static void put_table(page *p)
{
    static const struct {
        const char *title;
        hypura_metric metric;
        double scale;
        const char *unit;
    } columns[] = {
        {"decode tok/s", HYPURA_METRIC_DECODE_TOK_S, 1.0, ""},
        {"cold", HYPURA_METRIC_DECODE_COLD_TOK_S, 1.0, ""},
        {"prefill tok/s", HYPURA_METRIC_PREFILL_TOK_S, 1.0, ""},
        {"read/token", HYPURA_METRIC_BYTES_PER_TOKEN, 1.0 / (1 << 20), " MiB"},
        {"hits", HYPURA_METRIC_HIT_RATE_BYTES, 100.0, " %"},
        {"drive busy", HYPURA_METRIC_DEVICE_BUSY, 100.0, " %"},
    };
    enum { N_COLUMNS = sizeof columns / sizeof *columns };
    FILE *to = p->to;
    fputs("<div class=\"scroll\"><table><tr><th>weights</th><th></th>", to);
    for (int c = 0; c < N_COLUMNS; c++) {
        fprintf(to, "<th>%s</th>", columns[c].title);
    }
    fputs("<th>of the bound</th></tr>\n", to);
    for (int i = 0; i < p->n; i++) {
        const hypura_bench_cell *cell = p->rows[i].cell;
        for (int s = 0; s < cell->n_series; s++) {
            const hypura_bench_series *series = &cell->series[s];
            fprintf(to, "<tr><td>%s</td><td>", s == 0 ? p->labels[i] : "");
            hypura_plot_text(to, series->label);
            if (series->note[0]) {
                fputs("<br>", to);
                hypura_plot_text(to, series->note);
            }
            fputs("</td>", to);
            for (int c = 0; c < N_COLUMNS; c++) {
                put_number(to, &series->metrics[columns[c].metric], columns[c].scale, columns[c].unit);
            }
            if (series->bound_by) {
                fprintf(to, "<td>%.1f %% of %s</td></tr>\n",
                        100.0 * series->metrics[HYPURA_METRIC_BOUND_SHARE].median, series->bound_by);
            } else {
                fputs("<td>&ndash;</td></tr>\n", to);
            }
        }
    }
    fputs("</table></div>\n", to);
}

/* From the least to the most, where runs differ. */
static void put_ratio(FILE *to, const hypura_spread *ratio, const char *of)
{
    fprintf(to, " <b>%.2fx %s</b>", ratio->median, of);
    if (ratio->max > ratio->min) {
        fprintf(to, " (%.2f to %.2f)", ratio->min, ratio->max);
    }
}

/* What it came to against llama.cpp, and what the drive gave meanwhile. */
static void put_outcome(page *p)
{
    FILE *to = p->to;
    for (int i = 0; i < p->n; i++) {
        const hypura_bench_cell *cell = p->rows[i].cell;
        const hypura_spread *rate = metric_of(&cell->series[0], HYPURA_METRIC_DIRECT_BYTES_PER_S);
        const bool compared = p->rows[i].decode_baseline && p->rows[i].prefill_baseline;
        if (!compared && isnan(rate->median)) {
            continue;
        }
        fprintf(to, "<p>%s:", p->labels[i]);
        if (compared) {
            put_ratio(to, &cell->decode_ratio, "decode");
            fputc(',', to);
            put_ratio(to, &cell->prefill_ratio, "prefill");
            fputs(" against the better of llama.cpp", to);
        }
        if (!isnan(rate->median)) {
            fprintf(to, "%s the drive gave %s", compared ? ";" : "", hypura_output_rate(rate->median));
            if (rate->max > rate->min) {
                fprintf(to, " (%s to %s)", hypura_output_rate(rate->min), hypura_output_rate(rate->max));
            }
        }
        fputs("</p>\n", to);
    }
}

/* ---- the page ---------------------------------------------------------------- */

static bool fill_rows(page *p)
{
    const size_t n = (size_t)p->n > 0 ? (size_t)p->n : 1;
    p->rows = calloc(n, sizeof *p->rows);
    p->x_bytes = calloc(n, sizeof *p->x_bytes);
    p->labels = calloc(n, sizeof *p->labels);
    p->parts = calloc(n * HYPURA_PLOT_MAX_PARTS, sizeof *p->parts);
    p->layers = calloc(n * HYPURA_MAX_BENCH_LAYERS, sizeof *p->layers);
    bool ok = p->rows && p->x_bytes && p->labels && p->parts && p->layers;
    for (int l = 0; l < HYPURA_PLOT_MAX_LINES; l++) {
        p->spreads[l] = calloc(n, sizeof *p->spreads[l]);
        ok = ok && p->spreads[l];
    }
    for (int i = 0; i < p->n && ok; i++) {
        const hypura_bench_cell *cell = &p->report->cells[i];
        p->rows[i].cell = cell;
        p->rows[i].decode_baseline = cell->decode_baseline > 0 ? &cell->series[cell->decode_baseline] : NULL;
        p->rows[i].prefill_baseline = cell->prefill_baseline > 0 ? &cell->series[cell->prefill_baseline] : NULL;
    }
    if (ok) {
        qsort(p->rows, (size_t)p->n, sizeof *p->rows, compare_rows);
    }
    for (int i = 0; i < p->n && ok; i++) {
        row *r = &p->rows[i];
        p->x_bytes[i] = (double)memory_of(r->cell);
        name_row(r);
        p->labels[i] = r->label;
    }
    return ok;
}

static void put_page(page *p)
{
    put_head(p);
    fputs("<div class=\"plots\">\n", p->to);
    put_speed(p, "Decode: speed", HYPURA_METRIC_DECODE_TOK_S, HYPURA_METRIC_BOUND_TOK_S);
    put_speed(p, "Prefill: speed", HYPURA_METRIC_PREFILL_TOK_S, HYPURA_METRIC_PREFILL_BOUND_TOK_S);
    put_time(p);
    put_hits(p);
    put_layers(p);
    put_placement(p);
    fputs("</div>\n", p->to);
    put_table(p);
    put_outcome(p);
    fputs("</body></html>\n", p->to);
}

hypura_status hypura_bench_report_write(const hypura_bench_report *report, const char *path, hypura_error *error)
{
    page p = {.report = report, .n = report->n_cells};
    hypura_status status = HYPURA_OK;
    if (!fill_rows(&p)) {
        status = hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the report %s", path);
    } else {
        hypura_new_file file;
        (void)hypura_output_flush(); /* which may be the same file */
        status = hypura_new_file_open(&file, path, error);
        if (status == HYPURA_OK) {
            p.to = file.to;
            put_page(&p);
            status = hypura_new_file_close(&file, error);
        }
    }
    free(p.rows);
    free(p.x_bytes);
    free(p.labels);
    free(p.parts);
    free(p.layers);
    for (int l = 0; l < HYPURA_PLOT_MAX_LINES; l++) {
        free(p.spreads[l]);
    }
    return status;
}
