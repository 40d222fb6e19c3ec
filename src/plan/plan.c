/*
 * plan.c - where every tensor goes: the budget, the choice, the refusal.
 *
 * A plan spends one number, the bytes that weights may take (W), on four things:
 *
 *     resident    tensors that stay, whole
 *     pinned      the first rows of streamed dense weights
 *     pools       slots for experts
 *     ring        chunks of dense weights on their way
 *
 * What is used least per byte leaves first. That order is optimal as long as the
 * costs add up (a knapsack with divisible items): one row of an embedding a
 * token, top-k of n experts, and last the dense weights, used whole every time.
 *
 *     all tensors fit in W ------------------------------> RESIDENT
 *     trunk + fewest slots fit --------------------------> EXPERTS   slots get the rest
 *     as stage k of the dense weights leaves, for the
 *     smallest k whose floor fits -----------------------> MIXED     slots stay at the fewest:
 *                                                                    a pinned byte is used every
 *                                                                    token, a slot is not
 *     the same without experts --------------------------> DENSE
 *     nothing fits --------------------------------------> refused, with the floor
 *
 * A GPU without memory of its own has what the host does not need of it: the limit is
 * one on both, experts pass through a few slots of the host, and are kept by the GPU.
 *
 * What always holds:
 *  1. resident + pinned + pools + ring = weights_bytes <= W.
 *  2. With W at the floor there is a plan, one byte below there is none.
 *  3. A larger budget never reads more per token.
 */
#include "plan/internal.h"

#include "plan/knee.h"

#include "base/size.h"
#include "base/status.h"

#include <stdlib.h>
#include <string.h>

/* What a model that is held whole has to leave free where nobody gave a limit: it
 * could not give anything back when others come. */
#define SPARE_BYTES (UINT64_C(4) << 30)
#define SPARE_PART  4 /* or this part of what was free */

/* Slots of a host whose GPU has the same memory: experts pass through them alone. */
#define TRANSIT_FLOORS 3  /* as often the fewest, beside those */
#define TRANSIT_SHARE  16 /* or this part of everything */

/* What the host needs depends on what the GPU holds, and the other way round. */
#define MAX_ATTEMPTS 8

#define MAX_TENSOR_BYTES    (UINT64_C(1) << 60) /* sums with padding stay within 64 bits */
#define DEFAULT_BLOCK_BYTES (UINT64_C(1) << 20)
#define DEFAULT_DEPTH       8
#define MAX_DEPTH 64
/* Many shapes tie when a drive is measured alone; while computing takes turns with
 * reading, those with more in flight keep it busy. */
#define MIN_IN_FLIGHT_BYTES (UINT64_C(4) << 20)

typedef struct plan_budget {
    uint64_t fixed_bytes;  /* KV, compute, overhead, what a GPU holds of the same memory */
    uint64_t memory_bytes; /* 0: none */
    uint64_t weights_bytes;
    bool memory_binds;     /* it, and not a limit on weights, says how many these are */
    uint64_t available_bytes; /* from which the budget was chosen; 0: it was given */
} plan_budget;

const char *hypura_mode_name(hypura_mode mode)
{
    switch (mode) {
    case HYPURA_MODE_RESIDENT:
        return "resident";
    case HYPURA_MODE_EXPERTS:
        return "experts";
    case HYPURA_MODE_DENSE:
        return "dense";
    case HYPURA_MODE_MIXED:
        return "mixed";
    }
    return "unknown";
}

void hypura_plan_free(hypura_plan *plan)
{
    if (plan) {
        free(plan->placements);
        free(plan->order);
        free(plan);
    }
}

/* ---- budget ------------------------------------------------------------- */

