/*
 * experts.c - the slots of experts: their memory, and who may compute with them. A slot
 * holds all matrices of one expert, since one router selection needs them together;
 * presence is kept per matrix, so that the first product can start while the last matrix
 * is still on its way (expert_reads.c).
 *
 * Reads land where they will be used. Every slice of one tensor has the same
 * address modulo the drive's memory alignment wherever slices are a multiple of
 * it, so the slot begins at that phase and no byte is copied; the engine stages
 * the others.
 */
#include "pager/internal.h"

#include "base/clock.h"
#include "base/size.h"
#include "base/status.h"
#include "os/os.h"
#include "plan/layout.h"

#include <stdlib.h>

uint8_t pager_all_matrices(const hypura_pager *pager, int bundle)
{
    return (uint8_t)((1u << pager->map->bundles[bundle].n_tensors) - 1u);
}

/* The data of a matrix starts one unit into its region, plus the phase that makes
 * direct reads of its slices land without a copy. */
static void lay_out_bundle(hypura_pager *pager, int bundle, const hypura_io_file *files)
{
    const hypura_bundle *shape = &pager->map->bundles[bundle];
    pager_bundle        *place = &pager->bundles[bundle];
    const uint64_t       unit = hypura_layout_unit(pager->plan);
    uint64_t             at = 0;
    for (int i = 0; i < shape->n_tensors; i++) {
        const hypura_tensor *tensor = pager_matrix(pager, bundle, i);
        const uint64_t       align = files[tensor->file].memory_align;
        const bool           congruent = align <= unit && tensor->expert_bytes % align == 0;
        place->region_begin[i] = at;
        place->data_offset[i] = at + (congruent ? hypura_layout_data_offset(unit, tensor->offset) : unit);
        at += hypura_layout_region_bytes(unit, tensor->expert_bytes);
        place->region_end[i] = at;
    }
}

static hypura_status open_cache(hypura_pager *pager, uint32_t index, hypura_error *error)
{
    const hypura_map *map = pager->map;
    pager_pool       *pool = &pager->pools[index];
    uint32_t         *group_keys = calloc((size_t)map->n_bundles, sizeof(*group_keys));
    if (!group_keys) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %d expert bundles", map->n_bundles);
    }
    for (int b = 0; b < map->n_bundles; b++) {
        const hypura_placement *placement = &pager->plan->placements[map->bundles[b].tensors[0]];
        const bool              here = placement->place == HYPURA_PLACE_EXPERTS && placement->pool == (int)index;
        group_keys[b] = here ? (uint32_t)map->bundles[b].n_experts : 0;
    }
    const hypura_cache_options options = {
        .n_slots = pool->n_slots,
        .n_keys = pool->n_keys,
        .n_groups = (uint32_t)map->n_bundles,
        .group_keys = group_keys,
    };
    const hypura_status status = hypura_cache_open(&options, &pool->cache, error);
    free(group_keys);
    return status;
}

/* Where the blank slot begins, on a page of its own: one slot's room beyond the last. */
static uint64_t blank_begin(const pager_pool *pool)
{
    return hypura_round_down(pool->stride_bytes * (pool->n_slots + 1), hypura_os_page_bytes());
}

/* Address space for every expert, memory for the open slots. The blank slot is never written to: its pages
 * are those that the system has for zeros. */
static hypura_status reserve_pool(pager_pool *pool, uint32_t index, hypura_error *error)
{
    pool->memory_bytes = pool->stride_bytes * (pool->n_slots + 2);
    pool->memory = hypura_os_memory_map(pool->memory_bytes, PAGER_POOL_MAPPING | HYPURA_OS_MAP_NO_ACCESS);
    if (!pool->memory ||
        !hypura_os_memory_protect(pool->memory, pool->stride_bytes * pool->n_open, HYPURA_OS_ACCESS_READ_WRITE) ||
        !hypura_os_memory_protect(pool->memory + blank_begin(pool), pool->memory_bytes - blank_begin(pool),
                                  HYPURA_OS_ACCESS_READ)) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for expert pool %u: %u of %u slots of %llu bytes", index,
                           pool->n_open, pool->n_slots, (unsigned long long)pool->stride_bytes);
    }
    return HYPURA_OK;
}

