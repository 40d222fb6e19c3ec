/*
 * pinned.c - the rows of dense weights that stay in memory, and how they become more
 * or fewer while the model is in use.
 *
 * A weight is cut into chunks; the first n_pinned of them are kept, one after the
 * other, so that they are computed with in one product. Address space is reserved
 * for whole weights:
 *
 *     row 0                 n_pinned   n_copied     n_wanted          reserved
 *     +-----------------------+----------+------------+------------------+
 *     | computed with         | from the | memory is  | no access, no    |
 *     |                       | next use | taken      | memory           |
 *     +-----------------------+----------+------------+------------------+
 *
 * More: memory is taken, and the executor copies the next chunk when it has computed
 * with it in the ring. No byte is read for it. Fewer: the executor is held up between
 * two nodes for as long as counting takes, then the pages go back.
 *
 * What always holds: n_pinned <= n_copied <= n_wanted <= n_chunks. n_pinned changes
 * between two uses of a weight alone.
 */
#include "pager/internal.h"

#include "base/size.h"
#include "base/status.h"
#include "os/os.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Weights begin at multiples of a huge page: none is shared by two. */
#define REGION_ALIGN (UINT64_C(2) << 20)

static uint64_t bytes_of_rows(const hypura_pager *pager, int tensor, int64_t rows)
{
    return (uint64_t)rows * pager->map->tensors[tensor].row_bytes;
}

static uint64_t bytes_of_chunks(const hypura_pager *pager, int tensor, uint32_t n)
{
    return bytes_of_rows(pager, tensor, pager_first_row(pager, tensor, n));
}

static uint64_t taken_bytes(const hypura_pager *pager, int tensor, uint32_t n)
{
    return hypura_round_up(bytes_of_chunks(pager, tensor, n), hypura_os_page_bytes());
}

/* ---- opening ------------------------------------------------------------- */

static hypura_status load(hypura_pager *pager, hypura_error *error)
{
    const hypura_plan *plan = pager->plan;
    int                n = 0;
    hypura_load       *loads = calloc((size_t)plan->n_placements, sizeof(*loads));
    if (!loads) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %d reads", plan->n_placements);
    }
    for (int t = 0; t < plan->n_placements; t++) {
        if (pager_is_dense(pager, t) && pager->dense[t].n_pinned > 0) {
            loads[n++] = (hypura_load){
                .file = pager->map->tensors[t].file,
                .offset = pager->map->tensors[t].offset,
                .bytes = bytes_of_chunks(pager, t, pager->dense[t].n_pinned),
                .dst = pager->dense[t].pinned,
            };
        }
    }
    const hypura_status status = hypura_pager_load(pager, loads, n, NULL, NULL, error);
    free(loads);
    for (int t = 0; t < plan->n_placements && status == HYPURA_OK; t++) {
        if (pager_is_dense(pager, t) && pager->dense[t].n_pinned > 0 && hypura_pager_repack(pager, t)) {
            hypura_repacker_repack(pager->repacker, t, pager->dense[t].pinned,
                                   pager_first_row(pager, t, pager->dense[t].n_pinned), pager->scratch);
        }
    }
    return status;
}

hypura_status pager_open_pinned(hypura_pager *pager, hypura_error *error)
{
    const hypura_plan *plan = pager->plan;
    uint64_t           reserved = 0;
    uint64_t           taken = 0;
    for (int t = 0; t < plan->n_placements; t++) {
        if (pager_is_dense(pager, t)) {
            reserved += hypura_round_up(pager->map->tensors[t].bytes, REGION_ALIGN);
            pager->ring.n_copied += pager->dense[t].n_copied;
        }
    }
    if (reserved == 0) {
        return HYPURA_OK;
    }
    pager->pinned_bytes = reserved;
    pager->pinned = hypura_os_memory_map(reserved, PAGER_POOL_MAPPING | HYPURA_OS_MAP_NO_ACCESS);
    char *at = pager->pinned;
    bool  ok = pager->pinned != NULL;
    for (int t = 0; t < plan->n_placements && ok; t++) {
        if (pager_is_dense(pager, t)) {
            const uint64_t bytes = taken_bytes(pager, t, pager->dense[t].n_pinned);
            pager->dense[t].pinned = at;
            ok = bytes == 0 || hypura_os_memory_protect(at, bytes, HYPURA_OS_ACCESS_READ_WRITE);
            at += hypura_round_up(pager->map->tensors[t].bytes, REGION_ALIGN);
            taken += bytes;
        }
    }
    if (!ok) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %llu bytes of pinned weights",
                           (unsigned long long)taken);
    }
    return load(pager, error);
}