static hypura_status find_budget(const planner *p, const hypura_plan_options *options, plan_budget *budget,
                                 hypura_error *error)
{
    uint64_t fixed;
    if (!hypura_size_add(p->kv_bytes, p->compute_bytes, &fixed) ||
        !hypura_size_add(fixed, options->overhead_bytes, &fixed) ||
        !hypura_size_add(fixed, p->shared_bytes, &fixed) || fixed > MAX_TENSOR_BYTES) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "a context of %u tokens takes more memory than can be counted: give a shorter one",
                           p->survey->n_context);
    }
    budget->fixed_bytes = fixed;
    budget->memory_bytes = options->memory_bytes;
    budget->weights_bytes = options->weights_bytes > 0 ? options->weights_bytes : UINT64_MAX;
    if (options->memory_bytes == 0 && options->weights_bytes == 0) {
        uint64_t available = p->profile->ram_available_bytes;
        uint64_t margin = hypura_knee_first_reserve(available);
        if (available <= margin) {
            return hypura_fail(error, HYPURA_ERR_BUDGET,
                               "%llu bytes of memory are free, %llu of which are left to the rest of the machine: "
                               "free some, or give a limit",
                               (unsigned long long)available, (unsigned long long)margin);
        }
        budget->memory_bytes = available - margin;
        budget->available_bytes = available;
    }
    if (budget->memory_bytes > 0) {
        uint64_t left = budget->memory_bytes > fixed ? budget->memory_bytes - fixed : 0;
        budget->memory_binds = left < budget->weights_bytes;
        budget->weights_bytes = budget->memory_binds ? left : budget->weights_bytes;
    }
    return HYPURA_OK;
}

static hypura_status refuse(const planner *p, const plan_budget *budget, uint64_t floor_bytes, hypura_error *error)
{
    char weights[HYPURA_SIZE_TEXT], floor[HYPURA_SIZE_TEXT], total[HYPURA_SIZE_TEXT];
    uint64_t total_bytes = floor_bytes + budget->fixed_bytes;
    if (budget->memory_binds) {
        char memory[HYPURA_SIZE_TEXT];
        return hypura_fail(error, HYPURA_ERR_BUDGET,
                           "%s of memory is below the floor of %s (%llu bytes): that is %s (%llu bytes) of weights, "
                           "with context, computing and overhead; give at least that, or a shorter context; model %s",
                           hypura_size_format(budget->memory_bytes, memory, sizeof(memory)),
                           hypura_size_format(total_bytes, total, sizeof(total)), (unsigned long long)total_bytes,
                           hypura_size_format(floor_bytes, floor, sizeof(floor)), (unsigned long long)floor_bytes,
                           p->map->path ? p->map->path : "");
    }
    return hypura_fail(error, HYPURA_ERR_BUDGET,
                       "%s for weights is below the floor of %s (%llu bytes), which with context, computing and "
                       "overhead is %s (%llu bytes) of memory: give at least that; model %s",
                       hypura_size_format(budget->weights_bytes, weights, sizeof(weights)),
                       hypura_size_format(floor_bytes, floor, sizeof(floor)), (unsigned long long)floor_bytes,
                       hypura_size_format(total_bytes, total, sizeof(total)), (unsigned long long)total_bytes,
                       p->map->path ? p->map->path : "");
}

/* ---- choice ------------------------------------------------------------- */

static uint64_t trunk_bytes(const planner *p, size_t stage)
{
    return p->tensor_bytes - p->paged_bytes - p->stages[stage].bytes;
}

static uint64_t stage_need_bytes(const planner *p, size_t stage)
{
    return trunk_bytes(p, stage) + p->pool_floor_bytes + plan_stage_floor_bytes(&p->stages[stage]);
}

/* Paging that was asked for needs something to page. */
static size_t first_stage(const planner *p)
{
    return p->force_paging && p->n_classes == 0 && p->n_stages > 1 ? 1 : 0;
}

static uint64_t floor_bytes(const planner *p)
{
    uint64_t fewest = p->force_paging || p->has_slots ? UINT64_MAX : p->tensor_bytes;
    for (size_t stage = first_stage(p); stage < p->n_stages; stage++) {
        uint64_t need = stage_need_bytes(p, stage);
        fewest = need < fewest ? need : fewest;
    }
    return fewest;
}

