/*
 * resize.c - more or less memory for weights while they are in use: pools of experts
 * here, pinned rows of dense weights in pinned.c.
 *
 * Address space is reserved for every expert of a model, and so are all tables;
 * what changes is how many slots are open, and with them how much memory is
 * taken. Computing goes on meanwhile.
 *
 *        open slots                     closed slots
 *     +------------------------------+---------------------------------+
 *     | read and write               | no access, no memory            |
 *     +------------------------------+---------------------------------+
 *     memory                      n_open x stride                      memory_bytes
 *
 * To shrink: the cache closes slots, which empties all but the pinned; those empty
 * with the end of a layer or of their reads, which is waited for; then the pages go
 * back. To grow: pages are taken first, a piece at a time, then their slots are
 * opened: nobody waits for a first touch.
 *
 * What always holds:
 *  1. Memory beyond the open slots is never read or written: no slot there has pins.
 *     It faults, so a breach is seen.
 *  2. The engine must know pools by address alone: pages registered with a kernel
 *     would stay taken, and be others than those that come back.
 */
#include "pager/internal.h"

#include "base/size.h"
#include "os/os.h"
#include "plan/plan.h"

#define STEP_BYTES (UINT64_C(16) << 20)

static uint64_t open_bytes(const pager_pool *pool, uint32_t n_open)
{
    return hypura_round_up(n_open * pool->stride_bytes, hypura_os_page_bytes());
}

uint64_t pager_pool_bytes(const hypura_pager *pager)
{
    uint64_t bytes = 0;
    for (uint32_t p = 0; p < pager->n_pools; p++) {
        bytes += pager->pools[p].n_open * pager->pools[p].stride_bytes;
    }
    return bytes;
}

uint64_t pager_unit_bytes(const hypura_pager *pager)
{
    uint64_t most = pager_largest_chunk_bytes(pager);
    for (uint32_t p = 0; p < pager->n_pools; p++) {
        most = pager->pools[p].stride_bytes > most ? pager->pools[p].stride_bytes : most;
    }
    return most;
}

static bool stopping(hypura_pager *pager)
{
    pthread_mutex_lock(&pager->lock);
    const bool stop = pager->prefault_stop;
    pthread_mutex_unlock(&pager->lock);
    return stop;
}

/* Memory is wanted now: what nobody uses goes back without waiting for the rest. No
 * slot here can be pinned anew. Runs of slots go together; a page that two slots share
 * stays until the end. */
static void discard_unpinned(hypura_pager *pager, const pager_pool *pool, uint32_t first, uint32_t end)
{
    const uint64_t page = hypura_os_page_bytes();
    const uint64_t per_step = STEP_BYTES / pool->stride_bytes;
    while (first < end) {
        uint32_t last = first;
        pthread_mutex_lock(&pager->lock);
        while (last < end && last - first <= per_step && hypura_cache_pins(pool->cache, last) == 0) {
            last++;
        }
        pthread_mutex_unlock(&pager->lock);
        const uint64_t from = hypura_round_up(first * pool->stride_bytes, page);
        const uint64_t to = hypura_round_down(last * pool->stride_bytes, page);
        if (from < to) {
            hypura_os_memory_discard(pool->memory + from, to - from);
        }
        first = last > first ? last : first + 1;
    }
}

static void shrink(hypura_pager *pager, pager_pool *pool, uint32_t n_open)
{
    const uint64_t begin = open_bytes(pool, n_open);
    const uint64_t end = open_bytes(pool, pool->n_open);
    const uint32_t before = pool->n_open;
    pthread_mutex_lock(&pager->lock);
    pager_settle(pager, NULL, 0); /* what is only expected would keep its slots */
    hypura_cache_resize(pool->cache, n_open);
    pool->n_open = n_open;
    pthread_mutex_unlock(&pager->lock);
    discard_unpinned(pager, pool, n_open, before);
    pthread_mutex_lock(&pager->lock);
    pager->n_waiting++;
    while (hypura_cache_closing(pool->cache) > 0) {
        pthread_cond_wait(&pager->changed, &pager->lock);
    }
    pager->n_waiting--;
    pthread_mutex_unlock(&pager->lock);
    if (begin < end) {
        hypura_os_memory_replace(pool->memory + begin, end - begin, PAGER_POOL_MAPPING | HYPURA_OS_MAP_NO_ACCESS);
    }
}

bool pager_may_grow(hypura_pager *pager, const pager_growth *growth)
{
    return atomic_load(&pager->n_resizes) == growth->ticket && !stopping(pager);
}

static bool goes_on(hypura_pager *pager, const pager_growth *growth, uint64_t taken_bytes)
{
    return pager_may_grow(pager, growth) && (!growth->kept || pager_keeper_goes_on(pager, taken_bytes));
}

bool pager_take_memory(hypura_pager *pager, const pager_growth *growth, char *begin, uint64_t bytes)
{
    bool ok = bytes == 0 || hypura_os_memory_protect(begin, bytes, HYPURA_OS_ACCESS_READ_WRITE);
    for (uint64_t at = 0; ok && at < bytes; at += PAGER_PIECE_BYTES) {
        const uint64_t left = bytes - at;
        ok = (at == 0 || goes_on(pager, growth, at)) &&
             hypura_os_memory_populate(begin + at, left < PAGER_PIECE_BYTES ? left : PAGER_PIECE_BYTES);
    }
    if (!ok) {
        hypura_os_memory_replace(begin, bytes, PAGER_POOL_MAPPING | HYPURA_OS_MAP_NO_ACCESS);
    }
    return ok;
}

