/*
 * gpu_executor.c - hands a graph to the instance of the GPU's backend that ours wraps,
 * cut before the first product of each selection of streamed experts:
 *
 *     ... attention, router, ids | gate, up, down ... attention, router, ids | gate ...
 *                                ^ ids read back, experts made present       ^ again
 *
 * A piece is a view of libllama's graph, so use counts and with them the fusions of
 * the GPU's backend stay. The products' sources are exchanged in libllama's own
 * nodes while this call lasts, and put back before it returns:
 *
 *     few tokens    src[0] = slots, src[2] = ids of slots, one tensor for a layer
 *     a batch       src[0] = a stage with the experts at their own index, ids as they are
 *
 * The ids of a batch that selects nearly every expert need not be known, and nothing
 * waits for the GPU: stages take turns, so that one is filled while the piece before
 * computes with the other. Ids are never overwritten in place: biases read them too.
 *
 * While the ids are on their way the GPU has nothing to do, so what follows has to
 * reach it soon: on Vulkan, where recording a layer takes as long as computing it, the
 * first products are handed over before the rest is recorded. A graph is cut before a
 * product alone: no backend fuses a product with what comes before it.
 *
 * What always holds: between enter and leave this instance alone of those over its GPU has
 * work queued.
 */
#include "backend/gpu_internal.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

/* A batch with this many pairs for each expert takes all of them: 1 in 400 would not
 * be selected if routing were even, and not asking keeps the GPU busy. */
#define ALL_PAIRS_PER_EXPERT 6

/* ---- cuts ------------------------------------------------------------------------ */

const backend_weight *gpu_streamed_weight(const gpu_instance *instance, const struct ggml_tensor *node)
{
    if (node->op != GGML_OP_MUL_MAT_ID || (node->flags & GGML_TENSOR_FLAG_COMPUTE) == 0 || !node->src[0]->buffer ||
        node->src[0]->buffer->buft != &instance->gpu->experts) {
        return NULL;
    }
    return node->src[0]->extra;
}

gpu_cut gpu_next_cut(const gpu_instance *instance, const struct ggml_cgraph *graph, int from, const gpu_cut *last)
{
    for (int i = from; i < graph->n_nodes; i++) {
        const backend_weight *weight = gpu_streamed_weight(instance, graph->nodes[i]);
        if (weight &&
            (!last || graph->nodes[i]->src[2] != last->ids || weight->bundle != last->weight->bundle)) {
            return (gpu_cut){.at = i, .weight = weight, .ids = graph->nodes[i]->src[2]};
        }
    }
    return (gpu_cut){.at = graph->n_nodes};
}

static enum ggml_status swap(gpu_instance *instance, struct ggml_tensor *node, struct ggml_tensor *weights,
                             struct ggml_tensor *ids)
{
    if (instance->n_swapped == instance->max_swapped) {
        const int     more = instance->max_swapped > 0 ? 2 * instance->max_swapped : 256;
        swapped_node *nodes = realloc(instance->swapped, (size_t)more * sizeof(*nodes));
        if (!nodes) {
            return GGML_STATUS_ALLOC_FAILED;
        }
        instance->swapped = nodes;
        instance->max_swapped = more;
    }
    instance->swapped[instance->n_swapped++] =
        (swapped_node){.node = node, .weights = node->src[0], .ids = node->src[2]};
    node->src[0] = weights;
    node->src[2] = ids;
    return GGML_STATUS_SUCCESS;
}

void gpu_swap_back(gpu_instance *instance)
{
    for (int i = 0; i < instance->n_swapped; i++) {
        instance->swapped[i].node->src[0] = instance->swapped[i].weights;
        instance->swapped[i].node->src[2] = instance->swapped[i].ids;
    }
    instance->n_swapped = 0;
}

enum ggml_status gpu_swap_products(const gpu_walk *walk, const gpu_cut *cut, int end, struct ggml_tensor *ids, int set)
{
    for (int i = cut->at; i < end; i++) {
        struct ggml_tensor   *node = walk->graph->nodes[i];
        const backend_weight *weight = gpu_streamed_weight(walk->instance, node);
        if (!weight) {
            continue;
        }
        struct ggml_tensor *weights = set < 0 ? hypura_vram_slots(walk->vram, weight->bundle, weight->matrix)
                                              : hypura_vram_stage(walk->vram, weight->bundle, weight->matrix, set);
        const enum ggml_status status = swap(walk->instance, node, weights, ids ? ids : node->src[2]);
        if (status != GGML_STATUS_SUCCESS) {
            return status;
        }
    }
    return GGML_STATUS_SUCCESS;
}

