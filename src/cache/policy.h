/*
 * policy.h - what a replacement policy is: an opinion on which key is needed last.
 *
 * A policy holds no state. It ranks keys by their history (history.h), which goes
 * on whoever ranks, so the policy in force can change between two victims without
 * losing anything, and a trace can be replayed without any model.
 *
 * Adding a policy: one file policy_NAME.c that defines hypura_policy_NAME, and
 * one line in HYPURA_POLICIES.
 */
#ifndef HYPURA_CACHE_POLICY_H
#define HYPURA_CACHE_POLICY_H

#include "cache/history.h"

typedef struct hypura_policy {
    const char *name;

    /* How soon the key is expected: among keys of one group, the one of least worth
     * goes first. Changes only by a visit of its group, or at the start of a round. */
    double (*worth)(const history *past, uint32_t key);

    /* The same across groups, where the larger number goes first: when a key of this
     * worth is expected whose layer comes up after `distance` visits. */
    double (*next_use)(const history *past, double worth, uint32_t distance);
} hypura_policy;

/* Every policy, the one to begin with first. */
#define HYPURA_POLICIES(X)                                                                                             \
    X(reuse)                                                                                                           \
    X(lru)                                                                                                             \
    X(lfu)

#define HYPURA_POLICY_COUNT(name) +1
enum { HYPURA_N_POLICIES = 0 HYPURA_POLICIES(HYPURA_POLICY_COUNT) };
#undef HYPURA_POLICY_COUNT

#define HYPURA_POLICY_DECLARE(name) extern const hypura_policy hypura_policy_##name;
HYPURA_POLICIES(HYPURA_POLICY_DECLARE)
#undef HYPURA_POLICY_DECLARE

/* The policy of that name, NULL when there is none. */
const hypura_policy *hypura_policy_find(const char *name);

/* Policy number i, in the order of the table; NULL past its end. */
const hypura_policy *hypura_policy_at(uint32_t i);

#endif
