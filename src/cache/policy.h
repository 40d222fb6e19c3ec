/*
 * policy.h - what a replacement policy is: an order of the slots, nothing more.
 *
 * The cache (cache.c) owns slots, keys, pins and the free list. A policy is told
 * what happens to a slot and is asked for one thing: who goes next. It holds
 * indices only, so it can be replayed from a trace without any model.
 *
 *     cache --- on_insert, on_touch, on_remove ---> policy (its own state)
 *           <-- victim ---------------------------
 *
 * What always holds:
 *  1. A slot is known to the policy from on_insert until on_remove; on_touch and
 *     victim speak of known slots only. An eviction is an on_remove as well.
 *  2. victim is asked only while at least one known slot has no pins, returns
 *     such a slot and forgets nothing (on_remove follows).
 *  3. Memory is taken in open alone. Nothing after it can fail.
 *
 * Adding a policy: one file policy_NAME.c that defines hypura_policy_NAME, and
 * one line in HYPURA_POLICIES.
 */
#ifndef HYPURA_CACHE_POLICY_H
#define HYPURA_CACHE_POLICY_H

#include <stdint.h>

typedef struct hypura_policy {
    const char *name;

    /* Returns the state, NULL when memory is short. */
    void *(*open)(uint32_t n_slots, uint32_t n_keys, uint32_t n_groups);
    void (*close)(void *state);

    /* Key of this group is in the slot now and is being used. */
    void (*on_insert)(void *state, uint32_t slot, uint32_t key, uint32_t group);
    /* The key in the slot is used once more. */
    void (*on_touch)(void *state, uint32_t slot);
    /* The slot holds nothing any more. */
    void (*on_remove)(void *state, uint32_t slot);

    /* Slot to be given to key: pins[slot] must be 0. */
    uint32_t (*victim)(void *state, const uint32_t *pins, uint32_t key, uint32_t group);
} hypura_policy;

/* Every policy, the default first. */
#define HYPURA_POLICIES(X)                                                                                             \
    X(lru)                                                                                                             \
    X(reuse)

#define HYPURA_POLICY_DECLARE(name) extern const hypura_policy hypura_policy_##name;
HYPURA_POLICIES(HYPURA_POLICY_DECLARE)
#undef HYPURA_POLICY_DECLARE

/* The policy of that name, the default for NULL; NULL when there is none. */
const hypura_policy *hypura_policy_find(const char *name);

/* Policy number i, in the order of the table; NULL past its end. */
const hypura_policy *hypura_policy_at(uint32_t i);

#endif
