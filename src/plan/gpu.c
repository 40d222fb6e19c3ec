/*
 * gpu.c - what a GPU's memory holds of its layers, of V bytes (gpus.c decides both):
 *
 *     everything fits ---------------------------------> all of them, nothing paged
 *     trunk, cache, a stage and the fewest slots fit --> all computed there; of the experts
 *                                                        whole layers first as long as that
 *                                                        pays, slots get the rest
 *
 * A layer whose experts are all there costs nothing beyond computing. One whose experts
 * are in slots costs a cut of the graph (one more piece is handed over) and the uploads of what the slots lack:
 *
 *     cost(r) = (n - r) * (cut + top-k * miss(slots / experts left) * expert / link)
 *
 * for r whole layers of n; the r with the least cost is taken.
 *
 * Where all slots are one tensor for each matrix, stages lie at its end: while no batch passes
 * through the layers, they are slots too.
 *
 * What always holds: what it holds takes at most V; a larger V never holds less.
 */
#include "plan/internal.h"

#include <stdio.h>

#define DEFAULT_CUT_US 50.0
#define DEFAULT_UPLOAD 12e9
/* A second stage lets one fill while the other is used; it must not starve the slots. */
#define SECOND_STAGE_SHARE 8

static bool is_tied(const planner *p, int t)
{
    const uint32_t both = HYPURA_USE_MUL_MAT | HYPURA_USE_GET_ROWS;
    return p->map->tensors[t].role == HYPURA_ROLE_EMBEDDING && (p->survey->uses[t].flags & both) == both;
}

/* The layer with which llama.cpp puts a tensor on a GPU; the output comes last. */
static int layer_of(const planner *p, int t)
{
    const int layer = p->map->tensors[t].layer;
    return layer < 0 || layer > p->map->n_layers ? p->map->n_layers : layer;
}

static bool is_in(plan_layers layers, int layer)
{
    return layer >= layers.first && layer < layers.end;
}

/* Bytes of a tensor that llama.cpp puts on the GPU with these layers. Embeddings are
 * looked up by the host; where they are the output too, the GPU gets a copy. */
static uint64_t bytes_on_gpu(const planner *p, int t, plan_layers layers)
{
    const hypura_tensor *tensor = &p->map->tensors[t];
    if (tensor->role == HYPURA_ROLE_LAYER_EMBEDDING || !is_in(layers, layer_of(p, t)) ||
        (tensor->role == HYPURA_ROLE_EMBEDDING && !is_tied(p, t))) {
        return 0;
    }
    return tensor->bytes;
}

static bool is_pageable(const planner *p, const hypura_bundle *bundle)
{
    return bundle->n_tensors > 0 && p->kinds[bundle->tensors[0]] == PLAN_KIND_EXPERTS;
}

