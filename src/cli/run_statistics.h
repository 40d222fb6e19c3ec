/*
 * run_statistics.h - how a run went: for people on standard error, for programs
 * in the file of --stats-json.
 */
#ifndef HYPURA_CLI_RUN_STATISTICS_H
#define HYPURA_CLI_RUN_STATISTICS_H

#include "base/buffer.h"
#include "hypura.h"

/* All answers of a run. Zero-initialise; close frees. */
typedef struct hypura_run_totals {
    uint32_t n_answers;
    uint64_t prompt_tokens;
    uint64_t tokens;
    double prompt_s;
    double decode_s;
    uint64_t bytes_read; /* for answers */
    uint64_t n_passes;
    uint64_t n_drafted;
    uint64_t n_accepted;
    double draft_s;
    hypura_buffer text; /* the answers, a newline between two of them */
} hypura_run_totals;

/* Fails with HYPURA_ERR_MEMORY. */
hypura_status hypura_run_totals_add(hypura_run_totals *totals, const hypura_result *result, hypura_error *error);
void hypura_run_totals_close(hypura_run_totals *totals);

/* What there is to tell about a run that is over. */
typedef struct hypura_run_report {
    const hypura_model *model;
    const hypura_run_totals *totals;
    const char *path;
    bool plain;           /* plain llama.cpp ran */
    bool speculates;      /* tokens were guessed, or tried to be */
    bool computes_misses; /* the CPU, what GPUs lack */
} hypura_run_report;

void hypura_run_statistics_print(const hypura_run_report *report);
hypura_status hypura_run_statistics_write(const hypura_run_report *report, const char *path, hypura_error *error);

#endif
