/*
 * expert_rows.c - computes the rows of a group of experts. No state of its own.
 *
 * The rows of the group's pairs are gathered from the sources outside the chain, taken
 * through nodes that are libllama's own but for their rows and weights, and scattered
 * to where libllama keeps the results that are read later.
 *
 * Two forms of a product: one node over all slots with rewritten ids, whose scratch
 * memory grows with slots x rows; or, where that would be large, one node for each
 * expert with a single matrix. Where several rows of an expert pay (expert_batch.c) its
 * node is a product of two matrices; it may write rows beyond its own, which the next
 * expert's node, or nobody, fills. All give the same bits as the node they stand for.
 *
 * Where an expert is still being read, waiting for it is a node too: what does not need
 * it is computed before, and all threads of the team wait in it. When a read fails the
 * graph ends there.
 *
 * Libllama may give a source's memory to a result of the chain once the source's
 * last node in order has run. Groups go through that order again and again, so such
 * a source is copied first.
 */
#include "backend/experts.h"

#include "base/clock.h"

#include <string.h>

#define LARGE_BYTES (8u << 20) /* a matrix that is worth computing with while the next is read */

/* ---- weights as the kernels see them ---------------------------------------- */

/* Slots [first, first + n) of a matrix as one expert tensor. */
struct ggml_tensor *expert_weights(const chain_work *work, const chain_node *product, uint32_t first, uint32_t n)
{
    const hypura_slots  slots = hypura_pager_slots(work->pager, work->bundle, product->matrix);
    struct ggml_tensor *weights = shadow_copy(work->instance, product->node->src[0]);
    weights->data = (char *)(uintptr_t)hypura_pager_expert_data(work->pager, work->bundle, first, product->matrix);
    weights->ne[2] = n;
    weights->nb[2] = slots.stride_bytes;
    weights->nb[3] = slots.stride_bytes * n;
    weights->op = GGML_OP_NONE;
    backend_set_form(weights, work->pager, hypura_pager_map(work->pager)->bundles[work->bundle].tensors[product->matrix]);
    return weights;
}

void expert_slot_range(const chain_work *work, const uint32_t *members, uint32_t n, uint32_t *first, uint32_t *count)
{
    uint32_t low = UINT32_MAX;
    uint32_t high = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t slot = work->experts[members ? members[i] : i].slot;
        low = slot < low ? slot : low;
        high = slot > high ? slot : high;
    }
    *first = low;
    *count = high - low + 1;
}

/* ---- the rows of a group -------------------------------------------------------- */

/* Results of a group: one token with a row for each pair, or as many tokens as
 * rows. The first form needs no gathering while decoding, where all pairs read
 * the same row. */
static struct ggml_tensor *group_tensor(const chain_work *work, const row_group *group, enum ggml_type type,
                                        int64_t width, void *data)
{
    const bool one_token = work->chain->n_tokens == 1;
    const int64_t rows = group->n_rows;
    if (type == GGML_TYPE_I32) {
        return shadow_tensor(work->instance, type, one_token ? rows : 1, one_token ? 1 : rows, 1, data);
    }
    return shadow_tensor(work->instance, type, width, one_token ? rows : 1, one_token ? 1 : rows, data);
}

static struct ggml_tensor *new_rows(const chain_work *work, const row_group *group, int64_t width)
{
    const size_t n_rows = group->n_rows + EXPERT_BATCH_ROWS - 1;
    void *data = arena_take(&work->instance->rows, (size_t)width * n_rows * sizeof(float));
    return data ? group_tensor(work, group, GGML_TYPE_F32, width, data) : NULL;
}

