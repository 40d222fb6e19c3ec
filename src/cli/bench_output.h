/*
 * bench_output.h - a bench as a table for people, as JSON for programs, and as a page of plots (bench_report.c).
 */
#ifndef HYPURA_CLI_BENCH_OUTPUT_H
#define HYPURA_CLI_BENCH_OUTPUT_H

#include "cli/json.h"
#include "hypura_measure.h"

/* To standard output. */
hypura_status hypura_bench_print(const hypura_bench_report *report, hypura_error *error);

/* Over a GPU, in its memory; else in RAM. NaN where nothing was paged. */
double hypura_bench_layer_hit_rate(const hypura_layer_hits *layer);

/* {"machine":{..},"cells":[{"weights_bytes":..,"hypura":{..},"baseline":{..}}]}: medians, with objects "min" and
 * "max" beside them. A metric that a series does not have is left out. */
json_t *hypura_bench_json(const hypura_bench_report *report);

/* bench_report.c: one self-contained HTML page. Fails naming path. */
hypura_status hypura_bench_report_write(const hypura_bench_report *report, const char *path, hypura_error *error);

#endif