static void grow(hypura_pager *pager, pager_pool *pool, uint32_t n_open, const pager_growth *growth)
{
    const uint64_t per_step = STEP_BYTES / pool->stride_bytes;
    const uint32_t step = per_step > 0 ? (uint32_t)per_step : 1;
    while (pool->n_open < n_open && pager_may_grow(pager, growth)) {
        const uint32_t next = n_open - pool->n_open < step ? n_open : pool->n_open + step;
        const uint64_t begin = open_bytes(pool, pool->n_open);
        if (!pager_take_memory(pager, growth, pool->memory + begin, open_bytes(pool, next) - begin)) {
            return;
        }
        pthread_mutex_lock(&pager->lock);
        hypura_cache_resize(pool->cache, next);
        pool->n_open = next;
        if (pager->n_waiting > 0) {
            pthread_cond_broadcast(&pager->changed); /* there are slots to lease */
        }
        pthread_mutex_unlock(&pager->lock);
    }
}

/* ---- both kinds ------------------------------------------------------------ */

static uint64_t pools_floor_bytes(const hypura_pager *pager)
{
    uint64_t bytes = 0;
    for (uint32_t p = 0; p < pager->n_pools; p++) {
        bytes += pager->plan->pools[p].n_floor * pager->pools[p].stride_bytes;
    }
    return bytes;
}

/* As the plan spends: a pinned row is used every token, a slot is not. */
static uint64_t pinned_part(const hypura_pager *pager, uint64_t bytes)
{
    const uint64_t floor = pools_floor_bytes(pager);
    const uint64_t most = pager_pinned_most_bytes(pager);
    const uint64_t left = bytes > floor ? bytes - floor : 0;
    return left < most ? left : most;
}

static uint64_t held_bytes(hypura_pager *pager)
{
    pthread_mutex_lock(&pager->lock);
    const uint64_t bytes = pager_pool_bytes(pager) + pager_pinned_bytes(pager);
    pthread_mutex_unlock(&pager->lock);
    return bytes;
}

uint64_t hypura_pager_resize(hypura_pager *pager, uint64_t bytes)
{
    if (pager->gpu) {
        return held_bytes(pager); /* see pieces.c */
    }
    return pager_resize(pager, bytes, HYPURA_BUDGET_ASKED);
}

uint64_t pager_resize(hypura_pager *pager, uint64_t bytes, hypura_budget_reason reason)
{
    const hypura_plan *plan = pager->plan;
    const uint64_t     pinned_bytes = pinned_part(pager, bytes);
    uint32_t           n_slots[HYPURA_MAX_POOLS];
    hypura_plan_share_slots(plan->pools, plan->n_pools, bytes - (pinned_bytes < bytes ? pinned_bytes : bytes), n_slots);
    const pager_growth growth = {.ticket = atomic_fetch_add(&pager->n_resizes, 1) + 1, .kept = reason == HYPURA_BUDGET_ROOM};
    pthread_mutex_lock(&pager->resizing);
    const uint64_t held_before = held_bytes(pager);
    /* what shrinks first, so that the sum never passes the larger of the two */
    pager_shrink_pinned(pager, pinned_bytes);
    for (uint32_t p = 0; p < pager->n_pools; p++) {
        if (n_slots[p] < pager->pools[p].n_open) {
            shrink(pager, &pager->pools[p], n_slots[p]);
        }
    }
    pager_grow_pinned(pager, &growth);
    for (uint32_t p = 0; p < pager->n_pools; p++) {
        grow(pager, &pager->pools[p], n_slots[p], &growth);
    }
    const uint64_t held = held_bytes(pager);
    pthread_mutex_lock(&pager->lock);
    if (held != held_before) {
        pager->budget_reason = reason;
        pager->n_resized++;
    }
    pthread_mutex_unlock(&pager->lock);
    pthread_mutex_unlock(&pager->resizing);
    return held;
}

hypura_held hypura_pager_held(hypura_pager *pager)
{
    hypura_held held = {.now_bytes = held_bytes(pager),
                              .least_bytes = pools_floor_bytes(pager),
                              .most_bytes = pager_pinned_most_bytes(pager)};
    for (uint32_t p = 0; p < pager->n_pools; p++) {
        held.most_bytes += pager->pools[p].n_slots * pager->pools[p].stride_bytes;
    }
    if (pager->ring.n_slots == 0) {
        held.least_bytes += pager_pinned_most_bytes(pager); /* nothing could be streamed instead */
    }
    return held;
}

/* ---- first touch ------------------------------------------------------------ */

/* Takes the next piece's memory; false at the end, and when memory is short: reads
 * touch the rest then, and tell. */
static bool prefault_step(hypura_pager *pager, const pager_pool *pool, uint64_t at)
{
    pthread_mutex_lock(&pager->resizing);
    const uint64_t end = open_bytes(pool, pool->n_open);
    const uint64_t left = at < end ? end - at : 0;
    const bool     ok = left > 0 && !stopping(pager) &&
                    hypura_os_memory_populate(pool->memory + at, left < STEP_BYTES ? left : STEP_BYTES);
    pthread_mutex_unlock(&pager->resizing);
    return ok;
}

/* The first touch of memory is slow on virtual machines; it is done here so that
 * reads need not. Pages already filled stay as they are. */
void pager_prefault(hypura_pager *pager)
{
    for (uint32_t p = 0; p < pager->n_pools; p++) {
        uint64_t at = 0;
        while (prefault_step(pager, &pager->pools[p], at)) {
            at += STEP_BYTES;
        }
    }
}
