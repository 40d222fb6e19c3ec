/*
 * ahead.c - experts read before their layer selects them.
 *
 * Somebody who has an idea of what a layer will select says so (expect); the pager
 * reads of it what is absent, while the drive has nothing better to do. When the
 * layer's selection is known (visit), the guess is settled: what was right is leased
 * like any other expert, what was wrong stays as long as the cache finds it worth a
 * slot, and reads that have not begun are dropped.
 *
 *        expect              drive idle               visit of the layer
 *     ------------> listed ------------> HELD ------+--- selected ---> leased
 *                     | present             (pinned) |
 *                     +-----------------> HELD ------+--- not -------> unpinned
 *
 * What always holds:
 *  1. Slots held for what is expected are pinned, and never more than half of a
 *     pool's open slots are: a layer can always lease the others.
 *  2. A read ahead takes the slot of the key that is needed last. It is no use of
 *     the expert: ranked by what it was used before.
 */
#include "pager/internal.h"

#include "base/status.h"
#include "predict/candidates.h"

#include <stdlib.h>

hypura_status pager_open_ahead(hypura_pager *pager, uint32_t most_experts, hypura_error *error)
{
    pager_ahead *ahead = &pager->ahead;
    ahead->capacity = most_experts;
    ahead->bundle = -1;
    ahead->experts = calloc(most_experts, sizeof(*ahead->experts));
    ahead->held = calloc(most_experts, sizeof(*ahead->held));
    if (!ahead->experts || !ahead->held) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the expectation of %u experts", most_experts);
    }
    return HYPURA_OK;
}

void pager_close_ahead(hypura_pager *pager)
{
    free(pager->ahead.experts);
    free(pager->ahead.held);
}

static pager_pool *expected_pool(hypura_pager *pager)
{
    return &pager->pools[pager->bundles[pager->ahead.bundle].pool];
}

static bool has_room(const pager_pool *pool)
{
    return hypura_cache_evictable(pool->cache) > (pool->n_open + 1) / 2;
}

static void hold(hypura_pager *pager, uint32_t slot, bool read)
{
    pager_ahead *ahead = &pager->ahead;
    pager_pool  *pool = expected_pool(pager);
    hypura_cache_pin(pool->cache, slot);
    pool->slots[slot].expected = true;
    ahead->held[ahead->n_held++] = (pager_held){.slot = slot, .read = read};
}

static bool has_more(const pager_ahead *ahead)
{
    return ahead->bundle >= 0 && ahead->next < ahead->n;
}

bool pager_waits_ahead(const hypura_pager *pager)
{
    return has_more(&pager->ahead) && pager_may_read_ahead(pager);
}

bool pager_start_ahead(hypura_pager *pager)
{
    pager_ahead *ahead = &pager->ahead;
    while (has_more(ahead)) {
        pager_pool    *pool = expected_pool(pager);
        const uint32_t expert = ahead->experts[ahead->next];
        const uint32_t key = pager->bundles[ahead->bundle].first_key + expert;
        if (!has_room(pool)) {
            return false;
        }
        ahead->next++;
        if (hypura_cache_find(pool->cache, key) != HYPURA_CACHE_NONE) {
            continue; /* held since it was listed, or another context leased it meanwhile */
        }
        uint32_t       evicted;
        const uint32_t slot = hypura_cache_insert(pool->cache, key, &evicted);
        pager->statistics.n_evictions += evicted != HYPURA_CACHE_NONE;
        const uint64_t n_now = ahead->certainty == HYPURA_CERTAIN ? ahead->n - ahead->next + 1 : 1;
        const uint64_t cut = pager_cut_bytes(pager, n_now * pager->map->bundles[ahead->bundle].expert_bytes);
        pager->statistics.ahead_bytes_read += pager_read_expert(pager, PAGER_AHEAD, ahead->bundle, expert, slot, cut, NULL);
        hold(pager, slot, true);
        return true;
    }
    return false;
}