static void spend_on_pools(const planner *p, uint64_t budget_bytes, hypura_plan *plan)
{
    uint32_t n_slots[HYPURA_MAX_POOLS];
    plan->n_pools = p->n_classes;
    for (int c = 0; c < p->n_classes; c++) {
        const plan_class *class = &p->classes[c];
        plan->pools[c] = (hypura_pool_plan){
            .slot_bytes = class->slot_bytes,
            .slot_stride_bytes = class->stride_bytes,
            .n_units = class->n_units,
            .n_floor = class->n_floor,
        };
    }
    hypura_plan_share_slots(plan->pools, plan->n_pools, budget_bytes, n_slots);
    for (int c = 0; c < p->n_classes; c++) {
        plan->pools[c].n_slots = n_slots[c];
        plan->pool_bytes += n_slots[c] * plan->pools[c].slot_stride_bytes;
    }
}

static void place(planner *p, uint64_t budget_bytes, hypura_plan *plan)
{
    size_t stage = first_stage(p);
    while (stage_need_bytes(p, stage) > budget_bytes) {
        stage++;
    }
    for (int t = 0; t < p->map->n_tensors; t++) {
        const hypura_tensor *tensor = &p->map->tensors[t];
        if (p->kinds[t] == PLAN_KIND_ROWS) {
            plan->placements[t].place = HYPURA_PLACE_ROWS;
        } else if (p->kinds[t] == PLAN_KIND_EXPERTS) {
            plan->placements[t].place = HYPURA_PLACE_EXPERTS;
            plan->placements[t].pool = p->class_of[tensor->bundle];
        }
    }
    uint64_t left = budget_bytes - trunk_bytes(p, stage);
    spend_on_pools(p, stage == 0 ? left : p->pool_floor_bytes, plan);
    plan_spend_on_dense(p, &p->stages[stage], left - plan->pool_bytes, plan);
    if (plan->n_pools == 0) {
        plan->mode = HYPURA_MODE_DENSE;
    } else {
        plan->mode = stage == 0 ? HYPURA_MODE_EXPERTS : HYPURA_MODE_MIXED;
    }
}

/* Sums over what was placed. */
static void total(const planner *p, const plan_budget *budget, hypura_plan *plan)
{
    uint64_t held = 0;
    for (int t = 0; t < p->map->n_tensors; t++) {
        const hypura_tensor *tensor = &p->map->tensors[t];
        if (p->kinds[t] == PLAN_KIND_VRAM) {
            plan->placements[t].place = HYPURA_PLACE_VRAM;
        } else if (plan->placements[t].place == HYPURA_PLACE_RESIDENT) {
            plan->resident_bytes += tensor->bytes;
        } else if (plan->placements[t].place == HYPURA_PLACE_DENSE) {
            held += (uint64_t)plan->placements[t].pinned_rows * tensor->row_bytes;
        }
    }
    for (int i = 0; i < plan->n_pools; i++) {
        held += plan->pools[i].n_slots * plan->pools[i].slot_bytes;
    }
    plan->weights_bytes = plan->resident_bytes + plan->pinned_bytes + plan->pool_bytes + plan->ring_bytes;
    plan->nvme_bytes = p->tensor_bytes - plan->resident_bytes - held;
    plan->memory_bytes = budget->available_bytes > 0 ? budget->fixed_bytes + plan->weights_bytes : budget->memory_bytes;
}

/* ---- solving ------------------------------------------------------------ */

static hypura_status check_input(const hypura_map *map, const hypura_survey *survey, uint64_t *tensor_bytes,
                                 hypura_error *error)
{
    if (survey->n_uses != map->n_tensors) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the survey speaks of %d tensors, the model has %d", survey->n_uses,
                           map->n_tensors);
    }
    *tensor_bytes = 0;
    for (int t = 0; t < map->n_tensors; t++) {
        if (!hypura_size_add(*tensor_bytes, map->tensors[t].bytes, tensor_bytes) || *tensor_bytes > MAX_TENSOR_BYTES) {
            return hypura_fail(error, HYPURA_ERR_FORMAT, "tensor %s of %llu bytes: no machine can hold it",
                               map->tensors[t].name, (unsigned long long)map->tensors[t].bytes);
        }
    }
    return HYPURA_OK;
}

