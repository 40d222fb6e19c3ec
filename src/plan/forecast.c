/*
 * forecast.c - what a plan costs per decoded token, before anything has run.
 *
 * Two times are compared: computing, which takes every weight of the token once at the
 * rate measured for its type and, beside, what was measured of the rest of the graph,
 * attention over some hundred tokens above all; and reading what is not in memory from
 * the drive.
 *
 *     compute = sum over products of start + bytes used / rate of their type, + others
 *     storage = bytes missed / drive bandwidth
 *     bound   = max(compute, storage)
 *     read    = read factor * storage
 *     decode  = max(compute, read) + (1 - overlap) * min(compute, read)
 *
 * The read factor is what a drive loses that is not kept busy all the time. Dense weights
 * are known ahead: reading and computing overlap. Experts are known when the router has
 * run, and a layer needs all of them before the next one's are known: what is missed is
 * waited for (docs/notes/0094-how-estimates-came-to-this.md).
 *
 * Hits of expert slots follow from their number alone, counted in working sets m
 * (slots a token uses: top-k times layers). At one working set two fifths are hits; above,
 * misses fall by 27 % with every further one, and vanish when all experts fit (x, the
 * part held, is 1). Below one, hits fall to nothing where the slots are no more than one
 * layer selects (k of W a token uses):
 *
 *     miss(m, x) = 0.6 exp(-0.32 (m - 1)) sqrt((1 - x) / (1 - x at m = 1))   m >= 1
 *     miss(n)    = 1 - 0.4 ((n - k) / (W - k)) ^ 0.7                         m < 1
 *
 * fitted to the pager's own policies on recorded routes; docs/notes/0003-hit-rate-curve.md
 * has the data and the errors.
 *
 * Over GPUs the bytes that they hold are read from their memory instead, experts are
 * looked for in their slots first, and what these lack comes over the link; one computes
 * after the other:
 *
 *     compute = host bytes / memory bandwidth + sum of GPU bytes / its own + cuts * handing over
 *               + products * operations around each * a small one
 *     upload  = sum of bytes missed in a GPU's slots / its link
 *
 * A cut waits for nothing: the next piece is handed over before its selection is known.
 * A device of another machine takes a round trip of the network beside, and the numbers that pass
 * over it.
 *
 * Runs of the model, where there were some, know better (recall.h).
 *
 * Left out: activations, over-read to sectors.
 * Rates of a profile that does not know them are 0; the forecast is 0 then.
 */
#include "plan/internal.h"
#include "plan/recall.h"

#include <math.h>

#define MISS_AT_ONE_SET 0.60
#define MISS_DECAY      0.32
#define HITS_BELOW      0.7
#define OVERLAP_DENSE   0.95
#define OVERLAP_EXPERTS 0.0
#define FACTOR_DENSE    1.2
#define FACTOR_EXPERTS  1.4
/* What a GPU takes of a token beside its bytes, by products: 59 us of a layer of 8 on an H200,
 * where a small operation takes 0.61 (docs/notes/0079). */
#define PRODUCT_OPERATIONS 12.0

typedef struct traffic {
    double paged_bytes;   /* that computing reads through slots or ring */
    double kept_bytes;    /* of a dense model, that it reads from what always stays */
    double experts_bytes; /* missed */
    double dense_bytes;   /* missed, rows on demand included */
    double rows_bytes;    /* of these, rows on demand */
    struct {
        double bytes;        /* read by the GPU from its memory */
        double slot_bytes;   /* of these, experts in slots */
        double upload_bytes; /* of these, missed there */
        int    n_cuts;       /* layers with slots */
        double n_products;
    } gpus[HYPURA_MAX_GPUS];
} traffic;

/* All three are shares of the experts: in slots, used by a token, selected by a layer at once. */
double plan_miss_rate(double held, double used, double busy)
{
    if (held >= 1.0) {
        return 0.0;
    }
    if (held <= busy || used <= busy) {
        return 1.0;
    }
    if (held < used) {
        return 1.0 - (1.0 - MISS_AT_ONE_SET) * pow((held - busy) / (used - busy), HITS_BELOW);
    }
    return MISS_AT_ONE_SET * exp(-MISS_DECAY * (held / used - 1.0)) * sqrt((1.0 - held) / (1.0 - used));
}