uint64_t pager_expected_bytes(const hypura_pager *pager)
{
    const pager_ahead *ahead = &pager->ahead;
    uint32_t           n = 0;
    for (uint32_t i = 0; i < ahead->n_held; i++) {
        n += ahead->held[i].read;
    }
    return n > 0 ? n * pager_read_bytes(pager, ahead->bundle) : 0;
}

void pager_settle(hypura_pager *pager, const uint32_t *selected, uint32_t n)
{
    pager_ahead *ahead = &pager->ahead;
    if (ahead->bundle < 0) {
        return;
    }
    pager_pool    *pool = expected_pool(pager);
    pager_trials  *trials = pager_trials_now(pager);
    const uint32_t first_key = pager->bundles[ahead->bundle].first_key;
    const uint64_t expert_bytes = pager->map->bundles[ahead->bundle].expert_bytes;
    for (uint32_t i = 0; i < ahead->n_held; i++) {
        const uint32_t slot = ahead->held[i].slot;
        const bool     right = hypura_candidates_contain(selected, n, hypura_cache_key(pool->cache, slot) - first_key);
        if (!right && ahead->held[i].read) {
            pager_drop_ahead(pager, pager->bundles[ahead->bundle].pool, slot);
        }
        trials->n_read += ahead->held[i].read;
        if (ahead->held[i].read && right) {
            pager->statistics.ahead_bytes_useful += expert_bytes;
            pager->guess.lacked_bytes += expert_bytes;
            trials->n_right++;
        }
        pool->slots[slot].expected = false;
        pager_unpin(pager, pool, slot);
    }
    if (ahead->certainty != HYPURA_CERTAIN) {
        pager_judge_guesses(pager);
    }
    ahead->n_held = 0;
    ahead->bundle = -1;
}

/* A batch begins when the layers begin anew. */
void hypura_pager_begin_layer(hypura_pager *pager, int bundle, uint32_t n_tokens)
{
    pthread_mutex_lock(&pager->lock);
    const bool begins = bundle <= pager->last_bundle || pager->last_bundle < 0;
    pager->last_bundle = bundle;
    if (begins) {
        pager_begin_pass(pager, n_tokens);
        pager->batch_tokens = n_tokens;
    }
    if (pager->batch_tokens >= PAGER_PROMPT_TOKENS) {
        pager->bundles[bundle].prompt_tokens = n_tokens < pager->batch_tokens ? n_tokens : UINT32_MAX;
    }
    pthread_mutex_unlock(&pager->lock);
}

void hypura_pager_settle_experts(hypura_pager *pager, int bundle, const uint32_t *experts, uint32_t n)
{
    pthread_mutex_lock(&pager->lock);
    pager_settle(pager, experts, pager->ahead.bundle == bundle ? n : 0);
    pthread_mutex_unlock(&pager->lock);
}

uint32_t hypura_pager_tokens_that_reach(hypura_pager *pager, int bundle, uint32_t n_tokens)
{
    pthread_mutex_lock(&pager->lock);
    const uint32_t n = n_tokens < PAGER_PROMPT_TOKENS ? n_tokens : pager->bundles[bundle].prompt_tokens;
    pthread_mutex_unlock(&pager->lock);
    return n < n_tokens ? n : n_tokens;
}

void hypura_pager_expect_experts(hypura_pager *pager, int bundle, const uint32_t *experts, uint32_t n,
                                 hypura_certainty certainty)
{
    pager_ahead *ahead = &pager->ahead;
    pthread_mutex_lock(&pager->lock);
    pager_settle(pager, NULL, 0);
    ahead->bundle = bundle;
    ahead->n = n < ahead->capacity ? n : ahead->capacity;
    ahead->next = 0;
    ahead->certainty = certainty;
    pager_pool *pool = expected_pool(pager);
    for (uint32_t i = 0; i < ahead->n; i++) {
        ahead->experts[i] = experts[i];
        const uint32_t slot = hypura_cache_find(pool->cache, pager->bundles[bundle].first_key + experts[i]);
        if (slot != HYPURA_CACHE_NONE && slot < pool->n_open && has_room(pool)) {
            hold(pager, slot, false);
        }
    }
    pthread_mutex_unlock(&pager->lock);
    hypura_io_wake(pager->io);
}
