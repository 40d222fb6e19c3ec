/*
 * vram_stage.c - a layer's experts in a stage, while a batch passes through it: what slots
 * hold is copied there, what they lack is uploaded.
 *
 * Where copies have an instance of their own, three lookups (GET_ROWS) gather a whole layer
 * from slots with the table that one token's ids are looked up in: rows of experts that no
 * slot holds are another one's, and uploads overwrite them. One copy for each matrix would
 * be thousands of calls into the driver for a prompt, which took longer than the link does.
 *
 * Where stages lie behind the slots that last, in the same tensors, what else these hold gives
 * way to a batch: its keys go, and its slots come back with the next token.
 *
 * What always holds: a stage is filled when its last user has been computed, uploads to it
 * come after what is gathered, and what is queued next comes after both.
 */
#include "pager/vram_internal.h"

#include "ggml-backend.h"
#include "ggml.h"

/* Below this part of a layer single copies move less. */
#define LEAST_GATHERED 4 /* one in so many */

/* Rows of floats: every backend copies those. */
bool vram_can_copy(const hypura_vram *vram, int bundle)
{
    const vram_bundle *place = &vram->bundles[bundle];
    for (int i = 0; i < vram->pager->map->bundles[bundle].n_tensors; i++) {
        if (place->slots[i].nb[2] % (4 * sizeof(float)) != 0) {
            return false;
        }
    }
    return true;
}

/* n experts of a matrix from an index on, one in each row. */
static struct ggml_tensor *rows_of(hypura_vram *vram, const struct ggml_tensor *tensor, uint32_t index, int64_t n)
{
    struct ggml_tensor *rows =
        ggml_new_tensor_2d(vram->copies, GGML_TYPE_F32, (int64_t)(tensor->nb[2] / sizeof(float)), n);
    rows->buffer = tensor->buffer;
    rows->data = (char *)tensor->data + index * tensor->nb[2];
    return rows;
}

static void add_copies(hypura_vram *vram, struct ggml_cgraph *graph, int bundle, int set, const vram_held *held,
                       bool to_slots)
{
    vram_bundle *place = &vram->bundles[bundle];
    for (uint32_t e = 0; e < held->n; e++) {
        for (int i = 0; i < vram->pager->map->bundles[bundle].n_tensors; i++) {
            struct ggml_tensor *slot = rows_of(vram, &place->slots[i], held->slots[e], 1);
            struct ggml_tensor *staged = rows_of(vram, &place->stages[set][i], held->experts[e], 1);
            struct ggml_tensor *copy = ggml_cpy(vram->copies, to_slots ? staged : slot, to_slots ? slot : staged);
            (void)ggml_backend_view_init(copy);
            ggml_build_forward_expand(graph, copy);
        }
    }
}

/* False when the device cannot. */
static bool add_lookups(hypura_vram *vram, struct ggml_cgraph *graph, int bundle, int set)
{
    vram_bundle        *place = &vram->bundles[bundle];
    const int64_t       n_experts = vram->pager->map->bundles[bundle].n_experts;
    struct ggml_tensor *table = ggml_new_tensor_1d(vram->copies, GGML_TYPE_I32, n_experts);
    table->buffer = place->ids[IDS_TABLE].buffer;
    table->data = place->ids[IDS_TABLE].data;
    for (int i = 0; i < vram->pager->map->bundles[bundle].n_tensors; i++) {
        struct ggml_tensor *stage = &place->stages[set][i];
        struct ggml_tensor *slots = rows_of(vram, &place->slots[i], 0, place->slots[i].ne[2]);
        struct ggml_tensor *lookup = ggml_get_rows(vram->copies, slots, table);
        lookup->buffer = stage->buffer;
        lookup->data = stage->data;
        if (!ggml_backend_supports_op(vram->reader, lookup)) {
            return false;
        }
        ggml_build_forward_expand(graph, lookup);
    }
    return true;
}

static struct ggml_cgraph *new_graph(hypura_vram *vram)
{
    ggml_reset(vram->copies);
    return ggml_new_graph_custom(vram->copies, 3 * (size_t)MAX_EXPERTS * HYPURA_MAX_BUNDLE, false);
}

