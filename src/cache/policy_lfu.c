/*
 * policy_lfu.c - least frequently used, where a use counts half after 34 tokens.
 *
 * Right for routers with favourites that hardly change. Where all are alike, the
 * layer that comes up last gives way, as in policy_reuse.c.
 */
#include "cache/policy.h"

#define UNKNOWN 0.0005 /* what a key never used is worth */

static double lfu_worth(const history *past, uint32_t key)
{
    return past->keys[key].frequency;
}

static double lfu_next_use(const history *past, double worth, uint32_t distance)
{
    const double chance = worth + UNKNOWN;
    return distance + past->n_groups * (history_visits_to_use(past, chance < 1.0 ? chance : 1.0) - 1.0);
}

const hypura_policy hypura_policy_lfu = {.name = "lfu", .worth = lfu_worth, .next_use = lfu_next_use};