uint64_t gpu_begin(const gpu_walk *walk)
{
    return walk->instance->gpu->watch ? hypura_clock_us() : 0;
}

void gpu_done(const gpu_walk *walk, hypura_gpu_work work, const gpu_cut *cut, uint64_t begin_us)
{
    const hypura_gpu *gpu = walk->instance->gpu;
    if (gpu->watch) {
        const int layer = hypura_pager_map(gpu->pager)->bundles[cut->weight->bundle].layer;
        gpu->watch(gpu->watch_user, work, layer, begin_us, hypura_clock_us());
    }
}

/* ---- selections --------------------------------------------------------------------- */

/* chain: NULL, or its rows come with the ids. */
static enum ggml_status read_ids(const gpu_walk *walk, const gpu_cut *cut, const gpu_chain *chain)
{
    gpu_instance *instance = walk->instance;
    const size_t  n_used = (size_t)cut->ids->ne[0];
    const size_t  n_tokens = (size_t)cut->ids->ne[1];
    const size_t  row_bytes = n_used * sizeof(int32_t);
    int32_t      *values = instance->ids;
    if (n_used * n_tokens <= hypura_vram_max_pairs(walk->vram, cut->weight->bundle)) {
        values = hypura_vram_id_values(walk->vram, cut->weight->bundle); /* where the driver writes at once */
    } else if (n_used * n_tokens > instance->max_ids) {
        values = realloc(instance->ids, row_bytes * n_tokens);
        if (!values) {
            return GGML_STATUS_ALLOC_FAILED;
        }
        instance->ids = values;
        instance->max_ids = n_used * n_tokens;
    }
    const uint64_t begin_us = hypura_clock_us();
    if (chain && chain->known) {
        hypura_vram_begin_fetch(walk->vram);
        gpu_fetch_input(walk, chain, 0);
    }
    if (n_tokens == 1) {
        ggml_backend_tensor_get_async(instance->inner, cut->ids, values, 0, row_bytes);
    } else {
        ggml_backend_tensor_get_2d_async(instance->inner, cut->ids, values, 0, row_bytes, n_tokens, cut->ids->nb[1],
                                         row_bytes);
    }
    if (chain && chain->known) {
        hypura_vram_fetched(walk->vram);
    }
    ggml_backend_synchronize(instance->inner);
    instance->cut_us = hypura_clock_us();
    hypura_vram_settled(walk->vram);
    memset(instance->stage_used, 0, sizeof(instance->stage_used));
    hypura_pager_add_readback(instance->gpu->pager, instance->cut_us - begin_us);
    return hypura_vram_keep_all(walk->vram) == HYPURA_OK ? GGML_STATUS_SUCCESS : GGML_STATUS_FAILED;
}

int gpu_find_distinct(gpu_instance *instance, const int32_t *values, size_t n, uint32_t n_experts)
{
    int n_distinct = 0;
    memset(instance->slot_of, 0, n_experts * sizeof(*instance->slot_of));
    for (size_t i = 0; i < n; i++) {
        if (values[i] < 0 || (uint32_t)values[i] >= n_experts) {
            GGML_LOG_ERROR("hypura: expert id %d of %u\n", values[i], n_experts);
            return -1;
        }
        if (!instance->slot_of[values[i]]) {
            instance->slot_of[values[i]] = 1;
            instance->experts[n_distinct++] = (uint32_t)values[i];
        }
    }
    return n_distinct;
}

/* One that none of a layer's experts lies in, of which some are missing: there are as many slots as it selects. What is
 * missing is read from it, in vain; in a slot that others read, kernels for many rows of an expert would take these. */
static uint32_t idle_slot(const uint32_t *slots, int n)
{
    uint32_t slot = 0;
    for (int i = 0; i < n;) {
        const bool taken = slots[i] == slot;
        slot += taken;
        i = taken ? 0 : i + 1;
    }
    return slot;
}

