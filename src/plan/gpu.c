/*
 * gpu.c - what a GPU's memory holds, of V bytes:
 *
 *     everything fits ---------------------------------> all layers there, nothing paged
 *     trunk, cache, a stage and the fewest slots fit --> all layers computed there; of the
 *                                                        experts whole layers first as long as
 *                                                        that pays, slots get the rest
 *     else --------------------------------------------> the last layers that fit, whole; the
 *                                                        host computes the others where they lie
 *
 * A layer whose experts are all there costs nothing beyond computing. One whose experts
 * are in slots costs a cut of the graph (the GPU waits while its selection is read back)
 * and the uploads of what the slots lack:
 *
 *     cost(r) = (n - r) * (cut + top-k * miss(slots / experts left) * expert / link)
 *
 * for r whole layers of n; the r with the least cost is taken. Dense layers that do not
 * fit are not streamed to the GPU: memory feeds the host's cores at least as fast as the
 * link would feed the GPU, and a layer that is uploaded has to be read as well.
 *
 * What always holds: vram_bytes <= V; a larger V never holds less.
 */
#include "plan/internal.h"

#include <stdio.h>

#define DEFAULT_ROUND_TRIP_US 50.0
#define DEFAULT_UPLOAD        12e9
/* A second stage lets one fill while the other is used; it must not starve the slots. */
#define SECOND_STAGE_SHARE 8

typedef struct gpu_need {
    uint64_t trunk_bytes; /* weights without pageable experts, all layers there */
    uint64_t fixed_bytes; /* KV and compute buffers */
    uint64_t expert_bytes;
    uint64_t stage_bytes;
    uint64_t slots_floor_bytes;
    int      n_paged; /* bundles */
} gpu_need;

static bool is_tied(const planner *p, int t)
{
    const uint32_t both = HYPURA_USE_MUL_MAT | HYPURA_USE_GET_ROWS;
    return p->map->tensors[t].role == HYPURA_ROLE_EMBEDDING && (p->survey->uses[t].flags & both) == both;
}

/* Bytes of a tensor that llama.cpp puts on the GPU with its last n layers; the first
 * of these is the output. Embeddings are looked up by the host; where they are the
 * output too, the GPU gets a copy. */
static uint64_t bytes_on_gpu(const planner *p, int t, int n)
{
    const hypura_tensor *tensor = &p->map->tensors[t];
    if (n <= 0 || tensor->role == HYPURA_ROLE_LAYER_EMBEDDING) {
        return 0;
    }
    if (tensor->role == HYPURA_ROLE_EMBEDDING) {
        return is_tied(p, t) ? tensor->bytes : 0;
    }
    return tensor->layer < 0 || tensor->layer >= p->map->n_layers + 1 - n ? tensor->bytes : 0;
}

static bool is_pageable(const planner *p, const hypura_bundle *bundle)
{
    return bundle->n_tensors > 0 && p->kinds[bundle->tensors[0]] == PLAN_KIND_EXPERTS;
}

static uint64_t bundle_bytes(const hypura_bundle *bundle)
{
    return (uint64_t)bundle->n_experts * bundle->expert_bytes;
}

/* Of one type as well: what is computed before its experts are known reads slots of any
 * bundle, and bytes of another type may be numbers that are none. */
static bool same_class(const planner *p, const hypura_bundle *a, const hypura_bundle *b)
{
    bool same = a->n_tensors == b->n_tensors;
    for (int i = 0; same && i < a->n_tensors; i++) {
        const hypura_tensor *one = &p->map->tensors[a->tensors[i]];
        const hypura_tensor *other = &p->map->tensors[b->tensors[i]];
        same = one->expert_bytes == other->expert_bytes && one->type == other->type;
    }
    return same;
}

/* The first pageable bundle of its class pays for the class's fewest slots. */
static bool is_first_of_class(const planner *p, int index)
{
    for (int b = 0; b < index; b++) {
        if (is_pageable(p, &p->map->bundles[b]) && same_class(p, &p->map->bundles[b], &p->map->bundles[index])) {
            return false;
        }
    }
    return true;
}