/* The rows of a source outside the chain that belong to the group's pairs. */
static struct ggml_tensor *gather(chain_work *work, row_group *group, struct ggml_tensor *source)
{
    backend_instance *instance = work->instance;
    const uint32_t    n_used = (uint32_t)work->chain->n_used;
    for (int i = 0; i < work->n_copies; i++) {
        source = work->originals[i] == source ? &work->copies[i] : source;
    }
    if (work->chain->n_tokens == 1 && source->ne[1] == 1) {
        return source;
    }
    for (int i = 0; i < group->n_sources; i++) {
        if (group->sources[i] == source) {
            return group->gathered[i];
        }
    }
    struct ggml_tensor *rows = new_rows(work, group, source->ne[0]);
    int32_t            *numbers = arena_take(&instance->indices, group->n_rows * sizeof(*numbers));
    if (!rows || !numbers) {
        return NULL;
    }
    const uint32_t per_token = (uint32_t)source->ne[1];
    if (source->nb[2] == source->nb[1] * per_token) {
        for (uint32_t r = 0; r < group->n_rows; r++) {
            const uint32_t pair = (uint32_t)group->pairs[r];
            numbers[r] = (int32_t)(pair / n_used * per_token + pair % n_used % per_token);
        }
        struct ggml_tensor *table = shadow_copy(instance, source);
        table->op = GGML_OP_NONE;
        table->ne[1] = source->ne[1] * source->ne[2];
        table->ne[2] = 1;
        table->nb[2] = table->nb[3] = source->nb[1] * (size_t)table->ne[1];
        struct ggml_tensor *node = shadow_tensor(instance, GGML_TYPE_F32, source->ne[0], group->n_rows, 1, rows->data);
        node->op = GGML_OP_GET_ROWS;
        node->src[0] = table;
        node->src[1] = shadow_tensor(instance, GGML_TYPE_I32, group->n_rows, 1, 1, numbers);
        shadow_add(instance, node);
    } else {
        for (uint32_t r = 0; r < group->n_rows; r++) {
            const uint32_t pair = (uint32_t)group->pairs[r];
            memcpy((char *)rows->data + r * rows->nb[0] * (size_t)source->ne[0],
                   (const char *)source->data + pair / n_used * source->nb[2] + pair % n_used % per_token * source->nb[1],
                   sizeof(float) * (size_t)source->ne[0]);
        }
    }
    group->sources[group->n_sources] = source;
    group->gathered[group->n_sources++] = rows;
    return rows;
}

/* Libllama's node, cut to the group's rows. */
static struct ggml_tensor *cut_node(const chain_work *work, const struct ggml_tensor *node,
                                    const struct ggml_tensor *rows)
{
    struct ggml_tensor *copy = shadow_copy(work->instance, node);
    copy->data = rows->data;
    memcpy(copy->ne, rows->ne, sizeof(copy->ne));
    memcpy(copy->nb, rows->nb, sizeof(copy->nb));
    return copy;
}

static struct ggml_tensor *rows_part(backend_instance *instance, const struct ggml_tensor *rows, uint32_t first,
                                     uint32_t n)
{
    /* rows follow one another whichever form the group has */
    const size_t stride = rows->ne[1] == 1 ? rows->nb[2] : rows->nb[1];
    const bool   shared = rows->ne[1] * rows->ne[2] == 1; /* one row that every pair reads */
    struct ggml_tensor *part =
        shadow_tensor(instance, GGML_TYPE_F32, rows->ne[0], 1, n, (char *)rows->data + (shared ? 0 : first * stride));
    part->nb[1] = part->nb[2] = stride;
    part->nb[3] = stride * n;
    return part;
}

static bool add_product(chain_work *work, row_group *group, int index, struct ggml_tensor *source,
                        struct ggml_tensor *result)
{
    backend_instance *instance = work->instance;
    const chain_node *product = &work->chain->nodes[index];
    if (group->slot_ids) {
        uint32_t first_slot, n_slots;
        expert_slot_range(work, group->members, group->n, &first_slot, &n_slots);
        struct ggml_tensor *copy = cut_node(work, product->node, result);
        copy->src[0] = expert_weights(work, product, first_slot, n_slots);
        copy->src[1] = source;
        copy->src[2] = group->slot_ids;
        shadow_add(instance, copy);
        return true;
    }
    uint32_t row = 0;
    for (uint32_t i = 0; i < group->n; i++) {
        const expert_rows  *expert = &work->experts[group->members[i]];
        const uint32_t      n_together = expert_batch_size(work, index, expert->n);
        if (n_together > 0) {
            struct ggml_tensor *copy = cut_node(work, product->node, expert_batch_rows(instance, result, row, n_together));
            expert_batch_product(copy, expert_weights(work, product, expert->slot, 1),
                                 expert_batch_rows(instance, source, row, n_together));
            shadow_add(instance, copy);
            row += expert->n;
            continue;
        }
        int32_t            *zeros = arena_take(&instance->indices, expert->n * sizeof(*zeros));
        if (!zeros) {
            return false;
        }
        memset(zeros, 0, expert->n * sizeof(*zeros));
        struct ggml_tensor *part = rows_part(instance, result, row, expert->n);
        struct ggml_tensor *copy = cut_node(work, product->node, part);
        copy->src[0] = expert_weights(work, product, expert->slot, 1);
        copy->src[1] = rows_part(instance, source, row, expert->n);
        copy->src[2] = shadow_tensor(instance, GGML_TYPE_I32, 1, expert->n, 1, zeros);
        shadow_add(instance, copy);
        row += expert->n;
    }
    return true;
}