static bool planner_open(planner *p)
{
    size_t n_tensors = (size_t)p->map->n_tensors;
    size_t n_bundles = (size_t)p->map->n_bundles;
    p->kinds = calloc(n_tensors + 1, sizeof(*p->kinds));
    p->dense = calloc(n_tensors + 1, sizeof(*p->dense));
    p->stages = calloc(n_tensors + 1, sizeof(*p->stages));
    p->class_of = calloc(n_bundles + 1, sizeof(*p->class_of));
    p->classes = calloc(n_bundles + 1, sizeof(*p->classes));
    return p->kinds && p->dense && p->stages && p->class_of && p->classes;
}

static void planner_close(planner *p)
{
    free(p->kinds);
    free(p->dense);
    free(p->stages);
    free(p->class_of);
    free(p->classes);
}

typedef struct ordered_tensor {
    uint32_t order;
    int tensor;
} ordered_tensor;

static int compare_order(const void *a, const void *b)
{
    const ordered_tensor *x = a;
    const ordered_tensor *y = b;
    if (x->order != y->order) {
        return x->order < y->order ? -1 : 1;
    }
    return x->tensor < y->tensor ? -1 : x->tensor > y->tensor;
}

/* A plan with every tensor resident, in the order of the graph; NULL without memory. */
static hypura_plan *plan_open(const planner *p)
{
    size_t n = (size_t)p->map->n_tensors;
    hypura_plan *plan = calloc(1, sizeof(*plan));
    ordered_tensor *ordered = calloc(n + 1, sizeof(*ordered));
    if (plan) {
        plan->n_placements = p->map->n_tensors;
        plan->placements = calloc(n + 1, sizeof(*plan->placements));
        plan->order = calloc(n + 1, sizeof(*plan->order));
    }
    if (!plan || !ordered || !plan->placements || !plan->order) {
        free(ordered);
        hypura_plan_free(plan);
        return NULL;
    }
    for (size_t t = 0; t < n; t++) {
        ordered[t] = (ordered_tensor){.order = p->survey->uses[t].order, .tensor = (int)t};
        plan->placements[t].pool = -1;
        plan->placements[t].vram_pool = -1;
        plan->placements[t].gpu = -1;
    }
    if (n > 1) {
        qsort(ordered, n, sizeof(*ordered), compare_order);
    }
    for (size_t i = 0; i < n; i++) {
        plan->order[i] = ordered[i].tensor;
    }
    free(ordered);
    return plan;
}

/* ---- memory that host and GPU share ----------------------------------------- */

/* What a machine keeps for others where nobody gave a limit. */
static uint64_t spare_bytes(uint64_t available_bytes)
{
    const uint64_t part = available_bytes / SPARE_PART;
    return part < SPARE_BYTES ? part : SPARE_BYTES;
}

static bool is_unified(const planner *p)
{
    bool unified = false;
    for (int g = 0; g < p->gpus.n; g++) {
        unified = unified || p->gpus.list[g].unified;
    }
    return unified;
}

/* What host and GPU may take together. A GPU gives nothing back while a model is used, so
 * that more is left to others than where the host alone has slots. */
static uint64_t both_may_take(const planner *p, const hypura_plan_options *options)
{
    const uint64_t available = p->profile->ram_available_bytes;
    const uint64_t reserve = hypura_knee_first_reserve(available);
    const uint64_t spare = spare_bytes(available);
    const uint64_t left = reserve > spare ? reserve : spare;
    return options->memory_bytes > 0 ? options->memory_bytes : available > left ? available - left : 0;
}

static void limit_unified(planner *p, const hypura_plan_options *options)
{
    const uint64_t both = both_may_take(p, options);
    uint64_t own = 0;
    for (int g = 0; g < p->gpus.n; g++) {
        own += p->gpus.list[g].bytes;
    }
    own = p->gpus.total_bytes > 0 ? p->gpus.total_bytes : own;
    const uint64_t most = both > p->host_bytes ? both - p->host_bytes : 0;
    p->gpus.total_bytes = most < own ? most : own;
    p->gpus.n = p->gpus.total_bytes > 0 ? p->gpus.n : 0;
}