static gpu_need find_need(const planner *p)
{
    gpu_need need = {.fixed_bytes = p->survey->device_kv_bytes + p->survey->device_compute_bytes};
    for (int t = 0; t < p->map->n_tensors; t++) {
        if (p->kinds[t] != PLAN_KIND_EXPERTS) {
            need.trunk_bytes += bytes_on_gpu(p, t, p->map->n_layers + 1);
        }
    }
    uint64_t largest[HYPURA_MAX_BUNDLE] = {0}; /* stages are shared matrix by matrix */
    for (int b = 0; b < p->map->n_bundles; b++) {
        const hypura_bundle *bundle = &p->map->bundles[b];
        if (!is_pageable(p, bundle)) {
            continue;
        }
        need.n_paged++;
        need.expert_bytes += bundle_bytes(bundle);
        for (int i = 0; i < bundle->n_tensors; i++) {
            const uint64_t bytes = p->map->tensors[bundle->tensors[i]].bytes;
            largest[i] = bytes > largest[i] ? bytes : largest[i];
        }
        if (is_first_of_class(p, b)) {
            need.slots_floor_bytes += plan_experts_used(p->map, bundle) * bundle->expert_bytes;
        }
    }
    for (int i = 0; i < HYPURA_MAX_BUNDLE; i++) {
        need.stage_bytes += largest[i];
    }
    return need;
}

/* ---- experts ------------------------------------------------------------------------ */

/* Bytes that the last r pageable bundles take. */
static uint64_t last_bundles_bytes(const planner *p, int r)
{
    uint64_t bytes = 0;
    for (int b = p->map->n_bundles - 1; b >= 0 && r > 0; b--) {
        if (is_pageable(p, &p->map->bundles[b])) {
            bytes += bundle_bytes(&p->map->bundles[b]);
            r--;
        }
    }
    return bytes;
}

static double cost_of(const planner *p, const gpu_need *need, int r, uint64_t slot_bytes, double in_ram)
{
    const double left = (double)(need->expert_bytes - last_bundles_bytes(p, r));
    const double used = (double)p->map->n_experts_used / (double)(p->map->n_experts > 0 ? p->map->n_experts : 1);
    const double link = p->gpu->upload_bytes_per_s > 0.0 ? p->gpu->upload_bytes_per_s : DEFAULT_UPLOAD;
    const double cut_s = (p->gpu->round_trip_us > 0.0 ? p->gpu->round_trip_us : DEFAULT_ROUND_TRIP_US) * 1e-6;
    double per_byte_s = 1.0 / link;
    if (p->profile->direct_bytes_per_s > 0.0) {
        per_byte_s += (1.0 - in_ram) / p->profile->direct_bytes_per_s;
    }
    const double missed = left * used * plan_miss_rate((double)slot_bytes / left, used);
    return (need->n_paged - r) * cut_s + missed * per_byte_s;
}

/* How many whole layers of experts to hold. Paging that was asked for pages at least
 * every other one. */
static int choose_whole(const planner *p, const gpu_need *need, uint64_t bytes, uint64_t host_bytes)
{
    const int most = p->force_paging ? need->n_paged / 2 : need->n_paged - 1;
    const double in_ram = host_bytes < need->expert_bytes ? (double)host_bytes / (double)need->expert_bytes : 1.0;
    int best = 0;
    double least = cost_of(p, need, 0, bytes, in_ram);
    for (int r = 1; r <= most; r++) {
        const uint64_t whole = last_bundles_bytes(p, r);
        if (whole + need->slots_floor_bytes > bytes) {
            break;
        }
        const double cost = cost_of(p, need, r, bytes - whole, in_ram);
        if (cost < least) {
            least = cost;
            best = r;
        }
    }
    return best;
}

static void hold_last_bundles(planner *p, hypura_plan *plan, int r)
{
    for (int b = p->map->n_bundles - 1; b >= 0 && r > 0; b--) {
        const hypura_bundle *bundle = &p->map->bundles[b];
        if (is_pageable(p, bundle)) {
            for (int i = 0; i < bundle->n_tensors; i++) {
                p->kinds[bundle->tensors[i]] = PLAN_KIND_VRAM;
                plan->vram_resident_bytes += p->map->tensors[bundle->tensors[i]].bytes;
            }
            r--;
        }
    }
}

/* One class: its bundles are dealt to as many pools as keep every tensor of slots
 * within the device's limit. `share` is the part of its experts that fits. */
