/*
 * vram_beside.c - experts that slots lack and that the processor computes, see vram.h: their
 * leases in RAM, the host's memory for rows that pass to it and back, and uploads for later
 * tokens that nobody waits for.
 *
 *     GPU    experts, those missing in vain | rows of these | what follows | next layer
 *     host   computes those missing ....... |               | uploads some of them
 *
 * What always holds:
 *  1. An upload of this kind has ended before anything of its bundle is handed over: the host
 *     waits for its event, one token later. Its key is in the cache from the start, as nobody
 *     else uses a bundle's keys to compute.
 *  2. Until then its slot in RAM stays leased.
 *  3. Slots that the layer at hand reads stay as they are.
 */
#include "pager/vram_internal.h"

#include "base/clock.h"
#include "base/status.h"

#include "ggml-backend.h"

#include <stdlib.h>
#include <string.h>

/* A wait as long as this says that more is sent than the link takes beside a token. */
#define LONG_WAIT_US 50
#define LEAST_ALLOWED 4
#define RAM_SHARE 4 /* at most one in so many slots of RAM is leased for such uploads */

/* ---- memory ---------------------------------------------------------------- */

static hypura_status open_rows(hypura_vram *vram, hypura_error *error)
{
    const hypura_map          *map = vram->pager->map;
    ggml_backend_buffer_type_t host = ggml_backend_dev_host_buffer_type(vram->device);
    vram_beside               *beside = &vram->beside;
    for (int b = 0; b < map->n_bundles; b++) {
        for (int i = 0; vram->bundles[b].paged && i < map->bundles[b].n_tensors; i++) {
            const struct ggml_tensor *slots = &vram->bundles[b].slots[i];
            const int64_t             width = slots->ne[0] > slots->ne[1] ? slots->ne[0] : slots->ne[1];
            const size_t              floats = (size_t)width * vram->bundles[b].max_pairs;
            beside->n_floats = floats > beside->n_floats ? floats : beside->n_floats;
        }
    }
    const size_t bytes = (HYPURA_N_ROW_SETS * beside->n_floats + 1) * sizeof(float);
    beside->buffer = ggml_backend_buft_alloc_buffer(host ? host : ggml_backend_cpu_buffer_type(), bytes);
    if (!beside->buffer) {
        return hypura_fail(error, HYPURA_ERR_MEMORY,
                           "%s: no memory for %zu bytes of rows that the processor computes: upload misses instead",
                           ggml_backend_dev_name(vram->device), bytes);
    }
    for (int i = 0; i < HYPURA_N_ROW_SETS; i++) {
        beside->rows[i] = (float *)ggml_backend_buffer_get_base(beside->buffer) + (size_t)i * beside->n_floats;
    }
    return HYPURA_OK;
}

static void close_events(hypura_vram *vram)
{
    vram_beside *beside = &vram->beside;
    for (int b = 0; beside->sent && b < vram->pager->map->n_bundles; b++) {
        ggml_backend_event_free(beside->sent[b]);
    }
    free(beside->sent);
    beside->sent = NULL;
}

/* All of them or none: without, nothing is uploaded beside. */
static void open_events(hypura_vram *vram)
{
    vram_beside *beside = &vram->beside;
    const int    n = vram->pager->map->n_bundles;
    beside->sent = vram->uploader ? calloc((size_t)n + 1, sizeof(*beside->sent)) : NULL;
    for (int b = 0; beside->sent && b < n; b++) {
        beside->sent[b] = ggml_backend_event_new(vram->device);
        if (!beside->sent[b]) {
            close_events(vram);
        }
    }
}

hypura_status vram_open_beside(hypura_vram *vram, hypura_error *error)
{
    if (!vram->pager->computes_misses) {
        return HYPURA_OK;
    }
    vram->beside.allowed = MAX_BESIDE;
    open_events(vram);
    return open_rows(vram, error);
}

void vram_close_beside(hypura_vram *vram)
{
    close_events(vram);
    ggml_backend_buffer_free(vram->beside.buffer);
}

/* ---- rows ------------------------------------------------------------------- */

size_t hypura_vram_row_floats(const hypura_vram *vram)
{
    return vram->beside.n_floats;
}

float *hypura_vram_rows(hypura_vram *vram, int which)
{
    return vram->beside.rows[which];
}

void hypura_vram_begin_rows(hypura_vram *vram)
{
    vram_hold_copies(vram);
}

void hypura_vram_send_rows(hypura_vram *vram, struct ggml_tensor *tensor, size_t first, size_t n)
{
    const float *rows = vram->beside.rows[HYPURA_ROWS_COMPUTED] + first * (size_t)tensor->ne[0];
    ggml_backend_tensor_set_async(vram->backend, tensor, rows, first * tensor->nb[1], n * tensor->nb[1]);
}

