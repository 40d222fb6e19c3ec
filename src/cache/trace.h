/*
 * trace.h - a recorded sequence of uses taken through a cache: what a policy hits,
 * and what could have been hit at best. Pure; nothing of a model is known here.
 *
 * A step is what is needed at once: the experts of a token in one layer. As the
 * pager does, those present are used first, then the others are read, and none of
 * them leaves before the step ends (unless there are fewer slots than that). With
 * n_steps 0 each use is a step of its own. All groups have as many keys, one group's
 * after the other's.
 */
#ifndef HYPURA_CACHE_TRACE_H
#define HYPURA_CACHE_TRACE_H

#include "cache/cache.h"

typedef struct hypura_cache_step {
    uint32_t first; /* uses[first .. first + n), distinct keys */
    uint32_t n;
    uint32_t group;
} hypura_cache_step;

typedef struct hypura_cache_trace {
    const uint32_t *uses; /* keys */
    const hypura_cache_step *steps;
    uint32_t n_uses;
    uint32_t n_steps;
    uint32_t n_keys;
    uint32_t n_groups;
} hypura_cache_trace;

/* Told of each step before it, with the cache as it is then, and the step's keys. */
typedef void (*hypura_cache_watch_fn)(void *user, const hypura_cache *cache, const hypura_cache_step *step,
                                      const uint32_t *keys);

/* Uses that a cache of that policy (as in hypura_cache_options) hits, from empty. watch
 * NULL: nobody is told. */
hypura_status hypura_cache_replay(const hypura_cache_trace *trace, const char *policy, uint32_t n_slots,
                                  hypura_cache_watch_fn watch, void *watch_user, uint64_t *n_hits,
                                  hypura_error *error);

/* The most that any policy could hit which reads a key only when it is needed, uses
 * taken one by one: what leaves is what is needed last from now on (Belady, "A study
 * of replacement algorithms for a virtual-storage computer", 1966). */
hypura_status hypura_cache_belady(const hypura_cache_trace *trace, uint32_t n_slots, uint64_t *n_hits,
                                  hypura_error *error);

#endif