static struct ggml_tensor *cut_view(chain_work *work, const chain_node *entry, const struct ggml_tensor *parent_rows)
{
    const struct ggml_tensor *parent = entry->node->src[0];
    struct ggml_tensor       *view = shadow_copy(work->instance, parent_rows);
    view->op = GGML_OP_NONE;
    view->ne[0] = entry->node->ne[0];
    view->data = (char *)parent_rows->data + ((const char *)entry->node->data - (const char *)parent->data);
    return view;
}

/* Writes the group's rows to where libllama's node keeps them. */
static bool scatter(chain_work *work, row_group *group, const struct ggml_tensor *node, struct ggml_tensor *rows)
{
    backend_instance   *instance = work->instance;
    struct ggml_tensor *target = shadow_copy(instance, node);
    int32_t            *numbers = arena_take(&instance->indices, group->n_rows * sizeof(*numbers));
    if (!numbers || node->nb[2] != node->nb[1] * (size_t)node->ne[1]) {
        return false;
    }
    memcpy(numbers, group->pairs, group->n_rows * sizeof(*numbers));
    target->op = GGML_OP_NONE;
    target->ne[1] = node->ne[1] * node->ne[2];
    target->ne[2] = 1;
    target->nb[2] = target->nb[3] = node->nb[1] * (size_t)target->ne[1];
    struct ggml_tensor *flat = shadow_tensor(instance, GGML_TYPE_F32, rows->ne[0], group->n_rows, 1, rows->data);
    struct ggml_tensor *put = shadow_copy(instance, target);
    put->op = GGML_OP_SET_ROWS;
    memset(put->op_params, 0, sizeof(put->op_params));
    memset(put->src, 0, sizeof(put->src));
    put->src[0] = flat;
    put->src[1] = shadow_tensor(instance, GGML_TYPE_I32, group->n_rows, 1, 1, numbers);
    put->src[2] = target;
    shadow_add(instance, put);
    return true;
}

/* Each of the team's threads. They all wait here, so that what ends the wait wakes them at
 * once: one that waited before the graph would then have to wake the others. */
static void wait_for_matrices(struct ggml_tensor *node, int thread, int n_threads, void *user)
{
    (void)node;
    (void)n_threads;
    expert_wait      *wait = user;
    const chain_work *work = wait->work;
    if (thread > 0) {
        hypura_pager_follow_wait(work->pager, work->bundle, wait->slot, wait->matrices);
        return;
    }
    const uint64_t begin_us = hypura_clock_us();
    wait->status = hypura_pager_wait_expert(work->pager, work->bundle, wait->slot, wait->matrices);
    wait->waited_us = hypura_clock_us() - begin_us;
    work->instance->read_failed = wait->status != HYPURA_OK;
}

/* What does not need the matrix is computed while it is read. */
static void await_matrix(chain_work *work, row_group *group, int matrix)
{
    const uint32_t       slot = work->experts[group->members[0]].slot;
    const hypura_map    *map = hypura_pager_map(work->pager);
    const hypura_tensor *tensor = &map->tensors[map->bundles[work->bundle].tensors[matrix]];
    const uint32_t       bit = experts_single_groups || tensor->expert_bytes >= LARGE_BYTES ? 1u << matrix : UINT32_MAX;
    if (!group->waits || (group->awaited & bit) == bit ||
        hypura_pager_expert_ready(work->pager, work->bundle, slot, bit)) {
        return;
    }
    group->awaited |= bit;
    expert_wait *wait = &group->wait[group->n_waits++];
    *wait = (expert_wait){.work = work, .slot = slot, .matrices = bit};
    const struct ggml_custom_op_params params = {.fun = wait_for_matrices, .n_tasks = GGML_N_TASKS_MAX, .userdata = wait};
    struct ggml_tensor *node = shadow_tensor(work->instance, GGML_TYPE_I32, 1, 1, 1, wait);
    node->op = GGML_OP_CUSTOM;
    memcpy(node->op_params, &params, sizeof(params));
    shadow_add(work->instance, node);
}

