/*
 * gpus.c - which GPUs are used, and which layers each has. Whole layers, neighbours
 * together: a token's state passes from one GPU to the next once, and a layer's weights,
 * cache and expert slots lie where it is computed. Memory of the host and the drive stand
 * behind all of them.
 *
 *     layers 0 1 2 3 4 5 6 | 7 8 9 10 11 output
 *            first GPU     | second GPU           in proportion to what is free on each
 *
 *     all weights fit in these shares -----------------> nothing is paged
 *     trunk, cache, a stage and the fewest slots fit --> experts in slots, see gpu.c
 *     else --------------------------------------------> the last layers that fit, whole;
 *                                                        the host computes the others
 *
 * One GPU is enough where it holds the model: a second one would only add copies. So
 * without names no more are taken than it takes to hold everything. Dense layers that do
 * not fit are not streamed to a GPU: memory feeds the host's cores at least as fast as the
 * link would feed the GPU, and a layer that is uploaded has to be read as well.
 *
 * A GPU whose memory or link is clearly slower than another's has fewer layers than its
 * part, as long as a token gains by that; of the faster one more is in slots then.
 *
 * The shares follow from what is free and from rates, not from a limit on all GPUs
 * together: different GPUs round differently, and bits must not depend on the limit. A
 * limit on all is divided so that each GPU holds the same part of what lies between its
 * least and its most. Only where a GPU has no room for the least of its share do layers
 * move to another.
 *
 * Devices of other machines come first of all, unless the GPUs here hold everything: the last
 * layers, as many as fit there, whole. A network carries what passes between layers, some KB a
 * token, and no weights. What is before is shared out as if that was the whole model.
 *
 *     0 1 2 3 4 | 5 6 7 8 9 10 11 output
 *     as above  | remote, whole
 *
 * What always holds: what is placed on a GPU takes at most its own limit, and on all of
 * them at most the limit on all; layers are computed by the GPUs in their order.
 */
#include "plan/internal.h"

#include <stdio.h>
#include <string.h>

#define ALIKE    1.5 /* rates that differ by less are those of one kind of GPU, measured twice */
#define WORTH    0.1 /* of what a layer costs: what moving one has to save */
#define HALVINGS 60 /* of a part between 0 and 1, until doubles have no more to give */

typedef struct sharing {
    planner    *p;
    int         n;
    plan_layers layers[HYPURA_MAX_GPUS];
    uint64_t    limits[HYPURA_MAX_GPUS];
} sharing;

typedef uint64_t (*need_fn)(const plan_gpu_need *need);

static int n_all_layers(const planner *p)
{
    return p->map->n_layers + 1;
}

/* Of those that are shared out here. */
static int n_layers_here(const planner *p)
{
    return p->end_layer;
}

static uint64_t bytes_of(const sharing *s, int g, need_fn bytes)
{
    const plan_gpu_need need = plan_find_gpu_need(s->p, s->layers[g]);
    return bytes(&need);
}

static uint64_t sum_of(const sharing *s, need_fn bytes)
{
    uint64_t sum = 0;
    for (int g = 0; g < s->n; g++) {
        sum += bytes_of(s, g, bytes);
    }
    return sum;
}

/* ---- shares ------------------------------------------------------------------------- */

static double weights_before(const planner *p, int layer)
{
    const plan_gpu_need need = plan_find_gpu_need(p, (plan_layers){0, layer});
    return (double)(plan_gpu_whole_bytes(&need) - need.compute_bytes);
}

/* A layer is the GPU's in whose part of all bytes its middle lies. */
static void share_out(sharing *s)
{
    const hypura_plan_gpu *gpus = s->p->gpus.list;
    const int    n_layers = n_layers_here(s->p);
    const double all = weights_before(s->p, n_layers);
    double parts = 0.0;
    for (int g = 0; g < s->n; g++) {
        parts += (double)gpus[g].bytes;
    }
    double part = 0.0;
    double before = 0.0;
    int layer = 0;
    for (int g = 0; g < s->n; g++) {
        part += (double)gpus[g].bytes;
        const double most = g + 1 == s->n || parts <= 0.0 ? 2.0 * all + 1.0 : all * (part / parts);
        s->layers[g].first = layer;
        while (layer < n_layers) {
            const double after = weights_before(s->p, layer + 1);
            if ((before + after) / 2.0 >= most) {
                break;
            }
            before = after;
            layer++;
        }
        s->layers[g].end = layer;
    }
}

