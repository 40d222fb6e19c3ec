/*
 * expert_reads.c - the matrices of experts on their way: asked for, and, when they come, shown to those who
 * wait, handed to the helpers that repack them, or given up.
 *
 * What always holds: a matrix is ready once, after its last request, and never when one of
 * them failed; a slot keeps its key as long as reads for it are under way.
 */
#include "pager/internal.h"
#include "pager/parts.h"

#include <stdio.h>

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
                           uint64_t cut_bytes, char *const *to)
{
    if (pager->records) {
        return read_record(pager, priority, bundle, expert, slot, cut_bytes);
    }
    const hypura_bundle *shape = &pager->map->bundles[bundle];
    const pager_bundle  *place = &pager->bundles[bundle];
    pager_pool          *pool = &pager->pools[place->pool];
    char                *base = pager_slot_memory(pool, slot);
    pool->slots[slot] =
        (pager_slot){.filling = (uint8_t)shape->n_tensors, .cut_bytes = (uint32_t)cut_bytes, .lands = to != NULL};
    hypura_cache_pin(pool->cache, slot);
    for (int i = 0; i < shape->n_tensors; i++) {
        const hypura_tensor *tensor = pager_matrix(pager, bundle, i);
        const uint64_t head_slack = place->data_offset[i] - place->region_begin[i];
        const uint64_t tail_slack = place->region_end[i] - place->data_offset[i] - tensor->expert_bytes;
        const hypura_io_read read = {
            .file = (uint16_t)tensor->file,
            .head_slack = to ? 0 : (uint16_t)head_slack,
            .tail_slack = to ? 0 : (uint16_t)tail_slack,
            .offset = tensor->offset + (uint64_t)expert * tensor->expert_bytes,
            .bytes = tensor->expert_bytes,
            .dst = to ? to[i] : base + place->data_offset[i],
            .user = pager_user(OWNER_EXPERT, place->pool, (uint32_t)i, slot),
        };
        pool->slots[slot].n_requests[i] = 1;
        pager_push(pager, priority, &read);
    }
    return shape->expert_bytes;
}

uint64_t pager_read_bytes(const hypura_pager *pager, int bundle)
{
    return pager->records ? pager->records->bundles[bundle].record_bytes : pager->map->bundles[bundle].expert_bytes;
}

/* Which bundle a key of a pool belongs to; -1: none that is read from the drive. */
static int bundle_of_key(const hypura_pager *pager, uint32_t pool, uint32_t key)
{
    for (int b = 0; b < pager->map->n_bundles; b++) {
        const pager_bundle *place = &pager->bundles[b];
        const uint32_t      n = (uint32_t)pager->map->bundles[b].n_experts;
        if (pager_streams(pager, b) && place->pool == pool && key >= place->first_key && key - place->first_key < n) {
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
            const pager_job job = {.user = matrix, .n_rows = pager_matrix(pager, bundle, i)->ne[1]};
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
