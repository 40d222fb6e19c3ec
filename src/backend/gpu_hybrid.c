/*
 * gpu_hybrid.c - experts that the GPU's memory lacks, computed by the processor from RAM
 * while the GPU computes the others; where the user asks for it (gpu_misses).
 *
 *     GPU    gate, up, GLU, down, those missing as junk | rows | weights, sum, attention, ...
 *     host   ids? gate, up, GLU, down of those missing .| rows |  some of them sent to slots
 *
 * The rows that the processor has computed are written over the junk in what the last
 * product puts out, before anything reads it. So no expert is waited for at the link, and
 * no product is computed twice. What the processor rounds it rounds in other places than
 * the GPU: bits then depend on what slots hold.
 *
 * The processor computes a chain (chain.c) with the nodes that it has without a GPU
 * (expert_rows.c), between rows in memory that both reach. A chain that ends before the last
 * product, as where each expert has a scale, one whose values somebody else reads before
 * that, or which reads rows from more than one place, is not known here: its experts are
 * uploaded, as are those for whose matrices RAM has no room; both are counted.
 *
 * What always holds:
 *  1. Rows arrive on the GPU behind the product whose junk they replace, and before what
 *     reads it.
 *  2. Host memory of rows is written to when the ids of a later layer than the one that
 *     they were sent for have arrived: they have been copied.
 *  3. All memory is taken when the instance is made.
 */
#include "backend/experts.h"
#include "backend/gpu_internal.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

#define MOST_BIASES (HYPURA_N_ROW_SETS - HYPURA_ROWS_BIASES) /* operations of a chain that add them */

struct gpu_hybrid {
    backend_instance   worker;
    uint32_t           n_missing; /* of the layer at hand */
    uint32_t           n_rows;    /* of pairs that are missing */
    uint32_t           missing[GPU_MAX_EXPERTS];
    uint32_t           slots[GPU_MAX_EXPERTS]; /* in RAM */
    expert_rows        rows[GPU_MAX_EXPERTS];
    uint32_t           members[GPU_MAX_EXPERTS];
    int32_t           *pairs; /* of all missing, by expert */
    bool              *computed; /* of each pair: by the processor */
    uint32_t           most_pairs;
    size_t             rows_bytes; /* for what lies between products */
    backend_chain      chain; /* the layer's, in the host's memory */
    struct ggml_tensor nodes[CHAIN_MAX_NODES];
    struct ggml_tensor input;
    struct ggml_tensor biases[MOST_BIASES];
};

/* ---- open and close -------------------------------------------------------------- */

static uint32_t most_pairs(const hypura_gpu *gpu)
{
    const hypura_map *map = hypura_pager_map(gpu->pager);
    hypura_vram      *vram = hypura_pager_vram(gpu->pager, gpu->index);
    uint32_t          most = 0;
    for (int b = 0; b < map->n_bundles; b++) {
        const uint32_t n = hypura_vram_has_slots(vram, b) ? hypura_vram_max_pairs(vram, b) : 0;
        most = n > most ? n : most;
    }
    return most;
}

/* Indices that rows of a group take, generously. */
static size_t indices_bytes(uint32_t n_pairs)
{
    return (size_t)n_pairs * (8 * CHAIN_MAX_NODES + 64) * sizeof(int32_t) + 64 * 1024;
}

void gpu_close_hybrid(gpu_hybrid *hybrid)
{
    if (hybrid) {
        backend_close_worker(&hybrid->worker);
        free(hybrid->pairs);
        free(hybrid->computed);
        free(hybrid);
    }
}

gpu_hybrid *gpu_open_hybrid(const hypura_gpu *gpu)
{
    const hypura_vram *vram = hypura_pager_vram(gpu->pager, gpu->index);
    gpu_hybrid        *hybrid = calloc(1, sizeof(*hybrid));
    if (!hybrid) {
        return NULL;
    }
    hybrid->most_pairs = most_pairs(gpu);
    hybrid->rows_bytes = 16 * (hypura_vram_row_floats(vram) + 64 * CHAIN_MAX_NODES) * sizeof(float);
    hybrid->pairs = calloc(hybrid->most_pairs + 1, sizeof(*hybrid->pairs));
    hybrid->computed = calloc(hybrid->most_pairs + 1, sizeof(*hybrid->computed));
    if (!backend_open_worker(&hybrid->worker) || !hybrid->pairs || !hybrid->computed ||
        !arena_reserve(&hybrid->worker.rows, hybrid->rows_bytes) ||
        !arena_reserve(&hybrid->worker.indices, indices_bytes(hybrid->most_pairs))) {
        gpu_close_hybrid(hybrid);
        return NULL;
    }
    backend_set_worker_threads(&hybrid->worker, gpu->n_threads);
    return hybrid;
}