/* What a token uses of a pool: of all layers, and at most of one. */
typedef struct pool_use {
    double units;
    double most_units;
    double bytes;
} pool_use;

static void add_use(pool_use *use, double units, double slot_bytes)
{
    use->units += units;
    use->most_units = fmax(use->most_units, units);
    use->bytes += units * slot_bytes;
}

static double pool_miss_rate(double n_slots, uint32_t n_units, const pool_use *use)
{
    const double all = (double)n_units;
    return plan_miss_rate(n_slots / all, use->units / all, use->most_units / all);
}

static bool bundle_is_used(const planner *p, const hypura_bundle *bundle)
{
    return p->survey->uses[bundle->tensors[0]].flags != 0;
}

/* With so many times the plan's slots. */
static void add_experts(const planner *p, const hypura_plan *plan, double slots, traffic *sum)
{
    pool_use uses[HYPURA_MAX_POOLS] = {{0}};
    for (int b = 0; b < p->map->n_bundles; b++) {
        const hypura_bundle *bundle = &p->map->bundles[b];
        int pool = p->class_of[b];
        if (pool >= 0 && bundle_is_used(p, bundle)) {
            add_use(&uses[pool], plan_experts_used(p->map, bundle), (double)plan->pools[pool].slot_bytes);
        }
    }
    for (int i = 0; i < plan->n_pools; i++) {
        sum->paged_bytes += uses[i].bytes;
        sum->experts_bytes +=
            uses[i].bytes * pool_miss_rate(slots * plan->pools[i].n_slots, plan->pools[i].n_units, &uses[i]);
    }
}

/* What computing reads of a tensor for one token. */
static double used_bytes(const planner *p, int t)
{
    const hypura_tensor *tensor = &p->map->tensors[t];
    const uint32_t flags = p->survey->uses[t].flags;
    if (flags == 0) {
        return 0.0;
    }
    if ((flags & HYPURA_USE_MUL_MAT_ID) != 0 && tensor->bundle >= 0 && tensor->bundle < p->map->n_bundles) {
        const hypura_bundle *bundle = &p->map->bundles[tensor->bundle];
        return (double)plan_experts_used(p->map, bundle) * (double)tensor->expert_bytes;
    }
    return flags == HYPURA_USE_GET_ROWS ? (double)tensor->row_bytes : (double)tensor->bytes;
}

/* Slots in the memory of GPUs; the pools above serve what these lack. */
static void add_slots(const planner *p, const hypura_plan *plan, traffic *sum)
{
    pool_use uses[HYPURA_MAX_VRAM_POOLS] = {{0}};
    for (int b = 0; b < p->map->n_bundles; b++) {
        const hypura_bundle *bundle = &p->map->bundles[b];
        int pool = plan->placements[bundle->tensors[0]].vram_pool;
        if (pool >= 0 && p->class_of[b] >= 0 && bundle_is_used(p, bundle)) {
            add_use(&uses[pool], plan_experts_used(p->map, bundle), (double)plan->vram_pools[pool].slot_bytes);
            sum->gpus[plan->vram_pools[pool].gpu].n_cuts++;
        }
    }
    for (int i = 0; i < plan->n_vram_pools; i++) {
        const hypura_vram_pool_plan *pool = &plan->vram_pools[i];
        sum->gpus[pool->gpu].slot_bytes += uses[i].bytes;
        sum->gpus[pool->gpu].upload_bytes += uses[i].bytes * pool_miss_rate(pool->n_slots, pool->n_units, &uses[i]);
    }
}

static void add_tensor(const planner *p, const hypura_plan *plan, int t, traffic *sum)
{
    const hypura_tensor *tensor = &p->map->tensors[t];
    uint32_t flags = p->survey->uses[t].flags;
    const hypura_placement *placement = &plan->placements[t];
    if (flags == 0) {
        return;
    }
    if (placement->gpu >= 0) {
        sum->gpus[placement->gpu].bytes += used_bytes(p, t);
        sum->gpus[placement->gpu].n_products += (flags & HYPURA_USE_MUL_MAT_ID) != 0 ? 1 : p->survey->uses[t].n_mul_mat;
    }
    bool by_rows = (flags & HYPURA_USE_GET_ROWS) != 0;
    if (by_rows && (placement->place == HYPURA_PLACE_ROWS || placement->place == HYPURA_PLACE_DENSE)) {
        sum->rows_bytes += (double)tensor->row_bytes;
    }
    if (plan->mode == HYPURA_MODE_DENSE && placement->place == HYPURA_PLACE_RESIDENT && flags != HYPURA_USE_GET_ROWS) {
        sum->kept_bytes += used_bytes(p, t);
    }
    if (placement->place == HYPURA_PLACE_DENSE) {
        sum->paged_bytes += (double)tensor->bytes;
        sum->dense_bytes += (double)(tensor->ne[1] - placement->pinned_rows) * (double)tensor->row_bytes;
    }
}