void pager_close_pinned(hypura_pager *pager)
{
    hypura_os_memory_unmap(pager->pinned, pager->pinned_bytes);
}

/* ---- use ------------------------------------------------------------------ */

const char *hypura_pager_pinned(hypura_pager *pager, int tensor, int64_t *n_rows)
{
    pager_dense *dense = &pager->dense[tensor];
    pthread_mutex_lock(&pager->lock);
    dense->n_pinned = dense->n_copied;
    *n_rows = pager_first_row(pager, tensor, dense->n_pinned);
    const uint64_t bytes = bytes_of_rows(pager, tensor, *n_rows);
    pager_count(pager, pager->map->tensors[tensor].layer, bytes, bytes);
    pager_count_residents(pager, tensor);
    pthread_mutex_unlock(&pager->lock);
    return dense->pinned;
}

void pager_keep_chunk(hypura_pager *pager, int tensor, uint32_t chunk, const char *data)
{
    pager_dense   *dense = &pager->dense[tensor];
    const uint32_t index = chunk - dense->first_chunk;
    pthread_mutex_lock(&pager->lock);
    const bool wanted = index == dense->n_copied && index < dense->n_wanted;
    pthread_mutex_unlock(&pager->lock);
    if (!wanted) {
        return;
    }
    /* n_wanted does not fall while the executor is inside */
    const uint64_t begin = bytes_of_chunks(pager, tensor, index);
    memcpy(dense->pinned + begin, data, bytes_of_chunks(pager, tensor, index + 1) - begin);
    pthread_mutex_lock(&pager->lock);
    dense->n_copied++;
    pager->ring.n_copied++;
    pthread_mutex_unlock(&pager->lock);
}

/* ---- more or fewer --------------------------------------------------------- */

uint64_t pager_pinned_bytes(const hypura_pager *pager)
{
    uint64_t bytes = 0;
    for (int t = 0; t < pager->plan->n_placements; t++) {
        if (pager_is_dense(pager, t)) {
            bytes += bytes_of_chunks(pager, t, pager->dense[t].n_wanted);
        }
    }
    return bytes;
}

uint64_t pager_pinned_most_bytes(const hypura_pager *pager)
{
    uint64_t bytes = 0;
    for (int t = 0; t < pager->plan->n_placements; t++) {
        bytes += pager_is_dense(pager, t) ? pager->map->tensors[t].bytes : 0;
    }
    return bytes;
}

uint64_t pager_largest_chunk_bytes(const hypura_pager *pager)
{
    uint64_t most = 0;
    for (int t = 0; t < pager->plan->n_placements && pager->ring.n_slots > 0; t++) {
        if (pager_is_dense(pager, t)) {
            const uint64_t bytes = bytes_of_rows(pager, t, pager->dense[t].chunk_rows);
            most = bytes > most ? bytes : most;
        }
    }
    return most;
}

#define PARTS        (UINT64_C(1) << 20)
#define GOLDEN_RATIO 0.6180339887498949

/* Chunks of the i-th weight when a part of all is kept. Rounding is spread over the
 * weights, so that the part is about the same all along the token and reading as
 * even; and as the part grows no weight gets fewer. */
static uint32_t chunks_of_part(uint32_t n_chunks, uint32_t i, double part)
{
    const double   turn = (double)i * GOLDEN_RATIO;
    const double   wanted = part * (double)n_chunks + (turn - floor(turn));
    const uint32_t n = (uint32_t)wanted;
    return n < n_chunks ? n : n_chunks;
}

/* Writes what every weight gets of a part; returns the bytes of all. */
static uint64_t choose_part(const hypura_pager *pager, double part, uint32_t *wanted)
{
    uint64_t bytes = 0;
    uint32_t i = 0;
    for (int t = 0; t < pager->plan->n_placements; t++) {
        if (pager_is_dense(pager, t)) {
            wanted[t] = chunks_of_part(pager->dense[t].n_chunks, i++, part);
            bytes += bytes_of_chunks(pager, t, wanted[t]);
        }
    }
    return bytes;
}