static void place_class(planner *p, hypura_plan *plan, int first, double share)
{
    const hypura_bundle *like = &p->map->bundles[first];
    uint32_t n_units = 0;
    uint32_t n_bundles = 0;
    uint64_t largest = 1;
    for (int b = first; b < p->map->n_bundles; b++) {
        if (is_pageable(p, &p->map->bundles[b]) && same_class(p, like, &p->map->bundles[b])) {
            n_units += (uint32_t)p->map->bundles[b].n_experts;
            n_bundles++;
        }
    }
    for (int i = 0; i < like->n_tensors; i++) {
        const uint64_t bytes = p->map->tensors[like->tensors[i]].expert_bytes;
        largest = bytes > largest ? bytes : largest;
    }
    const uint32_t n_floor = plan_experts_used(p->map, like);
    uint32_t n_slots = (uint32_t)((double)n_units * share);
    n_slots = n_slots < n_floor ? n_floor : n_slots > n_units ? n_units : n_slots;
    const uint64_t most = p->gpu->max_buffer_bytes > 0 ? p->gpu->max_buffer_bytes / largest : n_slots;
    uint32_t n_pools = most > 0 ? (uint32_t)((n_slots + most - 1) / most) : n_bundles;
    n_pools = n_pools > n_bundles ? n_bundles : n_pools;
    const uint32_t room = (uint32_t)(HYPURA_MAX_VRAM_POOLS - plan->n_vram_pools);
    n_pools = n_pools > room ? room : n_pools;
    n_pools = n_pools > n_slots / n_floor ? n_slots / n_floor : n_pools;
    for (uint32_t i = 0; i < n_pools; i++) {
        plan->vram_pools[plan->n_vram_pools + (int)i] = (hypura_vram_pool_plan){
            .slot_bytes = like->expert_bytes,
            .n_slots = n_slots / n_pools,
        };
        plan->vram_slot_bytes += n_slots / n_pools * like->expert_bytes;
    }
    uint32_t dealt = 0;
    for (int b = first; b < p->map->n_bundles; b++) {
        const hypura_bundle *bundle = &p->map->bundles[b];
        if (is_pageable(p, bundle) && same_class(p, like, bundle)) {
            const int pool = plan->n_vram_pools + (int)(dealt++ % n_pools);
            plan->vram_pools[pool].n_units += (uint32_t)bundle->n_experts;
            for (int i = 0; i < bundle->n_tensors; i++) {
                plan->placements[bundle->tensors[i]].vram_pool = pool;
            }
        }
    }
    for (uint32_t i = 0; i < n_pools; i++) { /* no more slots than experts */
        hypura_vram_pool_plan *pool = &plan->vram_pools[plan->n_vram_pools + (int)i];
        if (pool->n_slots > pool->n_units) {
            plan->vram_slot_bytes -= (pool->n_slots - pool->n_units) * pool->slot_bytes;
            pool->n_slots = pool->n_units;
        }
    }
    plan->n_vram_pools += (int)n_pools;
}

static void place_experts(planner *p, const gpu_need *need, hypura_plan *plan, uint64_t bytes, uint64_t host_bytes)
{
    p->has_slots = true;
    plan->n_stages = 1;
    bytes -= need->stage_bytes;
    if (need->stage_bytes * SECOND_STAGE_SHARE <= bytes || bytes >= need->expert_bytes + need->stage_bytes) {
        plan->n_stages = 2;
        bytes -= need->stage_bytes;
    }
    plan->vram_stage_bytes = (uint64_t)plan->n_stages * need->stage_bytes;
    const int r = choose_whole(p, need, bytes, host_bytes);
    const uint64_t whole = last_bundles_bytes(p, r);
    hold_last_bundles(p, plan, r);
    const double share = (double)(bytes - whole) / (double)(need->expert_bytes - whole);
    for (int b = 0; b < p->map->n_bundles; b++) {
        if (is_pageable(p, &p->map->bundles[b]) && is_first_of_class(p, b)) {
            place_class(p, plan, b, share);
        }
    }
}

/* ---- layers ------------------------------------------------------------------------- */

static uint64_t layers_bytes(const planner *p, int n)
{
    const uint64_t n_all = (uint64_t)p->map->n_layers + 1;
    uint64_t bytes = n > 0 ? p->survey->device_compute_bytes : 0;
    for (int t = 0; t < p->map->n_tensors; t++) {
        bytes += bytes_on_gpu(p, t, n);
    }
    const uint64_t n_repeating = n > 0 ? (uint64_t)n - 1 : 0;
    return bytes + (n_all > 1 ? p->survey->device_kv_bytes / (n_all - 1) * n_repeating : 0);
}

