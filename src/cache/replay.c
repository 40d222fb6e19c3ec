/*
 * replay.c - a trace through the cache itself, as the pager drives it.
 */
#include "cache/trace.h"

#include "base/status.h"
#include "cache/cache.h"

#include <stdlib.h>

/* Drops the pins on slots[0 .. n), but for NONE. */
static void release(hypura_cache *cache, uint32_t *slots, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (slots[i] != HYPURA_CACHE_NONE) {
            hypura_cache_unpin(cache, slots[i]);
            slots[i] = HYPURA_CACHE_NONE;
        }
    }
}

/* The two arrays have room for the keys of the step. Returns how many were present. */
static uint32_t take_step(hypura_cache *cache, const uint32_t *keys, const hypura_cache_step *step, uint32_t *slots,
                          bool *present)
{
    const hypura_cache_visited visit = {.group = step->group, .n_tokens = 1, .n = step->n, .keys = keys};
    uint32_t n_hits = 0;
    hypura_cache_visit(cache, &visit);
    for (uint32_t i = 0; i < step->n; i++) {
        slots[i] = hypura_cache_find(cache, keys[i]);
        present[i] = slots[i] != HYPURA_CACHE_NONE;
        if (present[i]) {
            hypura_cache_pin(cache, slots[i]);
            n_hits++;
        }
    }
    for (uint32_t i = 0; i < step->n; i++) {
        if (present[i]) {
            continue;
        }
        if (hypura_cache_evictable(cache) == 0) {
            release(cache, slots, step->n); /* fewer slots than the step needs: it is computed in groups */
        }
        uint32_t evicted;
        slots[i] = hypura_cache_insert(cache, keys[i], &evicted);
        hypura_cache_pin(cache, slots[i]);
    }
    release(cache, slots, step->n);
    return n_hits;
}

hypura_status hypura_cache_replay(const hypura_cache_trace *trace, const char *policy, uint32_t n_slots,
                                  hypura_cache_watch_fn watch, void *watch_user, uint64_t *n_hits,
                                  hypura_error *error)
{
    uint32_t widest = 1;
    for (uint32_t s = 0; s < trace->n_steps; s++) {
        widest = trace->steps[s].n > widest ? trace->steps[s].n : widest;
    }
    const hypura_cache_options options = {
        .n_slots = n_slots, .n_keys = trace->n_keys, .n_groups = trace->n_groups, .policy = policy};
    hypura_cache *cache = NULL;
    uint32_t *slots = malloc(widest * sizeof(*slots));
    bool *present = malloc(widest * sizeof(*present));
    hypura_status status = slots && present
                               ? hypura_cache_open(&options, &cache, error)
                               : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to replay steps of %u keys", widest);
    *n_hits = 0;
    for (uint32_t s = 0; status == HYPURA_OK && s < trace->n_steps; s++) {
        const uint32_t *keys = trace->uses + trace->steps[s].first;
        if (watch) {
            watch(watch_user, cache, &trace->steps[s], keys);
        }
        *n_hits += take_step(cache, keys, &trace->steps[s], slots, present);
    }
    for (uint32_t at = 0; status == HYPURA_OK && trace->n_steps == 0 && at < trace->n_uses; at++) {
        const uint32_t group = trace->uses[at] / (trace->n_keys / trace->n_groups);
        const hypura_cache_step one = {.first = at, .n = 1, .group = group};
        *n_hits += take_step(cache, trace->uses + at, &one, slots, present);
    }
    hypura_cache_close(cache);
    free(slots);
    free(present);
    return status;
}
