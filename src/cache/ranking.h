/*
 * ranking.h - a set of held keys, and which of them a policy would give up first.
 * The cache has one for its slots, each ghost (ghost.h) one of its own.
 */
#ifndef HYPURA_CACHE_RANKING_H
#define HYPURA_CACHE_RANKING_H

#include "cache/policy.h"

enum ranking_state { RANKING_ABSENT = 0, RANKING_HELD, RANKING_PINNED };

typedef struct ranking {
    const history *past;
    const hypura_policy *policy;
    uint8_t *states; /* by key */
    uint32_t *least; /* by group: the HELD key of least worth, NONE without any */
    double *worth;   /* of that key */
    bool *stale;     /* by group: least must be looked for */
} ranking;

/* False when memory is short. */
bool ranking_open(ranking *held, const history *past, const hypura_policy *policy);
void ranking_close(ranking *held);

/* The least of its group is looked for anew. */
void ranking_set(ranking *held, uint32_t key, enum ranking_state state);

/* The worth of this group's keys, or of all keys, may have changed. */
void ranking_visit(ranking *held, uint32_t group);
void ranking_refresh(ranking *held);
void ranking_set_policy(ranking *held, const hypura_policy *policy);

/* The HELD key that is needed last, seen from a visit of this group; NONE when no
 * key is HELD. The set stays as it is. */
uint32_t ranking_last(ranking *held, uint32_t group);

/* When the policy expects a key, held or not, in visits from one of this group on. */
double ranking_next_use(const ranking *held, uint32_t key, uint32_t group);

#endif
