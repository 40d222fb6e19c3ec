/*
 * vram.c - see vram.h.
 */
#include "pager/vram_internal.h"

#include "ggml-backend.h"
#include "ggml.h"

#include <string.h>

/* ---- the queue ---------------------------------------------------------------- */

static void release(hypura_vram *vram, const vram_lease *lease)
{
    if (lease->passes) {
        hypura_pager_pass_expert(vram->pager, lease->bundle, lease->slot);
    } else {
        hypura_pager_release_expert(vram->pager, lease->bundle, lease->slot);
    }
}

void hypura_vram_settled(hypura_vram *vram)
{
    for (uint32_t i = 0; i < vram->n_pending; i++) {
        release(vram, &vram->pending[i]);
    }
    vram->n_pending = 0;
}

void hypura_vram_arrived(hypura_vram *vram)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < vram->n_pending; i++) {
        if (!vram->pending[i].early) {
            release(vram, &vram->pending[i]);
        } else {
            vram->pending[n] = vram->pending[i];
            vram->pending[n++].early = false;
        }
    }
    vram->n_pending = n;
}

void hypura_vram_stage_settled(hypura_vram *vram, int set)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < vram->n_pending; i++) {
        if (vram->pending[i].set == set) {
            release(vram, &vram->pending[i]);
        } else {
            vram->pending[n++] = vram->pending[i];
        }
    }
    vram->n_pending = n;
}

void hypura_vram_settle(hypura_vram *vram)
{
    if (vram->uploader) {
        ggml_backend_synchronize(vram->uploader);
    }
    hypura_vram_fetched(vram);
    hypura_vram_settled(vram);
    vram_beside_ended(vram);
}

/* What is queued next comes after the uploads so far. */
void vram_join_uploads(hypura_vram *vram)
{
    if (vram->uploader) {
        ggml_backend_event_record(vram->uploaded, vram->uploader);
        ggml_backend_event_wait(vram->backend, vram->uploaded);
    }
}

void hypura_vram_defer(hypura_vram *vram, int matrix)
{
    vram->late_matrix = vram->uploaded_late ? matrix : -1;
}

bool hypura_vram_has_deferred(const hypura_vram *vram)
{
    return vram->has_late;
}

void hypura_vram_join(hypura_vram *vram)
{
    if (vram->has_late) {
        ggml_backend_event_wait(vram->backend, vram->uploaded_late);
        vram->has_late = false;
    }
}

void hypura_vram_begin(hypura_vram *vram, struct ggml_backend *backend)
{
    if (vram->backend && vram->backend != backend) {
        hypura_vram_settle(vram);
    }
    vram->backend = backend;
    vram->staged = false;
    vram->beside.one_sent = false;
    vram->late_matrix = -1;
    hypura_vram_join(vram); /* left by a graph that failed */
}

void hypura_vram_forget(hypura_vram *vram, const struct ggml_backend *backend)
{
    if (vram->backend == backend) {
        hypura_vram_settle(vram);
        vram->backend = NULL;
    }
}

bool hypura_vram_uploads_beside(const hypura_vram *vram)
{
    return vram->uploader != NULL || vram->overtakes;
}

/* ---- tensors ------------------------------------------------------------------- */

bool hypura_vram_has_slots(const hypura_vram *vram, int bundle)
{
    return vram->bundles[bundle].paged;
}

struct ggml_tensor *hypura_vram_slots(hypura_vram *vram, int bundle, int index)
{
    return &vram->bundles[bundle].slots[index];
}

struct ggml_tensor *hypura_vram_stage(hypura_vram *vram, int bundle, int index, int set)
{
    return &vram->bundles[bundle].stages[set][index];
}

int hypura_vram_n_stages(const hypura_vram *vram)
{
    return vram->pager->plan->gpus[vram->gpu].n_stages;
}

/* ---- uploads ------------------------------------------------------------------- */

bool vram_settle_all(const hypura_pager *pager)
{
    bool any = false;
    for (int g = 0; g < HYPURA_MAX_GPUS; g++) {
        hypura_vram *vram = pager->vrams[g];
        if (vram && vram->n_pending + vram->beside.n > 0) {
            hypura_vram_settle(vram);
            any = true;
        }
    }
    return any;
}

/* The deferred matrix of the experts whose leases are pending[from..]. */
static void send_late(hypura_vram *vram, int late, uint32_t from)
{
    if (late >= 0) {
        vram_send_matrix(vram, late, vram->pending + from, vram->n_pending - from);
    }
}

/* What is queued next waits for what was sent so far; for the deferred matrix, which follows
 * from pending[from] on, later. */
