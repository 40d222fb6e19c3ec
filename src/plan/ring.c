/*
 * ring.c - dense weights that do not all fit: stages, the ring and pinned rows.
 *
 * Every dense weight is read once for every token, always in the same order: a
 * cyclic scan. Least recently used would hit nothing. Holding a fixed part for
 * good and passing the rest through a small ring saves exactly the part held,
 * and no policy saves more. Which part does not matter for the bytes; the same
 * fraction of every weight spreads the reads evenly over the token, so that the
 * drive is busy all the time.
 *
 * A weight that is touched by streaming costs a split of the graph, so only as
 * many weights stream as the budget demands. Stage k streams the first k ranks:
 *
 *     0 none < 1 FFN < 2 all but the vocabulary < 3 all < bulky ones, one size at a time
 *
 * Bulky weights are those whose smallest chunk is large against the model (mostly
 * such that may not be cut): the ring must hold three of them, so they help only
 * when there are many.
 *
 *         budget of the stage                                            reads a token
 *     min ring ............ ring as wanted .......... all pinned         all ... none
 *         | ring grows, nothing pinned | ring stays, rows are pinned |
 *
 * What always holds: with a larger budget, in the same stage or by changing to
 * an earlier one, reads per token never grow. (The ring is a function of the
 * stage alone once rows are pinned; an earlier stage streams less and its
 * smallest ring is no larger.)
 */
#include "plan/internal.h"
#include "plan/layout.h"

#include <stdlib.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)

#define MIN_PAYLOAD_BYTES  (64 * KIB)
#define BEST_PAYLOAD_BYTES (4 * MIB) /* products of fewer rows leave threads idle, or their caches, in prompts */
#define PAYLOADS_PER_MODEL 64 /* a chunk is at most this part of what is streamed */
#define RINGS_PER_MODEL    8  /* and what is read ahead this part */
#define MIN_AHEAD_BYTES    (8 * MIB)
#define AHEAD_S            0.002 /* covers a slow read and a late wake-up */
#define MAX_DEPTH          64
#define MIN_RING_SLOTS     3 /* one computed with, one read, one free to be requested */
#define PIN_STEPS          (UINT64_C(1) << 16)

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t ring_stride(uint64_t payload)
{
    return hypura_layout_region_bytes(HYPURA_LAYOUT_PAGE_BYTES, payload);
}

static uint64_t wanted_payload(uint64_t streamed_bytes)
{
    return min_u64(BEST_PAYLOAD_BYTES, max_u64(MIN_PAYLOAD_BYTES, streamed_bytes / PAYLOADS_PER_MODEL));
}

static int compare_dense(const void *a, const void *b)
{
    const plan_dense *x = a;
    const plan_dense *y = b;
    if (x->rank != y->rank) {
        return x->rank < y->rank ? -1 : 1;
    }
    if (x->rank == 3 && x->group_bytes != y->group_bytes) {
        return x->group_bytes < y->group_bytes ? -1 : 1;
    }
    if (x->order != y->order) {
        return x->order < y->order ? -1 : 1;
    }
    return x->tensor < y->tensor ? -1 : x->tensor > y->tensor;
}

static bool begins_stage(const plan_dense *before, const plan_dense *weight)
{
    return before->rank != weight->rank || (weight->rank == 3 && before->group_bytes != weight->group_bytes);
}

void plan_find_stages(planner *p)
{
    uint64_t all_bytes = 0;
    for (size_t i = 0; i < p->n_dense; i++) {
        all_bytes += p->dense[i].bytes;
    }
    for (size_t i = 0; i < p->n_dense; i++) {
        if (p->dense[i].group_bytes > wanted_payload(all_bytes)) {
            p->dense[i].rank = 3;
        }
    }
    if (p->n_dense > 1) {
        qsort(p->dense, p->n_dense, sizeof(*p->dense), compare_dense);
    }

    plan_stage stage = {0};
    p->stages[0] = stage;
    p->n_stages = 1;
    for (size_t i = 0; i < p->n_dense; i++) {
        const plan_dense *weight = &p->dense[i];
        if (i > 0 && begins_stage(weight - 1, weight)) {
            p->n_stages++;
        } else if (i == 0) {
            p->n_stages = 2;
        }
        stage.n_weights++;
        stage.bytes += weight->bytes;
        stage.pinned_bytes += hypura_layout_pinned_bytes(weight->bytes);
        stage.largest_bytes = max_u64(stage.largest_bytes, weight->bytes);
        stage.min_payload_bytes = max_u64(stage.min_payload_bytes, weight->group_bytes);
        stage.min_ring_bytes = MIN_RING_SLOTS * ring_stride(stage.min_payload_bytes);
        p->stages[p->n_stages - 1] = stage;
    }
}

uint64_t plan_stage_floor_bytes(const plan_stage *stage)
{
    return min_u64(stage->min_ring_bytes, stage->pinned_bytes);
}

static uint64_t groups_per_chunk(const plan_dense *weight, uint64_t payload)
{
    return min_u64(payload / weight->group_bytes, weight->n_groups);
}

/* The ring as it should be when there is room for it. */
static void wanted_ring(const planner *p, const plan_stage *stage, uint64_t *payload, uint32_t *n_slots)
{
    uint64_t wanted = min_u64(wanted_payload(stage->bytes), stage->largest_bytes);
    *payload = max_u64(wanted, stage->min_payload_bytes);

    double bandwidth_bytes = p->profile->direct_bytes_per_s * AHEAD_S;
    uint64_t ahead = MIN_AHEAD_BYTES;
    if (bandwidth_bytes > (double)ahead) {
        ahead = bandwidth_bytes < (double)(256 * MIB) ? (uint64_t)bandwidth_bytes : 256 * MIB;
    }
    ahead = min_u64(ahead, stage->bytes / RINGS_PER_MODEL);
    uint64_t depth = min_u64((ahead + *payload - 1) / *payload, MAX_DEPTH);
    *n_slots = (uint32_t)max_u64(depth + 2, MIN_RING_SLOTS);
}

