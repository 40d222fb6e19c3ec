/*
 * schedule.c - which read goes to the drive next.
 *
 *     demand   somebody waits, or soon will: whole reads, at once, in order
 *     ahead    experts that a later layer may need: only while no demand waits and
 *              the drive has next to nothing to do, and one request at a time
 *
 * A request under way cannot be called back; it is what a demand may have to wait
 * for behind it. So reads ahead are cut at the drive's block, few of them are under
 * way together, and what is left of one can be dropped between two requests, or
 * moved to the demands when somebody asks for it.
 */
#include "pager/internal.h"

#include "base/status.h"
#include "plan/layout.h"

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
    /* half of what the drive takes at once: the rest is a demand's */
    pager->n_ahead_most = pager->plan->io_depth / 2 > 2 ? pager->plan->io_depth / 2 : 2;
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
    *queued(queue, queue->tail++) = *read;
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

/* The next request of a read ahead; what is left of it stays at the head. */
static hypura_io_read cut_request(hypura_pager *pager)
{
    pager_queue     *queue = &pager->queues[PAGER_AHEAD];
    hypura_io_read  *rest = queued(queue, queue->head);
    hypura_io_read   request = *rest;
    const uint64_t   block = pager->plan->io_block_bytes;
    const uint64_t   page = HYPURA_LAYOUT_PAGE_BYTES;
    if (rest->bytes <= block + page) {
        queue->head++;
        return request;
    }
    request.bytes = (rest->offset + block) / page * page - rest->offset;
    request.tail_slack = 0;
    rest->offset += request.bytes;
    rest->bytes -= request.bytes;
    rest->dst = (char *)rest->dst + request.bytes;
    rest->head_slack = 0;
    pager_count_request(pager, request.user);
    return request;
}

static uint32_t take_requests(hypura_pager *pager, hypura_io_read *batch)
{
    pager_queue *demand = &pager->queues[PAGER_DEMAND];
    uint32_t     n = 0;
    while (n < SUBMIT_BATCH && pager->n_outstanding < pager->io_max_reads) {
        if (!is_empty(demand)) {
            batch[n++] = *queued(demand, demand->head++);
        } else if (pager->n_outstanding < pager->n_ahead_most &&
                   (!is_empty(&pager->queues[PAGER_AHEAD]) || pager_start_ahead(pager) || pager_start_warm(pager))) {
            batch[n++] = cut_request(pager);
        } else {
            break;
        }
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
