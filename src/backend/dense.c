/*
 * dense.c - products with dense weights that stream, and rows of embeddings.
 *
 * A product's rows are independent: the pinned rows and each chunk of the ring
 * give a range of the result's columns of their own, computed by a shadow node
 * that writes straight into libllama's result. Every column is summed in the
 * order in which the whole product would sum it.
 *
 * Starting the threads costs microseconds, as much as a small product takes. So a
 * product waits in the shadow graph for what follows it: only a chunk that has to be
 * waited for, or the end of the graph, runs it. And chunks that come more slowly than one
 * thread computes with them are left to one (predict/alone.h).
 */
#include "backend/internal.h"

#include "ggml-cpu.h"

#include <string.h>

#define CONVERT_ROWS 8 /* of a batch: for fewer the node costs more than it saves */

static struct ggml_tensor *converted_tensor(backend_instance *instance, const struct ggml_tensor *node, void *data)
{
    const struct ggml_tensor *source = node->src[1];
    const enum ggml_type      type = ggml_get_type_traits_cpu(node->src[0]->type)->vec_dot_type;
    struct ggml_tensor *converted = shadow_tensor(instance, type, source->ne[0], source->ne[1], source->ne[2], data);
    converted->ne[3] = source->ne[3];
    return converted;
}

/* A kernel first converts the product's rows of activations to the type that it multiplies
 * with, and would do so for each part of a weight anew. Here it is done once, by the same
 * function, so bits are the same. NULL: left to the kernel. */
static void *add_conversion(backend_instance *instance, struct ggml_tensor *node, const backend_weight *weight)
{
    struct ggml_tensor  *source = node->src[1];
    const enum ggml_type type = ggml_get_type_traits_cpu(node->src[0]->type)->vec_dot_type;
    if (source->type != GGML_TYPE_F32 || !ggml_is_quantized(node->src[0]->type) || !ggml_is_quantized(type) ||
        source->ne[1] < CONVERT_ROWS || source->nb[0] != sizeof(float) || source->ne[0] % ggml_blck_size(type) != 0 ||
        hypura_pager_repack(weight->pager, weight->tensor)) {
        return NULL;
    }
    const size_t bytes = ggml_row_size(type, ggml_nelements(source));
    if (!arena_reserve(&instance->converted, bytes)) {
        return NULL;
    }
    struct ggml_tensor *converted = converted_tensor(instance, node, instance->converted.memory);
    converted->op = GGML_OP_CPY;
    converted->src[0] = source;
    shadow_add(instance, converted);
    return instance->converted.memory;
}

/* dst[first .. first + n) = rows x src1 */
static void add_rows_product(backend_instance *instance, const struct ggml_tensor *node, const backend_weight *weight,
                             const char *rows, int64_t first, int64_t n, void *converted)
{
    struct ggml_tensor *weights = shadow_copy(instance, node->src[0]);
    weights->op = GGML_OP_NONE;
    weights->data = (void *)(uintptr_t)rows;
    weights->ne[1] = n;
    weights->nb[2] = weights->nb[3] = weights->nb[1] * (size_t)n;
    backend_set_form(weights, weight->pager, weight->tensor);
    struct ggml_tensor *part = shadow_copy(instance, node);
    part->data = (char *)node->data + (size_t)first * node->nb[0];
    part->ne[0] = n;
    part->src[0] = weights;
    if (converted) {
        part->src[1] = converted_tensor(instance, node, converted);
    }
    shadow_add(instance, part);
}

/* Of one token, while the drive is behind: by the calling thread, if it is done long before what is being read has come.
 * The team sleeps on: waking it takes longer than a chunk, and the drive gives less while many threads look for work. A
 * kernel gives whole rows of the weight to a thread, so that bits are those of the team. */
static enum ggml_status run_chunk(backend_instance *instance, const struct ggml_tensor *node, hypura_pager *pager,
                                  uint64_t bytes)
{
    if (ggml_nrows(node->src[1]) > 1 || instance->n_threads == 1 ||
        !hypura_alone_fits(&instance->alone_chunks, bytes, hypura_pager_ring_pending_us(pager))) {
        return shadow_run(instance);
    }
    const uint64_t         begun_us = shadow_begin_alone(instance);
    const enum ggml_status status = shadow_run(instance);
    shadow_end_alone(instance, begun_us, &instance->alone_chunks, bytes);
    return status;
}