static void join_part(hypura_vram *vram, bool to_slots, int late, uint32_t from)
{
    vram_join_uploads(vram);
    vram->slots_changed |= to_slots;
    if (late >= 0) {
        send_late(vram, late, from);
        ggml_backend_event_record(vram->uploaded_late, vram->uploader);
        vram->has_late = true;
    }
}

void vram_release_leased(hypura_vram *vram)
{
    for (uint32_t i = 0; vram->leased_bundle >= 0 && i < vram->n_leased; i++) {
        const uint32_t slot = vram->ram_slots[i];
        if (slot != HYPURA_CACHE_NONE && vram_is_landing(vram, vram->leased_bundle, slot)) {
            hypura_pager_end_landing(vram->pager, vram->leased_bundle, slot);
        } else if (slot != HYPURA_CACHE_NONE) {
            hypura_pager_release_expert(vram->pager, vram->leased_bundle, slot);
        }
    }
    vram->leased_bundle = -1;
    vram->landing = false;
}

/* The i-th of those asked for, whose bytes have come straight to where they go. */
static bool has_landed(hypura_vram *vram, int bundle, const uint32_t *experts, uint32_t *indices, uint32_t i)
{
    if (!vram_is_landing(vram, bundle, vram->ram_slots[i])) {
        return false;
    }
    vram_landed(vram, bundle, experts[i], indices[i], vram->ram_slots[i]);
    vram->ram_slots[i] = HYPURA_CACHE_NONE;
    indices[i] = HYPURA_CACHE_NONE;
    return true;
}

/* The i-th of those asked for is about to be sent: its lease is RAM's until that has ended. */
static const vram_lease *take(hypura_vram *vram, int bundle, int set, const uint32_t *experts, uint32_t *indices, uint32_t i,
                              bool pass)
{
    vram_lease *lease = &vram->pending[vram->n_pending++];
    *lease = (vram_lease){.bundle = bundle,
                          .slot = vram->ram_slots[i],
                          .set = set,
                          .index = indices[i],
                          .passes = pass,
                          .early = vram->early};
    if (set < 0) {
        vram_set_entry(vram, bundle, experts[i], indices[i]);
    }
    vram->ram_slots[i] = HYPURA_CACHE_NONE;
    indices[i] = HYPURA_CACHE_NONE; /* done */
    return lease;
}

/* What came before has been told. */
static void put_off(vram_untold *untold, int bundle, const uint32_t *experts, uint32_t n)
{
    untold->bundle = bundle;
    untold->n = n;
    memcpy(untold->experts, experts, n * sizeof(*experts));
}

static void tell_ram(hypura_vram *vram)
{
    const vram_untold *untold = &vram->untold_ram;
    if (untold->bundle >= 0) {
        hypura_pager_visit_experts(vram->pager, untold->bundle, 1, untold->experts, untold->n, NULL, NULL);
        vram->untold_ram.bundle = -1;
    }
}

static bool holds_all(const hypura_vram *vram, int bundle, const uint32_t *experts, uint32_t n)
{
    bool all = true;
    for (uint32_t i = 0; i < n && all; i++) {
        all = hypura_pager_holds_expert(vram->pager, bundle, experts[i]);
    }
    return all;
}