static bool fits(const sharing *s, int g, need_fn bytes)
{
    return bytes_of(s, g, bytes) <= s->limits[g];
}

/* One layer more for a GPU and one less for another; those between them pass theirs on. */
static void move_layer(sharing *s, int from, int to)
{
    if (from < to) {
        for (int g = from; g < to; g++) {
            s->layers[g].end--;
            s->layers[g + 1].first--;
        }
    } else {
        for (int g = to; g < from; g++) {
            s->layers[g].end++;
            s->layers[g + 1].first++;
        }
    }
}

/* To the GPU that has most room left then; false when none has room. */
static bool give_layer(sharing *s, int from, need_fn bytes)
{
    sharing  best;
    uint64_t most = 0;
    bool     found = false;
    for (int to = 0; to < s->n; to++) {
        if (to == from) {
            continue;
        }
        sharing tried = *s;
        move_layer(&tried, from, to);
        const uint64_t needed = bytes_of(&tried, to, bytes);
        if (needed <= tried.limits[to] && (!found || tried.limits[to] - needed > most)) {
            best = tried;
            most = tried.limits[to] - needed;
            found = true;
        }
    }
    if (found) {
        *s = best;
    }
    return found;
}

/* Moves layers until each GPU has room for what it needs of them. */
static bool settle(sharing *s, need_fn bytes)
{
    int moves = n_all_layers(s->p) * s->n; /* layers differ: they might go to and fro */
    for (int g = 0; g < s->n; g++) {
        while (!fits(s, g, bytes)) {
            if (moves-- == 0 || s->layers[g].first == s->layers[g].end || !give_layer(s, g, bytes)) {
                return false;
            }
            g = 0; /* those before may have other layers now */
        }
    }
    return true;
}

/* ---- rates -------------------------------------------------------------------------- */

static bool differ(const sharing *s, double (*rate)(const hypura_plan_gpu *gpu))
{
    double least = rate(&s->p->gpus.list[0]);
    double most = least;
    for (int g = 1; g < s->n; g++) {
        const double one = rate(&s->p->gpus.list[g]);
        least = one < least ? one : least;
        most = one > most ? one : most;
    }
    return least > 0.0 && most > ALIKE * least; /* what is not known makes no difference */
}

static double memory_of(const hypura_plan_gpu *gpu)
{
    return gpu->memory_bytes_per_s;
}

static double link_of(const hypura_plan_gpu *gpu)
{
    return gpu->upload_bytes_per_s;
}

static bool all_known(const sharing *s)
{
    bool known = true;
    for (int g = 0; g < s->n; g++) {
        known = known && memory_of(&s->p->gpus.list[g]) > 0.0;
    }
    return known;
}

static double cost_of(const sharing *s, int g, bool pages)
{
    const plan_gpu_fill fill = {.pages = pages, .bytes = s->limits[g], .in_ram = 1.0};
    return plan_gpu_cost_s(s->p, g, s->layers[g], &fill);
}

/* Moves layers between neighbours as long as a token gains by it. No GPU loses its last. */
static void follow_rates(sharing *s, bool pages, need_fn bytes)
{
    double sum_s = 0.0;
    for (int g = 0; g < s->n; g++) {
        sum_s += cost_of(s, g, pages);
    }
    const double worth_s = WORTH * sum_s / n_layers_here(s->p);
    for (int moves = 0; moves < n_all_layers(s->p) * s->n; moves++) {
        sharing best = *s;
        double most_s = worth_s;
        for (int i = 0; i < 2 * (s->n - 1); i++) {
            const int from = i / 2 + i % 2;
            const int to = i / 2 + 1 - i % 2;
            sharing tried = *s;
            move_layer(&tried, from, to);
            if (tried.layers[from].first == tried.layers[from].end || !fits(&tried, to, bytes) ||
                !fits(&tried, from, bytes)) {
                continue;
            }
            const double gain_s = cost_of(s, from, pages) + cost_of(s, to, pages) - cost_of(&tried, from, pages) -
                                  cost_of(&tried, to, pages);
            if (gain_s > most_s) {
                most_s = gain_s;
                best = tried;
            }
        }
        if (most_s <= worth_s) {
            return;
        }
        *s = best;
    }
}