static double seconds(double bytes, double bytes_per_s)
{
    return bytes_per_s > 0.0 ? bytes / bytes_per_s : 0.0;
}

/* ---- from rates ------------------------------------------------------------- */

/* Which of the measured rates is that of the tensor's products; -1: none. */
static int find_rate(const planner *p, int t)
{
    const bool experts = (p->survey->uses[t].flags & HYPURA_USE_MUL_MAT_ID) != 0;
    for (int i = 0; p->rates && i < p->rates->n; i++) {
        const int64_t columns = p->rates->by_type[i].columns;
        if (p->rates->by_type[i].type == p->map->tensors[t].type && p->rates->by_type[i].experts == experts &&
            (columns == 0 || columns == p->map->tensors[t].ne[0])) {
            return i;
        }
    }
    return -1;
}

static double product_time(const planner *p, int t)
{
    const int i = find_rate(p, t);
    const double bytes = used_bytes(p, t);
    if (i < 0) {
        return seconds(bytes, p->profile->memory_bytes_per_s);
    }
    if (p->map->tensors[t].role == HYPURA_ROLE_OUTPUT && p->rates->output_bytes_per_s > 0.0) {
        return p->rates->output_product_s + bytes / p->rates->output_bytes_per_s;
    }
    const bool product = (p->survey->uses[t].flags & (HYPURA_USE_MUL_MAT | HYPURA_USE_MUL_MAT_ID)) != 0;
    return (product ? p->rates->by_type[i].product_s : 0.0) + bytes / p->rates->by_type[i].bytes_per_s;
}

/* Of one token among many; 0 where a type of weight was not measured for that. What makes
 * the last token's logits is left out. */
static double prompt_compute_time(const planner *p)
{
    double sum_s = 0.0;
    for (int t = 0; t < p->map->n_tensors; t++) {
        const uint32_t flags = p->survey->uses[t].flags & (HYPURA_USE_MUL_MAT | HYPURA_USE_MUL_MAT_ID);
        if (flags == 0 || p->map->tensors[t].role == HYPURA_ROLE_OUTPUT) {
            continue;
        }
        const int i = find_rate(p, t);
        const double rate = i >= 0 ? p->rates->by_type[i].prompt_bytes_per_s : 0.0;
        if (rate <= 0.0) {
            return 0.0;
        }
        sum_s += used_bytes(p, t) / rate;
    }
    return sum_s;
}

/* Of what the host computes. */
static double compute_time(const planner *p, const hypura_plan *plan)
{
    double sum_s = p->rates && !plan->gpu[0] ? p->rates->others_s : 0.0;
    for (int t = 0; t < p->map->n_tensors; t++) {
        if (plan->placements[t].gpu < 0) {
            sum_s += product_time(p, t);
        }
    }
    return sum_s;
}

/* ---- from earlier runs -------------------------------------------------------- */

/* Without those, what a token computes with nothing missed is not known. */
static bool knows_computing(const planner *p)
{
    return p->rates && p->rates->n > 0 && p->rates->others_s > 0.0;
}

/* Of experts, if this share of all weights was held and the rest of the plan was the same. */
static double missed_if_held(const planner *p, const hypura_plan *plan, double held)
{
    const double more_bytes = held * (double)p->tensor_bytes - (double)plan->weights_bytes;
    traffic sum = {0};
    add_experts(p, plan, 1.0 + more_bytes / (double)plan->pool_bytes, &sum);
    return sum.experts_bytes;
}

