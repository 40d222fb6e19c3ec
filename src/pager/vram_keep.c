/*
 * vram_keep.c - what a batch selects of the layers that pass through stages. The host learns it
 * beside what is computed, and nothing waits for that: the ids are there when the stage is free
 * again, and all that they selected still lies in it. What is then expected sooner than the last
 * of what slots hold is copied to these, on the device.
 *
 *     GPU    router | ids to the host | experts, from the stage ...... | next layer
 *     host                              noted; stage -> slots; the stage filled anew
 *
 * So the first tokens behind a prompt find what the prompt used most, and not what came first
 * over the link, and what gives way to them is what it used least.
 *
 * What always holds: a stage is read from after its last user has been computed and before it
 * is filled anew; slots that may be read meanwhile stay as they are.
 */
#include "pager/vram_internal.h"

#include "base/status.h"

#include "ggml-backend.h"
#include "ggml.h"

#include <stdlib.h>
#include <string.h>

/* ---- ids of batches ------------------------------------------------------------ */

/* For each stage: enough for 2,048 tokens of 128 experts. Of more the last ones are noted. */
#define MOST_IDS_BYTES ((size_t)1 << 20)

/* Rows of all experts, of which the first are those selected: a router's come sorted. */
hypura_status vram_open_batches(hypura_vram *vram, hypura_error *error)
{
    const hypura_map          *map = vram->pager->map;
    ggml_backend_buffer_type_t host = ggml_backend_dev_host_buffer_type(vram->device);
    const int                  n_stages = hypura_vram_n_stages(vram);
    vram->batch_bytes = (size_t)vram->pager->plan->n_ubatch * (size_t)map->n_experts * sizeof(int32_t);
    vram->batch_bytes = vram->batch_bytes < MOST_IDS_BYTES ? vram->batch_bytes : MOST_IDS_BYTES;
    if (vram->batch_bytes == 0 || n_stages == 0) {
        return HYPURA_OK;
    }
    vram->batch_ids = ggml_backend_buft_alloc_buffer(host ? host : ggml_backend_cpu_buffer_type(),
                                                     (size_t)n_stages * vram->batch_bytes);
    if (!vram->batch_ids) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "%s: no memory for what %u tokens select",
                           ggml_backend_dev_name(vram->device), vram->pager->plan->n_ubatch);
    }
    for (int s = 0; s < n_stages; s++) {
        char *base = ggml_backend_buffer_get_base(vram->batch_ids);
        vram->batches[s].ids = (int32_t *)(void *)(base + (size_t)s * vram->batch_bytes);
    }
    return HYPURA_OK;
}

bool hypura_vram_has_batches(const hypura_vram *vram)
{
    bool any = false;
    for (int s = 0; s < HYPURA_MAX_STAGES; s++) {
        any = any || vram->batches[s].bundle >= 0;
    }
    return any;
}

static vram_batch *describe(hypura_vram *vram, int bundle, int set, int64_t n_used, int64_t n_tokens, size_t row_bytes)
{
    vram_batch   *batch = &vram->batches[set];
    const int64_t most = (int64_t)(vram->batch_bytes / row_bytes);
    const bool    fits = most > 0 && vram_can_copy(vram, bundle);
    batch->bundle = fits ? bundle : -1;
    batch->n_tokens = (uint32_t)(n_tokens < most ? n_tokens : most);
    batch->n_used = (uint32_t)n_used;
    batch->row = (uint32_t)(row_bytes / sizeof(int32_t));
    return fits ? batch : NULL;
}

/* With what lies between one token's ids and the next one's, in one copy. */
void hypura_vram_note_batch(hypura_vram *vram, int bundle, int set, const struct ggml_tensor *ids)
{
    const vram_batch *batch = describe(vram, bundle, set, ids->ne[0], ids->ne[1], ids->nb[1]);
    if (batch) {
        const size_t before = (size_t)(ids->ne[1] - batch->n_tokens) * ids->nb[1];
        ggml_backend_tensor_get_async(vram->backend, ids, batch->ids, before, ggml_nbytes(ids) - before);
    }
}

int32_t *hypura_vram_give_batch(hypura_vram *vram, int bundle, int set, uint32_t n_used, uint32_t n_tokens)
{
    vram_batch *batch = describe(vram, bundle, set, n_used, n_tokens, n_used * sizeof(int32_t));
    if (batch && batch->n_tokens < n_tokens) {
        batch->bundle = -1;
        return NULL;
    }
    return batch ? batch->ids : NULL;
}

/* ---- what stays ------------------------------------------------------------------ */

/* Experts that a batch selected. */
typedef struct selection {
    uint32_t n;
    uint32_t experts[MAX_EXPERTS];
    uint32_t n_uses[MAX_EXPERTS];
    uint32_t ages[MAX_EXPERTS]; /* tokens after the last that selected it */
} selection;