/* What the reader copies from slots comes after the uploads to them. While one token is computed
 * it copies none, so that no upload asks for this by itself. */
static void join_slots(hypura_vram *vram)
{
    if (vram->reader && vram->slots_changed) {
        ggml_backend_event_wait(vram->reader, vram->uploaded);
        ggml_backend_event_wait(vram->reader, vram->uploaded_late);
    }
    vram->slots_changed = false;
}

hypura_status vram_copy(hypura_vram *vram, int bundle, int set, const vram_held *held, bool to_slots)
{
    const uint32_t      n_experts = (uint32_t)vram->pager->map->bundles[bundle].n_experts;
    struct ggml_cgraph *graph = new_graph(vram);
    if (to_slots || !vram->reader || held->n * LEAST_GATHERED < n_experts || !add_lookups(vram, graph, bundle, set)) {
        graph = new_graph(vram);
        add_copies(vram, graph, bundle, set, held, to_slots);
    }
    hypura_vram_settle_beside(vram, -1);
    join_slots(vram);
    if (ggml_backend_graph_compute_async(vram->reader ? vram->reader : vram->backend, graph) != GGML_STATUS_SUCCESS) {
        return HYPURA_ERR_BACKEND;
    }
    if (vram->reader) {
        ggml_backend_event_record(vram->copied, vram->reader);
        ggml_backend_event_wait(vram->uploader, vram->copied);
        ggml_backend_event_wait(vram->backend, vram->copied);
    } else if (to_slots) { /* or what follows would fill the stage anew, or slots that lie in it, before that */
        vram_hold_copies(vram);
    }
    return HYPURA_OK;
}

/* Where RAM cannot hold all experts it holds others than the slots that a prompt fills:
 * RAM is asked for none of these as long as they are there. */
bool vram_ram_is_short(const hypura_vram *vram, int bundle)
{
    const hypura_pool_plan *pool = &vram->pager->plan->pools[vram->pager->bundles[bundle].pool];
    return pool->n_slots < pool->n_units;
}

/* What slots hold is copied; what they lack goes through those that are still empty,
 * where it stays, and else to the stage alone. */
hypura_status hypura_vram_fill_stage(hypura_vram *vram, int bundle, int set, const uint32_t *experts, uint32_t n)
{
    const vram_bundle *place = &vram->bundles[bundle];
    vram_pool         *pool = &vram->pools[place->pool];
    const bool         copies = vram_can_copy(vram, bundle);
    vram_held         *held = &vram->held;
    uint32_t           kept[MAX_EXPERTS], slots[MAX_EXPERTS], indices[MAX_EXPERTS];
    uint32_t           n_kept = 0;
    uint32_t           n_missing = 0;
    held->n = 0;
    vram_close_slots(vram, pool);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t key = place->first_key + experts[i];
        uint32_t       slot = copies ? hypura_cache_find(pool->cache, key) : HYPURA_CACHE_NONE;
        if (slot == HYPURA_CACHE_NONE && copies && pool->n_full < pool->n_open) {
            slot = vram_insert(pool, key);
            kept[n_kept] = experts[i];
            slots[n_kept++] = slot;
        }
        if (slot != HYPURA_CACHE_NONE) {
            held->experts[held->n] = experts[i];
            held->slots[held->n++] = slot;
        } else {
            indices[n_missing] = experts[i];
            vram->missing[n_missing++] = experts[i];
        }
    }
    vram_count(vram, bundle, n, held->n - n_kept, true);
    hypura_status status = HYPURA_OK;
    if (n_kept > 0) {
        status = vram_upload(vram, bundle, -1, kept, slots, n_kept, vram_ram_is_short(vram, bundle));
    }
    if (status == HYPURA_OK && held->n > 0) {
        status = vram_copy(vram, bundle, set, held, false);
    }
    if (status == HYPURA_OK && n_missing > 0) {
        status = vram_upload(vram, bundle, set, vram->missing, indices, n_missing, false);
    }
    return status;
}
