/*
 * policy_lru.c - least recently used, exactly.
 *
 * LRU needs a pool larger than the working set of a token (top-k times layers):
 * below it each token evicts what the next one asks for, and nothing hits.
 */
#include "cache/policy.h"

static double lru_worth(const history *past, uint32_t key)
{
    return past->keys[key].last_use;
}

static double lru_next_use(const history *past, double worth, uint32_t distance)
{
    (void)past;
    (void)distance;
    return -worth;
}

const hypura_policy hypura_policy_lru = {.name = "lru", .worth = lru_worth, .next_use = lru_next_use};