hypura_status vram_upload(hypura_vram *vram, int bundle, int set, uint32_t *experts, uint32_t *indices, uint32_t n,
                          bool pass)
{
    hypura_pager *pager = vram->pager;
    const int     late = set < 0 && n > 1 ? vram->late_matrix : -1; /* one expert is there before it is waited for */
    uint64_t      n_sent = 0;
    uint32_t      from = vram->n_pending;
    hypura_vram_join(vram); /* there is one event for what is deferred */
    /* RAM keeps what the GPU's memory lacks: what it holds is no use of RAM's copy. Where nothing has to
     * give way in RAM it is told behind the uploads, which somebody waits for. */
    uint32_t       visited[MAX_EXPERTS];
    const uint32_t n_visited = vram->visited_ram ? 0 : n;
    const bool     tell_late = n_visited > 0 && holds_all(vram, bundle, experts, n);
    memcpy(visited, experts, n_visited * sizeof(*visited));
    if (n_visited > 0 && !tell_late) {
        tell_ram(vram);
        hypura_pager_visit_experts(pager, bundle, 1, visited, n_visited, NULL, NULL);
    }
    vram->visited_ram = false;
    while (n > 0) {
        if (vram->n_pending + n > MAX_PENDING) {
            hypura_vram_settle(vram);
        }
        from = vram->n_pending;
        if (vram_lease_experts(vram, bundle, experts, indices, n) == 0) {
            if (!vram_settle_all(pager)) { /* slots that uploads still read from */
                hypura_pager_wait_slot(pager, bundle);
            }
            continue;
        }
        vram->leased_bundle = bundle;
        vram->n_leased = n;
        for (uint32_t i = 0; i < n; i++) {
            if (vram->ram_slots[i] != HYPURA_CACHE_NONE &&
                hypura_pager_expert_ready(pager, bundle, vram->ram_slots[i], UINT32_MAX) &&
                !has_landed(vram, bundle, experts, indices, i)) {
                take(vram, bundle, set, experts, indices, i, pass);
            }
        }
        vram_send_experts(vram, late, vram->pending + from, vram->n_pending - from);
        for (uint32_t i = 0; i < n; i++) {
            if (vram->ram_slots[i] == HYPURA_CACHE_NONE) {
                continue;
            }
            if (hypura_pager_wait_expert(pager, bundle, vram->ram_slots[i], UINT32_MAX) != HYPURA_OK) {
                vram_release_leased(vram);
                vram_join_uploads(vram);
                return HYPURA_ERR_IO;
            }
            if (!has_landed(vram, bundle, experts, indices, i)) {
                vram_send_experts(vram, late, take(vram, bundle, set, experts, indices, i, pass), 1);
            }
        }
        vram->leased_bundle = -1; /* all of them are pending now */
        n_sent += vram->n_pending - from;
        uint32_t left = 0;
        for (uint32_t i = 0; i < n; i++) {
            if (indices[i] != HYPURA_CACHE_NONE) {
                experts[left] = experts[i];
                indices[left++] = indices[i];
            }
        }
        if (left > 0) { /* its slots are waited for, and go */
            send_late(vram, late, from);
        }
        n = left;
    }
    if (set < 0) {
        vram_send_table(vram, bundle);
    }
    join_part(vram, set < 0, late, from);
    vram_order_copies(vram);
    if (tell_late) {
        tell_ram(vram);
        put_off(&vram->untold_ram, bundle, visited, n_visited);
    }
    pthread_mutex_lock(&pager->lock);
    pager->statistics.bytes_uploaded += n_sent * pager->map->bundles[bundle].expert_bytes;
    pager->statistics.gpus[vram->gpu].bytes_uploaded += n_sent * pager->map->bundles[bundle].expert_bytes;
    pthread_mutex_unlock(&pager->lock);
    return HYPURA_OK;
}

void vram_count(hypura_vram *vram, int bundle, uint32_t n_needed, uint32_t n_hit, bool copied)
{
    hypura_pager  *pager = vram->pager;
    const uint64_t bytes = pager->map->bundles[bundle].expert_bytes;
    pthread_mutex_lock(&pager->lock);
    pager->statistics.vram_bytes_needed += n_needed * bytes;
    pager->statistics.vram_bytes_hit += n_hit * bytes;
    hypura_layer_hits *layer = &pager->layers[pager->map->bundles[bundle].layer];
    layer->vram_bytes_needed += n_needed * bytes;
    layer->vram_bytes_hit += n_hit * bytes;
    pager->statistics.gpus[vram->gpu].bytes_needed += n_needed * bytes;
    pager->statistics.gpus[vram->gpu].bytes_hit += n_hit * bytes;
    pager->statistics.bytes_copied += copied ? n_hit * bytes : 0;
    pthread_mutex_unlock(&pager->lock);
}

/* ---- slots ---------------------------------------------------------------------- */

static void visit(hypura_vram *vram, int bundle, uint32_t n_tokens, const uint32_t *experts, uint32_t n,
                  const uint32_t *n_uses, const uint32_t *ages)
{
    const vram_bundle *place = &vram->bundles[bundle];
    uint32_t           keys[MAX_EXPERTS];
    for (uint32_t i = 0; i < n; i++) {
        keys[i] = place->first_key + experts[i];
    }
    const hypura_cache_visited visited = {
        .group = (uint32_t)bundle, .n_tokens = n_tokens, .n = n, .keys = keys, .n_uses = n_uses, .ages = ages};
    hypura_cache_visit(vram->pools[place->pool].cache, &visited);
}

void hypura_vram_tell(hypura_vram *vram)
{
    tell_ram(vram);
    if (vram->untold.bundle >= 0) {
        visit(vram, vram->untold.bundle, 1, vram->untold.experts, vram->untold.n, NULL, NULL);
        vram->untold.bundle = -1;
    }
}

void vram_visit(hypura_vram *vram, int bundle, uint32_t n_tokens, const uint32_t *experts, uint32_t n,
                const uint32_t *n_uses, const uint32_t *ages)
{
    hypura_vram_tell(vram); /* in their order */
    visit(vram, bundle, n_tokens, experts, n, n_uses, ages);
}

/* Of one token, for which a GPU waits: later. */
static void note_selected(hypura_vram *vram, int bundle, uint32_t n_tokens, const uint32_t *experts, uint32_t n)
{
    if (n_tokens > 1) {
        vram_visit(vram, bundle, n_tokens, experts, n, NULL, NULL);
        return;
    }
    hypura_vram_tell(vram);
    put_off(&vram->untold, bundle, experts, n);
}