/* Fewer slots, then smaller ones, until the ring fits. */
static void shrink_ring(const plan_stage *stage, uint64_t budget_bytes, uint64_t *payload, uint32_t *n_slots)
{
    while (*n_slots > MIN_RING_SLOTS && *n_slots * ring_stride(*payload) > budget_bytes) {
        (*n_slots)--;
    }
    if (*n_slots * ring_stride(*payload) > budget_bytes) {
        uint64_t unit = HYPURA_LAYOUT_PAGE_BYTES;
        uint64_t room = budget_bytes / MIN_RING_SLOTS / unit * unit;
        uint64_t padding = ring_stride(0);
        *payload = max_u64(room > padding ? room - padding : 0, stage->min_payload_bytes);
    }
}

static uint64_t pinned_group_bytes(const plan_dense *weight, uint64_t n_groups)
{
    return hypura_layout_pinned_bytes(n_groups == weight->n_groups ? weight->bytes : n_groups * weight->group_bytes);
}

static uint64_t groups_at(const plan_dense *weight, uint64_t step)
{
    return weight->n_groups / PIN_STEPS * step + weight->n_groups % PIN_STEPS * step / PIN_STEPS;
}

static uint64_t pinned_bytes_at(const planner *p, const plan_stage *stage, uint64_t step)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < stage->n_weights; i++) {
        bytes += pinned_group_bytes(&p->dense[i], groups_at(&p->dense[i], step));
    }
    return bytes;
}

/* The largest even share that fits, then group by group towards the next step. It
 * stops at the first that does not fit: a smaller one further on would be lost
 * again with a larger budget. */
static uint64_t pin_rows(planner *p, const plan_stage *stage, uint64_t budget_bytes)
{
    uint64_t fits = 0;
    uint64_t above = PIN_STEPS + 1;
    while (above - fits > 1) {
        uint64_t step = fits + (above - fits) / 2;
        if (pinned_bytes_at(p, stage, step) <= budget_bytes) {
            fits = step;
        } else {
            above = step;
        }
    }
    uint64_t spent = pinned_bytes_at(p, stage, fits);
    bool full = fits == PIN_STEPS;
    for (size_t i = 0; i < stage->n_weights; i++) {
        plan_dense *weight = &p->dense[i];
        weight->n_pinned_groups = groups_at(weight, fits);
        while (!full && weight->n_pinned_groups < groups_at(weight, fits + 1)) {
            uint64_t more = pinned_group_bytes(weight, weight->n_pinned_groups + 1) -
                            pinned_group_bytes(weight, weight->n_pinned_groups);
            full = more > budget_bytes - spent;
            if (!full) {
                weight->n_pinned_groups++;
                spent += more;
            }
        }
    }
    return spent;
}

static uint64_t even_chunk(uint64_t n_groups, uint64_t most)
{
    const uint64_t n_chunks = (n_groups + most - 1) / most;
    return n_chunks > 0 ? (n_groups + n_chunks - 1) / n_chunks : most;
}

static void place_dense(const plan_dense *weight, uint64_t payload, hypura_placement *placement)
{
    uint64_t left = weight->n_groups - weight->n_pinned_groups;
    uint64_t n_groups = payload > 0 ? groups_per_chunk(weight, payload) : weight->n_groups;
    /* As many chunks as needed, of even size; but what is pinned may have to stream
     * one day, and in small chunks that would be slow. */
    uint64_t even = even_chunk(left, n_groups);
    n_groups = even > n_groups / 2 ? even : even_chunk(weight->n_groups, n_groups);
    int64_t pinned_rows = (int64_t)weight->n_pinned_groups * weight->group_rows;
    int64_t chunk_rows = (int64_t)n_groups * weight->group_rows;
    *placement = (hypura_placement){
        .place = HYPURA_PLACE_DENSE,
        .pinned_rows = pinned_rows < weight->n_rows ? pinned_rows : weight->n_rows,
        .chunk_rows = chunk_rows < weight->n_rows ? chunk_rows : weight->n_rows,
        .pool = -1,
        .vram_pool = -1,
        .gpu = -1,
    };
}

void plan_spend_on_dense(planner *p, const plan_stage *stage, uint64_t budget_bytes, hypura_plan *plan)
{
    uint64_t payload = 0;
    uint32_t n_slots = 0;
    if (stage->n_weights == 0) {
        return;
    }
    if (stage->pinned_bytes <= budget_bytes && !p->adapts) {
        plan->pinned_bytes = pin_rows(p, stage, budget_bytes);
    } else {
        wanted_ring(p, stage, &payload, &n_slots);
        if (n_slots * ring_stride(payload) <= budget_bytes) {
            plan->pinned_bytes = pin_rows(p, stage, budget_bytes - n_slots * ring_stride(payload));
        } else {
            shrink_ring(stage, budget_bytes, &payload, &n_slots);
        }
        plan->ring_slot_bytes = ring_stride(payload);
        plan->n_ring_slots = n_slots;
        plan->prefetch_depth = n_slots - 2;
        plan->ring_bytes = n_slots * plan->ring_slot_bytes;
    }
    for (size_t i = 0; i < stage->n_weights; i++) {
        place_dense(&p->dense[i], payload, &plan->placements[p->dense[i].tensor]);
    }
}