static bool is_paged_in(const planner *p, plan_layers layers, int bundle)
{
    const hypura_bundle *asked = &p->map->bundles[bundle];
    return is_pageable(p, asked) && is_in(layers, layer_of(p, asked->tensors[0]));
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
static bool is_first_of_class(const planner *p, plan_layers layers, int index)
{
    for (int b = 0; b < index; b++) {
        if (is_paged_in(p, layers, b) && same_class(p, &p->map->bundles[b], &p->map->bundles[index])) {
            return false;
        }
    }
    return true;
}

/* Of the cache of all layers, what the layers before this one have. */
static uint64_t kv_before(const planner *p, int layer)
{
    const uint64_t n = p->map->n_layers > 0 ? (uint64_t)p->map->n_layers : 1;
    const uint64_t before = (uint64_t)layer < n ? (uint64_t)layer : n;
    return p->survey->device_kv_bytes / n * before + p->survey->device_kv_bytes % n * before / n;
}

plan_gpu_need plan_find_gpu_need(const planner *p, plan_layers layers)
{
    plan_gpu_need need = {0};
    if (layers.first >= layers.end) {
        return need;
    }
    need.kv_bytes = kv_before(p, layers.end) - kv_before(p, layers.first);
    need.compute_bytes = p->survey->device_compute_bytes + p->sent_bytes;
    for (int t = 0; t < p->map->n_tensors; t++) {
        if (p->kinds[t] != PLAN_KIND_EXPERTS) {
            need.trunk_bytes += bytes_on_gpu(p, t, layers);
        }
    }
    uint64_t largest[HYPURA_MAX_BUNDLE] = {0}; /* stages are shared matrix by matrix */
    for (int b = 0; b < p->map->n_bundles; b++) {
        const hypura_bundle *bundle = &p->map->bundles[b];
        if (!is_paged_in(p, layers, b)) {
            continue;
        }
        need.n_paged++;
        need.expert_bytes += bundle_bytes(bundle);
        for (int i = 0; i < bundle->n_tensors; i++) {
            const uint64_t bytes = p->map->tensors[bundle->tensors[i]].bytes;
            largest[i] = bytes > largest[i] ? bytes : largest[i];
        }
        if (is_first_of_class(p, layers, b)) {
            need.n_classes++;
            need.slots_floor_bytes += plan_experts_used(p->map, bundle) * bundle->expert_bytes;
        }
    }
    for (int i = 0; i < HYPURA_MAX_BUNDLE; i++) {
        need.stage_bytes += largest[i];
    }
    return need;
}

static uint64_t base_bytes(const plan_gpu_need *need)
{
    return need->trunk_bytes + need->kv_bytes + need->compute_bytes;
}

uint64_t plan_gpu_whole_bytes(const plan_gpu_need *need)
{
    return base_bytes(need) + need->expert_bytes;
}

uint64_t plan_gpu_floor_bytes(const plan_gpu_need *need)
{
    return base_bytes(need) + need->stage_bytes + need->slots_floor_bytes;
}

uint64_t plan_gpu_full_bytes(const plan_gpu_need *need)
{
    return plan_gpu_whole_bytes(need) + 2 * need->stage_bytes;
}

/* ---- experts ------------------------------------------------------------------------ */

/* What is being filled. */
typedef struct filling {
    planner             *p;
    hypura_plan         *plan;
    int                  g;
    plan_layers          layers;
    const plan_gpu_need *need;
    double               in_ram; /* part of the experts for which the host has memory */
} filling;

/* Bytes that the last r pageable bundles take. */
static uint64_t last_bundles_bytes(const filling *f, int r)
{
    const hypura_map *map = f->p->map;
    uint64_t bytes = 0;
    for (int b = map->n_bundles - 1; b >= 0 && r > 0; b--) {
        if (is_paged_in(f->p, f->layers, b)) {
            bytes += bundle_bytes(&map->bundles[b]);
            r--;
        }
    }
    return bytes;
}

double plan_cut_us(const hypura_plan_gpu *gpu)
{
    return gpu->hand_over_us > 0.0 ? gpu->hand_over_us : gpu->round_trip_us;
}

static double cost_of(const filling *f, int r, uint64_t slot_bytes)
{
    const planner *p = f->p;
    const hypura_plan_gpu *gpu = &p->gpus.list[f->g];
    const double left = (double)(f->need->expert_bytes - last_bundles_bytes(f, r));
    const double used = (double)p->map->n_experts_used / (double)(p->map->n_experts > 0 ? p->map->n_experts : 1);
    const double link = gpu->upload_bytes_per_s > 0.0 ? gpu->upload_bytes_per_s : DEFAULT_UPLOAD;
    const double cut_us = plan_cut_us(gpu);
    const double cut_s = (cut_us > 0.0 ? cut_us : DEFAULT_CUT_US) * 1e-6;
    double per_byte_s = 1.0 / link;
    if (p->profile->direct_bytes_per_s > 0.0) {
        per_byte_s += (1.0 - f->in_ram) / p->profile->direct_bytes_per_s;
    }
    const double missed = left * used * plan_miss_rate((double)slot_bytes / left, used, 0.0);
    return (f->need->n_paged - r) * cut_s + missed * per_byte_s;
}

/* How many whole layers of experts to hold. Paging that was asked for pages at least
 * every other one. */
static int choose_whole(const filling *f, uint64_t bytes)
{
    const int most = f->p->force_paging ? f->need->n_paged / 2 : f->need->n_paged - 1;
    int best = 0;
    double least = cost_of(f, 0, bytes);
    for (int r = 1; r <= most; r++) {
        const uint64_t whole = last_bundles_bytes(f, r);
        if (whole + f->need->slots_floor_bytes > bytes) {
            break;
        }
        const double cost = cost_of(f, r, bytes - whole);
        if (cost < least) {
            least = cost;
            best = r;
        }
    }
    return best;
}

static void hold(const filling *f, int t, uint64_t bytes)
{
    f->plan->gpus[f->g].resident_bytes += bytes;
    if (f->p->map->tensors[t].role != HYPURA_ROLE_EMBEDDING) {
        f->p->kinds[t] = PLAN_KIND_VRAM;
        f->plan->placements[t].gpu = f->g;
    }
}

static void hold_last_bundles(const filling *f, int r)
{
    const hypura_map *map = f->p->map;
    for (int b = map->n_bundles - 1; b >= 0 && r > 0; b--) {
        if (is_paged_in(f->p, f->layers, b)) {
            for (int i = 0; i < map->bundles[b].n_tensors; i++) {
                const int t = map->bundles[b].tensors[i];
                hold(f, t, map->tensors[t].bytes);
            }
            r--;
        }
    }
}

/* How many experts of a class one tensor of slots can have. Kernels count in 32 bits: the
 * numbers of a tensor, or the blocks of a type that has such (32 numbers or more). */
static uint64_t most_slots(const planner *p, const hypura_bundle *like, uint64_t max_buffer_bytes)
{
    uint64_t most = UINT32_MAX;
    for (int i = 0; i < like->n_tensors; i++) {
        const hypura_tensor *matrix = &p->map->tensors[like->tensors[i]];
        const uint64_t numbers = (uint64_t)matrix->ne[0] * (uint64_t)matrix->ne[1];
        const uint64_t counted = matrix->expert_bytes < 2 * numbers ? (numbers + 31) / 32 : numbers;
        uint64_t fit = INT32_MAX / (counted > 0 ? counted : 1);
        if (max_buffer_bytes > 0 && max_buffer_bytes / matrix->expert_bytes < fit) {
            fit = max_buffer_bytes / matrix->expert_bytes;
        }
        most = fit < most ? fit : most;
    }
    return most;
}

/* Stages are tensors of their own: they begin at a multiple of this, as every device's do. */
#define STAGE_ALIGN_BYTES 256u

/* So many slots end at such a multiple, in every matrix. */
static uint32_t aligned_slots(const planner *p, const hypura_bundle *like)
{
    uint32_t n = 1;
    for (int i = 0; i < like->n_tensors; i++) {
        while (n * p->map->tensors[like->tensors[i]].expert_bytes % STAGE_ALIGN_BYTES != 0) {
            n *= 2;
        }
    }
    return n;
}

/* The one pool of a GPU, of *n_slots that last: stages lie behind them, if they can. */
static void put_stages_behind(const filling *f, const hypura_bundle *like, uint64_t most, uint32_t *n_slots)
{
    hypura_gpu_plan *gpu = &f->plan->gpus[f->g];
    const uint32_t   step = aligned_slots(f->p, like);
    const uint32_t   n_stage_slots = (uint32_t)(gpu->n_stages * like->n_experts);
    const uint32_t   n_lasting = *n_slots / step * step;
    gpu->stages_in_slots = f->need->n_classes == 1 && (uint32_t)like->n_experts % step == 0 &&
                           n_lasting >= plan_experts_used(f->p->map, like) && *n_slots + n_stage_slots <= most;
    if (gpu->stages_in_slots) {
        *n_slots = n_lasting;
    }
}

/* The pool has those of the stages too, as far as there are experts. */
static void share_stages(const filling *f, hypura_vram_pool_plan *pool)
{
    hypura_gpu_plan *gpu = &f->plan->gpus[f->g];
    const uint64_t   bytes = pool->n_lasting * pool->slot_bytes + gpu->stage_bytes;
    const uint32_t   n_all = (uint32_t)(bytes / pool->slot_bytes);
    pool->n_slots = n_all < pool->n_units ? n_all : pool->n_units;
    gpu->slot_bytes += pool->n_slots * pool->slot_bytes;
    gpu->stage_bytes = bytes - pool->n_slots * pool->slot_bytes;
}

/* One class: its bundles are dealt to as many pools as keep every tensor of slots
 * within that. `share` is the part of its experts that fits; n_after classes follow, and
 * need a pool each. */
static void place_class(const filling *f, int first, double share, int n_after)
{
    const planner *p = f->p;
    hypura_plan *plan = f->plan;
    const hypura_bundle *like = &p->map->bundles[first];
    uint32_t n_units = 0;
    uint32_t n_bundles = 0;
    for (int b = first; b < p->map->n_bundles; b++) {
        if (is_paged_in(p, f->layers, b) && same_class(p, like, &p->map->bundles[b])) {
            n_units += (uint32_t)p->map->bundles[b].n_experts;
            n_bundles++;
        }
    }
    const uint32_t n_floor = plan_experts_used(p->map, like);
    uint32_t n_slots = (uint32_t)((double)n_units * share);
    n_slots = n_slots < n_floor ? n_floor : n_slots > n_units ? n_units : n_slots;
    const uint64_t most = most_slots(p, like, p->gpus.list[f->g].max_buffer_bytes);
    uint32_t n_pools = most > 0 ? (uint32_t)((n_slots + most - 1) / most) : n_bundles;
    n_pools = n_pools > n_bundles ? n_bundles : n_pools;
    /* What the GPUs before this one may have left of their parts is not counted on. */
    const uint32_t room =
        (uint32_t)(HYPURA_MAX_VRAM_POOLS * (f->g + 1) / plan->n_gpus - plan->n_vram_pools - n_after);
    n_pools = n_pools > room ? room : n_pools;
    n_pools = n_pools > n_slots / n_floor ? n_slots / n_floor : n_pools;
    put_stages_behind(f, like, most, &n_slots);
    for (uint32_t i = 0; i < n_pools; i++) {
        plan->vram_pools[plan->n_vram_pools + (int)i] = (hypura_vram_pool_plan){
            .slot_bytes = like->expert_bytes,
            .n_slots = n_slots / n_pools,
            .gpu = f->g,
        };
    }
    uint32_t dealt = 0;
    for (int b = first; b < p->map->n_bundles; b++) {
        const hypura_bundle *bundle = &p->map->bundles[b];
        if (is_paged_in(p, f->layers, b) && same_class(p, like, bundle)) {
            const int pool = plan->n_vram_pools + (int)(dealt++ % n_pools);
            plan->vram_pools[pool].n_units += (uint32_t)bundle->n_experts;
            for (int i = 0; i < bundle->n_tensors; i++) {
                plan->placements[bundle->tensors[i]].vram_pool = pool;
                plan->placements[bundle->tensors[i]].gpu = f->g;
            }
        }
    }
    for (uint32_t i = 0; i < n_pools; i++) {
        hypura_vram_pool_plan *pool = &plan->vram_pools[plan->n_vram_pools + (int)i];
        pool->n_slots = pool->n_slots > pool->n_units ? pool->n_units : pool->n_slots; /* no more than experts */
        pool->n_lasting = pool->n_slots;
        if (plan->gpus[f->g].stages_in_slots) {
            share_stages(f, pool);
        } else {
            plan->gpus[f->g].slot_bytes += pool->n_slots * pool->slot_bytes;
        }
    }
    plan->n_vram_pools += (int)n_pools;
}

/* What stages leave of the bytes for experts. */
static uint64_t take_stages(const plan_gpu_need *need, uint64_t bytes, int *n_stages)
{
    *n_stages = 1;
    bytes -= need->stage_bytes;
    if (need->stage_bytes * SECOND_STAGE_SHARE <= bytes || bytes >= need->expert_bytes + need->stage_bytes) {
        *n_stages = 2;
        bytes -= need->stage_bytes;
    }
    return bytes;
}

static void place_experts(const filling *f, uint64_t bytes)
{
    const plan_gpu_need *need = f->need;
    hypura_gpu_plan *gpu = &f->plan->gpus[f->g];
    f->p->has_slots = true;
    bytes = take_stages(need, bytes, &gpu->n_stages);
    gpu->stage_bytes = (uint64_t)gpu->n_stages * need->stage_bytes;
    const int r = choose_whole(f, bytes);
    const uint64_t whole = last_bundles_bytes(f, r);
    hold_last_bundles(f, r);
    const double share = (double)(bytes - whole) / (double)(need->expert_bytes - whole);
    int n_after = need->n_classes;
    for (int b = 0; b < f->p->map->n_bundles; b++) {
        if (is_paged_in(f->p, f->layers, b) && is_first_of_class(f->p, f->layers, b)) {
            place_class(f, b, share, --n_after);
        }
    }
}

double plan_gpu_cost_s(planner *p, int g, plan_layers layers, const plan_gpu_fill *fill)
{
    const plan_gpu_need need = plan_find_gpu_need(p, layers);
    const filling f = {.p = p, .g = g, .layers = layers, .need = &need, .in_ram = fill->in_ram};
    const double used = (double)p->map->n_experts_used / (double)(p->map->n_experts > 0 ? p->map->n_experts : 1);
    double cost_s = ((double)need.trunk_bytes + used * (double)need.expert_bytes) / p->gpus.list[g].memory_bytes_per_s;
    if (fill->pages && need.n_paged > 0) {
        int n_stages;
        const uint64_t bytes = take_stages(&need, fill->bytes - base_bytes(&need), &n_stages);
        const int r = choose_whole(&f, bytes);
        cost_s += cost_of(&f, r, bytes - last_bundles_bytes(&f, r));
    }
    return cost_s;
}

void plan_fill_gpu(planner *p, hypura_plan *plan, int g, plan_layers layers, const plan_gpu_fill *fill)
{
    const plan_gpu_need need = plan_find_gpu_need(p, layers);
    hypura_gpu_plan *gpu = &plan->gpus[g];
    const filling f = {.p = p, .plan = plan, .g = g, .layers = layers, .need = &need, .in_ram = fill->in_ram};
    const bool paged = fill->pages && need.n_paged > 0;
    (void)snprintf(gpu->name, sizeof(gpu->name), "%s", p->gpus.list[g].name);
    gpu->addressable = p->gpus.list[g].addressable;
    gpu->remote = p->gpus.list[g].remote;
    gpu->link_bytes_per_s = p->gpus.list[g].upload_bytes_per_s;
    gpu->round_trip_us = gpu->remote ? p->gpus.list[g].round_trip_us : 0.0;
    gpu->free_bytes = p->gpus.list[g].free_bytes;
    gpu->first_layer = layers.first;
    gpu->n_layers = layers.end - layers.first;
    gpu->floor_bytes = plan_gpu_floor_bytes(&need);
    gpu->full_bytes = plan_gpu_full_bytes(&need);
    for (int t = 0; t < p->map->n_tensors; t++) {
        const uint64_t bytes = bytes_on_gpu(p, t, layers);
        if (bytes > 0 && (p->kinds[t] != PLAN_KIND_EXPERTS || !paged)) {
            hold(&f, t, bytes);
        }
    }
    if (paged) {
        place_experts(&f, fill->bytes - base_bytes(&need));
    }
    gpu->kv_bytes = need.kv_bytes;
    gpu->compute_bytes = need.compute_bytes;
    gpu->vram_bytes = gpu->resident_bytes + gpu->slot_bytes + gpu->stage_bytes + gpu->kv_bytes + gpu->compute_bytes;
}