/* *computes: the processor will compute what slots lack. */
static enum ggml_status through_slots(const gpu_walk *walk, const gpu_cut *cut, int end, const gpu_chain *chain,
                                      bool *computes)
{
    gpu_instance       *instance = walk->instance;
    const int           bundle = cut->weight->bundle;
    const hypura_bundle *shape = &hypura_pager_map(instance->gpu->pager)->bundles[bundle];
    int32_t            *values = hypura_vram_id_values(walk->vram, bundle);
    const size_t        n = (size_t)(cut->ids->ne[0] * cut->ids->ne[1]);
    uint32_t            n_missing;
    if (instance->gpu->select) {
        instance->gpu->select(instance->gpu->select_user, shape->layer, values, (uint32_t)cut->ids->ne[0],
                              (uint32_t)cut->ids->ne[1]);
    }
    const int n_distinct = gpu_find_distinct(instance, values, n, (uint32_t)shape->n_experts);
    hypura_vram_settle_beside(walk->vram, bundle);
    *computes = n_distinct >= 0 && gpu_take_missing(walk, chain, cut, (uint32_t)n_distinct, values);
    if (n_distinct < 0 ||
        (!*computes && hypura_vram_load(walk->vram, bundle, (uint32_t)cut->ids->ne[1], instance->experts,
                                        (uint32_t)n_distinct, instance->slots, &n_missing) != HYPURA_OK)) {
        return GGML_STATUS_FAILED;
    }
    gpu_note_selection(walk, cut, values);
    const uint32_t idle = *computes ? idle_slot(instance->slots, n_distinct) : 0;
    for (int i = 0; i < n_distinct; i++) {
        instance->slot_of[instance->experts[i]] = instance->slots[i] == UINT32_MAX ? idle : instance->slots[i];
    }
    for (size_t i = 0; i < n; i++) {
        values[i] = (int32_t)instance->slot_of[values[i]];
    }
    struct ggml_tensor *ids = hypura_vram_send_ids(walk->vram, bundle, cut->ids->ne[0], cut->ids->ne[1]);
    return gpu_swap_products(walk, cut, end, ids, -1);
}

/* A stage whose last user has been computed. */
static enum ggml_status free_stage(const gpu_walk *walk, int *set)
{
    gpu_instance *instance = walk->instance;
    *set = instance->next_stage;
    instance->next_stage = (*set + 1) % hypura_vram_n_stages(walk->vram);
    if (instance->stage_used[*set]) {
        if (instance->stage_done[*set]) {
            ggml_backend_event_synchronize(instance->stage_done[*set]);
            hypura_vram_stage_settled(walk->vram, *set);
        } else {
            ggml_backend_synchronize(instance->inner);
            hypura_vram_settled(walk->vram);
        }
    }
    instance->stage_used[*set] = true;
    return hypura_vram_keep(walk->vram, *set) == HYPURA_OK ? GGML_STATUS_SUCCESS : GGML_STATUS_FAILED;
}

/* values: the ids where they have been read; NULL: they are on the device alone. */
static void note_batch(const gpu_walk *walk, const gpu_cut *cut, int set, const int32_t *values)
{
    const hypura_gpu *gpu = walk->instance->gpu;
    const int         bundle = cut->weight->bundle;
    const uint32_t    n_used = (uint32_t)cut->ids->ne[0];
    const uint32_t    n_tokens = (uint32_t)cut->ids->ne[1];
    if (!values && !gpu->select) {
        hypura_vram_note_batch(walk->vram, bundle, set, cut->ids);
        return;
    }
    int32_t *given = hypura_vram_give_batch(walk->vram, bundle, set, n_used, n_tokens);
    if (given && values) {
        memcpy(given, values, (size_t)n_used * n_tokens * sizeof(*given));
    } else if (given) {
        gpu->select(gpu->select_user, hypura_pager_map(gpu->pager)->bundles[bundle].layer, given, n_used, n_tokens);
    }
}

