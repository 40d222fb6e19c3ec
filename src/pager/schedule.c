/*
 * schedule.c - which read goes to the drive next.
 *
 *     demand   somebody waits, or soon will: in order, as many as the drive takes
 *     ahead    experts that a later layer may need: only while no demand waits and, unless
 *              it is certain to need them, the drive has next to nothing to do
 *
 * Reads are cut into requests when they go to the drive, the begin of the first one
 * first: what was asked for first is there first, and is repacked and computed with
 * while the rest is still being read. A request under way cannot be called back; it
 * is what a demand may have to wait for behind it. So half of what the drive takes is
 * left free by likely guesses, and all but one request by doubtful ones; what is left of
 * a guess can be dropped between two requests, or moved to the demands when somebody asks
 * for it.
 */
#include "pager/internal.h"

#include "base/status.h"
#include "plan/cut.h"

#include <assert.h>
#include <stdlib.h>

#define SUBMIT_BATCH 32

hypura_status pager_open_queues(hypura_pager *pager, hypura_error *error)
{
    uint64_t needed = PAGER_MAX_ROWS + pager->plan->n_ring_slots;
    for (int p = 0; p < pager->plan->n_pools; p++) {
        const hypura_pool_plan *pool = &pager->plan->pools[p];
        needed += (uint64_t)(pool->n_units > pool->n_slots ? pool->n_units : pool->n_slots) * HYPURA_MAX_BUNDLE;
    }
    uint64_t capacity = 64;
    while (capacity < needed + 1) {
        capacity *= 2;
    }
    if (capacity > UINT32_MAX / 2) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%llu slots are more than the pager can number",
                           (unsigned long long)needed);
    }
    for (int i = 0; i < PAGER_N_PRIORITIES; i++) {
        pager->queues[i].capacity = (uint32_t)capacity;
        pager->queues[i].reads = malloc(capacity * sizeof(hypura_io_read));
        if (!pager->queues[i].reads) {
            return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a queue of %llu reads",
                               (unsigned long long)capacity);
        }
    }
    pager->window_bytes = pager->plan->io_block_bytes * pager->plan->io_depth;
    return HYPURA_OK;
}

void pager_close_queues(hypura_pager *pager)
{
    for (int i = 0; i < PAGER_N_PRIORITIES; i++) {
        free(pager->queues[i].reads);
    }
}

static hypura_io_read *queued(pager_queue *queue, uint32_t at)
{
    return &queue->reads[at & (queue->capacity - 1)];
}

static bool is_empty(const pager_queue *queue)
{
    return queue->head == queue->tail;
}

static void push(hypura_pager *pager, enum pager_priority priority, const hypura_io_read *read)
{
    pager_queue *queue = &pager->queues[priority];
    assert(queue->tail - queue->head < queue->capacity);
    *queued(queue, queue->tail++) = *read;
    pager->demanded_bytes += priority == PAGER_DEMAND ? read->bytes : 0;
}

void pager_push(hypura_pager *pager, enum pager_priority priority, const hypura_io_read *read)
{
    push(pager, priority, read);
    pager->statistics.n_reads++;
}

/* ---- what waits in the second queue -------------------------------------------- */

/* Takes every read of this slot out of the queue, in order, and hands it over. */
static void take_ahead(hypura_pager *pager, uint32_t pool, uint32_t slot,
                       void (*take)(hypura_pager *, const hypura_io_read *))
{
    pager_queue *queue = &pager->queues[PAGER_AHEAD];
    uint32_t     kept = queue->head;
    for (uint32_t at = queue->head; at != queue->tail; at++) {
        const hypura_io_read read = *queued(queue, at);
        if (pager_user_pool(read.user) == pool && pager_user_slot(read.user) == slot) {
            take(pager, &read);
        } else {
            *queued(queue, kept++) = read;
        }
    }
    queue->tail = kept;
}

static void to_demand(hypura_pager *pager, const hypura_io_read *read)
{
    push(pager, PAGER_DEMAND, read);
}

void pager_promote(hypura_pager *pager, uint32_t pool, uint32_t slot)
{
    take_ahead(pager, pool, slot, to_demand);
}

void pager_drop_ahead(hypura_pager *pager, uint32_t pool, uint32_t slot)
{
    take_ahead(pager, pool, slot, pager_drop_read);
}