/* What the host needs for weights: with fewer slots than these, reads would wait for uploads. */
static uint64_t host_weights(const planner *p, const hypura_plan_options *options, const hypura_plan *plan)
{
    const uint64_t slots = TRANSIT_FLOORS * p->pool_floor_bytes;
    const uint64_t most = both_may_take(p, options) / TRANSIT_SHARE;
    return plan->floor_weights_bytes + (slots < most ? slots : most);
}

static uint64_t host_need(const planner *p, const hypura_plan_options *options, const hypura_plan *plan)
{
    return p->kv_bytes + p->compute_bytes + options->overhead_bytes + host_weights(p, options, plan);
}

/* More slots than for what the GPU lacks would hold copies alone. */
static void drop_copies(const planner *p, const hypura_plan_options *options, const hypura_plan *plan,
                        plan_budget *budget)
{
    const uint64_t lacked = p->paged_bytes > plan->vram_slot_bytes ? p->paged_bytes - plan->vram_slot_bytes : 0;
    const uint64_t most = host_weights(p, options, plan) + lacked;
    if (p->has_slots && budget->weights_bytes > most) {
        budget->weights_bytes = most;
    }
}

/* What the host may spend on weights, near enough to decide about GPUs. */
static uint64_t host_budget(const planner *p, const hypura_plan_options *options)
{
    const uint64_t fixed = p->kv_bytes + p->compute_bytes + options->overhead_bytes;
    const uint64_t memory = options->memory_bytes > 0 ? options->memory_bytes : p->profile->ram_available_bytes;
    const uint64_t taken = is_unified(p) ? fixed + p->gpus.total_bytes : fixed;
    const uint64_t left = memory > taken ? memory - taken : 0;
    return options->weights_bytes > 0 && options->weights_bytes < left ? options->weights_bytes : left;
}

static void analyse(planner *p, const hypura_plan_options *options, hypura_plan *plan)
{
    plan_find_streamable(p);
    if (is_unified(p)) {
        limit_unified(p, options);
    }
    if (p->gpus.n > 0 || p->remotes.n > 0) {
        plan_place_on_gpus(p, plan, host_budget(p, options));
    }
    plan_find_classes(p);
    plan_find_stages(p);
    for (int t = 0; t < p->map->n_tensors; t++) {
        if (p->kinds[t] == PLAN_KIND_ROWS || p->kinds[t] == PLAN_KIND_EXPERTS) {
            p->paged_bytes += p->map->tensors[t].bytes;
        }
    }
}

/* A chosen budget is not for good: others may come and take memory. What takes nearly
 * all of it is paged then, although it fits. */
static bool has_to_give_back(const planner *p, const plan_budget *budget)
{
    const uint64_t spare = spare_bytes(budget->available_bytes);
    const uint64_t taken = budget->fixed_bytes + p->tensor_bytes;
    return budget->available_bytes > 0 && (p->paged_bytes > 0 || p->n_dense > 0) &&
           taken <= budget->available_bytes && budget->available_bytes - taken < spare;
}