static enum ggml_status run_rows(chain_work *work, const row_group *group)
{
    enum ggml_status status = shadow_run(work->instance);
    for (int i = 0; i < group->n_waits; i++) {
        work->instance->compute_us -= group->wait[i].waited_us;
        status = group->wait[i].status == HYPURA_OK ? status : GGML_STATUS_FAILED;
    }
    return status;
}

static bool add_node(chain_work *work, row_group *group, int index)
{
    const chain_node *entry = &work->chain->nodes[index];
    if (entry->kind == CHAIN_VIEW) {
        group->compact[index] = cut_view(work, entry, group->compact[entry->src[0]]);
        return true;
    }
    struct ggml_tensor *result = new_rows(work, group, entry->node->ne[0]);
    if (!result) {
        return false;
    }
    group->compact[index] = result;
    if (entry->kind == CHAIN_ADAPTER) {
        struct ggml_tensor *source =
            entry->src[1] >= 0 ? group->compact[entry->src[1]] : gather(work, group, entry->node->src[1]);
        struct ggml_tensor *copy = cut_node(work, entry->node, result);
        copy->src[1] = source;
        copy->src[2] = group->expert_ids;
        shadow_add(work->instance, copy);
        return source != NULL;
    }
    if (entry->kind == CHAIN_PRODUCT) {
        struct ggml_tensor *source =
            entry->src[1] >= 0 ? group->compact[entry->src[1]] : gather(work, group, entry->node->src[1]);
        return source && add_product(work, group, index, source, result);
    }
    struct ggml_tensor *copy = cut_node(work, entry->node, result);
    copy->src[0] = group->compact[entry->src[0]];
    if (copy->op == GGML_OP_ADD_ID) {
        copy->src[2] = group->expert_ids;
    } else if (copy->src[1]) {
        copy->src[1] = group->compact[entry->src[1]];
    }
    shadow_add(work->instance, copy);
    return true;
}

enum ggml_status expert_rows_run(chain_work *work, row_group *group)
{
    backend_instance *instance = work->instance;
    int32_t          *slot_ids = arena_take(&instance->indices, group->n_rows * sizeof(*slot_ids));
    int32_t          *expert_ids = arena_take(&instance->indices, group->n_rows * sizeof(*expert_ids));
    group->pairs = arena_take(&instance->indices, group->n_rows * sizeof(*group->pairs));
    if (!slot_ids || !expert_ids || !group->pairs) {
        return GGML_STATUS_ALLOC_FAILED;
    }
    uint32_t first_slot, n_slots, row = 0;
    expert_slot_range(work, group->members, group->n, &first_slot, &n_slots);
    for (uint32_t i = 0; i < group->n; i++) {
        const expert_rows *expert = &work->experts[group->members[i]];
        for (uint32_t r = 0; r < expert->n; r++, row++) {
            group->pairs[row] = work->pairs[expert->first + r];
            slot_ids[row] = (int32_t)(expert->slot - first_slot);
            expert_ids[row] = (int32_t)expert->expert;
        }
    }
    if (!work->batched && !work->scattered && (uint64_t)n_slots * group->n_rows <= experts_most_scratch) {
        group->slot_ids = group_tensor(work, group, GGML_TYPE_I32, 0, slot_ids);
    }
    group->expert_ids = group_tensor(work, group, GGML_TYPE_I32, 0, expert_ids);
    for (int i = 0; i < work->chain->n; i++) {
        const chain_node *entry = &work->chain->nodes[i];
        if (entry->kind == CHAIN_PRODUCT) {
            await_matrix(work, group, entry->matrix);
        }
        if (!add_node(work, group, i) ||
            (work->chain->nodes[i].keep && work->chain->nodes[i].kind != CHAIN_VIEW &&
             !scatter(work, group, work->chain->nodes[i].node, group->compact[i]))) {
            GGML_LOG_ERROR("hypura: no room for %u rows of %s\n", group->n_rows, work->chain->nodes[i].node->name);
            return GGML_STATUS_ALLOC_FAILED;
        }
    }
    return run_rows(work, group);
}

