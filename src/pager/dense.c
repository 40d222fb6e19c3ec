/*
 * dense.c - weights that every token needs: the ring, rows on demand. What is kept
 * of them is in pinned.c.
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
 * all the ring starts again from it. That costs reads, never correctness. Pinned
 * chunks have their place in the sequence and are passed over: which ones they are
 * may change between two uses of a weight.
 */
#include "pager/internal.h"

#include "base/status.h"
#include "os/os.h"
#include "plan/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Chunks end where the plan's pinned rows do, so that those are whole chunks: the
 * first one is the short one then. */
static void cut(const hypura_tensor *tensor, const hypura_placement *placement, pager_dense *dense)
{
    const int64_t rows = pager_rows_of(tensor);
    const int64_t chunk = placement->chunk_rows;
    const int64_t pinned = placement->pinned_rows;
    const int64_t n_pinned = (pinned + chunk - 1) / chunk;
    dense->chunk_rows = chunk;
    dense->first_rows = pinned > 0 ? pinned - (n_pinned - 1) * chunk : chunk;
    dense->n_pinned = dense->n_copied = dense->n_wanted = (uint32_t)n_pinned;
    dense->n_chunks = (uint32_t)(n_pinned + (rows - pinned + chunk - 1) / chunk);
}

/* Chunks follow the order in which the graph uses the weights. */
static hypura_status open_sequence(hypura_pager *pager, hypura_error *error)
{
    const hypura_plan *plan = pager->plan;
    uint32_t           n = 0;
    for (int i = 0; i < plan->n_placements; i++) {
        const int t = plan->order[i];
        if (pager_is_dense(pager, t)) {
            pager->dense[t].first_chunk = n;
            n += pager->dense[t].n_chunks;
        }
    }
    pager_ring *ring = &pager->ring;
    ring->wanted = UINT32_MAX;
    ring->n_chunks = n;
    if (n == 0 || plan->n_ring_slots == 0) {
        return HYPURA_OK;
    }
    ring->tensor_of = malloc(n * sizeof(*ring->tensor_of));
    if (!ring->tensor_of) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the order of %u chunks", n);
    }
    for (int t = 0; t < plan->n_placements; t++) {
        for (uint32_t c = 0; pager_is_dense(pager, t) && c < pager->dense[t].n_chunks; c++) {
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

/* What others than the pager hold counts as well: of a dense model a hit rate is then the part of it that is kept. Of a
 * mixture it is that of the experts. */
static void sum_residents(hypura_pager *pager)
{
    const hypura_plan *plan = pager->plan;
    const int          n_layers = pager->map->n_layers;
    bool               tied = true;
    for (int t = 0; t < plan->n_placements; t++) {
        tied = tied && pager->map->tensors[t].role != HYPURA_ROLE_OUTPUT;
    }
    for (int i = 0; plan->mode == HYPURA_MODE_DENSE && i < plan->n_placements; i++) {
        const int            t = plan->order[i];
        const hypura_tensor *tensor = &pager->map->tensors[t];
        const bool rows = (tensor->role == HYPURA_ROLE_EMBEDDING && !tied) || tensor->role == HYPURA_ROLE_LAYER_EMBEDDING;
        if (pager_is_dense(pager, t) && pager->first_dense < 0) {
            pager->first_dense = t;
        }
        if (plan->placements[t].place == HYPURA_PLACE_RESIDENT && !rows && tensor->role != HYPURA_ROLE_MTP) {
            const bool of_layer = tensor->layer >= 0 && tensor->layer < n_layers;
            pager->resident_bytes[of_layer ? tensor->layer : n_layers] += tensor->bytes;
        }
    }
}

void pager_count_residents(hypura_pager *pager, int tensor)
{
    const int n_layers = pager->map->n_layers;
    for (int layer = 0; tensor == pager->first_dense && layer <= n_layers; layer++) {
        const uint64_t bytes = pager->resident_bytes[layer];
        pager_count(pager, layer < n_layers ? layer : -1, bytes, bytes);
    }
}

hypura_status pager_open_dense(hypura_pager *pager, hypura_error *error)
{
    const hypura_plan *plan = pager->plan;
    pager->first_dense = -1;
    pager->resident_bytes = calloc((size_t)pager->map->n_layers + 1, sizeof(*pager->resident_bytes));
    pager->dense = calloc((size_t)plan->n_placements, sizeof(*pager->dense));
    pager->wanted_chunks = calloc(2 * (size_t)plan->n_placements, sizeof(*pager->wanted_chunks));
    if (!pager->dense || !pager->wanted_chunks || !pager->resident_bytes) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %d placements", plan->n_placements);
    }
    for (int t = 0; t < plan->n_placements; t++) {
        if (pager_is_dense(pager, t)) {
            cut(&pager->map->tensors[t], &plan->placements[t], &pager->dense[t]);
        }
    }
    sum_residents(pager);
    const hypura_status status = open_sequence(pager, error);
    return status == HYPURA_OK ? pager_open_pinned(pager, error) : status;
}

void pager_close_dense(hypura_pager *pager)
{
    pager_close_pinned(pager);
    hypura_os_memory_unmap(pager->ring.memory, pager->ring.memory_bytes);
    free(pager->ring.slots);
    free(pager->ring.tensor_of);
    free(pager->wanted_chunks);
    free(pager->resident_bytes);
    free(pager->dense);
}

uint32_t hypura_pager_chunks(const hypura_pager *pager, int tensor)
{
    return pager->dense[tensor].n_chunks - pager->dense[tensor].n_pinned;
}

/* ---- the ring ------------------------------------------------------------ */

static void chunk_rows(const hypura_pager *pager, uint32_t chunk, int64_t *first, int64_t *n)
{
    const int      t = pager->ring.tensor_of[chunk];
    const uint32_t index = chunk - pager->dense[t].first_chunk;
    *first = pager_first_row(pager, t, index);
    *n = pager_first_row(pager, t, index + 1) - *first;
}

/* The chunk itself, or the first one after it that is not in memory. There is one. */
static uint32_t next_streamed(const hypura_pager *pager, uint32_t chunk)
{
    for (;;) {
        const pager_dense *dense = &pager->dense[pager->ring.tensor_of[chunk]];
        if (chunk >= dense->first_chunk + dense->n_copied) {
            return chunk;
        }
        chunk = (dense->first_chunk + dense->n_copied) % pager->ring.n_chunks;
    }
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
    pager->window_bytes = pager->plan->io_block_bytes * pager->plan->io_depth;
    pager_push(pager, PAGER_DEMAND, &read);
}

/* With the lock held: fills free slots with the chunks that come next. True when the pager's thread has something to read. */
static bool top_up(hypura_pager *pager)
{
    pager_ring *ring = &pager->ring;
    bool        pushed = false;
    while (ring->count < ring->n_slots && ring->n_copied < ring->n_chunks) {
        const uint32_t chunk = next_streamed(pager, ring->next);
        read_chunk(pager, (ring->head + ring->count) % ring->n_slots, chunk);
        ring->next = (chunk + 1) % ring->n_chunks;
        ring->count++;
        pushed = true;
    }
    return pushed;
}

static void drop_head(pager_ring *ring)
{
    ring->head = (ring->head + 1) % ring->n_slots;
    ring->count--;
}

/* With the lock held: a slot with a read under way cannot be given up before the read has ended. */
static void give_up_head(hypura_pager *pager)
{
    pager_ring *ring = &pager->ring;
    while (ring->slots[ring->head].filling) {
        pager_wait(pager);
    }
    drop_head(ring);
}

/* With the lock held: brings the chunk to the head of the ring. True: as top_up. */
static bool seek(hypura_pager *pager, uint32_t chunk)
{
    pager_ring *ring = &pager->ring;
    uint32_t    at = 0;
    while (at < ring->count && ring->slots[(ring->head + at) % ring->n_slots].chunk != chunk) {
        at++;
    }
    const bool found = at < ring->count;
    while (at-- > 0) {
        give_up_head(pager);
    }
    if (!found) {
        ring->next = chunk;
    }
    return top_up(pager);
}

/* Leaves the lock for it: the pager's thread would wait for that first. */
static void wake(hypura_pager *pager)
{
    pthread_mutex_unlock(&pager->lock);
    hypura_io_wake(pager->io);
    pthread_mutex_lock(&pager->lock);
}

/* With the lock held: empties the ring, to read on from this chunk. */
static void restart(hypura_pager *pager, uint32_t chunk)
{
    pager_ring *ring = &pager->ring;
    while (ring->count > 0) {
        give_up_head(pager);
    }
    ring->next = chunk;
}

const char *hypura_pager_acquire_chunk(hypura_pager *pager, int tensor, uint32_t chunk, int64_t *first_row,
                                       int64_t *n_rows)
{
    pager_ring    *ring = &pager->ring;
    const uint32_t wanted = pager->dense[tensor].first_chunk + pager->dense[tensor].n_pinned + chunk;
    const char    *data = NULL;
    bool           told = false;
    chunk_rows(pager, wanted, first_row, n_rows);

    pthread_mutex_lock(&pager->lock);
    pager_count(pager, pager->map->tensors[tensor].layer, (uint64_t)*n_rows * pager->map->tensors[tensor].row_bytes, 0);
    ring->wanted = wanted;
    /* a chunk that failed while it was only read ahead gets a second chance */
    while (!data && !told) {
        if (seek(pager, wanted)) {
            wake(pager);
        }
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
    const pager_ring_slot *slot = &pager->ring.slots[pager->ring.head];
    pager_keep_chunk(pager, pager->ring.tensor_of[slot->chunk], slot->chunk, slot->data);
    pthread_mutex_lock(&pager->lock);
    drop_head(&pager->ring);
    const bool pushed = top_up(pager);
    pthread_mutex_unlock(&pager->lock);
    if (pushed) {
        hypura_io_wake(pager->io);
    }
}

uint64_t hypura_pager_ring_pending_us(hypura_pager *pager)
{
    const pager_ring *ring = &pager->ring;
    uint32_t          n_filling = 0;
    pthread_mutex_lock(&pager->lock);
    for (uint32_t i = 0; i < ring->count; i++) {
        n_filling += ring->slots[(ring->head + i) % ring->n_slots].filling;
    }
    const uint64_t pending_us = 2 * n_filling >= ring->n_slots ? pager_pending_us(pager) : 0;
    pthread_mutex_unlock(&pager->lock);
    return pending_us;
}

void pager_finish_chunk(hypura_pager *pager, uint64_t user)
{
    pager->ring.slots[pager_user_slot(user)].filling = false;
    pager->news = true;
}

void pager_complete_chunk(hypura_pager *pager, const hypura_io_completion *completion)
{
    pager_ring_slot *slot = &pager->ring.slots[(uint32_t)completion->user];
    const int        tensor = pager->ring.tensor_of[slot->chunk];
    slot->failed = completion->status != HYPURA_OK;
    if (!slot->failed && hypura_pager_repack(pager, tensor)) {
        int64_t   first;
        pager_job job = {.user = completion->user};
        chunk_rows(pager, slot->chunk, &first, &job.n_rows);
        pager_push_job(pager, &job);
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
void pager_repack_chunk(hypura_pager *pager, const pager_job *job, char *scratch)
{
    const pager_ring_slot *slot = &pager->ring.slots[pager_user_slot(job->user)];
    const int              tensor = pager->ring.tensor_of[slot->chunk];
    hypura_repacker_repack(pager->repacker, tensor, slot->data, job->n_rows, scratch);
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
        pager_count(pager, shape->layer, step * shape->row_bytes, 0);
        for (uint32_t i = 0; i < step; i++) {
            const hypura_io_read read = {
                .file = (uint16_t)shape->file,
                .offset = shape->offset + (uint64_t)rows[done + i] * shape->row_bytes,
                .bytes = shape->row_bytes,
                .dst = dst + (done + i) * shape->row_bytes,
                .user = pager_user(OWNER_ROW, 0, 0, (uint32_t)tensor),
            };
            pager_push(pager, PAGER_DEMAND, &read);
        }
        wake(pager);
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
    pager->news = --pager->rows_pending == 0 || pager->news;
    if (completion->status != HYPURA_OK) {
        pager->rows_failed = true;
        pager_note_failure(pager, completion, (int)(uint32_t)completion->user, "a row");
    }
}