static hypura_status open_pool(hypura_pager *pager, uint32_t index, hypura_error *error)
{
    const hypura_pool_plan *planned = &pager->plan->pools[index];
    pager_pool             *pool = &pager->pools[index];
    pool->n_open = planned->n_slots;
    pool->n_slots = planned->n_units > planned->n_slots && !pager->gpu ? planned->n_units : planned->n_slots;
    pool->stride_bytes = planned->slot_stride_bytes;
    if (pager->gpu ? pager_take_pieces(pager, index, error) : reserve_pool(pool, index, error)) {
        return error->status;
    }
    pool->slots = calloc(pool->n_slots, sizeof(*pool->slots));
    if (!pool->slots) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the states of %u expert slots", pool->n_slots);
    }
    const hypura_status status = open_cache(pager, index, error);
    if (status == HYPURA_OK) {
        hypura_cache_resize(pool->cache, pool->n_open);
    }
    return status;
}

hypura_status pager_open_experts(hypura_pager *pager, hypura_error *error)
{
    const hypura_map  *map = pager->map;
    const hypura_plan *plan = pager->plan;
    if (plan->n_pools == 0) {
        return HYPURA_OK;
    }
    pager->bundles = calloc((size_t)map->n_bundles, sizeof(*pager->bundles));
    if (!pager->bundles) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %d expert bundles", map->n_bundles);
    }
    uint32_t most = 0;
    for (int b = 0; b < map->n_bundles; b++) {
        most = (uint32_t)map->bundles[b].n_experts > most ? (uint32_t)map->bundles[b].n_experts : most;
    }
    pager->visit_keys = malloc(most * sizeof(*pager->visit_keys));
    if (!pager->visit_keys) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the keys of %u experts", most);
    }
    if (pager_open_ahead(pager, most, error)) {
        return error->status;
    }
    pager->n_pools = (uint32_t)plan->n_pools;
    for (int b = 0; b < map->n_bundles; b++) {
        const hypura_placement *placement = &plan->placements[map->bundles[b].tensors[0]];
        if (placement->place != HYPURA_PLACE_EXPERTS) {
            continue;
        }
        pager_pool *pool = &pager->pools[placement->pool];
        pager->bundles[b].pool = (uint32_t)placement->pool;
        pager->bundles[b].first_key = pool->n_keys;
        pager->bundles[b].prompt_tokens = b + 1 == pager->map->n_bundles ? 1 : UINT32_MAX;
        pool->n_keys += (uint32_t)map->bundles[b].n_experts;
        if (pager->records) {
            pager_lay_out_record(pager, b);
        } else {
            lay_out_bundle(pager, b, hypura_io_files(pager->io));
        }
    }
    for (uint32_t p = 0; p < pager->n_pools; p++) {
        if (open_pool(pager, p, error)) {
            return error->status;
        }
    }
    return HYPURA_OK;
}

void pager_close_experts(hypura_pager *pager)
{
    for (uint32_t p = 0; p < pager->n_pools; p++) {
        pager_pool *pool = &pager->pools[p];
        hypura_cache_close(pool->cache);
        free(pool->slots);
        hypura_os_memory_unmap(pool->memory, pool->memory_bytes);
        pager_free_pieces(pool);
    }
    pager_close_ahead(pager);
    pager_close_warm(pager);
    free(pager->visit_keys);
    free(pager->bundles);
}

hypura_slots hypura_pager_slots(const hypura_pager *pager, int bundle, int index)
{
    const pager_pool *pool = &pager->pools[pager->bundles[bundle].pool];
    return (hypura_slots){
        .data = pool->memory ? pool->memory + pager->bundles[bundle].data_offset[index] : NULL,
        .stride_bytes = pool->stride_bytes,
    };
}

uint32_t hypura_pager_blank_slot(const hypura_pager *pager, int bundle)
{
    const pager_pool *pool = &pager->pools[pager->bundles[bundle].pool];
    return pool->memory ? pool->n_slots + 1 : UINT32_MAX;
}

const char *hypura_pager_expert_data(const hypura_pager *pager, int bundle, uint32_t slot, int index)
{
    const pager_bundle *place = &pager->bundles[bundle];
    return pager_slot_memory(&pager->pools[place->pool], slot) + place->data_offset[index];
}

static bool is_failing(const pager_pool *pool, uint32_t key)
{
    const uint32_t slot = hypura_cache_find(pool->cache, key);
    return slot != HYPURA_CACHE_NONE && pool->slots[slot].failed && pool->slots[slot].filling > 0;
}

/* With the lock held: a slot whose read failed has to end its other reads before it is given
 * up and its key can be read anew. While this waits, others may be read: what is there is to
 * be looked up afterwards, without another wait. */
