/*
 * trace_guess.h - what co-activation would have foreseen of a recorded route, beside the
 * replay of its cache: the guesses of pager/guess.c without a drive, which neither fill
 * slots nor come too late.
 */
#ifndef HYPURA_ENGINE_MEASURE_TRACE_GUESS_H
#define HYPURA_ENGINE_MEASURE_TRACE_GUESS_H

#include "cache/trace.h"
#include "predict/coactivation.h"

typedef struct trace_guess {
    hypura_coactivation *seen;
    uint32_t  n_experts; /* of each group */
    float    *chances;   /* room for one group, with its frequencies and scores */
    int32_t  *ids;
    uint64_t  n_missed;
    uint64_t  n_named;    /* absent experts that were guessed */
    uint64_t  n_foreseen; /* of these, selected then */
} trace_guess;

hypura_status trace_guess_open(trace_guess *guess, const hypura_cache_trace *trace, hypura_error *error);
void          trace_guess_close(trace_guess *guess);

/* A hypura_cache_watch_fn; user: the trace_guess. */
void trace_guess_watch(void *user, const hypura_cache *cache, const hypura_cache_step *step, const uint32_t *keys);

#endif