static hypura_status solve(planner *p, const hypura_plan_options *options, hypura_plan *plan, hypura_error *error)
{
    const bool unified = is_unified(p);
    analyse(p, options, plan);
    plan->unified = unified && plan->n_gpus > 0 && !plan->gpus[0].remote;
    for (int g = 0; plan->unified && g < plan->n_gpus; g++) {
        p->shared_bytes += plan->gpus[g].remote ? 0 : plan->gpus[g].vram_bytes;
    }
    if (plan->gpu[0] && p->paged_bytes == 0 && p->n_dense == 0) {
        p->force_paging = false; /* GPUs hold all that could be paged */
    }
    if (p->force_paging && p->paged_bytes == 0 && p->n_dense == 0) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "%s: none of its %d tensors is used in a way that can be paged",
                           p->map->path ? p->map->path : "model", p->map->n_tensors);
    }
    plan_budget budget = {0};
    hypura_status status = find_budget(p, options, &budget, error);
    if (status) {
        return status;
    }
    p->adapts = budget.available_bytes > 0;
    plan->floor_weights_bytes = floor_bytes(p);
    if (has_to_give_back(p, &budget) && plan->floor_weights_bytes < p->tensor_bytes) {
        p->force_paging = true;
    }
    if (budget.weights_bytes < plan->floor_weights_bytes) {
        return refuse(p, &budget, plan->floor_weights_bytes, error);
    }
    if (plan->unified) {
        drop_copies(p, options, plan, &budget);
    }
    if (p->force_paging || p->has_slots || p->tensor_bytes > budget.weights_bytes) {
        place(p, budget.weights_bytes, plan);
    }
    plan->kv_bytes = p->kv_bytes;
    plan->compute_bytes = p->compute_bytes;
    plan->overhead_bytes = options->overhead_bytes;
    plan->floor_memory_bytes = plan->floor_weights_bytes + budget.fixed_bytes - p->shared_bytes;
    if (plan->unified) {
        plan->floor_memory_bytes += plan->floor_vram_bytes < p->shared_bytes ? plan->floor_vram_bytes : p->shared_bytes;
    }
    plan->io_block_bytes = p->profile->io_block_bytes > 0 ? p->profile->io_block_bytes : DEFAULT_BLOCK_BYTES;
    plan->io_depth = p->profile->io_depth > 0 ? p->profile->io_depth : DEFAULT_DEPTH;
    const uint64_t blocks_in_flight = MIN_IN_FLIGHT_BYTES / plan->io_block_bytes;
    if (plan->io_depth < blocks_in_flight) {
        plan->io_depth = (uint32_t)(blocks_in_flight < MAX_DEPTH ? blocks_in_flight : MAX_DEPTH);
    }
    plan->n_io_rates = p->profile->n_io_rates;
    memcpy(plan->io_rates, p->profile->io_rates, sizeof(plan->io_rates));
    plan->slot_align_bytes = p->slot_align_bytes;
    total(p, &budget, plan);
    plan_forecast(p, plan);
    return HYPURA_OK;
}

/* *host_bytes: what stays with the host of memory that it shares with a GPU; then what it needs
 * beside what this plan has placed there. */
static hypura_status attempt(const planner *asked, const hypura_plan_options *options, uint64_t *host_bytes,
                             hypura_plan **plan, hypura_error *error)
{
    planner p = *asked;
    p.host_bytes = *host_bytes;
    hypura_plan *solved = planner_open(&p) ? plan_open(&p) : NULL;
    hypura_status status = HYPURA_OK;
    if (!solved) {
        status = hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to plan %d tensors", p.map->n_tensors);
    } else {
        status = solve(&p, options, solved, error);
        *host_bytes = solved->unified ? host_need(&p, options, solved) : 0;
    }
    planner_close(&p);
    if (status) {
        hypura_plan_free(solved);
        return status;
    }
    *plan = solved;
    return HYPURA_OK;
}

hypura_status hypura_plan_solve(const hypura_map *map, const hypura_survey *survey, const hypura_profile *profile,
                                const hypura_plan_options *options, hypura_plan **plan, hypura_error *error)
{
    *plan = NULL;
    planner p = {.map = map,
                 .survey = survey,
                 .profile = profile,
                 .rates = options->rates,
                 .lessons = options->lessons,
                 .force_paging = options->force_paging,
                 .kv_bytes = survey->kv_bytes + survey->device_kv_bytes,
                 .compute_bytes = survey->compute_bytes + survey->device_compute_bytes,
                 .gpus = options->gpus ? *options->gpus : (hypura_plan_gpus){.n = 0}};
    while (p.gpus.n > 0 && p.gpus.list[p.gpus.n - 1].remote) {
        p.gpus.n--;
    }
    for (int g = p.gpus.n; options->gpus && g < options->gpus->n; g++) {
        p.remotes.list[p.remotes.n++] = options->gpus->list[g];
    }
    hypura_status status = check_input(map, survey, &p.tensor_bytes, error);
    uint64_t needed_bytes = 0;
    bool enough = status != HYPURA_OK;
    for (int i = 0; !enough && i < MAX_ATTEMPTS; i++) {
        const uint64_t host_bytes = needed_bytes;
        hypura_plan_free(*plan);
        *plan = NULL;
        hypura_error_clear(error);
        status = attempt(&p, options, &needed_bytes, plan, error);
        enough = needed_bytes <= host_bytes;
    }
    return status;
}
