/*
 * pieces.c - the memory of expert pools that a GPU copies from. It does so at full
 * speed only from memory that its driver has pinned, so that the pool consists of the
 * driver's own host buffers, none larger than it allows. What the driver refuses to
 * pin is ordinary memory, from which copies work too, slower; statistics tell how much
 * is pinned. Such a pool keeps its size: a driver has no use for pages that come and go.
 */
#include "pager/internal.h"

#include "base/status.h"
#include "os/os.h"
#include "plan/layout.h"

#include "ggml-backend.h"

#include <stdlib.h>

#define PIECE_BYTES (UINT64_C(1) << 30) /* of a driver that names no limit */

static bool map_piece(pager_piece *piece, uint64_t bytes)
{
    piece->memory = hypura_os_memory_map(bytes, HYPURA_OS_MAP_HUGE | HYPURA_OS_MAP_NORESERVE);
    piece->bytes = bytes;
    return piece->memory != NULL;
}

/* False when the driver does not give pinned memory of that size. */
static bool pin_piece(pager_piece *piece, ggml_backend_buffer_type_t type, uint64_t bytes)
{
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(type, bytes + HYPURA_LAYOUT_PAGE_BYTES);
    if (buffer && ggml_backend_buffer_get_type(buffer) != type) { /* what backends give in its place */
        ggml_backend_buffer_free(buffer);
        buffer = NULL;
    }
    if (!buffer) {
        return false;
    }
    char *base = ggml_backend_buffer_get_base(buffer);
    const uint64_t phase = (uintptr_t)base % HYPURA_LAYOUT_PAGE_BYTES;
    piece->buffer = buffer;
    piece->memory = base + (phase > 0 ? HYPURA_LAYOUT_PAGE_BYTES - phase : 0);
    piece->bytes = bytes;
    return true;
}

static ggml_backend_buffer_type_t pinned_type(const hypura_pager *pager)
{
    return ggml_backend_dev_host_buffer_type(pager->gpu);
}

static uint32_t slots_of_piece(const pager_pool *pool, ggml_backend_buffer_type_t type)
{
    if (!type) {
        return pool->n_slots;
    }
    uint64_t most = ggml_backend_buft_get_max_size(type);
    most = most > PIECE_BYTES ? PIECE_BYTES : most;
    const uint64_t n = most > HYPURA_LAYOUT_PAGE_BYTES ? (most - HYPURA_LAYOUT_PAGE_BYTES) / pool->stride_bytes : 0;
    return n == 0 ? 1 : n < pool->n_slots ? (uint32_t)n : pool->n_slots;
}

hypura_status pager_take_pieces(hypura_pager *pager, uint32_t index, hypura_error *error)
{
    pager_pool                *pool = &pager->pools[index];
    ggml_backend_buffer_type_t type = pinned_type(pager);
    pool->piece_slots = slots_of_piece(pool, type);
    const uint32_t n_pieces = (pool->n_slots + pool->piece_slots - 1) / pool->piece_slots;
    pool->pieces = calloc(n_pieces, sizeof(*pool->pieces));
    bool taken = pool->pieces != NULL;
    for (uint32_t i = 0; taken && i < n_pieces; i++) {
        const uint32_t first = i * pool->piece_slots;
        const uint32_t n = pool->n_slots - first < pool->piece_slots ? pool->n_slots - first : pool->piece_slots;
        const uint64_t bytes = n * pool->stride_bytes;
        if (type && pin_piece(&pool->pieces[i], type, bytes)) {
            pager->statistics.locked_bytes += bytes;
        } else {
            type = NULL; /* once refused, refused */
            taken = map_piece(&pool->pieces[i], bytes);
        }
        pool->n_pieces += taken;
    }
    if (!taken) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for expert pool %u: %u slots of %llu bytes", index,
                           pool->n_slots, (unsigned long long)pool->stride_bytes);
    }
    return HYPURA_OK;
}

void pager_free_pieces(pager_pool *pool)
{
    for (uint32_t i = 0; i < pool->n_pieces; i++) {
        if (pool->pieces[i].buffer) {
            ggml_backend_buffer_free(pool->pieces[i].buffer);
        } else {
            hypura_os_memory_unmap(pool->pieces[i].memory, pool->pieces[i].bytes);
        }
    }
    free(pool->pieces);
}