/* ---- limits ------------------------------------------------------------------------- */

/* What each GPU may take at most: its own limit, or with one on all as much of that as it
 * has free, or a part in proportion where the limit is more than all have; and no more than
 * others leave. */
static void find_limits(sharing *s, bool on_all)
{
    const hypura_plan_gpus *gpus = &s->p->gpus;
    double sum = 0.0;
    for (int g = 0; g < s->n; g++) {
        sum += (double)gpus->list[g].bytes;
    }
    for (int g = 0; g < s->n; g++) {
        const uint64_t own = gpus->list[g].bytes;
        const uint64_t most = gpus->list[g].most_bytes;
        s->limits[g] = own;
        if (on_all && gpus->total_bytes > 0) {
            const double part = sum > 0.0 ? (double)own / sum : g == 0;
            const uint64_t share = s->n == 1 ? gpus->total_bytes : (uint64_t)(part * (double)gpus->total_bytes);
            s->limits[g] = s->n == 1 || share > own ? share : own < gpus->total_bytes ? own : gpus->total_bytes;
        }
        s->limits[g] = most > 0 && most < s->limits[g] ? most : s->limits[g];
    }
}

static uint64_t between(uint64_t least, uint64_t most, uint64_t limit, double part)
{
    const uint64_t bytes = least + (uint64_t)((double)(most - least) * part);
    return bytes < limit ? bytes : limit;
}

/* A limit on all becomes one on each. */
static void divide(sharing *s)
{
    uint64_t least[HYPURA_MAX_GPUS];
    uint64_t most[HYPURA_MAX_GPUS];
    double low = 0.0;
    double high = 1.0;
    if (s->p->gpus.total_bytes == 0 || s->n == 1) {
        return;
    }
    for (int g = 0; g < s->n; g++) {
        least[g] = bytes_of(s, g, plan_gpu_floor_bytes);
        most[g] = bytes_of(s, g, plan_gpu_full_bytes);
    }
    for (int i = 0; i < HALVINGS; i++) {
        const double part = i == 0 ? 1.0 : (low + high) / 2.0;
        uint64_t sum = 0;
        for (int g = 0; g < s->n; g++) {
            sum += between(least[g], most[g], s->limits[g], part);
        }
        if (sum <= s->p->gpus.total_bytes) {
            low = part;
        } else {
            high = part;
        }
    }
    for (int g = 0; g < s->n; g++) {
        s->limits[g] = between(least[g], most[g], s->limits[g], low);
    }
}

/* ---- ways --------------------------------------------------------------------------- */

/* The same layers whichever way it will be: with what each has of its own. */
static void share_by_rates(sharing *s)
{
    share_out(s);
    find_limits(s, false);
    if (!all_known(s) || !(differ(s, memory_of) || differ(s, link_of))) {
        return;
    }
    sharing whole = *s;
    sharing floor = *s;
    if (settle(&whole, plan_gpu_whole_bytes)) {
        follow_rates(&whole, false, plan_gpu_whole_bytes);
        *s = whole;
    } else if (settle(&floor, plan_gpu_floor_bytes)) {
        follow_rates(&floor, true, plan_gpu_floor_bytes);
        *s = floor;
    }
}

static bool has_room(sharing *s, need_fn bytes)
{
    const uint64_t total_bytes = s->p->gpus.total_bytes;
    share_by_rates(s);
    find_limits(s, true);
    return settle(s, bytes) && (total_bytes == 0 || sum_of(s, bytes) <= total_bytes);
}

