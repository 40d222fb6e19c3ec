/*
 * case.h - one case: a seed, of which a model, a way to run it and the work follow (drawn.h, play.h).
 */
#ifndef HYPURA_TEST_RANDOM_CASE_H
#define HYPURA_TEST_RANDOM_CASE_H

#include "drawn.h"

typedef enum outcome {
    IDENTICAL = 0,
    DIFFERS,
    FAILED,
    PLAIN_FAILED, /* llama.cpp alone cannot run it */
    REFUSED,      /* the limits are too small, or something asked for does not exist */
    CRASHED,
    HANGS,
    N_OUTCOMES,
} outcome;

/* What a case's process tells, in memory that both have. */
typedef struct verdict {
    outcome  outcome;
    bool     in_plain; /* it is at what plain libllama does */
    char     model[2 * DRAWN_PATH_BYTES];
    char     run[DRAWN_PATH_BYTES];
    char     text[768];
    uint64_t n_values, n_decodes, n_errors, n_cancelled;
    uint64_t bytes_read, bytes_uploaded, bytes_landed, n_ahead, n_repeated, n_cpu_rows, n_resizes, foreseen_useful;
    uint64_t n_answers;
} verdict;

typedef struct settings {
    const char *cache_dir;
    drawn_files files;
    const char *gpus;
    uint64_t    seed, n_cases, seconds;
    int         n_ops;
    const char *changes[32];
    int         n_changes;
    bool        verbose;
    hypura_profile profile;
} settings;

/* Once in a process. */
void run_case(const settings *with, uint64_t seed, verdict *v);

#endif