/* Changes the forecast to what runs say; true where they had something to say. */
static bool learn(const planner *p, const traffic *sum, hypura_plan *plan, double *read_factor)
{
    if (plan->n_gpus > 0 || !p->lessons || p->lessons->n == 0 || p->tensor_bytes == 0) {
        return false;
    }
    const bool varies = sum->experts_bytes > 0.0; /* of dense weights it is known what is read */
    const double others_bytes = plan->read_bytes_per_token - sum->experts_bytes;
    double expected_bytes[HYPURA_MAX_LESSONS];
    for (int i = 0; i < p->lessons->n; i++) {
        const hypura_lesson *lesson = &p->lessons->items[i];
        expected_bytes[i] = varies ? missed_if_held(p, plan, lesson->held) + others_bytes : lesson->read_bytes;
    }
    plan_token token = {.held = (double)plan->weights_bytes / (double)p->tensor_bytes,
                        .compute_s = knows_computing(p) ? plan->compute_s : 0.0,
                        .read_bytes = plan->read_bytes_per_token,
                        .most_bytes = sum->paged_bytes + sum->rows_bytes,
                        .read_factor = *read_factor};
    plan_recall(p->lessons, expected_bytes, &token);
    plan->compute_s = token.compute_s;
    plan->read_bytes_per_token = token.read_bytes;
    *read_factor = token.read_factor;
    if (varies) {
        plan->hit_rate = fmin(fmax(1.0 - (token.read_bytes - sum->rows_bytes) / sum->paged_bytes, 0.0), 1.0);
    }
    return true;
}

/* ---- over GPUs ---------------------------------------------------------------- */

/* Which part of the experts in slots these lack, on average. */
static double tell_slots(const traffic *sum, hypura_plan *plan)
{
    double slot_bytes = 0.0;
    for (int g = 0; g < plan->n_gpus; g++) {
        const double bytes = sum->gpus[g].slot_bytes;
        plan->gpus[g].upload_bytes_per_token = sum->gpus[g].upload_bytes;
        plan->gpus[g].hit_rate = bytes > 0.0 ? 1.0 - sum->gpus[g].upload_bytes / bytes : 1.0;
        plan->upload_bytes_per_token += sum->gpus[g].upload_bytes;
        slot_bytes += bytes;
    }
    const double lacking = slot_bytes > 0.0 ? plan->upload_bytes_per_token / slot_bytes : 0.0;
    plan->vram_hit_rate = 1.0 - lacking;
    return lacking;
}

/* What its link carries while it computes a layer: the next one waits for all that was sent on a
 * guess, right or wrong. One at least, which takes hardly longer where it takes longer at all. */
static uint32_t most_foreseen(const hypura_plan *plan, int g, double computing_s, double link_bytes_per_s)
{
    uint64_t expert_bytes = 0;
    for (int i = 0; i < plan->n_vram_pools; i++) {
        const hypura_vram_pool_plan *pool = &plan->vram_pools[i];
        expert_bytes = pool->gpu == g && pool->slot_bytes > expert_bytes ? pool->slot_bytes : expert_bytes;
    }
    if (expert_bytes == 0 || link_bytes_per_s <= 0.0 || computing_s <= 0.0) {
        return 0;
    }
    const double n = computing_s / plan->gpus[g].n_layers * link_bytes_per_s / (double)expert_bytes;
    return n < 1.0 ? 1 : (uint32_t)fmin(n, UINT32_MAX);
}

/* Whether the host computes the layer before with experts: llama.cpp has what these put out summed up by the device
 * that comes next. */
static bool sums_experts(const planner *p, const hypura_plan *plan, int g)
{
    bool sums = false;
    for (int b = 0; g == 0 && b < p->map->n_bundles; b++) {
        sums = sums || p->map->bundles[b].layer == plan->gpus[g].first_layer - 1;
    }
    return sums;
}

/* A token's numbers on their way to a remote device and back: the state between layers, or logits. */
static double link_bytes(const planner *p, const hypura_plan *plan, int g)
{
    const hypura_gpu_plan *gpu = &plan->gpus[g];
    const bool   ends = gpu->first_layer + gpu->n_layers > p->map->n_layers;
    const double state = (double)p->map->embedding_length * sizeof(float);
    const double experts = sums_experts(p, plan, g) ? state * (double)p->map->n_experts_used : 0.0;
    double logits = 0.0;
    for (int t = 0; t < p->map->n_tensors; t++) {
        const hypura_tensor *tensor = &p->map->tensors[t];
        if (tensor->role == HYPURA_ROLE_OUTPUT || (tensor->role == HYPURA_ROLE_EMBEDDING && logits <= 0.0)) {
            logits = (double)tensor->ne[1] * sizeof(float);
        }
    }
    return state + experts + (ends ? logits : state);
}

