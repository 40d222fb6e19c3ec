/*
 * dense.c - weights that every token needs: pinned rows, the ring, rows on demand.
 *
 * A dense model reads all of its streamed bytes for every token, in the same
 * order. For such a cyclic scan a cache that keeps the most recent hits nothing;
 * keeping the same part of every weight always, and reading the rest in order
 * just ahead of its use, is optimal. So the first rows of each weight are pinned
 * and the others pass through a ring of chunks, oldest first:
 *
 *        head (computed with)       read or being read           next
 *     +--------+--------+--------+--------+--------+ . . . . +
 *     | c      | c+1    | c+2    | c+3    |        |  sequence of chunks, which
 *     +--------+--------+--------+--------+--------+  wraps around the token
 *
 * A graph may leave weights out (no logits wanted): when the chunk asked for is
 * not at the head, those before it are dropped, and if it is not in the ring at
 * all the ring starts again from it. That costs reads, never correctness.
 */
#include "pager/internal.h"

#include "base/status.h"
#include "os/os.h"
#include "plan/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t rows_of(const hypura_tensor *tensor)
{
    return tensor->ne[1] * tensor->ne[2] * tensor->ne[3];
}

static bool streams(const hypura_pager *pager, int tensor)
{
    return pager->plan->placements[tensor].place == HYPURA_PLACE_DENSE;
}

/* Chunks follow the order in which the graph uses the weights. */
static hypura_status open_sequence(hypura_pager *pager, hypura_error *error)
{
    const hypura_plan *plan = pager->plan;
    uint32_t           n = 0;
    for (int i = 0; i < plan->n_placements; i++) {
        const int t = plan->order[i];
        if (streams(pager, t)) {
            pager->dense[t].first_chunk = n;
            n += pager->dense[t].n_chunks;
        }
    }
    pager_ring *ring = &pager->ring;
    ring->wanted = UINT32_MAX;
    ring->n_chunks = n;
    if (n == 0) {
        return HYPURA_OK;
    }
    ring->tensor_of = malloc(n * sizeof(*ring->tensor_of));
    if (!ring->tensor_of) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the order of %u chunks", n);
    }
    for (int t = 0; t < plan->n_placements; t++) {
        for (uint32_t c = 0; streams(pager, t) && c < pager->dense[t].n_chunks; c++) {
            ring->tensor_of[pager->dense[t].first_chunk + c] = t;
        }
    }
    ring->n_slots = plan->n_ring_slots;
    ring->stride_bytes = plan->ring_slot_bytes;
    ring->memory_bytes = ring->stride_bytes * ring->n_slots;
    ring->memory = hypura_os_memory_map(ring->memory_bytes, HYPURA_OS_MAP_HUGE);
    ring->slots = calloc(ring->n_slots, sizeof(*ring->slots));
    if (!ring->memory || !ring->slots) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a ring of %u chunks of %llu bytes", ring->n_slots,
                           (unsigned long long)ring->stride_bytes);
    }
    return HYPURA_OK;
}

static hypura_status load_pinned(hypura_pager *pager, hypura_error *error)
{
    const hypura_plan *plan = pager->plan;
    uint64_t           total = 0;
    int                n_loads = 0;
    for (int t = 0; t < plan->n_placements; t++) {
        if (pager->dense[t].pinned_rows > 0) {
            total += (uint64_t)pager->dense[t].pinned_rows * pager->map->tensors[t].row_bytes + 63;
            n_loads++;
        }
    }
    if (n_loads == 0) {
        return HYPURA_OK;
    }
    pager->pinned_bytes = total;
    pager->pinned = hypura_os_memory_map(total, HYPURA_OS_MAP_HUGE);
    hypura_load *loads = calloc((size_t)n_loads, sizeof(*loads));
    if (!pager->pinned || !loads) {
        free(loads);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %llu bytes of pinned weights",
                           (unsigned long long)total);
    }
    uint64_t at = 0;
    int      n = 0;
    for (int t = 0; t < plan->n_placements; t++) {
        const hypura_tensor *tensor = &pager->map->tensors[t];
        pager_dense         *dense = &pager->dense[t];
        if (dense->pinned_rows > 0) {
            at = (at + 63) / 64 * 64;
            dense->pinned = pager->pinned + at;
            loads[n++] = (hypura_load){
                .file = tensor->file,
                .offset = tensor->offset,
                .bytes = (uint64_t)dense->pinned_rows * tensor->row_bytes,
                .dst = dense->pinned,
            };
            at += loads[n - 1].bytes;
        }
    }
    const hypura_status status = hypura_pager_load(pager, loads, n, NULL, NULL, error);
    free(loads);
    for (int t = 0; t < plan->n_placements && status == HYPURA_OK; t++) {
        if (pager->dense[t].pinned_rows > 0 && hypura_pager_repack(pager, t)) {
            hypura_repacker_repack(pager->repacker, t, pager->dense[t].pinned, pager->dense[t].pinned_rows,
                                   pager->scratch);
        }
    }
    return status;
}