void hypura_vram_read_weights(hypura_vram *vram, const struct ggml_tensor *weights, const uint32_t *rows, uint32_t n,
                              int which)
{
    const ggml_backend_t through = vram->reader ? vram->reader : vram->backend;
    for (uint32_t i = 0; i < n; i++) {
        ggml_backend_tensor_get_async(through, weights, vram->beside.rows[which] + i * (size_t)weights->ne[0],
                                      rows[i] * weights->nb[1], weights->nb[1]);
    }
    ggml_backend_synchronize(through);
}

void hypura_vram_rows_sent(hypura_vram *vram)
{
    vram_order_copies(vram);
}

/* ---- what is missing ---------------------------------------------------------- */

uint32_t hypura_vram_find_missing(const hypura_vram *vram, int bundle, const uint32_t *experts, uint32_t n,
                                  uint32_t *missing)
{
    const vram_bundle *place = &vram->bundles[bundle];
    uint32_t           n_missing = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (hypura_cache_find(vram->pools[place->pool].cache, place->first_key + experts[i]) == HYPURA_CACHE_NONE) {
            missing[n_missing++] = experts[i];
        }
    }
    return n_missing;
}

static bool lease(hypura_vram *vram, int bundle, const uint32_t *experts, uint32_t n)
{
    const uint32_t n_leased = hypura_pager_lease_experts(vram->pager, bundle, experts, n, vram->ram_slots);
    vram->leased_bundle = bundle;
    vram->n_leased = n;
    if (n_leased < n) {
        vram_release_leased(vram);
    }
    return n_leased == n;
}

bool hypura_vram_lease(hypura_vram *vram, int bundle, uint32_t n_tokens, const uint32_t *experts, uint32_t n,
                       uint32_t *ram_slots)
{
    /* as for uploads: RAM keeps what the GPU's memory lacks */
    hypura_pager_visit_experts(vram->pager, bundle, n_tokens, experts, n, NULL, NULL);
    const bool leased = lease(vram, bundle, experts, n) ||
                        (vram_settle_all(vram->pager) && lease(vram, bundle, experts, n));
    vram->visited_ram = !leased; /* an upload comes next, of the same visit */
    if (leased) {
        memcpy(ram_slots, vram->ram_slots, n * sizeof(*ram_slots));
    }
    return leased;
}

uint32_t hypura_vram_pass(hypura_vram *vram, int bundle, uint32_t n_tokens, const uint32_t *experts, uint32_t n,
                          uint32_t *slots)
{
    const vram_bundle *place = &vram->bundles[bundle];
    vram_pool         *pool = &vram->pools[place->pool];
    uint32_t           n_held = 0;
    vram_open_slots(vram, pool);
    vram_visit(vram, bundle, n_tokens, experts, n, NULL, NULL);
    for (uint32_t i = 0; i < n; i++) {
        slots[i] = hypura_cache_find(pool->cache, place->first_key + experts[i]);
        if (slots[i] != HYPURA_CACHE_NONE) {
            vram->in_use.list[n_held++] = slots[i];
        }
    }
    vram->in_use.pool = place->pool;
    vram->in_use.n = n_held;
    vram_settle_foreseen(vram, bundle, experts, n);
    vram_count(vram, bundle, n, n_held, false);
    return n_held;
}

/* ---- uploads for later tokens --------------------------------------------------- */

static void count_sent(hypura_vram *vram, uint64_t bytes, uint64_t beside_bytes)
{
    hypura_pager *pager = vram->pager;
    pthread_mutex_lock(&pager->lock);
    pager->statistics.bytes_uploaded += bytes;
    pager->statistics.gpus[vram->gpu].bytes_uploaded += bytes;
    pager->statistics.beside_bytes_uploaded += beside_bytes;
    pthread_mutex_unlock(&pager->lock);
}

static bool is_worth_a_slot(hypura_vram *vram, int bundle, uint32_t expert)
{
    const vram_bundle *place = &vram->bundles[bundle];
    hypura_cache      *cache = vram->pools[place->pool].cache;
    return hypura_cache_evictable(cache) > 0 && hypura_cache_prefers(cache, place->first_key + expert);
}

/* How many more there may be. */
static uint32_t room(const hypura_vram *vram, int bundle)
{
    const vram_beside *beside = &vram->beside;
    const uint32_t     most = vram->pager->pools[vram->pager->bundles[bundle].pool].n_open / RAM_SHARE;
    const uint32_t     allowed = beside->allowed < most ? beside->allowed : most;
    return beside->sent && allowed > beside->n ? allowed - beside->n : 0;
}