uint32_t vram_insert(vram_pool *pool, uint32_t key)
{
    uint32_t evicted;
    const uint32_t slot = hypura_cache_insert(pool->cache, key, &evicted);
    pool->n_full += evicted == HYPURA_CACHE_NONE;
    return slot;
}

static void forget_keys(vram_pool *pool)
{
    for (uint32_t slot = 0; slot < pool->n_open; slot++) {
        if (hypura_cache_key(pool->cache, slot) != HYPURA_CACHE_NONE) {
            hypura_cache_remove(pool->cache, slot);
        }
    }
    pool->n_full = 0;
}

void hypura_vram_failed(hypura_vram *vram)
{
    for (uint32_t p = 0; p < vram->n_pools; p++) {
        forget_keys(&vram->pools[p]);
    }
    vram_release_leased(vram);
    vram_beside_ended(vram);
    vram->visited_ram = false;
    vram->untold.bundle = -1;
    vram->untold_ram.bundle = -1;
    for (int s = 0; s < HYPURA_MAX_STAGES; s++) {
        vram->batches[s].bundle = -1;
    }
    vram->in_use.n = 0;
    vram->early = false;
    vram->foreseen_bundle = -1;
}

/* What was queued may still read them. */
void vram_close_slots(hypura_vram *vram, vram_pool *pool)
{
    vram->staged = true;
    if (pool->n_open == pool->n_lasting) {
        return;
    }
    hypura_vram_settle(vram);
    vram->in_use.n = 0;
    for (uint32_t slot = pool->n_lasting; slot < pool->n_open; slot++) {
        pool->n_full -= hypura_cache_key(pool->cache, slot) != HYPURA_CACHE_NONE;
    }
    pool->n_open = pool->n_lasting;
    hypura_cache_resize(pool->cache, pool->n_open); /* between layers none is pinned */
}

/* Whoever asks for slots has read ids that were computed after the last use of a stage. Within a
 * graph that uses stages they would have to give way again for the next part of its prompt. */
void vram_open_slots(hypura_vram *vram, vram_pool *pool)
{
    if (pool->n_open < pool->n_slots && !vram->staged) {
        pool->n_open = pool->n_slots;
        hypura_cache_resize(pool->cache, pool->n_open);
    }
}

/* So many experts came early, or come late. */
static void note_lacked(hypura_vram *vram, int bundle, uint32_t n)
{
    hypura_pager *pager = vram->pager;
    const double  link_bytes_per_s = pager->plan->gpus[vram->gpu].link_bytes_per_s;
    const double  bytes = (double)n * (double)pager->map->bundles[bundle].expert_bytes;
    pager->guess.uploading_us += link_bytes_per_s > 0.0 ? 1e6 * bytes / link_bytes_per_s : 0.0;
}

hypura_status hypura_vram_load(hypura_vram *vram, int bundle, uint32_t n_tokens, const uint32_t *experts, uint32_t n,
                               uint32_t *slots, uint32_t *n_missed)
{
    vram_bundle  *place = &vram->bundles[bundle];
    vram_pool    *pool = &vram->pools[place->pool];
    hypura_cache *cache = pool->cache;
    uint32_t      indices[MAX_EXPERTS];
    uint32_t      n_missing = 0;
    vram_open_slots(vram, pool);
    note_selected(vram, bundle, n_tokens, experts, n);
    for (uint32_t i = 0; i < n; i++) {
        slots[i] = hypura_cache_find(cache, place->first_key + experts[i]);
        if (slots[i] != HYPURA_CACHE_NONE) {
            hypura_cache_pin(cache, slots[i]);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        if (slots[i] == HYPURA_CACHE_NONE) {
            slots[i] = vram_insert(pool, place->first_key + experts[i]);
            hypura_cache_pin(cache, slots[i]); /* there are as many slots as experts asked for */
            vram->missing[n_missing] = experts[i];
            indices[n_missing++] = slots[i];
        }
    }
    hypura_cache_unpin_all(cache, slots, n);
    hypura_status status = HYPURA_OK;
    if (n_missing > 0) {
        vram->landing = vram->can_land;
        status = vram_upload(vram, bundle, -1, vram->missing, indices, n_missing, false);
        vram->landing = false;
    }
    vram->in_use.pool = place->pool;
    vram->in_use.n = status == HYPURA_OK ? n : 0;
    memcpy(vram->in_use.list, slots, vram->in_use.n * sizeof(*slots));
    note_lacked(vram, bundle, n_missing + vram_settle_foreseen(vram, bundle, experts, n));
    vram_count(vram, bundle, n, n - n_missing, false);
    *n_missed = n_missing;
    return status;
}