static void let_failing_end(hypura_pager *pager, const pager_pool *pool, uint32_t first_key, const uint32_t *experts,
                            uint32_t n)
{
    for (uint32_t i = 0; i < n;) {
        if (is_failing(pool, first_key + experts[i])) {
            pager_wait(pager);
            i = 0;
        } else {
            i++;
        }
    }
}

void hypura_pager_visit_experts(hypura_pager *pager, int bundle, uint32_t n_tokens, const uint32_t *experts, uint32_t n,
                                const uint32_t *n_uses, const uint32_t *ages)
{
    const pager_bundle *place = &pager->bundles[bundle];
    pthread_mutex_lock(&pager->lock);
    if (pager->ahead.bundle >= 0 && pager->ahead.bundle <= bundle) {
        pager_settle(pager, experts, pager->ahead.bundle == bundle ? n : 0);
    }
    for (uint32_t i = 0; i < n; i++) {
        pager->visit_keys[i] = place->first_key + experts[i];
        if (hypura_cache_find(pager->pools[place->pool].cache, pager->visit_keys[i]) == HYPURA_CACHE_NONE) {
            pager->guess.lacked_bytes += pager->map->bundles[bundle].expert_bytes;
        }
    }
    const hypura_cache_visited visit = {
        .group = (uint32_t)bundle,
        .n_tokens = n_tokens,
        .n = n,
        .keys = pager->visit_keys,
        .n_uses = n_uses,
        .ages = ages,
    };
    hypura_cache_visit(pager->pools[place->pool].cache, &visit);
    pthread_mutex_unlock(&pager->lock);
}

/* With the lock held: waits until the pager's thread has been through the queues. Where
 * every processor computes, it would get its turn half a millisecond later, with the
 * drive idle until then. */
static void give_way(hypura_pager *pager)
{
    const uint32_t pass = pager->n_passes;
    while (pager->n_passes == pass && !pager->stop) {
        pager_wait(pager);
    }
}

uint32_t hypura_pager_lease_experts(hypura_pager *pager, int bundle, const uint32_t *experts, uint32_t n,
                                    uint32_t *slots)
{
    return hypura_pager_lease_landing(pager, bundle, experts, n, NULL, slots);
}

uint32_t hypura_pager_lease_landing(hypura_pager *pager, int bundle, const uint32_t *experts, uint32_t n,
                                    const hypura_landing *landing, uint32_t *slots)
{
    const pager_bundle *place = &pager->bundles[bundle];
    pager_pool         *pool = &pager->pools[place->pool];
    const uint64_t      expert_bytes = pager->map->bundles[bundle].expert_bytes;
    const int           layer = pager->map->bundles[bundle].layer;
    uint32_t            n_leased = 0;
    bool                started = false;
    char               *to[HYPURA_MAX_BUNDLE];

    pthread_mutex_lock(&pager->lock);
    const bool drive_idles = pager->outstanding_bytes + pager->demanded_bytes == 0;
    const bool leaves_half = pager->ahead.bundle > bundle && n > pool->n_open / 2;
    uint64_t   missing_bytes = 0;
    let_failing_end(pager, pool, place->first_key, experts, n);
    for (uint32_t i = 0; i < n; i++) {
        slots[i] = hypura_cache_find(pool->cache, place->first_key + experts[i]);
        if (slots[i] == HYPURA_CACHE_NONE) {
            missing_bytes += expert_bytes;
            continue;
        }
        hypura_cache_pin(pool->cache, slots[i]);
        const bool ready = pool->slots[slots[i]].filling == 0;
        pager_count(pager, layer, expert_bytes, ready ? expert_bytes : 0);
        if (!ready) {
            pager_promote(pager, place->pool, slots[i]);
        }
        n_leased++;
    }
    const uint64_t cut_bytes = missing_bytes > 0 ? pager_cut_bytes(pager, missing_bytes) : 0;
    for (uint32_t i = 0; i < n; i++) {
        if (slots[i] != HYPURA_CACHE_NONE) {
            continue;
        }
        if (leaves_half && n_leased >= (pool->n_open + 1) / 2) {
            break;
        }
        uint32_t evicted;
        slots[i] = hypura_cache_insert(pool->cache, place->first_key + experts[i], &evicted);
        if (slots[i] == HYPURA_CACHE_NONE) {
            break;
        }
        pager->statistics.n_evictions += evicted != HYPURA_CACHE_NONE;
        pager_count(pager, layer, expert_bytes, 0);
        hypura_cache_pin(pool->cache, slots[i]);
        for (int m = 0; landing && m < pager->map->bundles[bundle].n_tensors; m++) {
            to[m] = landing->at(landing->user, i, m);
        }
        pager_read_expert(pager, PAGER_DEMAND, bundle, experts[i], slots[i], cut_bytes, landing ? to : NULL);
        started = true;
        n_leased++;
    }
    const bool gives_way = started && drive_idles && pager->gives_way;
    if (gives_way) {
        hypura_io_wake(pager->io);
        give_way(pager);
    }
    pthread_mutex_unlock(&pager->lock);
    if (started && !gives_way) {
        hypura_io_wake(pager->io);
    }
    return n_leased;
}