enum ggml_status backend_run_dense(backend_instance *instance, struct ggml_tensor *node, const backend_weight *weight)
{
    hypura_pager *pager = weight->pager;
    if (ggml_is_empty(node)) {
        return GGML_STATUS_SUCCESS;
    }
    enum ggml_status status = GGML_STATUS_SUCCESS;
    if (!shadow_has_room(instance, 4)) {
        status = shadow_run(instance);
        shadow_begin(instance);
    }
    int64_t        n_pinned;
    const char    *pinned = hypura_pager_pinned(pager, weight->tensor, &n_pinned);
    const uint32_t n_chunks = hypura_pager_chunks(pager, weight->tensor);
    /* nobody waits in the graph for an earlier conversion: what has chunks runs to its end */
    void *converted = n_chunks + (n_pinned > 0) > 1 ? add_conversion(instance, node, weight) : NULL;
    if (n_pinned > 0 && status == GGML_STATUS_SUCCESS) {
        add_rows_product(instance, node, weight, pinned, 0, n_pinned, converted);
    }
    if (n_chunks > 0 && status == GGML_STATUS_SUCCESS) {
        status = shadow_run(instance);
    }
    for (uint32_t c = 0; c < n_chunks && status == GGML_STATUS_SUCCESS; c++) {
        int64_t     first, n;
        const char *rows = hypura_pager_acquire_chunk(pager, weight->tensor, c, &first, &n);
        if (!rows) {
            return GGML_STATUS_FAILED;
        }
        shadow_begin(instance);
        add_rows_product(instance, node, weight, rows, first, n, converted);
        status = run_chunk(instance, node, pager, (uint64_t)n * node->src[0]->nb[1]);
        hypura_pager_release_chunk(pager);
    }
    return status;
}

enum ggml_status backend_run_rows(backend_instance *instance, struct ggml_tensor *node, const backend_weight *weight)
{
    const struct ggml_tensor *ids = node->src[1];
    const hypura_tensor      *shape = &hypura_pager_map(weight->pager)->tensors[weight->tensor];
    const int64_t             n = ggml_nelements(ids);
    shadow_begin(instance);
    if (n == 0) {
        return GGML_STATUS_SUCCESS;
    }
    const size_t index_bytes = (size_t)n * (sizeof(int64_t) + sizeof(int32_t));
    if (!arena_reserve(&instance->indices, index_bytes + 256) ||
        !arena_reserve(&instance->rows, (size_t)n * shape->row_bytes + 256)) {
        return GGML_STATUS_ALLOC_FAILED;
    }
    int64_t *rows = arena_take(&instance->indices, (size_t)n * sizeof(*rows));
    int32_t *numbers = arena_take(&instance->indices, (size_t)n * sizeof(*numbers));
    char    *data = arena_take(&instance->rows, (size_t)n * shape->row_bytes);
    int64_t  at = 0;
    for (int64_t i3 = 0; i3 < ids->ne[3]; i3++) {
        for (int64_t i2 = 0; i2 < ids->ne[2]; i2++) {
            for (int64_t i1 = 0; i1 < ids->ne[1]; i1++) {
                for (int64_t i0 = 0; i0 < ids->ne[0]; i0++, at++) {
                    const char *id = (const char *)ids->data + (size_t)i0 * ids->nb[0] + (size_t)i1 * ids->nb[1] +
                                     (size_t)i2 * ids->nb[2] + (size_t)i3 * ids->nb[3];
                    rows[at] = *(const int32_t *)id;
                    numbers[at] = (int32_t)at;
                    if (rows[at] < 0 || rows[at] >= shape->ne[1]) {
                        GGML_LOG_ERROR("hypura: row %lld of %s, which has %lld\n", (long long)rows[at], shape->name,
                                       (long long)shape->ne[1]);
                        return GGML_STATUS_FAILED;
                    }
                }
            }
        }
    }
    if (hypura_pager_read_rows(weight->pager, weight->tensor, rows, (uint32_t)n, data) != HYPURA_OK) {
        return GGML_STATUS_FAILED;
    }
    struct ggml_tensor *table = shadow_copy(instance, node->src[0]);
    table->op = GGML_OP_NONE;
    table->data = data;
    table->ne[1] = n;
    table->nb[2] = table->nb[3] = table->nb[1] * (size_t)n;
    struct ggml_tensor *numbered = shadow_copy(instance, ids);
    numbered->op = GGML_OP_NONE;
    numbered->data = numbers;
    numbered->nb[0] = sizeof(int32_t);
    for (int d = 1; d < GGML_MAX_DIMS; d++) {
        numbered->nb[d] = numbered->nb[d - 1] * (size_t)numbered->ne[d - 1];
    }
    struct ggml_tensor *get = shadow_copy(instance, node);
    get->src[0] = table;
    get->src[1] = numbered;
    shadow_add(instance, get);
    return shadow_run(instance);
}
