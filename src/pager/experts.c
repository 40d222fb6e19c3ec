/*
 * experts.c - the slots of experts. A slot holds all matrices of one expert, since
 * one router selection needs them together; presence is kept per matrix, so that
 * the first product can start while the last matrix is still on its way.
 *
 * Reads land where they will be used. Every slice of one tensor has the same
 * address modulo the drive's memory alignment wherever slices are a multiple of
 * it, so the slot begins at that phase and no byte is copied; the engine stages
 * the others.
 */
#include "pager/internal.h"

#include "base/status.h"
#include "os/os.h"
#include "plan/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const hypura_tensor *matrix_tensor(const hypura_pager *pager, int bundle, int index)
{
    return &pager->map->tensors[pager->map->bundles[bundle].tensors[index]];
}

static uint8_t all_matrices(const hypura_pager *pager, int bundle)
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
        const hypura_tensor *tensor = matrix_tensor(pager, bundle, i);
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

/* Address space for every expert, memory for the open slots. */
static hypura_status reserve_pool(pager_pool *pool, uint32_t index, hypura_error *error)
{
    pool->memory_bytes = pool->stride_bytes * pool->n_slots;
    pool->memory = hypura_os_memory_map(pool->memory_bytes, PAGER_POOL_MAPPING | HYPURA_OS_MAP_NO_ACCESS);
    if (!pool->memory ||
        !hypura_os_memory_protect(pool->memory, pool->stride_bytes * pool->n_open, HYPURA_OS_ACCESS_READ_WRITE)) {
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
        .data = pool->memory + pager->bundles[bundle].data_offset[index],
        .stride_bytes = pool->stride_bytes,
        .n_slots = pool->n_slots,
    };
}

const char *hypura_pager_expert_data(const hypura_pager *pager, int bundle, uint32_t slot, int index)
{
    const pager_bundle *place = &pager->bundles[bundle];
    return pager_slot_memory(&pager->pools[place->pool], slot) + place->data_offset[index];
}

/* One read for all matrices; it is counted as matrix 0's until it ends. */
static uint64_t read_record(hypura_pager *pager, enum pager_priority priority, int bundle, uint32_t expert, uint32_t slot,
                            uint64_t cut_bytes)
{
    pager_pool          *pool = &pager->pools[pager->bundles[bundle].pool];
    const hypura_io_read read = pager_record_read(pager, bundle, expert, slot);
    pool->slots[slot] = (pager_slot){.filling = 1, .cut_bytes = (uint32_t)cut_bytes, .n_requests = {1}};
    hypura_cache_pin(pool->cache, slot);
    pager_push(pager, priority, &read);
    return read.bytes;
}

uint64_t pager_read_expert(hypura_pager *pager, enum pager_priority priority, int bundle, uint32_t expert, uint32_t slot,
                           uint64_t cut_bytes)
{
    if (pager->records) {
        return read_record(pager, priority, bundle, expert, slot, cut_bytes);
    }
    const hypura_bundle *shape = &pager->map->bundles[bundle];
    const pager_bundle  *place = &pager->bundles[bundle];
    pager_pool          *pool = &pager->pools[place->pool];
    char                *base = pager_slot_memory(pool, slot);
    pool->slots[slot] = (pager_slot){.filling = (uint8_t)shape->n_tensors, .cut_bytes = (uint32_t)cut_bytes};
    hypura_cache_pin(pool->cache, slot);
    for (int i = 0; i < shape->n_tensors; i++) {
        const hypura_tensor *tensor = matrix_tensor(pager, bundle, i);
        const hypura_io_read read = {
            .file = (uint16_t)tensor->file,
            .head_slack = (uint16_t)(place->data_offset[i] - place->region_begin[i]),
            .tail_slack = (uint16_t)(place->region_end[i] - place->data_offset[i] - tensor->expert_bytes),
            .offset = tensor->offset + (uint64_t)expert * tensor->expert_bytes,
            .bytes = tensor->expert_bytes,
            .dst = base + place->data_offset[i],
            .user = pager_user(OWNER_EXPERT, place->pool, (uint32_t)i, slot),
        };
        pool->slots[slot].n_requests[i] = 1;
        pager_push(pager, priority, &read);
    }
    return shape->expert_bytes;
}

/* With the lock held: the slot of a key. One whose read failed has to end its other
 * reads before it is given up and the key can be read anew. */