static void hold_layers(planner *p, hypura_plan *plan, int n, bool experts_too)
{
    for (int t = 0; t < p->map->n_tensors; t++) {
        const uint64_t bytes = bytes_on_gpu(p, t, n);
        if (bytes == 0 || (p->kinds[t] == PLAN_KIND_EXPERTS && !experts_too)) {
            continue;
        }
        plan->vram_resident_bytes += bytes;
        if (p->map->tensors[t].role != HYPURA_ROLE_EMBEDDING) {
            p->kinds[t] = PLAN_KIND_VRAM;
        }
    }
}

/* ---- the host's part ------------------------------------------------------------------ */

static void leave_rest_to_host(planner *p)
{
    size_t n_dense = 0;
    for (size_t i = 0; i < p->n_dense; i++) {
        if (p->kinds[p->dense[i].tensor] == PLAN_KIND_DENSE) {
            p->dense[n_dense++] = p->dense[i];
        }
    }
    p->n_dense = n_dense;
    p->tensor_bytes = 0;
    for (int t = 0; t < p->map->n_tensors; t++) {
        p->tensor_bytes += p->kinds[t] != PLAN_KIND_VRAM ? p->map->tensors[t].bytes : 0;
    }
}

/* With every layer on the GPU the host looks rows up at once: a read from the drive
 * for each token would keep the GPU waiting. */
static void keep_rows(planner *p)
{
    for (int t = 0; t < p->map->n_tensors; t++) {
        if (p->kinds[t] == PLAN_KIND_ROWS || p->kinds[t] == PLAN_KIND_DENSE) {
            p->kinds[t] = PLAN_KIND_FIXED;
        }
    }
}

void plan_place_on_gpu(planner *p, hypura_plan *plan, uint64_t host_bytes)
{
    const int      n_all = p->map->n_layers + 1;
    const gpu_need need = find_need(p);
    const uint64_t base = need.trunk_bytes + need.fixed_bytes;
    const uint64_t paged_floor = base + need.stage_bytes + need.slots_floor_bytes;
    const uint64_t bytes = p->gpu->bytes;
    plan->floor_vram_bytes = need.n_paged > 0 ? paged_floor : 0;
    plan->full_vram_bytes = base + need.expert_bytes + (need.n_paged > 0 ? 2 * need.stage_bytes : 0);
    const bool all = base + need.expert_bytes <= bytes && !(p->force_paging && need.n_paged > 0);
    const bool paged = !all && need.n_paged > 0 && paged_floor <= bytes;
    int        n = n_all;
    while (!all && !paged && n > 0 && layers_bytes(p, n) > bytes) {
        n--;
    }
    if (n == 0) {
        p->gpu = NULL;
        return;
    }
    (void)snprintf(plan->gpu, sizeof(plan->gpu), "%s", p->gpu->name);
    plan->n_gpu_layers = n;
    hold_layers(p, plan, n, !paged);
    if (paged) {
        place_experts(p, &need, plan, bytes - base, host_bytes);
    }
    if (n == n_all) {
        keep_rows(p);
        plan->vram_kv_bytes = p->survey->device_kv_bytes;
    } else {
        plan->vram_kv_bytes = p->survey->device_kv_bytes / (uint64_t)(n_all - 1) * (uint64_t)(n - 1);
    }
    plan->vram_compute_bytes = p->survey->device_compute_bytes;
    plan->vram_bytes = plan->vram_resident_bytes + plan->vram_slot_bytes + plan->vram_stage_bytes +
                       plan->vram_kv_bytes + plan->vram_compute_bytes;
    p->kv_bytes -= plan->vram_kv_bytes;
    p->compute_bytes -= n == n_all ? plan->vram_compute_bytes : 0;
    leave_rest_to_host(p);
}

uint64_t hypura_plan_vram_at(const hypura_plan *plan, uint32_t percent)
{
    const double between = (double)(plan->full_vram_bytes - plan->floor_vram_bytes);
    return plan->floor_vram_bytes + (uint64_t)(between * percent / 100.0);
}