/* ---- to the drive ------------------------------------------------------------------ */

/* The next request of a queue; what is left of its read stays at the head. */
static hypura_io_read cut_request(hypura_pager *pager, enum pager_priority priority)
{
    pager_queue     *queue = &pager->queues[priority];
    hypura_io_read  *rest = queued(queue, queue->head);
    hypura_io_read   request = *rest;
    const uint64_t   bytes = pager_request_bytes(pager, rest);
    if (bytes < rest->bytes) {
        request.bytes = bytes;
        request.tail_slack = 0;
        rest->offset += bytes;
        rest->bytes -= bytes;
        rest->dst = (char *)rest->dst + bytes;
        rest->head_slack = 0;
        rest->user = pager_next_request(pager, rest->user);
    } else {
        queue->head++;
    }
    pager->demanded_bytes -= priority == PAGER_DEMAND ? request.bytes : 0;
    return request;
}

/* What was read and is not repacked yet has room in `jobs` whatever it was. */
static bool may_start(hypura_pager *pager)
{
    pager->jobs.full = pager->n_outstanding + pager->jobs.tail - pager->jobs.head >= pager->io_max_reads;
    return !pager->jobs.full;
}

uint64_t pager_cut_bytes(hypura_pager *pager, uint64_t bytes)
{
    const uint64_t   waiting = pager->outstanding_bytes + pager->demanded_bytes;
    const hypura_cut cut = hypura_cut_choose(pager->plan, waiting + bytes);
    pager->window_bytes = cut.window_bytes;
    return cut.block_bytes;
}

double pager_reading_us(const hypura_pager *pager, uint64_t bytes)
{
    hypura_io_counters counters;
    hypura_io_read_counters(pager->io, &counters);
    return counters.bytes_read > 0 ? (double)bytes * (double)counters.busy_us / (double)counters.bytes_read : 0.0;
}

uint64_t pager_pending_us(const hypura_pager *pager)
{
    return (uint64_t)pager_reading_us(pager, pager->outstanding_bytes + pager->demanded_bytes);
}

uint64_t hypura_pager_pending_us(hypura_pager *pager)
{
    pthread_mutex_lock(&pager->lock);
    const uint64_t pending_us = pager_pending_us(pager);
    pthread_mutex_unlock(&pager->lock);
    return pending_us;
}

bool pager_may_read_ahead(const hypura_pager *pager)
{
    const hypura_certainty certainty = pager->ahead.bundle >= 0 ? pager->ahead.certainty : HYPURA_LIKELY;
    switch (certainty) {
    case HYPURA_DOUBTFUL:
        return pager->outstanding_bytes == 0;
    case HYPURA_LIKELY:
        return pager->outstanding_bytes < pager->window_bytes / 2;
    case HYPURA_CERTAIN:
        break;
    }
    return pager->outstanding_bytes < pager->window_bytes;
}

static uint32_t take_requests(hypura_pager *pager, hypura_io_read *batch)
{
    uint32_t n = 0;
    while (n < SUBMIT_BATCH && may_start(pager)) {
        if (!is_empty(&pager->queues[PAGER_DEMAND])) {
            if (pager->outstanding_bytes >= pager->window_bytes) {
                break;
            }
            batch[n] = cut_request(pager, PAGER_DEMAND);
        } else if (pager_may_read_ahead(pager) &&
                   (!is_empty(&pager->queues[PAGER_AHEAD]) || pager_start_ahead(pager) || pager_start_warm(pager))) {
            batch[n] = cut_request(pager, PAGER_AHEAD);
        } else {
            break;
        }
        pager->outstanding_bytes += batch[n++].bytes;
        pager->n_outstanding++;
    }
    return n;
}

/* With the lock held; drops it while the engine works. The engine takes all: no more
 * are outstanding than it was opened for. */
void pager_submit(hypura_pager *pager)
{
    hypura_io_read batch[SUBMIT_BATCH];
    for (uint32_t n = take_requests(pager, batch); n > 0; n = take_requests(pager, batch)) {
        pthread_mutex_unlock(&pager->lock);
        hypura_io_submit(pager->io, batch, n);
        pthread_mutex_lock(&pager->lock);
    }
}