/* Slots for those expected sooner than what slots hold; leases of these become the upload's. */
static uint32_t take(hypura_vram *vram, int bundle, const uint32_t *experts, uint32_t n, uint32_t *indices)
{
    const vram_bundle *place = &vram->bundles[bundle];
    vram_pool         *pool = &vram->pools[place->pool];
    vram_beside       *beside = &vram->beside;
    const uint32_t     most = room(vram, bundle);
    uint32_t           n_taken = 0;
    hypura_cache_pin_all(vram->pools[vram->in_use.pool].cache, vram->in_use.list, vram->in_use.n);
    for (uint32_t i = 0; i < n && n_taken < most; i++) {
        if (!is_worth_a_slot(vram, bundle, experts[i])) {
            continue;
        }
        const uint32_t key = place->first_key + experts[i];
        const uint32_t slot = vram_insert(pool, key);
        hypura_cache_pin(pool->cache, slot);
        vram->missing[n_taken] = experts[i];
        indices[n_taken++] = slot;
        beside->leases[beside->n++] = (vram_lease){.bundle = bundle, .slot = vram->ram_slots[i], .set = -1, .index = slot};
        vram->ram_slots[i] = HYPURA_CACHE_NONE;
    }
    hypura_cache_unpin_all(pool->cache, indices, n_taken);
    hypura_cache_unpin_all(vram->pools[vram->in_use.pool].cache, vram->in_use.list, vram->in_use.n);
    return n_taken;
}

/* Without another instance for copies an upload delays the next layer: one in each graph. */
static hypura_status send_one(hypura_vram *vram, int bundle, const uint32_t *experts, uint32_t n)
{
    vram_pool *pool = &vram->pools[vram->bundles[bundle].pool];
    uint32_t   expert = 0;
    uint32_t   index = HYPURA_CACHE_NONE;
    hypura_cache_pin_all(vram->pools[vram->in_use.pool].cache, vram->in_use.list, vram->in_use.n);
    for (uint32_t i = 0; i < n && index == HYPURA_CACHE_NONE && !vram->beside.one_sent; i++) {
        if (is_worth_a_slot(vram, bundle, experts[i])) {
            expert = experts[i];
            index = vram_insert(pool, vram->bundles[bundle].first_key + expert);
        }
    }
    hypura_cache_unpin_all(vram->pools[vram->in_use.pool].cache, vram->in_use.list, vram->in_use.n);
    if (index == HYPURA_CACHE_NONE) {
        return HYPURA_OK;
    }
    vram->beside.one_sent = true;
    vram->early = true; /* the ids that arrive next were handed over before it */
    vram->visited_ram = true;
    const hypura_status status = vram_upload(vram, bundle, -1, &expert, &index, 1, false);
    vram->early = false;
    if (status == HYPURA_OK) {
        count_sent(vram, 0, vram->pager->map->bundles[bundle].expert_bytes);
    }
    return status;
}

hypura_status hypura_vram_send_beside(hypura_vram *vram, int bundle, const uint32_t *experts, uint32_t n)
{
    if (!vram->beside.sent) {
        vram_release_leased(vram);
        return send_one(vram, bundle, experts, n);
    }
    vram_beside   *beside = &vram->beside;
    const uint32_t first = beside->n;
    uint32_t       indices[MAX_EXPERTS];
    const uint32_t n_taken = take(vram, bundle, experts, n, indices);
    if (n_taken > 0) {
        vram_send_experts(vram, -1, beside->leases + first, n_taken);
        for (uint32_t i = 0; i < n_taken; i++) {
            vram_set_entry(vram, bundle, vram->missing[i], indices[i]);
        }
        vram_send_table(vram, bundle);
        ggml_backend_event_record(beside->sent[bundle], vram->uploader);
        const uint64_t bytes = n_taken * vram->pager->map->bundles[bundle].expert_bytes;
        count_sent(vram, bytes, bytes);
    }
    vram_release_leased(vram);
    return HYPURA_OK;
}

/* The leases of a bundle, or of all (-1). */
static void release(hypura_vram *vram, int bundle)
{
    vram_beside *beside = &vram->beside;
    uint32_t     n = 0;
    for (uint32_t i = 0; i < beside->n; i++) {
        const vram_lease *ended = &beside->leases[i];
        if (bundle < 0 || ended->bundle == bundle) {
            hypura_pager_release_expert(vram->pager, ended->bundle, ended->slot);
        } else {
            beside->leases[n++] = beside->leases[i];
        }
    }
    beside->n = n;
}

void vram_beside_ended(hypura_vram *vram)
{
    release(vram, -1);
}

void hypura_vram_settle_beside(hypura_vram *vram, int bundle)
{
    vram_beside *beside = &vram->beside;
    bool         any = false;
    for (uint32_t i = 0; i < beside->n && !any; i++) {
        any = bundle < 0 || beside->leases[i].bundle == bundle;
    }
    if (!any) {
        return;
    }
    const uint64_t begin_us = hypura_clock_us();
    if (bundle < 0) {
        ggml_backend_synchronize(vram->uploader);
    } else {
        ggml_backend_event_synchronize(beside->sent[bundle]);
        if (hypura_clock_us() - begin_us < LONG_WAIT_US) {
            beside->allowed += beside->allowed < MAX_BESIDE;
        } else {
            beside->allowed = beside->allowed / 2 > LEAST_ALLOWED ? beside->allowed / 2 : LEAST_ALLOWED;
        }
    }
    release(vram, bundle);
}
