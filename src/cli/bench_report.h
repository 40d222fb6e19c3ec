/*
 * bench_report.h - a bench as one self-contained HTML page with plots.
 */
#ifndef HYPURA_CLI_BENCH_REPORT_H
#define HYPURA_CLI_BENCH_REPORT_H

#include "hypura_measure.h"

/* Fails naming path. */
hypura_status hypura_bench_report_write(const hypura_bench_report *report, const char *path, hypura_error *error);

#endif