/* ---- what the processor knows ------------------------------------------------------ */

/* Rows of biases, one for each expert, are read from the GPU when they are needed. */
static bool can_read_biases(const backend_chain *found, size_t floats)
{
    int n = 0;
    for (int i = 0; i < found->n; i++) {
        const struct ggml_tensor *node = found->nodes[i].node;
        if (node->op == GGML_OP_ADD_ID) {
            const struct ggml_tensor *biases = node->src[1];
            const int64_t             selected = found->n_used * found->n_tokens;
            const int64_t             most = biases->ne[1] < selected ? biases->ne[1] : selected;
            if (++n > MOST_BIASES || biases->type != GGML_TYPE_F32 || !ggml_is_contiguous(biases) ||
                (size_t)(biases->ne[0] * most) > floats) {
                return false;
            }
        }
    }
    return true;
}

/* The one source of all products that read from outside; NULL: there are several. */
static struct ggml_tensor *input_of(const backend_chain *chain)
{
    struct ggml_tensor *input = NULL;
    for (int i = 0; i < chain->n; i++) {
        struct ggml_tensor *source = chain->nodes[i].node->src[1];
        if (chain->nodes[i].kind == CHAIN_PRODUCT && chain->nodes[i].src[1] < 0) {
            if (input && input != source) {
                return NULL;
            }
            input = source;
        }
    }
    return input;
}

static bool is_known(const gpu_instance *instance, const gpu_walk *walk, const gpu_chain *chain, int end)
{
    const backend_chain *found = &chain->found;
    const gpu_hybrid    *hybrid = instance->hybrid;
    const uint32_t       n_pairs = (uint32_t)(found->n_used * found->n_tokens);
    if (found->n == 0 || !chain->input || n_pairs > hybrid->most_pairs) {
        return false;
    }
    for (int i = 0; i < found->n; i++) {
        const bool last = i == found->n - 1;
        if (found->nodes[i].keep != last) {
            return false;
        }
    }
    for (int i = chain->end; i < end; i++) {
        if (gpu_streamed_weight(instance, walk->graph->nodes[i])) {
            return false;
        }
    }
    const struct ggml_tensor *output = found->nodes[found->n - 1].node;
    const size_t              floats = hypura_vram_row_floats(walk->vram);
    return can_read_biases(found, floats) && ggml_is_contiguous(output) && ggml_is_contiguous(chain->input) &&
           (size_t)ggml_nelements(output) <= floats && (size_t)ggml_nelements(chain->input) <= floats &&
           (expert_rows_width(found) * (n_pairs + EXPERT_BATCH_ROWS) + 64 * CHAIN_MAX_NODES) * sizeof(float) <=
               hybrid->rows_bytes;
}

void gpu_find_chain(const gpu_walk *walk, const gpu_cut *cut, int end, gpu_chain *chain)
{
    chain->known = false;
    if (walk->instance->hybrid) {
        chain_find(walk->graph, cut->at, &chain->found);
        chain->end = cut->at + chain->found.n;
        chain->input = input_of(&chain->found);
        chain->known = is_known(walk->instance, walk, chain, end);
    }
}

void gpu_fetch_input(const gpu_walk *walk, const gpu_chain *chain, int turn)
{
    if (chain->known) {
        hypura_vram_fetch(walk->vram, chain->input, hypura_vram_rows(walk->vram, turn), ggml_nbytes(chain->input));
    }
}

/* ---- the layer at hand --------------------------------------------------------------- */

