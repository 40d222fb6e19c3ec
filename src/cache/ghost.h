/*
 * ghost.h - what the hit rate would be under each policy: caches of keys alone that
 * live through the same visits, so that the policy can be chosen while it counts.
 *
 * A ghost sees only a sample of the layers, with as large a share of the slots: such
 * a miniature behaves like the whole (Waldspurger et al., "Cache modeling and
 * optimization using miniature simulations", 2017) and costs a fraction.
 */
#ifndef HYPURA_CACHE_GHOST_H
#define HYPURA_CACHE_GHOST_H

#include "cache/ranking.h"

typedef struct ghost {
    ranking held;
    uint32_t n_held;
    double hits; /* lately: of single tokens, in the sampled layers */
} ghost;

typedef struct ghosts {
    const history *past;
    uint32_t stride; /* every stride-th group is sampled */
    uint32_t n_sampled_keys;
    double uses; /* lately, as hits */
    ghost of[HYPURA_N_POLICIES];
} ghosts;

/* False when memory is short. */
bool ghosts_open(ghosts *all, const history *past);
void ghosts_close(ghosts *all);

/* After the history has noted it. n_slots of the cache as it is now. */
void ghosts_visit(ghosts *all, const hypura_cache_visited *visit, bool round, uint32_t n_slots);

/* The policy to use from here on, given the one in force: another one only for an
 * advantage beyond what a sample errs by, and the first one again once it is as good. */
const hypura_policy *ghosts_choose(const ghosts *all, const hypura_policy *in_force);

#endif