/* What they do with a token is handed from one to the next. True when the rate of one
 * is not known. */
static bool add_gpus(const planner *p, const traffic *sum, hypura_plan *plan, double *upload_s)
{
    bool unknown = false;
    for (int g = 0; g < plan->n_gpus; g++) {
        const hypura_plan_gpu *gpu = &p->gpus.list[g];
        const double small_us = sum->gpus[g].n_cuts * plan_cut_us(gpu) +
                                (g > 0 || gpu->remote ? gpu->round_trip_us : 0.0) +
                                sum->gpus[g].n_products * PRODUCT_OPERATIONS * gpu->operation_us;
        plan->gpus[g].link_bytes_per_token = gpu->remote ? link_bytes(p, plan, g) : 0.0;
        const double computing_s = seconds(sum->gpus[g].bytes, gpu->memory_bytes_per_s) + small_us * 1e-6 +
                                   seconds(plan->gpus[g].link_bytes_per_token, gpu->upload_bytes_per_s);
        plan->gpus[g].most_foreseen = most_foreseen(plan, g, computing_s, gpu->upload_bytes_per_s);
        plan->compute_s += computing_s;
        *upload_s += seconds(sum->gpus[g].upload_bytes, gpu->upload_bytes_per_s);
        unknown = unknown || (sum->gpus[g].bytes > 0.0 && gpu->memory_bytes_per_s <= 0.0);
    }
    return unknown;
}

void plan_forecast(const planner *p, hypura_plan *plan)
{
    traffic sum = {0};
    for (int t = 0; t < p->map->n_tensors; t++) {
        add_tensor(p, plan, t, &sum);
    }
    if (plan->n_pools > 0) {
        add_experts(p, plan, 1.0, &sum);
    }
    if (plan->n_vram_pools > 0) {
        add_slots(p, plan, &sum);
        const double lacking = tell_slots(&sum, plan);
        sum.experts_bytes *= lacking; /* of what the slots lack, pools in RAM lack their part */
        sum.paged_bytes *= lacking;
    }
    const double missed = sum.experts_bytes + sum.dense_bytes;
    const double dense = missed > 0.0 ? sum.dense_bytes / missed : 0.0;
    double read_factor = plan_mix(FACTOR_EXPERTS, FACTOR_DENSE, dense);
    plan->overlap = plan_mix(OVERLAP_EXPERTS, OVERLAP_DENSE, dense);
    /* Of a dense model all that a pass computes with, as the pager counts it. */
    const double needed = sum.paged_bytes + sum.kept_bytes;
    plan->hit_rate = sum.paged_bytes > 0.0 ? 1.0 - missed / needed : 1.0;
    plan->read_bytes_per_token = missed + sum.rows_bytes;
    plan->compute_s = compute_time(p, plan);
    plan->prompt_compute_s = plan->gpu[0] ? 0.0 : prompt_compute_time(p);
    double upload_s = 0.0;
    const bool gpu_unknown = add_gpus(p, &sum, plan, &upload_s);
    plan->learned = learn(p, &sum, plan, &read_factor);
    const double storage_s = seconds(plan->read_bytes_per_token, p->profile->direct_bytes_per_s);
    const bool drive_unknown = plan->read_bytes_per_token > 0.0 && p->profile->direct_bytes_per_s <= 0.0;
    const double bound_s = fmax(plan->compute_s, fmax(storage_s, upload_s));
    plan->bound_by = storage_s > fmax(plan->compute_s, upload_s) || drive_unknown ? "storage"
                     : upload_s > plan->compute_s                                 ? "upload"
                                                                                  : "compute";
    plan->bound_tok_s = 0.0;
    plan->decode_tok_s = 0.0;
    if (bound_s > 0.0 && !drive_unknown && !gpu_unknown) {
        plan->bound_tok_s = 1.0 / bound_s;
        const double read_s = read_factor * storage_s;
        /* Uploads overlap with nothing: the GPU waits for them. */
        plan->decode_tok_s = 1.0 / (fmax(plan->compute_s, read_s) +
                                    (1.0 - plan->overlap) * fmin(plan->compute_s, read_s) + upload_s);
    }
}