static void choose_wanted(const hypura_pager *pager, uint64_t budget_bytes, uint32_t *wanted)
{
    uint64_t fits = 0;
    uint64_t above = PARTS + 1;
    while (above - fits > 1) {
        const uint64_t part = fits + (above - fits) / 2;
        if (choose_part(pager, (double)part / (double)PARTS, wanted) <= budget_bytes) {
            fits = part;
        } else {
            above = part;
        }
    }
    (void)choose_part(pager, (double)fits / (double)PARTS, wanted);
}

static bool any_shrinks(const hypura_pager *pager, const uint32_t *wanted)
{
    for (int t = 0; t < pager->plan->n_placements; t++) {
        if (pager_is_dense(pager, t) && wanted[t] < pager->dense[t].n_wanted) {
            return true;
        }
    }
    return false;
}

/* The executor is between two nodes. */
static void forget(hypura_pager *pager, const uint32_t *wanted)
{
    for (int t = 0; t < pager->plan->n_placements; t++) {
        pager_dense *dense = &pager->dense[t];
        if (pager_is_dense(pager, t) && wanted[t] < dense->n_wanted) {
            const uint32_t kept = wanted[t] < dense->n_copied ? wanted[t] : dense->n_copied;
            pager->ring.n_copied -= dense->n_copied - kept;
            dense->n_wanted = wanted[t];
            dense->n_copied = kept;
            dense->n_pinned = kept < dense->n_pinned ? kept : dense->n_pinned;
        }
    }
}

static void give_back(hypura_pager *pager, int tensor, uint32_t before, uint32_t now)
{
    const uint64_t begin = taken_bytes(pager, tensor, now);
    const uint64_t end = taken_bytes(pager, tensor, before);
    if (begin < end) {
        hypura_os_memory_discard(pager->dense[tensor].pinned + begin, end - begin);
        hypura_os_memory_replace(pager->dense[tensor].pinned + begin, end - begin,
                                 PAGER_POOL_MAPPING | HYPURA_OS_MAP_NO_ACCESS);
    }
}

void pager_shrink_pinned(hypura_pager *pager, uint64_t budget_bytes)
{
    uint32_t *wanted = pager->wanted_chunks;
    uint32_t *before = wanted + pager->plan->n_placements;
    if (pager->ring.n_slots == 0) {
        return; /* nothing could be streamed */
    }
    choose_wanted(pager, budget_bytes, wanted);
    if (!any_shrinks(pager, wanted)) {
        return;
    }
    pthread_mutex_lock(&pager->gate);
    pthread_mutex_lock(&pager->executor);
    pthread_mutex_lock(&pager->lock);
    for (int t = 0; t < pager->plan->n_placements; t++) {
        before[t] = pager->dense[t].n_wanted;
    }
    forget(pager, wanted);
    pthread_mutex_unlock(&pager->lock);
    pthread_mutex_unlock(&pager->executor);
    pthread_mutex_unlock(&pager->gate);
    for (int t = 0; t < pager->plan->n_placements; t++) {
        if (pager_is_dense(pager, t)) {
            give_back(pager, t, before[t], pager->dense[t].n_wanted);
        }
    }
}

/* After shrink_pinned with the same budget, whose choice is still there. */
void pager_grow_pinned(hypura_pager *pager, const pager_growth *growth)
{
    for (int t = 0; t < pager->plan->n_placements && pager->ring.n_slots > 0; t++) {
        pager_dense *dense = &pager->dense[t];
        if (!pager_is_dense(pager, t) || pager->wanted_chunks[t] <= dense->n_wanted) {
            continue;
        }
        const uint64_t begin = taken_bytes(pager, t, dense->n_wanted);
        const uint64_t end = taken_bytes(pager, t, pager->wanted_chunks[t]);
        if (!pager_may_grow(pager, growth) || !pager_take_memory(pager, growth, dense->pinned + begin, end - begin)) {
            return;
        }
        pthread_mutex_lock(&pager->lock);
        dense->n_wanted = pager->wanted_chunks[t];
        pthread_mutex_unlock(&pager->lock);
    }
}