bool hypura_pager_expert_ready(hypura_pager *pager, int bundle, uint32_t slot, uint32_t matrices)
{
    matrices &= pager_all_matrices(pager, bundle);
    pthread_mutex_lock(&pager->lock);
    const uint32_t present = pager->pools[pager->bundles[bundle].pool].slots[slot].ready & matrices;
    pthread_mutex_unlock(&pager->lock);
    return present == matrices;
}

bool hypura_pager_holds_expert(hypura_pager *pager, int bundle, uint32_t expert)
{
    const pager_bundle *place = &pager->bundles[bundle];
    const pager_pool   *pool = &pager->pools[place->pool];
    const uint32_t      all = pager_all_matrices(pager, bundle);
    pthread_mutex_lock(&pager->lock);
    const uint32_t slot = hypura_cache_find(pool->cache, place->first_key + expert);
    const bool     holds = slot != HYPURA_CACHE_NONE && (pool->slots[slot].ready & all) == all;
    pthread_mutex_unlock(&pager->lock);
    return holds;
}

/* A slot whose read failed is given up by whoever drops the last pin; one that was
 * closed meanwhile the cache has given up itself, and somebody waits for that. */
void pager_unpin(hypura_pager *pager, pager_pool *pool, uint32_t slot)
{
    hypura_cache_unpin(pool->cache, slot);
    if (slot >= pool->n_open && pager->n_waiting > 0) {
        pthread_cond_broadcast(&pager->changed);
    }
    if (pool->slots[slot].failed && hypura_cache_pins(pool->cache, slot) == 0 &&
        hypura_cache_key(pool->cache, slot) != HYPURA_CACHE_NONE) {
        hypura_cache_remove(pool->cache, slot);
    }
}

void hypura_pager_release_expert(hypura_pager *pager, int bundle, uint32_t slot)
{
    pthread_mutex_lock(&pager->lock);
    pager_unpin(pager, &pager->pools[pager->bundles[bundle].pool], slot);
    if (pager->pass_begin_us > 0) { /* the last one counts: which layers a graph has is not known */
        pager->pass_end_us = hypura_clock_us();
    }
    const bool go_on = pager_waits_ahead(pager); /* for a slot, perhaps this one */
    pthread_mutex_unlock(&pager->lock);
    if (go_on) {
        hypura_io_wake(pager->io);
    }
}

void hypura_pager_pass_expert(hypura_pager *pager, int bundle, uint32_t slot)
{
    pager_pool *pool = &pager->pools[pager->bundles[bundle].pool];
    pthread_mutex_lock(&pager->lock);
    const bool last = hypura_cache_pins(pool->cache, slot) == 1 && !pool->slots[slot].failed;
    if (last && hypura_cache_key(pool->cache, slot) != HYPURA_CACHE_NONE) {
        hypura_cache_remove(pool->cache, slot);
    }
    pthread_mutex_unlock(&pager->lock);
    hypura_pager_release_expert(pager, bundle, slot);
}

bool hypura_pager_is_landing(hypura_pager *pager, int bundle, uint32_t slot)
{
    pthread_mutex_lock(&pager->lock);
    const bool lands = pager->pools[pager->bundles[bundle].pool].slots[slot].lands;
    pthread_mutex_unlock(&pager->lock);
    return lands;
}

void hypura_pager_end_landing(hypura_pager *pager, int bundle, uint32_t slot)
{
    pager_pool *pool = &pager->pools[pager->bundles[bundle].pool];
    pthread_mutex_lock(&pager->lock);
    while (pool->slots[slot].filling > 0) {
        pager_wait(pager);
    }
    pthread_mutex_unlock(&pager->lock);
    hypura_pager_pass_expert(pager, bundle, slot);
}