/* Pairs of the missing experts, in the order in which the kernel takes them. */
static void sort_pairs(gpu_hybrid *hybrid, const int32_t *ids, uint32_t n_pairs)
{
    uint32_t n = 0;
    memset(hybrid->computed, 0, n_pairs * sizeof(*hybrid->computed));
    for (uint32_t e = 0; e < hybrid->n_missing; e++) {
        expert_rows *rows = &hybrid->rows[e];
        *rows = (expert_rows){.expert = e, .slot = hybrid->slots[e], .first = n}; /* as biases are numbered below */
        for (uint32_t p = 0; p < n_pairs; p++) {
            if ((uint32_t)ids[p] == hybrid->missing[e]) {
                hybrid->pairs[n++] = (int32_t)p;
                hybrid->computed[p] = true;
            }
        }
        rows->n = n - rows->first;
    }
    hybrid->n_rows = n;
}

bool gpu_take_missing(const gpu_walk *walk, const gpu_chain *chain, const gpu_cut *cut, uint32_t n, const int32_t *ids)
{
    gpu_instance *instance = walk->instance;
    gpu_hybrid   *hybrid = instance->hybrid;
    hypura_pager *pager = instance->gpu->pager;
    const int     bundle = cut->weight->bundle;
    const uint32_t n_tokens = (uint32_t)cut->ids->ne[1];
    if (!hybrid) {
        return false;
    }
    hybrid->n_missing = hypura_vram_find_missing(walk->vram, bundle, instance->experts, n, hybrid->missing);
    if (hybrid->n_missing == 0) {
        return false;
    }
    if (!chain->known) {
        hypura_pager_add_not_computed(pager, HYPURA_UNKNOWN_CHAIN);
        return false;
    }
    if (!hypura_vram_lease(walk->vram, bundle, n_tokens, hybrid->missing, hybrid->n_missing, hybrid->slots)) {
        hypura_pager_add_not_computed(pager, HYPURA_NO_ROOM_IN_RAM);
        return false;
    }
    hypura_vram_pass(walk->vram, bundle, n_tokens, instance->experts, n, instance->slots);
    sort_pairs(hybrid, ids, (uint32_t)(cut->ids->ne[0] * cut->ids->ne[1]));
    return true;
}

uint32_t gpu_n_missing(const gpu_walk *walk)
{
    return walk->instance->hybrid->n_missing;
}

static void move_to_host(gpu_hybrid *hybrid, struct ggml_tensor *tensor, float *rows)
{
    tensor->buffer = hybrid->worker.host;
    tensor->data = rows;
    tensor->view_src = NULL;
    tensor->view_offs = 0;
    tensor->extra = NULL;
}

/* Those of the missing experts alone. */
static void mirror_biases(gpu_hybrid *hybrid, const gpu_walk *walk, struct ggml_tensor *node, int which)
{
    struct ggml_tensor *biases = &hybrid->biases[which];
    *biases = *node->src[1];
    hypura_vram_read_weights(walk->vram, biases, hybrid->missing, hybrid->n_missing, HYPURA_ROWS_BIASES + which);
    biases->ne[1] = hybrid->n_missing;
    biases->nb[2] = biases->nb[3] = biases->nb[1] * hybrid->n_missing;
    move_to_host(hybrid, biases, hypura_vram_rows(walk->vram, HYPURA_ROWS_BIASES + which));
    node->src[1] = biases;
}

/* The chain with what it reads and puts out in the host's memory. */
static void mirror(gpu_hybrid *hybrid, const gpu_walk *walk, const gpu_chain *chain, int turn)
{
    int n_biases = 0;
    hybrid->chain = chain->found;
    hybrid->input = *chain->input;
    move_to_host(hybrid, &hybrid->input, hypura_vram_rows(walk->vram, turn));
    for (int i = 0; i < hybrid->chain.n; i++) {
        chain_node *entry = &hybrid->chain.nodes[i];
        hybrid->nodes[i] = *entry->node;
        entry->node = &hybrid->nodes[i];
        if (entry->kind == CHAIN_PRODUCT && entry->src[1] < 0) {
            entry->node->src[1] = &hybrid->input;
        } else if (entry->node->op == GGML_OP_ADD_ID) {
            mirror_biases(hybrid, walk, entry->node, n_biases++);
        }
    }
    move_to_host(hybrid, &hybrid->nodes[hybrid->chain.n - 1], hypura_vram_rows(walk->vram, HYPURA_ROWS_COMPUTED));
}