/* Measurements: ids that were read give way to others, on the device as well, where biases then read those too. */
static void give_batch_ids(const gpu_walk *walk, const gpu_cut *cut, int32_t *values)
{
    const hypura_gpu *gpu = walk->instance->gpu;
    const int         layer = hypura_pager_map(gpu->pager)->bundles[cut->weight->bundle].layer;
    const uint32_t    n_used = (uint32_t)cut->ids->ne[0];
    if (!gpu->select) {
        return;
    }
    gpu->select(gpu->select_user, layer, values, n_used, (uint32_t)cut->ids->ne[1]);
    for (int64_t t = 0; t < cut->ids->ne[1]; t++) {
        ggml_backend_tensor_set(cut->ids, values + (size_t)t * n_used, (size_t)t * cut->ids->nb[1], n_used * sizeof(*values));
    }
}

static enum ggml_status through_stage(const gpu_walk *walk, const gpu_cut *cut, int end, int *set)
{
    gpu_instance  *instance = walk->instance;
    const int      bundle = cut->weight->bundle;
    const uint32_t n_experts = (uint32_t)hypura_pager_map(instance->gpu->pager)->bundles[bundle].n_experts;
    const size_t   n = (size_t)(cut->ids->ne[0] * cut->ids->ne[1]);
    const int32_t *values = NULL;
    int            n_distinct = (int)n_experts;
    enum ggml_status status;
    if (n < (size_t)ALL_PAIRS_PER_EXPERT * n_experts) {
        status = read_ids(walk, cut, NULL);
        if (status != GGML_STATUS_SUCCESS) {
            return status;
        }
        const bool few = n <= hypura_vram_max_pairs(walk->vram, bundle);
        int32_t   *read = few ? hypura_vram_id_values(walk->vram, bundle) : instance->ids;
        give_batch_ids(walk, cut, read);
        n_distinct = gpu_find_distinct(instance, read, n, n_experts);
        values = read;
    } else {
        for (uint32_t e = 0; e < n_experts; e++) {
            instance->experts[e] = e;
        }
    }
    status = free_stage(walk, set);
    if (status != GGML_STATUS_SUCCESS) {
        return status;
    }
    if (n_distinct < 0 || hypura_vram_fill_stage(walk->vram, bundle, *set, instance->experts, (uint32_t)n_distinct) !=
                              HYPURA_OK) {
        return GGML_STATUS_FAILED;
    }
    note_batch(walk, cut, *set, values);
    return gpu_swap_products(walk, cut, end, NULL, *set);
}

/* ---- graphs --------------------------------------------------------------------------- */

enum ggml_status gpu_run(const gpu_walk *walk, struct ggml_tensor *lead, int first, int last, uint64_t uid)
{
    if (first >= last) {
        return GGML_STATUS_SUCCESS;
    }
    struct ggml_cgraph piece = ggml_graph_view(walk->graph, first, last);
    gpu_pieces        *pieces = &walk->instance->pieces;
    const int          n_reports = pieces->reported_at == last ? pieces->n_reports : 0;
    piece.uid = uid;
    if (lead || n_reports > 0) {
        struct ggml_tensor **nodes = pieces->nodes;
        int                  n = 0;
        if (lead) {
            nodes[n++] = lead;
        }
        memcpy(nodes + n, piece.nodes, (size_t)piece.n_nodes * sizeof(*nodes));
        n += piece.n_nodes;
        memcpy(nodes + n, pieces->reports, (size_t)n_reports * sizeof(*nodes));
        piece.nodes = nodes;
        piece.n_nodes = n + n_reports;
    }
    const enum ggml_status status = ggml_backend_graph_compute_async(walk->instance->inner, &piece);
    if (walk->instance->cut_us) {
        hypura_pager_add_submit(walk->instance->gpu->pager, hypura_clock_us() - walk->instance->cut_us);
        walk->instance->cut_us = 0;
    }
    return status;
}

/* ggml-vulkan hands work over in portions of the work of the graph before. After a graph
 * of no work it records a piece whole, which is a tenth of the calls into the driver. */
void gpu_forget_portions(const gpu_walk *walk)
{
    if (walk->instance->gpu->records_late) {
        struct ggml_cgraph none = ggml_graph_view(walk->graph, 0, 0);
        (void)ggml_backend_graph_compute_async(walk->instance->inner, &none);
    }
}