static uint32_t find_slot(hypura_pager *pager, pager_pool *pool, uint32_t key)
{
    uint32_t slot = hypura_cache_find(pool->cache, key);
    while (slot != HYPURA_CACHE_NONE && pool->slots[slot].failed && pool->slots[slot].filling > 0) {
        pager_wait(pager);
        slot = hypura_cache_find(pool->cache, key);
    }
    return slot;
}

void hypura_pager_visit_experts(hypura_pager *pager, int bundle, uint32_t n_tokens, const uint32_t *experts, uint32_t n,
                                const uint32_t *n_uses, const uint32_t *ages)
{
    const pager_bundle *place = &pager->bundles[bundle];
    pthread_mutex_lock(&pager->lock);
    if (pager->plan->n_vram_pools == 0) {
        pager_note_token(pager, bundle, n_tokens);
    }
    if (pager->ahead.bundle >= 0 && pager->ahead.bundle <= bundle) {
        pager_settle(pager, experts, pager->ahead.bundle == bundle ? n : 0);
    }
    for (uint32_t i = 0; i < n; i++) {
        pager->visit_keys[i] = place->first_key + experts[i];
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
    const pager_bundle *place = &pager->bundles[bundle];
    pager_pool         *pool = &pager->pools[place->pool];
    const uint64_t      expert_bytes = pager->map->bundles[bundle].expert_bytes;
    uint32_t            n_leased = 0;
    bool                started = false;

    pthread_mutex_lock(&pager->lock);
    const bool drive_idles = pager->outstanding_bytes + pager->demanded_bytes == 0;
    const bool leaves_half = pager->ahead.bundle > bundle && n > pool->n_open / 2;
    uint64_t   missing_bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
        slots[i] = find_slot(pager, pool, place->first_key + experts[i]);
        if (slots[i] == HYPURA_CACHE_NONE) {
            missing_bytes += expert_bytes;
            continue;
        }
        hypura_cache_pin(pool->cache, slots[i]);
        pager->statistics.bytes_needed += expert_bytes;
        if (pool->slots[slots[i]].filling == 0) {
            pager->statistics.bytes_hit += expert_bytes;
        } else {
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
        pager->statistics.bytes_needed += expert_bytes;
        hypura_cache_pin(pool->cache, slots[i]);
        pager_read_expert(pager, PAGER_DEMAND, bundle, experts[i], slots[i], cut_bytes);
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
    matrices &= all_matrices(pager, bundle);
    pthread_mutex_lock(&pager->lock);
    const uint32_t present = pager->pools[pager->bundles[bundle].pool].slots[slot].ready & matrices;
    pthread_mutex_unlock(&pager->lock);
    return present == matrices;
}

bool hypura_pager_holds_expert(hypura_pager *pager, int bundle, uint32_t expert)
{
    const pager_bundle *place = &pager->bundles[bundle];
    const pager_pool   *pool = &pager->pools[place->pool];
    const uint32_t      all = all_matrices(pager, bundle);
    pthread_mutex_lock(&pager->lock);
    const uint32_t slot = hypura_cache_find(pool->cache, place->first_key + expert);
    const bool     holds = slot != HYPURA_CACHE_NONE && (pool->slots[slot].ready & all) == all;
    pthread_mutex_unlock(&pager->lock);
    return holds;
}

hypura_status hypura_pager_wait_expert(hypura_pager *pager, int bundle, uint32_t slot, uint32_t matrices)
{
    pager_slot *state = &pager->pools[pager->bundles[bundle].pool].slots[slot];
    matrices &= all_matrices(pager, bundle);
    pthread_mutex_lock(&pager->lock);
    while ((state->ready & matrices) != matrices && !state->failed) {
        pager_wait(pager);
    }
    const bool failed = state->failed;
    pthread_mutex_unlock(&pager->lock);
    return failed ? HYPURA_ERR_IO : HYPURA_OK;
}

void hypura_pager_wait_slot(hypura_pager *pager, int bundle)
{
    pager_pool *pool = &pager->pools[pager->bundles[bundle].pool];
    pthread_mutex_lock(&pager->lock);
    while (hypura_cache_evictable(pool->cache) == 0) {
        pager_wait(pager);
    }
    pthread_mutex_unlock(&pager->lock);
}

/* A slot whose read failed is given up by whoever drops the last pin; one that was
 * closed meanwhile the cache has given up itself, and somebody waits for that. */
void pager_unpin(hypura_pager *pager, pager_pool *pool, uint32_t slot)
{
    hypura_cache_unpin(pool->cache, slot);
    if (slot >= pool->n_open && pager->n_waiting > 0) {
        pthread_cond_broadcast(&pager->changed);
    }
    if (pool->slots[slot].failed && hypura_cache_pins(pool->cache, slot) == 0) {
        if (hypura_cache_key(pool->cache, slot) != HYPURA_CACHE_NONE) {
            hypura_cache_remove(pool->cache, slot);
        }
        pool->slots[slot].failed = false;
        pool->slots[slot].ready = 0;
    }
}

void hypura_pager_release_expert(hypura_pager *pager, int bundle, uint32_t slot)
{
    pthread_mutex_lock(&pager->lock);
    pager_unpin(pager, &pager->pools[pager->bundles[bundle].pool], slot);
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

/* Which bundle a key of a pool belongs to, for messages. */
static int bundle_of_key(const hypura_pager *pager, uint32_t pool, uint32_t key)
{
    for (int b = 0; b < pager->map->n_bundles; b++) {
        const pager_bundle *place = &pager->bundles[b];
        const uint32_t      n = (uint32_t)pager->map->bundles[b].n_experts;
        const bool streamed = pager->plan->placements[pager->map->bundles[b].tensors[0]].place == HYPURA_PLACE_EXPERTS;
        if (streamed && place->pool == pool && key >= place->first_key && key - place->first_key < n) {
            return b;
        }
    }
    return -1;
}

static pager_pool *user_pool(hypura_pager *pager, uint64_t user)
{
    return &pager->pools[pager_user_pool(user)];
}

static pager_slot *user_slot(hypura_pager *pager, uint64_t user)
{
    return &user_pool(pager, user)->slots[pager_user_slot(user)];
}

/* The bundle that the key in a slot belongs to, and the expert. A slot with reads
 * under way keeps its key. */
static int user_bundle(const hypura_pager *pager, uint64_t user, uint32_t *expert)
{
    const uint32_t pool = pager_user_pool(user);
    const uint32_t key = hypura_cache_key(pager->pools[pool].cache, pager_user_slot(user));
    const int      bundle = bundle_of_key(pager, pool, key);
    *expert = bundle < 0 ? 0 : key - pager->bundles[bundle].first_key;
    return bundle;
}

static bool is_repacked(const hypura_pager *pager, int tensor)
{
    return hypura_pager_repack(pager, tensor) != NULL;
}

static pager_parts parts_of(const hypura_pager *pager, uint64_t user)
{
    uint32_t             expert;
    const int            bundle = user_bundle(pager, user, &expert);
    const int            index = pager->map->bundles[bundle].tensors[pager_user_matrix(user)];
    const hypura_tensor *tensor = &pager->map->tensors[index];
    const uint64_t       unit_bytes = is_repacked(pager, index) ? HYPURA_REPACK_ROWS * tensor->row_bytes : 0;
    const pager_slot    *slot = &pager->pools[pager_user_pool(user)].slots[pager_user_slot(user)];
    return pager_parts_cut(tensor->offset + expert * tensor->expert_bytes, tensor->expert_bytes, unit_bytes,
                           slot->cut_bytes);
}

uint64_t pager_request_bytes(const hypura_pager *pager, const hypura_io_read *rest)
{
    const uint64_t user = rest->user;
    if (pager_user_owner(user) != OWNER_EXPERT) {
        return rest->bytes; /* as long as a chunk, or short */
    }
    if (pager->records) {
        return pager->pools[pager_user_pool(user)].slots[pager_user_slot(user)].cut_bytes;
    }
    const pager_parts parts = parts_of(pager, user);
    const uint32_t    part = pager_user_part(user);
    return pager_parts_begin(&parts, part + 1) - pager_parts_begin(&parts, part);
}

uint64_t pager_next_request(hypura_pager *pager, uint64_t user)
{
    user_slot(pager, user)->n_requests[pager_user_matrix(user)]++;
    return pager->records ? user : pager_user_next_part(user);
}

static void end_read(hypura_pager *pager, uint64_t user)
{
    pager->news = true;
    if (--user_slot(pager, user)->filling == 0) {
        pager_unpin(pager, user_pool(pager, user), pager_user_slot(user));
    }
}

/* True when it was the matrix's last request. */
static bool end_request(hypura_pager *pager, uint64_t user)
{
    return --user_slot(pager, user)->n_requests[pager_user_matrix(user)] == 0;
}

static bool is_spoiled(hypura_pager *pager, uint64_t user)
{
    return user_slot(pager, user)->spoiled >> pager_user_matrix(user) & 1u;
}

/* The bytes of one request are as they will be used, or will never come. */
void pager_finish_expert(hypura_pager *pager, uint64_t user)
{
    if (end_request(pager, user)) {
        user_slot(pager, user)->ready |= is_spoiled(pager, user) ? 0 : (uint8_t)(1u << pager_user_matrix(user));
        end_read(pager, user);
    }
}

static void spoil(hypura_pager *pager, uint64_t user)
{
    pager_slot *slot = user_slot(pager, user);
    slot->spoiled |= (uint8_t)(1u << pager_user_matrix(user));
    slot->failed = true;
    pager->news = true;
}

void pager_drop_read(hypura_pager *pager, const hypura_io_read *read)
{
    pager->statistics.ahead_bytes_read -= read->bytes;
    spoil(pager, read->user);
    pager_finish_expert(pager, read->user);
}

/* Told only to the holder of a lease, whose pin is beside that of the reads. */
static bool is_leased(hypura_pager *pager, uint64_t user)
{
    const uint32_t others = user_slot(pager, user)->expected ? 2 : 1;
    return hypura_cache_pins(user_pool(pager, user)->cache, pager_user_slot(user)) > others;
}

static void arrive(hypura_pager *pager, uint64_t user, int tensor)
{
    if (is_repacked(pager, tensor)) {
        const pager_parts parts = parts_of(pager, user);
        uint64_t         *arrived = &user_slot(pager, user)->arrived[pager_user_matrix(user)];
        const pager_units units = pager_parts_arrive(&parts, pager_user_part(user), arrived);
        if (units.n > 0) {
            const int64_t   rows = pager->map->tensors[tensor].ne[1];
            const int64_t   first = (int64_t)units.first * HYPURA_REPACK_ROWS;
            const int64_t   end = (int64_t)(units.first + units.n) * HYPURA_REPACK_ROWS;
            const pager_job job = {.user = user, .first_row = first, .n_rows = (end < rows ? end : rows) - first};
            pager_push_job(pager, &job);
            return;
        }
    }
    pager_finish_expert(pager, user);
}

/* A record is there: each of its matrices, as if read by itself. */
static void arrive_all(hypura_pager *pager, uint64_t user, int bundle)
{
    const hypura_bundle *shape = &pager->map->bundles[bundle];
    pager_slot          *slot = user_slot(pager, user);
    slot->filling = (uint8_t)shape->n_tensors;
    for (int i = 0; i < shape->n_tensors; i++) {
        const uint64_t matrix = pager_user(OWNER_EXPERT, pager_user_pool(user), (uint32_t)i, pager_user_slot(user));
        slot->n_requests[i] = 1;
        if (is_repacked(pager, shape->tensors[i])) {
            const pager_job job = {.user = matrix, .n_rows = matrix_tensor(pager, bundle, i)->ne[1]};
            pager_push_job(pager, &job);
        } else {
            pager_finish_expert(pager, matrix);
        }
    }
}

void pager_complete_expert(hypura_pager *pager, const hypura_io_completion *completion)
{
    const uint64_t user = completion->user;
    uint32_t       expert;
    const int      bundle = user_bundle(pager, user, &expert);
    const int      tensor = bundle < 0 ? -1 : pager->map->bundles[bundle].tensors[pager_user_matrix(user)];
    if (completion->status != HYPURA_OK) {
        char part[32];
        snprintf(part, sizeof(part), "expert %u", expert);
        spoil(pager, user);
        if (is_leased(pager, user)) {
            pager_note_failure(pager, completion, tensor, part);
        }
        pager_finish_expert(pager, user);
    } else if (!pager->records) {
        arrive(pager, user, tensor);
    } else if (is_spoiled(pager, user)) {
        pager_finish_expert(pager, user);
    } else if (end_request(pager, user)) {
        arrive_all(pager, user, bundle);
    }
}

/* The slot keeps its key while it is being filled, and no other job has these rows. */
void pager_repack_expert(hypura_pager *pager, const pager_job *job, char *scratch)
{
    uint32_t    expert;
    pager_pool *pool = user_pool(pager, job->user);
    pthread_mutex_lock(&pager->lock);
    const int bundle = user_bundle(pager, job->user, &expert);
    pthread_mutex_unlock(&pager->lock);
    const uint32_t matrix = pager_user_matrix(job->user);
    const int      tensor = pager->map->bundles[bundle].tensors[matrix];
    char *rows = pager_slot_memory(pool, pager_user_slot(job->user)) + pager->bundles[bundle].data_offset[matrix] +
                 (uint64_t)job->first_row * pager->map->tensors[tensor].row_bytes;
    hypura_repacker_repack(pager->repacker, tensor, rows, job->n_rows, scratch);
}
