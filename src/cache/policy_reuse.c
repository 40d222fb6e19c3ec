/*
 * policy_reuse.c - evict what is expected to be needed last.
 *
 * The best victim is the key whose next use lies furthest ahead (Belady, "A study
 * of replacement algorithms for a virtual-storage computer", 1966). The future is
 * not known here, but two things about it are. Layers are visited in turn, token
 * after token, so a layer just passed comes up again after all others. And keys of
 * one age and frequency have been used by the next token with a certain chance p,
 * which the history counts. With the distance d to the layer's next visit:
 *
 *     expected next use = d + n_groups * (1 / p - 1)        in visits
 *
 * Where a visit serves n tokens, of several conversations or of a long prompt, p of that
 * is 1 - (1 - p)^n. With that nearly 1 for all keys, only d is left: what was passed just
 * now goes first, and the rest stays for its next visit, which is best for a scan.
 *
 * LRU knows the first thing only by accident: with a pool below one token's
 * working set it evicts just what comes next and never hits. This order does not
 * collapse, and above the working set it is ahead of LRU and of LFU, as p mixes
 * recency and frequency in the proportion that this model's routers show.
 */
#include "cache/policy.h"

static double reuse_worth(const history *past, uint32_t key)
{
    /* within a class, the more frequent one stays */
    return (double)history_chance(past, key) + 1e-9 * (double)past->keys[key].frequency;
}

static double reuse_next_use(const history *past, double worth, uint32_t distance)
{
    return distance + past->n_groups * (history_visits_to_use(past, worth < 1.0 ? worth : 1.0) - 1.0);
}

const hypura_policy hypura_policy_reuse = {.name = "reuse", .worth = reuse_worth, .next_use = reuse_next_use};
