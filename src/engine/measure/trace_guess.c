/*
 * trace_guess.c - see trace_guess.h.
 */
#include "engine/measure/trace_guess.h"

#include "base/status.h"
#include "predict/candidates.h"

#include <stdlib.h>

hypura_status trace_guess_open(trace_guess *guess, const hypura_cache_trace *trace, hypura_error *error)
{
    uint32_t  widest = 1;
    uint32_t *n_experts = calloc(trace->n_groups, sizeof(*n_experts));
    *guess = (trace_guess){.n_experts = trace->n_keys / trace->n_groups};
    for (uint32_t s = 0; s < trace->n_steps; s++) {
        widest = trace->steps[s].n > widest ? trace->steps[s].n : widest;
    }
    for (uint32_t g = 0; n_experts && g < trace->n_groups; g++) {
        n_experts[g] = guess->n_experts;
    }
    guess->seen = n_experts ? hypura_coactivation_open(trace->n_groups, n_experts, widest) : NULL;
    guess->chances = calloc(3 * (size_t)guess->n_experts, sizeof(*guess->chances));
    guess->ids = calloc(widest, sizeof(*guess->ids));
    free(n_experts);
    return guess->seen && guess->chances && guess->ids
               ? HYPURA_OK
               : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to guess %u layers of %u experts", trace->n_groups,
                             guess->n_experts);
}

void trace_guess_close(trace_guess *guess)
{
    hypura_coactivation_close(guess->seen);
    free(guess->chances);
    free(guess->ids);
}

static void judge(trace_guess *guess, const hypura_cache *cache, const hypura_cache_step *step, const uint32_t *keys)
{
    const uint32_t first_key = step->group * guess->n_experts;
    float *frequencies = guess->chances + guess->n_experts;
    float *scores = frequencies + guess->n_experts;
    hypura_cache_outlook(cache, first_key, guess->n_experts, guess->chances, frequencies);
    hypura_coactivation_score(guess->seen, step->group, guess->chances, frequencies, scores);
    for (uint32_t e = 0; e < guess->n_experts; e++) {
        if (scores[e] >= HYPURA_COACTIVATION_LEAST && hypura_cache_find(cache, first_key + e) == HYPURA_CACHE_NONE) {
            guess->n_named++;
            guess->n_foreseen += hypura_candidates_contain(keys, step->n, first_key + e);
        }
    }
}

void trace_guess_watch(void *user, const hypura_cache *cache, const hypura_cache_step *step, const uint32_t *keys)
{
    trace_guess *guess = user;
    if (hypura_coactivation_knows(guess->seen, step->group)) {
        judge(guess, cache, step, keys);
    }
    for (uint32_t i = 0; i < step->n; i++) {
        guess->n_missed += hypura_cache_find(cache, keys[i]) == HYPURA_CACHE_NONE;
        guess->ids[i] = (int32_t)(keys[i] - step->group * guess->n_experts);
    }
    const hypura_selected selected = {.n_used = step->n,
                                      .n_tokens = 1,
                                      .ids = (const char *)guess->ids,
                                      .rank_stride_bytes = sizeof(*guess->ids),
                                      .token_stride_bytes = step->n * sizeof(*guess->ids)};
    hypura_coactivation_note(guess->seen, step->group, &selected);
}
