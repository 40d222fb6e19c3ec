/*
 * warm.c - EMPTY slots are filled with what earlier runs used most, and what this run
 * uses is counted for the next one. Owned by the pager; where the counts are kept is
 * the engine's affair. Beside a GPU, where RAM has room for all experts, those follow that nobody
 * has used: no token waits for the drive any more once all are there.
 *
 * Such reads come last of all, and evict nothing: a run that begins at once, with a
 * prompt of its own, loses no time by them.
 */
#include "pager/internal.h"

#include "base/status.h"

#include <stdlib.h>

void pager_close_warm(hypura_pager *pager)
{
    free(pager->warm.experts);
}

hypura_status hypura_pager_warm(hypura_pager *pager, const hypura_hot_expert *experts, uint32_t n, hypura_error *error)
{
    hypura_hot_expert *copy = n > 0 ? calloc(n, sizeof(*copy)) : NULL;
    if (n > 0 && !copy) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a list of %u experts", n);
    }
    pthread_mutex_lock(&pager->lock);
    for (uint32_t i = 0; i < n; i++) {
        const int bundle = experts[i].bundle;
        if (pager_streams(pager, bundle)) {
            const pager_bundle *place = &pager->bundles[bundle];
            copy[pager->warm.n++] = experts[i];
            hypura_cache_recall(pager->pools[place->pool].cache, place->first_key + experts[i].expert,
                                experts[i].frequency);
        }
    }
    pager->warm.experts = copy;
    pthread_mutex_unlock(&pager->lock);
    hypura_io_wake(pager->io);
    return HYPURA_OK;
}

void hypura_pager_fill(hypura_pager *pager)
{
    pthread_mutex_lock(&pager->lock);
    pager->warm.fills = true;
    pthread_mutex_unlock(&pager->lock);
    hypura_io_wake(pager->io);
}

/* False when it is there, or no slot is empty. */
static bool start_read(hypura_pager *pager, int bundle, uint32_t expert)
{
    const pager_bundle *place = &pager->bundles[bundle];
    hypura_cache       *cache = pager->pools[place->pool].cache;
    const uint32_t      key = place->first_key + expert;
    if (!hypura_cache_has_empty(cache) || hypura_cache_find(cache, key) != HYPURA_CACHE_NONE) {
        return false;
    }
    uint32_t       evicted;
    const uint32_t slot = hypura_cache_insert(cache, key, &evicted);
    pager_read_expert(pager, PAGER_AHEAD, bundle, expert, slot, pager->plan->io_block_bytes, NULL);
    return true;
}

/* Whether all that its slots are for has room in them. */
static bool has_room_for_all(const hypura_pager *pager, int bundle)
{
    const hypura_pool_plan *planned = &pager->plan->pools[pager->bundles[bundle].pool];
    return planned->n_slots >= planned->n_units;
}

static bool start_rest(hypura_pager *pager)
{
    pager_warm *warm = &pager->warm;
    for (; warm->fills && warm->bundle < pager->map->n_bundles; warm->bundle++, warm->expert = 0) {
        const uint32_t n_experts = (uint32_t)pager->map->bundles[warm->bundle].n_experts;
        const bool     fits = pager_streams(pager, warm->bundle) && has_room_for_all(pager, warm->bundle);
        while (fits && warm->expert < n_experts) {
            if (start_read(pager, warm->bundle, warm->expert++)) {
                return true;
            }
        }
    }
    return false;
}

bool pager_start_warm(hypura_pager *pager)
{
    pager_warm *warm = &pager->warm;
    while (warm->next < warm->n) {
        const hypura_hot_expert *hot = &warm->experts[warm->next++];
        if (start_read(pager, hot->bundle, hot->expert)) {
            return true;
        }
    }
    return pager->outstanding_bytes == 0 && start_rest(pager); /* one at a time: a demand hardly waits for it */
}

uint32_t hypura_pager_uses(hypura_pager *pager, int bundle, uint32_t expert)
{
    if (!pager_streams(pager, bundle)) {
        return 0;
    }
    const pager_bundle *place = &pager->bundles[bundle];
    pthread_mutex_lock(&pager->lock);
    const uint32_t uses = hypura_cache_uses(pager->pools[place->pool].cache, place->first_key + expert);
    pthread_mutex_unlock(&pager->lock);
    return uses;
}