/* ---- sources that results would overwrite ----------------------------------------- */

static bool overlap(const struct ggml_tensor *a, const struct ggml_tensor *b)
{
    const char *first = a->data;
    const char *second = b->data;
    return first < second + ggml_nbytes(b) && second < first + ggml_nbytes(a);
}

/* The source of a product from outside the chain, when a result that the groups
 * write, or that any node does, lies over it. */
static const struct ggml_tensor *endangered_source(const backend_chain *chain, const chain_node *product, bool by_all)
{
    if ((product->kind != CHAIN_PRODUCT && product->kind != CHAIN_ADAPTER) || product->src[1] >= 0) {
        return NULL;
    }
    for (int i = 0; i < chain->n; i++) {
        if ((chain->nodes[i].keep || by_all) && overlap(chain->nodes[i].node, product->node->src[1])) {
            return product->node->src[1];
        }
    }
    return NULL;
}

static size_t copies_bytes(const backend_chain *chain, bool by_all)
{
    size_t bytes = 0;
    for (int i = 0; i < chain->n; i++) {
        const struct ggml_tensor *source = endangered_source(chain, &chain->nodes[i], by_all);
        bytes += source ? (size_t)ggml_nelements(source) * sizeof(float) + 64 : 0;
    }
    return bytes;
}

static bool copy_source(chain_work *work, const struct ggml_tensor *source)
{
    for (int i = 0; i < work->n_copies; i++) {
        if (work->originals[i] == source) {
            return true;
        }
    }
    const size_t row_bytes = (size_t)source->ne[0] * sizeof(float);
    char *data = arena_take(&work->instance->rows, row_bytes * (size_t)(source->ne[1] * source->ne[2]));
    if (!data || work->n_copies == MAX_COPIES) {
        return false;
    }
    struct ggml_tensor *copy = &work->copies[work->n_copies];
    *copy = *source;
    copy->op = GGML_OP_NONE;
    copy->view_src = NULL;
    copy->buffer = work->instance->host;
    copy->data = data;
    copy->nb[1] = row_bytes;
    copy->nb[2] = copy->nb[3] = row_bytes * (size_t)source->ne[1];
    for (int64_t i2 = 0; i2 < source->ne[2]; i2++) {
        for (int64_t i1 = 0; i1 < source->ne[1]; i1++, data += row_bytes) {
            memcpy(data, (const char *)source->data + (size_t)i2 * source->nb[2] + (size_t)i1 * source->nb[1],
                   row_bytes);
        }
    }
    work->originals[work->n_copies++] = source;
    return true;
}

size_t expert_rows_width(const backend_chain *work)
{
    size_t width = 0;
    for (int i = 0; i < work->n; i++) {
        const chain_node *entry = &work->nodes[i];
        const bool gathers = (entry->kind == CHAIN_PRODUCT || entry->kind == CHAIN_ADAPTER) && entry->src[1] < 0;
        width += entry->kind == CHAIN_VIEW ? 0 : (size_t)entry->node->ne[0];
        width += gathers ? (size_t)entry->node->src[1]->ne[0] : 0;
    }
    return width;
}

bool expert_rows_begin(chain_work *work, bool nodes_first)
{
    work->group_rows = work->group_rows < work->n_pairs ? work->group_rows : work->n_pairs;
    const size_t row_bytes = expert_rows_width(work->chain) * sizeof(float);
    const size_t rows_bytes = (work->group_rows + EXPERT_BATCH_ROWS - 1) * row_bytes + 64 * 2 * CHAIN_MAX_NODES;
    if (!arena_reserve(&work->instance->rows, copies_bytes(work->chain, nodes_first) + rows_bytes)) {
        return false;
    }
    for (int i = 0; i < work->chain->n; i++) {
        const struct ggml_tensor *source = endangered_source(work->chain, &work->chain->nodes[i], nodes_first);
        if (source && !copy_source(work, source)) {
            return false;
        }
    }
    return true;
}