/* Of those in layers. */
static uint64_t largest_weight(const planner *p)
{
    uint64_t largest = 0;
    for (int t = 0; t < p->map->n_tensors; t++) {
        const hypura_tensor *tensor = &p->map->tensors[t];
        largest = tensor->layer >= 0 && tensor->bytes > largest ? tensor->bytes : largest;
    }
    return largest;
}

/* As many of the last layers as fit, from the last GPU on; false when none does. */
static bool take_last_layers(sharing *s)
{
    const uint64_t total_bytes = s->p->gpus.total_bytes;
    int end = n_layers_here(s->p);
    find_limits(s, true);
    for (int g = s->n - 1; g >= 0; g--) {
        double sum = 0.0;
        for (int i = 0; i <= g; i++) {
            sum += (double)s->limits[i];
        }
        uint64_t taken = 0;
        for (int i = g + 1; i < s->n; i++) {
            taken += bytes_of(s, i, plan_gpu_whole_bytes);
        }
        if (total_bytes > 0 && s->n > 1) { /* what is left of it, in proportion */
            const double part = sum > 0.0 ? (double)s->limits[g] / sum : 0.0;
            const uint64_t share = (uint64_t)(part * (double)(total_bytes - taken));
            s->limits[g] = share < s->limits[g] ? share : s->limits[g];
        }
        s->layers[g] = (plan_layers){end, end};
        do {
            s->layers[g].first--;
        } while (s->layers[g].first >= 0 && fits(s, g, plan_gpu_whole_bytes));
        end = ++s->layers[g].first;
    }
    return end < n_layers_here(s->p);
}

/* The fewest that hold the whole model, or all for which there are pools. */
static int choose_number(planner *p, const plan_gpu_need *need)
{
    const int most = HYPURA_MAX_VRAM_POOLS / (need->n_classes > 0 ? need->n_classes : 1);
    for (int n = 1; n < p->gpus.n && !p->gpus.named; n++) {
        sharing s = {.p = p, .n = n};
        find_limits(&s, false);
        share_out(&s);
        if (settle(&s, plan_gpu_whole_bytes)) {
            return n;
        }
    }
    return p->gpus.n < most ? p->gpus.n : most;
}

/* ---- the host's part ---------------------------------------------------------------- */

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

/* With every layer on GPUs the host looks rows up at once: a read from the drive for
 * each token would keep them waiting. */
static void keep_rows(planner *p)
{
    for (int t = 0; t < p->map->n_tensors; t++) {
        if (p->kinds[t] == PLAN_KIND_ROWS || p->kinds[t] == PLAN_KIND_DENSE) {
            p->kinds[t] = PLAN_KIND_FIXED;
        }
    }
}

/* ---- the choice --------------------------------------------------------------------- */

/* GPUs without layers are not used. */
static void drop_idle(planner *p, sharing *s)
{
    int n = 0;
    for (int g = 0; g < s->n; g++) {
        if (s->layers[g].first < s->layers[g].end) {
            p->gpus.list[n] = p->gpus.list[g];
            s->layers[n] = s->layers[g];
            s->limits[n++] = s->limits[g];
        }
    }
    p->gpus.n = s->n = n;
}

static void total(hypura_plan *plan)
{
    size_t used = 0;
    for (int g = 0; g < plan->n_gpus; g++) {
        const hypura_gpu_plan *gpu = &plan->gpus[g];
        const size_t room = sizeof(plan->gpu) - used;
        const int n = snprintf(plan->gpu + used, room, "%s%s", g > 0 ? "," : "", gpu->name);
        used += n > 0 && (size_t)n < room ? (size_t)n : 0;
        plan->n_gpu_layers += gpu->n_layers;
        plan->vram_bytes += gpu->vram_bytes;
        plan->vram_resident_bytes += gpu->resident_bytes;
        plan->vram_slot_bytes += gpu->slot_bytes;
        plan->vram_stage_bytes += gpu->stage_bytes;
        plan->vram_kv_bytes += gpu->kv_bytes;
        plan->vram_compute_bytes += gpu->compute_bytes;
    }
}