/* All that RAM holds, or else the first one that it has asked for. */
static enum ggml_status pick_group(chain_work *work, row_group *group)
{
    uint32_t waited = UINT32_MAX;
    for (uint32_t i = 0; i < work->n_experts; i++) {
        const expert_rows *expert = &work->experts[i];
        if (expert->done) {
            continue;
        }
        if (!expert_ready(work, expert)) {
            waited = waited == UINT32_MAX ? i : waited;
        } else if (shadow_has_room(work->instance, (int)(group->n + 1) * 4 * work->chain->n + 64)) {
            group->members[group->n++] = i;
            group->n_rows += expert->n;
        }
    }
    if (group->n == 0) {
        group->members[group->n++] = waited;
        group->n_rows = work->experts[waited].n;
        if (hypura_pager_wait_expert(work->pager, work->bundle, work->experts[waited].slot, UINT32_MAX) != HYPURA_OK) {
            return GGML_STATUS_FAILED;
        }
    }
    return GGML_STATUS_SUCCESS;
}

static enum ggml_status compute_groups(chain_work *work, uint32_t *members)
{
    for (uint32_t n_done = 0; n_done < work->n_experts;) {
        row_group group = {.members = members};
        shadow_begin(work->instance);
        enum ggml_status status = pick_group(work, &group);
        if (status == GGML_STATUS_SUCCESS) {
            status = expert_rows_begin(work, false) ? expert_rows_run(work, &group) : GGML_STATUS_ALLOC_FAILED;
        }
        if (status != GGML_STATUS_SUCCESS) {
            return status;
        }
        for (uint32_t i = 0; i < group.n; i++) {
            work->experts[members[i]].done = true;
        }
        n_done += group.n;
    }
    return GGML_STATUS_SUCCESS;
}

/* Runs of rows that follow each other, in one copy each. */
static void send_rows(const gpu_walk *walk, const gpu_hybrid *hybrid, struct ggml_tensor *output, uint32_t n_pairs)
{
    hypura_vram_begin_rows(walk->vram);
    for (uint32_t p = 0; p < n_pairs;) {
        uint32_t n = 0;
        while (p + n < n_pairs && hybrid->computed[p + n]) {
            n++;
        }
        if (n > 0) {
            hypura_vram_send_rows(walk->vram, output, p, n);
        }
        p += n > 0 ? n : 1;
    }
    hypura_vram_rows_sent(walk->vram);
}

enum ggml_status gpu_compute_missing(const gpu_walk *walk, const gpu_chain *chain, const gpu_cut *cut, int turn)
{
    gpu_instance  *instance = walk->instance;
    gpu_hybrid    *hybrid = instance->hybrid;
    const uint64_t begin_us = hypura_clock_us();
    const uint32_t n_pairs = (uint32_t)(cut->ids->ne[0] * cut->ids->ne[1]);
    mirror(hybrid, walk, chain, turn);
    chain_work work = {.instance = &hybrid->worker,
                       .chain = &hybrid->chain,
                       .pager = instance->gpu->pager,
                       .bundle = cut->weight->bundle,
                       .n_pairs = n_pairs,
                       .n_experts = hybrid->n_missing,
                       .experts = hybrid->rows,
                       .pairs = hybrid->pairs,
                       .group_rows = n_pairs,
                       .scattered = true};
    hybrid->worker.graph.use_counts = walk->graph->use_counts;
    hybrid->worker.graph.visited_hash_set = walk->graph->visited_hash_set;
    const enum ggml_status status = compute_groups(&work, hybrid->members);
    if (status == GGML_STATUS_SUCCESS) {
        send_rows(walk, hybrid, chain->found.nodes[chain->found.n - 1].node, n_pairs);
        instance->cut_us = hypura_clock_us();
        hypura_pager_add_computed(work.pager, hybrid->n_rows, instance->cut_us - begin_us);
        gpu_done(walk, HYPURA_GPU_COMPUTE, cut, begin_us);
    }
    return status;
}

enum ggml_status gpu_send_missing(const gpu_walk *walk, const gpu_cut *cut)
{
    const gpu_hybrid *hybrid = walk->instance->hybrid;
    return hypura_vram_send_beside(walk->vram, cut->weight->bundle, hybrid->missing, hybrid->n_missing) == HYPURA_OK
               ? GGML_STATUS_SUCCESS
               : GGML_STATUS_FAILED;
}
