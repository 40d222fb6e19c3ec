/*
 * streamable.c - which weights may leave memory, and how.
 *
 * The graph decides, not the name: the executor can make a weight present just
 * before the node that reads it only when every use is one that it knows.
 *
 *     used by                                          may be
 *     --------------------------------------------     -------------------------
 *     routed products alone, the whole bundle          EXPERTS
 *     one product a token, two-dimensional             DENSE
 *     the same, and by rows (tied embeddings)          DENSE
 *     rows alone, an embedding                         ROWS
 *     anything else                                    FIXED
 *     nothing                                          FIXED; experts: EXPERTS
 *
 * A weight that no graph uses (an encoder, a block for multi-token prediction)
 * stays, because nothing is known about it. Experts are the exception: they have
 * no other use than the routed product, and are worth gigabytes.
 *
 * Rows are pinned and cut in groups, because the CPU's kernels choose their path
 * by the number of rows: pairs on ARM, multiples of four in the tiled products of
 * x86. Pieces of a weight whose rows are a multiple of four are multiples of four,
 * so every piece takes the path of the whole and computes the same bits. A weight
 * of another number of rows is never cut.
 */
#include "plan/internal.h"

#define ROW_QUANTUM         4
#define REPACK_QUANTUM      8 /* rows that repacked forms interleave */
#define GROUP_ROWS          32
#define MIN_ROWS_FOR_GROUPS 64

uint32_t plan_experts_used(const hypura_map *map, const hypura_bundle *bundle)
{
    int used = map->n_experts_used;
    if (used <= 0 || used > bundle->n_experts) {
        used = bundle->n_experts;
    }
    return (uint32_t)used;
}

static bool bundle_is_pageable(const planner *p, int index)
{
    const hypura_bundle *bundle = &p->map->bundles[index];
    if (bundle->n_experts <= 0 || bundle->n_tensors <= 0 || bundle->n_tensors > HYPURA_MAX_BUNDLE) {
        return false;
    }
    for (int i = 0; i < bundle->n_tensors; i++) {
        int t = bundle->tensors[i];
        if (t < 0 || t >= p->map->n_tensors) {
            return false;
        }
        const hypura_tensor *tensor = &p->map->tensors[t];
        if ((p->survey->uses[t].flags & ~(uint32_t)HYPURA_USE_MUL_MAT_ID) != 0 || tensor->role != HYPURA_ROLE_EXPERT ||
            tensor->bundle != index || tensor->expert_bytes == 0 ||
            tensor->expert_bytes > tensor->bytes / (uint64_t)bundle->n_experts) {
            return false;
        }
    }
    return true;
}

static bool is_rows_only(const hypura_tensor *tensor, const hypura_use *use)
{
    return use->flags == HYPURA_USE_GET_ROWS && tensor->row_bytes > 0 &&
           (tensor->role == HYPURA_ROLE_EMBEDDING || tensor->role == HYPURA_ROLE_LAYER_EMBEDDING);
}

static bool is_dense(const hypura_tensor *tensor, const hypura_use *use)
{
    bool tied = use->flags == (HYPURA_USE_MUL_MAT | HYPURA_USE_GET_ROWS);
    return (use->flags == HYPURA_USE_MUL_MAT || tied) && use->n_mul_mat == 1 && use->order != UINT32_MAX &&
           tensor->ne[1] > 0 && tensor->ne[2] == 1 && tensor->ne[3] == 1 && tensor->row_bytes > 0 &&
           tensor->bytes / (uint64_t)tensor->ne[1] == tensor->row_bytes && tensor->bytes % (uint64_t)tensor->ne[1] == 0;
}

static int dense_rank(const hypura_tensor *tensor, const hypura_use *use)
{
    if (tensor->role == HYPURA_ROLE_FFN || tensor->role == HYPURA_ROLE_SHARED_EXPERT) {
        return 0;
    }
    bool tied = (use->flags & HYPURA_USE_GET_ROWS) != 0;
    return tensor->role == HYPURA_ROLE_OUTPUT || tied ? 2 : 1;
}

static plan_dense describe_dense(const hypura_tensor *tensor, const hypura_use *use, int index)
{
    plan_dense weight = {
        .tensor = index,
        .rank = dense_rank(tensor, use),
        .order = use->order,
        .row_bytes = tensor->row_bytes,
        .bytes = tensor->bytes,
        .n_rows = tensor->ne[1],
        .group_rows = tensor->ne[1],
    };
    if (weight.n_rows % ROW_QUANTUM == 0) {
        const int64_t small = weight.n_rows % REPACK_QUANTUM == 0 ? REPACK_QUANTUM : ROW_QUANTUM;
        weight.group_rows = weight.n_rows < MIN_ROWS_FOR_GROUPS ? small : GROUP_ROWS;
    }
    weight.n_groups = ((uint64_t)weight.n_rows + (uint64_t)weight.group_rows - 1) / (uint64_t)weight.group_rows;
    weight.group_bytes = (uint64_t)weight.group_rows * weight.row_bytes;
    return weight;
}

void plan_find_streamable(planner *p)
{
    for (int t = 0; t < p->map->n_tensors; t++) {
        const hypura_tensor *tensor = &p->map->tensors[t];
        const hypura_use *use = &p->survey->uses[t];
        p->kinds[t] = PLAN_KIND_FIXED;
        if (is_rows_only(tensor, use)) {
            p->kinds[t] = PLAN_KIND_ROWS;
        } else if (is_dense(tensor, use)) {
            p->kinds[t] = PLAN_KIND_DENSE;
            p->dense[p->n_dense++] = describe_dense(tensor, use, t);
        }
    }
    for (int b = 0; b < p->map->n_bundles; b++) {
        p->class_of[b] = -1;
        if (bundle_is_pageable(p, b)) {
            for (int i = 0; i < p->map->bundles[b].n_tensors; i++) {
                p->kinds[p->map->bundles[b].tensors[i]] = PLAN_KIND_EXPERTS;
            }
        }
    }
}