static bool all_fits_here(planner *p)
{
    const plan_gpu_need need = plan_find_gpu_need(p, (plan_layers){0, n_layers_here(p)});
    sharing s = {.p = p, .n = p->gpus.n > 0 ? choose_number(p, &need) : 0};
    return s.n > 0 && !(p->force_paging && need.n_paged > 0) && has_room(&s, plan_gpu_whole_bytes);
}

/* The layers of remote devices; those before are left to be shared out. */
static void take_remote(planner *p, sharing *remote)
{
    const hypura_plan_gpus here = p->gpus;
    *remote = (sharing){.p = p, .n = 0};
    if (p->remotes.n == 0 || all_fits_here(p)) {
        return;
    }
    p->gpus = p->remotes;
    remote->n = p->remotes.n;
    if (take_last_layers(remote)) {
        drop_idle(p, remote);
        p->end_layer = remote->layers[0].first;
    } else {
        remote->n = 0;
    }
    p->remotes = p->gpus;
    p->gpus = here;
}

static void place_here(planner *p, hypura_plan *plan, uint64_t host_bytes)
{
    const plan_gpu_need need = plan_find_gpu_need(p, (plan_layers){0, n_layers_here(p)});
    const bool forced = p->force_paging && need.n_paged > 0;
    const double part = need.expert_bytes > 0 ? (double)host_bytes / (double)need.expert_bytes : 1.0;
    sharing s = {.p = p, .n = choose_number(p, &need)};
    const bool all = !forced && has_room(&s, plan_gpu_whole_bytes);
    const bool paged = !all && need.n_paged > 0 && has_room(&s, plan_gpu_floor_bytes);
    if (!all && !paged) {
        share_by_rates(&s);
    }
    plan->floor_vram_bytes = need.n_paged > 0 ? sum_of(&s, plan_gpu_floor_bytes) : 0;
    plan->full_vram_bytes = sum_of(&s, plan_gpu_full_bytes);
    plan->whole_vram_bytes = sum_of(&s, plan_gpu_whole_bytes);
    p->sent_bytes = !all && need.n_paged == 0 ? largest_weight(p) : 0;
    if (!all && !paged && !take_last_layers(&s)) {
        p->gpus.n = 0;
        return;
    }
    if (paged) {
        divide(&s);
    }
    drop_idle(p, &s);
    plan->n_gpus = s.n;
    for (int g = 0; g < s.n; g++) {
        const plan_gpu_fill fill = {.pages = paged, .bytes = s.limits[g], .in_ram = part < 1.0 ? part : 1.0};
        plan_fill_gpu(p, plan, g, s.layers[g], &fill);
    }
    p->sent_bytes = 0;
}

static void place_remote(planner *p, const sharing *remote, hypura_plan *plan)
{
    for (int i = 0; i < remote->n && p->gpus.n < HYPURA_MAX_GPUS; i++) {
        const int g = p->gpus.n++;
        p->gpus.list[g] = p->remotes.list[i];
        plan->n_gpus = p->gpus.n;
        plan_fill_gpu(p, plan, g, remote->layers[i], &(plan_gpu_fill){.bytes = remote->limits[i], .in_ram = 1.0});
    }
}

void plan_place_on_gpus(planner *p, hypura_plan *plan, uint64_t host_bytes)
{
    sharing remote;
    p->end_layer = n_all_layers(p);
    take_remote(p, &remote);
    if (p->end_layer == 0) {
        p->gpus.n = 0;
    } else if (p->gpus.n > 0) {
        place_here(p, plan, host_bytes);
    }
    place_remote(p, &remote, plan);
    if (plan->n_gpus == 0) {
        return;
    }
    total(plan);
    if (plan->n_gpu_layers == n_all_layers(p)) {
        keep_rows(p);
        p->compute_bytes -= p->survey->device_compute_bytes;
    }
    p->kv_bytes -= plan->vram_kv_bytes;
    leave_rest_to_host(p);
}

uint64_t hypura_plan_vram_at(const hypura_plan *plan, uint32_t percent)
{
    const double between_bytes = (double)(plan->full_vram_bytes - plan->floor_vram_bytes);
    return plan->floor_vram_bytes + (uint64_t)(between_bytes * percent / 100.0);
}