hypura_status pager_open_dense(hypura_pager *pager, hypura_error *error)
{
    const hypura_plan *plan = pager->plan;
    pager->dense = calloc((size_t)plan->n_placements, sizeof(*pager->dense));
    if (!pager->dense) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %d placements", plan->n_placements);
    }
    for (int t = 0; t < plan->n_placements; t++) {
        if (streams(pager, t)) {
            const int64_t rows = rows_of(&pager->map->tensors[t]);
            const int64_t chunk = plan->placements[t].chunk_rows;
            const int64_t left = rows - plan->placements[t].pinned_rows;
            pager->dense[t].pinned_rows = plan->placements[t].pinned_rows;
            pager->dense[t].chunk_rows = chunk;
            pager->dense[t].n_chunks = left > 0 ? (uint32_t)((left + chunk - 1) / chunk) : 0;
        }
    }
    if (open_sequence(pager, error) || load_pinned(pager, error)) {
        return error->status;
    }
    return HYPURA_OK;
}

void pager_close_dense(hypura_pager *pager)
{
    hypura_os_memory_unmap(pager->ring.memory, pager->ring.memory_bytes);
    hypura_os_memory_unmap(pager->pinned, pager->pinned_bytes);
    free(pager->ring.slots);
    free(pager->ring.tensor_of);
    free(pager->dense);
}

const char *hypura_pager_pinned(const hypura_pager *pager, int tensor, int64_t *n_rows)
{
    *n_rows = pager->dense[tensor].pinned_rows;
    return pager->dense[tensor].pinned;
}

uint32_t hypura_pager_chunks(const hypura_pager *pager, int tensor)
{
    return pager->dense[tensor].n_chunks;
}

/* ---- the ring ------------------------------------------------------------ */

static void chunk_rows(const hypura_pager *pager, uint32_t chunk, int64_t *first, int64_t *n)
{
    const int          t = pager->ring.tensor_of[chunk];
    const pager_dense *dense = &pager->dense[t];
    const int64_t      rows = rows_of(&pager->map->tensors[t]);
    *first = dense->pinned_rows + (int64_t)(chunk - dense->first_chunk) * dense->chunk_rows;
    *n = rows - *first < dense->chunk_rows ? rows - *first : dense->chunk_rows;
}

static void read_chunk(hypura_pager *pager, uint32_t index, uint32_t chunk)
{
    pager_ring          *ring = &pager->ring;
    pager_ring_slot     *slot = &ring->slots[index];
    const hypura_tensor *tensor = &pager->map->tensors[ring->tensor_of[chunk]];
    int64_t               first, n;
    chunk_rows(pager, chunk, &first, &n);
    const uint64_t offset = tensor->offset + (uint64_t)first * tensor->row_bytes;
    const uint64_t bytes = (uint64_t)n * tensor->row_bytes;
    const uint64_t head = hypura_layout_data_offset(HYPURA_LAYOUT_PAGE_BYTES, offset);
    const uint64_t tail = ring->stride_bytes - head - bytes;
    slot->chunk = chunk;
    slot->filling = true;
    slot->failed = false;
    slot->told = false;
    slot->data = ring->memory + (uint64_t)index * ring->stride_bytes + head;
    const hypura_io_read read = {
        .file = (uint16_t)tensor->file,
        .head_slack = (uint16_t)head,
        .tail_slack = (uint16_t)(tail < 4096 ? tail : 4096),
        .offset = offset,
        .bytes = bytes,
        .dst = slot->data,
        .user = pager_user(OWNER_CHUNK, 0, 0, index),
    };
    pager_push(pager, &read);
}

void pager_top_up(hypura_pager *pager)
{
    pager_ring *ring = &pager->ring;
    while (ring->count < ring->n_slots) {
        read_chunk(pager, (ring->head + ring->count) % ring->n_slots, ring->next);
        ring->next = (ring->next + 1) % ring->n_chunks;
        ring->count++;
    }
}

static void drop_head(pager_ring *ring)
{
    ring->head = (ring->head + 1) % ring->n_slots;
    ring->count--;
}

/* With the lock held: brings the chunk to the head of the ring. A slot with a
 * read under way cannot be given up before the read has ended. */
static void seek(hypura_pager *pager, uint32_t chunk)
{
    pager_ring *ring = &pager->ring;
    uint32_t    at = 0;
    while (at < ring->count && ring->slots[(ring->head + at) % ring->n_slots].chunk != chunk) {
        at++;
    }
    const bool found = at < ring->count;
    while (at-- > 0) {
        while (ring->slots[ring->head].filling) {
            pager_wait(pager);
        }
        drop_head(ring);
    }
    if (!found) {
        ring->next = chunk;
    }
    pager_top_up(pager);
}

