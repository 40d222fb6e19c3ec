/*
 * bench_report.h - a bench as one self-contained HTML page with plots.
 */
#ifndef HYPURA_CLI_BENCH_REPORT_H
#define HYPURA_CLI_BENCH_REPORT_H

#include "hypura.h"

/* Both fail naming path; the first, before anything is measured, where it cannot be written. */
hypura_status hypura_bench_report_check(const char *path, hypura_error *error);
hypura_status hypura_bench_report_write(const hypura_bench_report *report, const char *path, hypura_error *error);

#endif