/* Nodes [at, end): the last product of a selection comes after operations on the ones
 * before, and begins a piece of its own. */
static int second_piece(const gpu_walk *walk, int at, int end)
{
    int last = end;
    for (int i = at; i < end && walk->instance->gpu->records_late; i++) {
        last = walk->graph->nodes[i]->op == GGML_OP_MUL_MAT_ID ? i : last;
    }
    return last < end && last > at + 1 && walk->graph->nodes[last - 1]->op != GGML_OP_MUL_MAT_ID ? last : end;
}

enum ggml_status gpu_run_cut(const gpu_walk *walk, struct ggml_tensor *lead, int first, int last, uint64_t uid,
                             bool one_token)
{
    const int middle = one_token ? second_piece(walk, first, last) : last;
    if (one_token) {
        gpu_forget_portions(walk);
    }
    enum ggml_status status = gpu_run(walk, lead, first, middle, middle == last ? uid : 0);
    if (status == GGML_STATUS_SUCCESS && middle < last) {
        gpu_forget_portions(walk);
        status = gpu_run(walk, NULL, middle, last, 0);
    }
    return status;
}

/* The chain with junk in place of what slots lack, which the processor computes; then the rest. */
static enum ggml_status run_with_computed(const gpu_walk *walk, const gpu_cut *cut, int end, const gpu_chain *chain)
{
    enum ggml_status status = gpu_run(walk, NULL, cut->at, chain->end, 0);
    if (status == GGML_STATUS_SUCCESS) {
        status = gpu_compute_missing(walk, chain, cut, 0);
    }
    if (status == GGML_STATUS_SUCCESS) {
        status = gpu_run(walk, NULL, chain->end, end, 0);
    }
    return status == GGML_STATUS_SUCCESS ? gpu_send_missing(walk, cut) : status;
}

enum ggml_status gpu_walk_graph(void *user)
{
    const gpu_walk *walk = user;
    gpu_instance   *instance = walk->instance;
    gpu_cut         cut = gpu_next_cut(instance, walk->graph, 0, NULL);
    instance->pieces.n_reports = 0; /* left by a graph that failed */
    hypura_vram_begin(walk->vram, instance->inner);
    hypura_pager_begin_layer(instance->gpu->pager, cut.weight->bundle, (uint32_t)cut.ids->ne[1]);
    if (gpu_runs_ahead(walk)) {
        return gpu_walk_ahead(walk);
    }
    enum ggml_status status = gpu_run(walk, NULL, 0, cut.at, 0);
    while (cut.at < walk->graph->n_nodes && status == GGML_STATUS_SUCCESS) {
        const gpu_cut next = gpu_next_cut(instance, walk->graph, cut.at + 1, &cut);
        const int64_t n_pairs = cut.ids->ne[0] * cut.ids->ne[1];
        int           set = -1;
        gpu_chain     chain;
        bool          computes = false;
        uint64_t      begin_us = gpu_begin(walk);
        if (n_pairs <= (int64_t)hypura_vram_max_pairs(walk->vram, cut.weight->bundle)) {
            gpu_find_chain(walk, &cut, next.at, &chain);
            status = read_ids(walk, &cut, &chain);
            gpu_done(walk, HYPURA_GPU_WAIT, &cut, begin_us);
            begin_us = gpu_begin(walk);
            status = status == GGML_STATUS_SUCCESS ? through_slots(walk, &cut, next.at, &chain, &computes) : status;
        } else {
            status = through_stage(walk, &cut, next.at, &set);
        }
        gpu_done(walk, HYPURA_GPU_PRESENT, &cut, begin_us);
        begin_us = gpu_begin(walk);
        if (status == GGML_STATUS_SUCCESS && computes) {
            status = run_with_computed(walk, &cut, next.at, &chain);
        } else if (status == GGML_STATUS_SUCCESS) {
            status = gpu_run_cut(walk, NULL, cut.at, next.at, 0, set < 0);
        }
        gpu_done(walk, HYPURA_GPU_HAND_OVER, &cut, begin_us);
        if (set >= 0 && instance->stage_done[set] && status == GGML_STATUS_SUCCESS) {
            ggml_backend_event_record(instance->stage_done[set], instance->inner);
        }
        cut = next;
    }
    return status;
}
