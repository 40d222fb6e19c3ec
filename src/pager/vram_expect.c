/*
 * vram_expect.c - experts uploaded to slots before their layer has selected them, while
 * the layer before is computed, see vram.h.
 *
 *     GPU     layer i ............ | layer i+1, after its uploads ......
 *     link    expected of i+1 .... |     what it lacks, and it again
 *
 * What always holds:
 *  1. Slots that the layer before reads stay as they are: it is computed meanwhile.
 *  2. What RAM lacks is no reason to wait: it is read ahead, and uploaded when asked for.
 *  3. Of those named the likeliest are sent, as many as the plan allows while a layer is computed.
 */
#include "pager/vram_internal.h"

#include "predict/candidates.h"

#include <string.h>

/* Log odds that are worth an upload on an idle link: a chance of an eighth. */
#define LEAST_COMPANION -2.0

/* Slots for those that RAM can give at once; absent: what it has to read. */
static uint32_t take_slots(hypura_vram *vram, int bundle, const uint32_t *experts, uint32_t n, uint32_t n_runs,
                           uint32_t *indices, uint32_t *absent, uint32_t *n_absent)
{
    const vram_bundle *place = &vram->bundles[bundle];
    vram_pool         *pool = &vram->pools[place->pool];
    const uint32_t     most = vram->pager->plan->gpus[vram->gpu].most_foreseen;
    const uint64_t     carried = most > 0 ? (uint64_t)n_runs * most : UINT64_MAX;
    uint32_t           n_taken = 0;
    *n_absent = 0;
    for (uint32_t i = 0; i < n && hypura_cache_evictable(pool->cache) > 0; i++) {
        if (hypura_cache_find(pool->cache, place->first_key + experts[i]) != HYPURA_CACHE_NONE) {
            continue;
        }
        if (!hypura_pager_holds_expert(vram->pager, bundle, experts[i])) {
            absent[(*n_absent)++] = experts[i];
            continue;
        }
        if (n_taken == carried) {
            continue;
        }
        const uint32_t slot = vram_insert(pool, place->first_key + experts[i]);
        hypura_cache_pin(pool->cache, slot);
        vram->missing[n_taken] = experts[i];
        indices[n_taken++] = slot;
    }
    hypura_cache_unpin_all(pool->cache, indices, n_taken);
    return n_taken;
}

static hypura_status upload_early(hypura_vram *vram, int bundle, uint32_t *indices, uint32_t n)
{
    memcpy(vram->foreseen, vram->missing, n * sizeof(*vram->foreseen));
    vram->foreseen_bundle = bundle;
    vram->n_foreseen = n;
    vram->early = true;
    const hypura_status status = vram_upload(vram, bundle, -1, vram->missing, indices, n, false);
    vram->early = false;
    if (status != HYPURA_OK) {
        vram->foreseen_bundle = -1;
    }
    return status;
}

static hypura_status expect(hypura_vram *vram, int bundle, const uint32_t *experts, uint32_t n, uint32_t n_runs,
                            hypura_certainty certainty)
{
    const vram_bundle *place = &vram->bundles[bundle];
    vram_pool         *pool = &vram->pools[place->pool];
    hypura_cache      *in_use = vram->in_use.n > 0 ? vram->pools[vram->in_use.pool].cache : NULL;
    uint32_t           indices[MAX_EXPERTS], present[MAX_EXPERTS], absent[MAX_EXPERTS];
    uint32_t           n_present = 0;
    uint32_t           n_absent = 0;
    hypura_cache_pin_all(in_use, vram->in_use.list, vram->in_use.n);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t slot = hypura_cache_find(pool->cache, place->first_key + experts[i]);
        if (slot != HYPURA_CACHE_NONE) {
            hypura_cache_pin(pool->cache, slot);
            present[n_present++] = slot;
        }
    }
    const uint32_t n_early = take_slots(vram, bundle, experts, n, n_runs, indices, absent, &n_absent);
    hypura_cache_unpin_all(pool->cache, present, n_present);
    hypura_cache_unpin_all(in_use, vram->in_use.list, vram->in_use.n);
    const hypura_status status = n_early > 0 ? upload_early(vram, bundle, indices, n_early) : HYPURA_OK;
    if (status == HYPURA_OK && n_absent > 0) {
        hypura_pager_expect_experts(vram->pager, bundle, absent, n_absent, certainty);
        vram->told_ram = true;
    }
    return status;
}

hypura_status hypura_vram_expect(hypura_vram *vram, int bundle, const uint32_t *experts, uint32_t n, uint32_t n_runs)
{
    return expect(vram, bundle, experts, n, n_runs, HYPURA_LIKELY);
}

hypura_status hypura_vram_expect_companions(hypura_vram *vram, int bundle, uint32_t n_runs)
{
    const vram_bundle  *place = &vram->bundles[bundle];
    const hypura_cache *cache = vram->pools[place->pool].cache;
    if (!pager_knows_companions(vram->pager, bundle)) {
        return HYPURA_OK;
    }
    const uint32_t *likely = vram->pager->guess.experts;
    const uint32_t  n = pager_pick_companions(vram->pager, cache, bundle, place->first_key, LEAST_COMPANION);
    uint32_t        n_named = 0; /* those that are there already stay */
    uint32_t        n_found = 0;
    while (n_named < n && n_found < n_runs) {
        n_found += hypura_cache_find(cache, place->first_key + likely[n_named++]) == HYPURA_CACHE_NONE;
    }
    return n_found > 0 ? expect(vram, bundle, likely, n_named, n_runs, HYPURA_DOUBTFUL) : HYPURA_OK;
}

uint32_t hypura_vram_n_expected(const hypura_vram *vram, int bundle)
{
    return vram->foreseen_bundle == bundle ? vram->n_foreseen : 0;
}

uint32_t vram_settle_foreseen(hypura_vram *vram, int bundle, const uint32_t *experts, uint32_t n)
{
    hypura_pager *pager = vram->pager;
    if (vram->told_ram) {
        hypura_pager_settle_experts(pager, bundle, experts, n); /* of another one where a graph failed in between */
        vram->told_ram = false;
    }
    if (vram->foreseen_bundle != bundle) {
        return 0;
    }
    uint32_t n_right = 0;
    for (uint32_t i = 0; i < vram->n_foreseen; i++) {
        n_right += hypura_candidates_contain(experts, n, vram->foreseen[i]);
    }
    vram->foreseen_bundle = -1;
    const uint64_t bytes = pager->map->bundles[bundle].expert_bytes;
    pthread_mutex_lock(&pager->lock);
    pager->statistics.foreseen_bytes_uploaded += vram->n_foreseen * bytes;
    pager->statistics.foreseen_bytes_useful += n_right * bytes;
    pager_trials_now(pager)->n_read += vram->n_foreseen;
    pager_trials_now(pager)->n_right += n_right;
    pthread_mutex_unlock(&pager->lock);
    return n_right;
}