/* With the lock held: empties the ring, to read on from this chunk. */
static void restart(hypura_pager *pager, uint32_t chunk)
{
    pager_ring *ring = &pager->ring;
    while (ring->count > 0) {
        while (ring->slots[ring->head].filling) {
            pager_wait(pager);
        }
        drop_head(ring);
    }
    ring->next = chunk;
}

const char *hypura_pager_acquire_chunk(hypura_pager *pager, int tensor, uint32_t chunk, int64_t *first_row,
                                       int64_t *n_rows)
{
    pager_ring    *ring = &pager->ring;
    const uint32_t wanted = pager->dense[tensor].first_chunk + chunk;
    const char    *data = NULL;
    bool           told = false;
    chunk_rows(pager, wanted, first_row, n_rows);

    pthread_mutex_lock(&pager->lock);
    pager->statistics.bytes_needed += (uint64_t)*n_rows * pager->map->tensors[tensor].row_bytes;
    ring->wanted = wanted;
    /* a chunk that failed while it was only read ahead gets a second chance */
    while (!data && !told) {
        seek(pager, wanted);
        hypura_io_wake(pager->io);
        pager_ring_slot *slot = &ring->slots[ring->head];
        while (slot->filling) {
            pager_wait(pager);
        }
        if (slot->failed) {
            told = slot->told;
            restart(pager, wanted);
        } else {
            data = slot->data;
        }
    }
    ring->wanted = UINT32_MAX;
    pthread_mutex_unlock(&pager->lock);
    return data;
}

void hypura_pager_release_chunk(hypura_pager *pager)
{
    pthread_mutex_lock(&pager->lock);
    drop_head(&pager->ring);
    pager_top_up(pager);
    pthread_mutex_unlock(&pager->lock);
    hypura_io_wake(pager->io);
}

void pager_finish_chunk(hypura_pager *pager, uint64_t user)
{
    pager->ring.slots[(uint32_t)user].filling = false;
}

void pager_complete_chunk(hypura_pager *pager, const hypura_io_completion *completion)
{
    pager_ring_slot *slot = &pager->ring.slots[(uint32_t)completion->user];
    const int        tensor = pager->ring.tensor_of[slot->chunk];
    slot->failed = completion->status != HYPURA_OK;
    if (!slot->failed && hypura_pager_repack(pager, tensor)) {
        pager_push_job(pager, completion->user);
        return;
    }
    if (slot->failed && slot->chunk == pager->ring.wanted) {
        int64_t first, n;
        char    part[64];
        chunk_rows(pager, slot->chunk, &first, &n);
        snprintf(part, sizeof(part), "rows %lld to %lld", (long long)first, (long long)(first + n - 1));
        slot->told = true;
        pager_note_failure(pager, completion, tensor, part);
    }
    pager_finish_chunk(pager, completion->user);
}

/* The slot keeps its chunk while it is filling, so no lock is needed. */
void pager_repack_chunk(hypura_pager *pager, uint64_t user, char *scratch)
{
    const pager_ring_slot *slot = &pager->ring.slots[(uint32_t)user];
    int64_t                first, n;
    chunk_rows(pager, slot->chunk, &first, &n);
    hypura_repacker_repack(pager->repacker, pager->ring.tensor_of[slot->chunk], slot->data, n, scratch);
}

/* ---- rows on demand ------------------------------------------------------ */

hypura_status hypura_pager_read_rows(hypura_pager *pager, int tensor, const int64_t *rows, uint32_t n, char *dst)
{
    const hypura_tensor *shape = &pager->map->tensors[tensor];
    bool                 failed = false;
    for (uint32_t done = 0; done < n && !failed;) {
        const uint32_t step = n - done < PAGER_MAX_ROWS ? n - done : PAGER_MAX_ROWS;
        pthread_mutex_lock(&pager->lock);
        pager->rows_pending = step;
        pager->rows_failed = false;
        pager->statistics.bytes_needed += step * shape->row_bytes;
        for (uint32_t i = 0; i < step; i++) {
            const hypura_io_read read = {
                .file = (uint16_t)shape->file,
                .offset = shape->offset + (uint64_t)rows[done + i] * shape->row_bytes,
                .bytes = shape->row_bytes,
                .dst = dst + (done + i) * shape->row_bytes,
                .user = pager_user(OWNER_ROW, 0, 0, (uint32_t)tensor),
            };
            pager_push(pager, &read);
        }
        hypura_io_wake(pager->io);
        while (pager->rows_pending > 0) {
            pager_wait(pager);
        }
        failed = pager->rows_failed;
        pthread_mutex_unlock(&pager->lock);
        done += step;
    }
    return failed ? HYPURA_ERR_IO : HYPURA_OK;
}

void pager_complete_row(hypura_pager *pager, const hypura_io_completion *completion)
{
    pager->rows_pending--;
    if (completion->status != HYPURA_OK) {
        pager->rows_failed = true;
        pager_note_failure(pager, completion, (int)(uint32_t)completion->user, "a row");
    }
}