/* False when an id is none of an expert. */
static bool count(const vram_batch *batch, uint32_t n_experts, selection *selected)
{
    uint32_t n_uses[MAX_EXPERTS] = {0};
    uint32_t last[MAX_EXPERTS];
    for (uint32_t t = 0; t < batch->n_tokens; t++) {
        const int32_t *ids = batch->ids + (size_t)t * batch->row;
        for (uint32_t i = 0; i < batch->n_used; i++) {
            if (ids[i] < 0 || (uint32_t)ids[i] >= n_experts) {
                return false;
            }
            n_uses[ids[i]]++;
            last[ids[i]] = t;
        }
    }
    selected->n = 0;
    for (uint32_t e = 0; e < n_experts; e++) {
        if (n_uses[e] > 0) {
            selected->experts[selected->n] = e;
            selected->n_uses[selected->n] = n_uses[e];
            selected->ages[selected->n++] = batch->n_tokens - 1 - last[e];
        }
    }
    return true;
}

typedef struct wish {
    uint32_t expert;
    uint32_t n_uses;
} wish;

static int by_uses(const void *a, const void *b)
{
    const wish *x = a;
    const wish *y = b;
    return x->n_uses != y->n_uses ? (x->n_uses > y->n_uses ? -1 : 1) : x->expert < y->expert ? -1 : 1;
}

/* Slots for those that no slot holds and that are worth one, the most used first; none of them
 * gives way to another one, nor does what the layer before reads. */
static void take_slots(hypura_vram *vram, int bundle, const selection *selected, vram_held *taken)
{
    const vram_bundle *place = &vram->bundles[bundle];
    vram_pool         *pool = &vram->pools[place->pool];
    hypura_cache      *in_use = vram->in_use.n > 0 ? vram->pools[vram->in_use.pool].cache : NULL;
    wish               wishes[MAX_EXPERTS];
    uint32_t           n = 0;
    for (uint32_t i = 0; i < selected->n; i++) {
        if (hypura_cache_find(pool->cache, place->first_key + selected->experts[i]) == HYPURA_CACHE_NONE) {
            wishes[n++] = (wish){.expert = selected->experts[i], .n_uses = selected->n_uses[i]};
        }
    }
    qsort(wishes, n, sizeof(*wishes), by_uses);
    hypura_cache_pin_all(in_use, vram->in_use.list, vram->in_use.n);
    taken->n = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t key = place->first_key + wishes[i].expert;
        if (hypura_cache_prefers(pool->cache, key)) {
            const uint32_t slot = vram_insert(pool, key);
            hypura_cache_pin(pool->cache, slot);
            taken->experts[taken->n] = wishes[i].expert;
            taken->slots[taken->n++] = slot;
        }
    }
    hypura_cache_unpin_all(pool->cache, taken->slots, taken->n);
    hypura_cache_unpin_all(in_use, vram->in_use.list, vram->in_use.n);
}

static hypura_status copy_taken(hypura_vram *vram, int bundle, int set, const vram_held *taken)
{
    hypura_pager *pager = vram->pager;
    if (vram_copy(vram, bundle, set, taken, true) != HYPURA_OK) {
        return HYPURA_ERR_BACKEND;
    }
    for (uint32_t i = 0; i < taken->n; i++) {
        vram_set_entry(vram, bundle, taken->experts[i], taken->slots[i]);
    }
    vram_send_table(vram, bundle);
    vram_join_uploads(vram);
    vram->slots_changed = true;
    vram_order_copies(vram);
    pthread_mutex_lock(&pager->lock);
    pager->statistics.bytes_copied += taken->n * pager->map->bundles[bundle].expert_bytes;
    pthread_mutex_unlock(&pager->lock);
    return HYPURA_OK;
}

/* For whoever guesses by what is selected together. */
static void note(const hypura_vram *vram, int bundle, const vram_batch *batch)
{
    const hypura_selection noted = {.bundle = bundle,
                                    .selected = {.n_used = batch->n_used,
                                                 .n_tokens = batch->n_tokens,
                                                 .ids = (const char *)batch->ids,
                                                 .rank_stride_bytes = sizeof(*batch->ids),
                                                 .token_stride_bytes = batch->row * sizeof(*batch->ids)}};
    hypura_pager_note_selection(vram->pager, &noted);
}

hypura_status hypura_vram_keep(hypura_vram *vram, int set)
{
    vram_batch *batch = &vram->batches[set];
    const int   bundle = batch->bundle;
    selection   selected;
    batch->bundle = -1;
    if (bundle < 0 || !count(batch, (uint32_t)vram->pager->map->bundles[bundle].n_experts, &selected)) {
        return HYPURA_OK;
    }
    note(vram, bundle, batch);
    vram_visit(vram, bundle, batch->n_tokens, selected.experts, selected.n, selected.n_uses, selected.ages);
    if (vram_ram_is_short(vram, bundle)) { /* RAM may have nothing of what would go */
        return HYPURA_OK;
    }
    take_slots(vram, bundle, &selected, &vram->held);
    return vram->held.n > 0 ? copy_taken(vram, bundle, set, &vram->held) : HYPURA_OK;
}

hypura_status hypura_vram_keep_all(hypura_vram *vram)
{
    hypura_status status = HYPURA_OK;
    for (int s = 0; s < HYPURA_MAX_STAGES && status == HYPURA_OK; s++) {
        status = hypura_vram_keep(vram, s);
    }
    return status;
}
