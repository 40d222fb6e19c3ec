/*
 * share.c - the slots that every pool gets of a number of bytes.
 *
 * Every pool holds the same part g of its units, with g as large as fits: an expert
 * of one size is then as likely to be found as one of another. The floor of each is
 * kept whatever the budget, no pool has more slots than units, and what one cannot
 * use raises g for the others.
 *
 * What always holds: as the budget grows, no pool ever loses a slot.
 */
#include "plan/plan.h"

#define SHARE_STEPS (UINT64_C(1) << 20)

static uint32_t slots_at(const hypura_pool_plan *pool, uint64_t step)
{
    const uint32_t n = (uint32_t)(pool->n_units * step / SHARE_STEPS);
    return n < pool->n_floor ? pool->n_floor : n;
}

static uint64_t bytes_at(const hypura_pool_plan *pools, int n_pools, uint64_t step)
{
    uint64_t bytes = 0;
    for (int i = 0; i < n_pools; i++) {
        bytes += slots_at(&pools[i], step) * pools[i].slot_stride_bytes;
    }
    return bytes;
}

void hypura_plan_share_slots(const hypura_pool_plan *pools, int n_pools, uint64_t budget_bytes, uint32_t *n_slots)
{
    uint64_t fits = 0; /* the floors do */
    uint64_t above = SHARE_STEPS + 1;
    while (above - fits > 1) {
        const uint64_t step = fits + (above - fits) / 2;
        if (bytes_at(pools, n_pools, step) <= budget_bytes) {
            fits = step;
        } else {
            above = step;
        }
    }
    /* Slot by slot towards the next step, stopping at the first that does not
     * fit: a smaller one further on would be lost again with a larger budget. */
    const uint64_t least = bytes_at(pools, n_pools, fits);
    uint64_t left = budget_bytes > least ? budget_bytes - least : 0;
    bool full = fits == SHARE_STEPS;
    for (int i = 0; i < n_pools; i++) {
        n_slots[i] = slots_at(&pools[i], fits);
        while (!full && n_slots[i] < slots_at(&pools[i], fits + 1)) {
            full = pools[i].slot_stride_bytes > left;
            if (!full) {
                n_slots[i]++;
                left -= pools[i].slot_stride_bytes;
            }
        }
    }
}
