/*
 * probe_compute.c - see probe_compute.h.
 */
#include "hw/probe_compute.h"

#include "base/clock.h"
#include "base/status.h"
#include "hw/cold.h"
#include "hw/timed_graph.h"

#include <stdlib.h>
#include <string.h>

/* Together the weights come from memory, also where two of these probes run at once; a small one is repeated
 * until they do. */
#define LEAST_WEIGHTS_BYTES ((size_t)128 << 20)

/* With many rows, computing and not memory is what takes time: fewer weights do. */
#define ROW_BYTES ((size_t)2 << 30)

enum { MAX_WEIGHTS = 512, MOST_TENSORS = 2 * MAX_WEIGHTS + 8, N_RUNS = 5 };

/* ---- products ---------------------------------------------------------------- */

/* What libllama would give a weight: a layout of the processor's own, or plain memory. */
static ggml_backend_buffer_type_t weight_buffer_type(const timed_graph *g, struct ggml_tensor *product, bool repack)
{
    ggml_backend_dev_t device = ggml_backend_get_device(g->backend);
    ggml_backend_reg_t registry = ggml_backend_dev_backend_reg(device);
    void *address = ggml_backend_reg_get_proc_address(registry, "ggml_backend_dev_get_extra_bufts");
    ggml_backend_dev_get_extra_bufts_t get;
    memcpy(&get, &address, sizeof(get));
    for (ggml_backend_buffer_type_t *type = address && repack ? get(device) : NULL; type && *type; type++) {
        ggml_backend_buffer_t empty = ggml_backend_buft_alloc_buffer(*type, 0);
        product->src[0]->buffer = empty;
        const bool fits = empty && ggml_backend_dev_supports_op(device, product);
        product->src[0]->buffer = NULL;
        ggml_backend_buffer_free(empty);
        if (fits) {
            return *type;
        }
    }
    return ggml_backend_get_default_buffer_type(g->backend);
}

/* From one weight of a buffer to the next. */
static size_t weight_stride(ggml_backend_buffer_type_t type, const struct ggml_tensor *weight)
{
    const size_t align = ggml_backend_buft_get_alignment(type);
    return (ggml_backend_buft_get_alloc_size(type, weight) + align - 1) / align * align;
}

/* Every byte is written: memory that never was is one page of zeros to the processor. The first weight is brought into
 * the layout of the buffer, the others are copies of it. */
static hypura_status fill_weights(timed_graph *g, struct ggml_tensor **weights, int n, hypura_error *error)
{
    const size_t bytes = ggml_nbytes(weights[0]);
    const size_t stride = weight_stride(ggml_backend_buffer_get_type(g->weights), weights[0]);
    char *base = ggml_backend_buffer_get_base(g->weights);
    void *zeros = calloc(1, bytes);
    bool filled = zeros != NULL;
    for (int i = 0; filled && i < n; i++) {
        filled = ggml_backend_tensor_alloc(g->weights, weights[i], base + (size_t)i * stride) == GGML_STATUS_SUCCESS;
        if (filled && i == 0) {
            ggml_backend_tensor_set(weights[0], zeros, 0, bytes);
        } else if (filled) {
            memcpy(weights[i]->data, base, stride);
        }
    }
    free(zeros);
    return filled ? HYPURA_OK : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a weight of %zu bytes", bytes);
}

static hypura_status build_products(timed_graph *g, const hypura_product_shape *shape, int n, hypura_error *error)
{
    struct ggml_tensor *weights[MAX_WEIGHTS];
    const int n_used = shape->n_used;
    const int n_rows = shape->n_rows;
    /* Each of the experts is selected by as many tokens of one expert each; for one row, all by one token. */
    const int64_t n_tokens = n_used == 0 || n_rows == 1 ? n_rows : (int64_t)n_used * n_rows;
    const int64_t n_selected = n_rows == 1 ? n_used : 1;
    struct ggml_tensor *rows = n_used > 0 ? ggml_new_tensor_3d(g->context, GGML_TYPE_F32, shape->columns, 1, n_tokens)
                                          : ggml_new_tensor_2d(g->context, GGML_TYPE_F32, shape->columns, n_tokens);
    struct ggml_tensor *ids = n_used > 0 ? ggml_new_tensor_2d(g->context, GGML_TYPE_I32, n_selected, n_tokens) : NULL;
    for (int i = 0; i < n; i++) {
        weights[i] = ggml_new_tensor_3d(g->context, (enum ggml_type)shape->type, shape->columns, shape->rows,
                                        n_used > 0 ? n_used : 1);
        ggml_build_forward_expand(g->graph, ids ? ggml_mul_mat_id(g->context, weights[i], rows, ids)
                                                : ggml_mul_mat(g->context, weights[i], rows));
    }
    ggml_backend_buffer_type_t type = weight_buffer_type(g, ggml_graph_node(g->graph, 0), shape->repack);
    const size_t stride = weight_stride(type, weights[0]);
    g->weights = ggml_backend_buft_alloc_buffer(type, stride * (size_t)n);
    if (!g->weights) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %d weights of %zu bytes to measure with", n,
                           stride);
    }
    ggml_backend_buffer_set_usage(g->weights, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    hypura_status status = fill_weights(g, weights, n, error);
    if (status == HYPURA_OK) {
        status = timed_graph_give_values(g, g->context, error);
    }
    for (int32_t i = 0; status == HYPURA_OK && ids && i < ggml_nelements(ids); i++) {
        const int32_t expert = i % n_used;
        ggml_backend_tensor_set(ids, &expert, (size_t)i * sizeof(expert), sizeof(expert));
    }
    return status;
}

hypura_status hypura_probe_repack(const hypura_product_shape *shape, double *bytes_per_s, hypura_error *error)
{
    timed_graph g;
    hypura_product_shape wanted = *shape;
    wanted.repack = true;
    wanted.n_rows = 1;
    *bytes_per_s = 0;
    hypura_status status = timed_graph_open(&g, 1, MOST_TENSORS, error);
    if (status != HYPURA_OK) {
        return status;
    }
    status = build_products(&g, &wanted, 1, error);
    struct ggml_tensor *weight = ggml_graph_node(g.graph, 0)->src[0];
    const size_t bytes = ggml_nbytes(weight);
    void *zeros = status == HYPURA_OK ? calloc(1, bytes) : NULL;
    if (status == HYPURA_OK && !zeros) {
        status = hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a weight of %zu bytes", bytes);
    }
    uint64_t best_us = UINT64_MAX;
    for (int i = 0; i < N_RUNS && zeros && weight->extra; i++) {
        const uint64_t begin_us = hypura_clock_us();
        ggml_backend_tensor_set(weight, zeros, 0, bytes);
        const uint64_t us = hypura_clock_us() - begin_us + 1;
        best_us = us < best_us ? us : best_us;
    }
    if (best_us != UINT64_MAX) {
        *bytes_per_s = (double)bytes / (double)best_us * 1e6;
    }
    free(zeros);
    timed_graph_close(&g);
    return status;
}

double hypura_product_bytes(const hypura_product_shape *shape)
{
    const int64_t n_matrices = shape->n_used > 0 ? shape->n_used : 1;
    return (double)ggml_row_size((enum ggml_type)shape->type, shape->columns) * (double)(shape->rows * n_matrices);
}

hypura_status hypura_probe_products(const hypura_product_shape *shape, int n_threads, uint64_t most_us,
                                    double *bytes_per_s, bool *disturbed, hypura_error *error)
{
    timed_graph g;
    double seconds = 1.0;
    const size_t bytes = (size_t)hypura_product_bytes(shape);
    if (bytes == 0 || shape->n_rows < 1) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a product without values cannot be measured");
    }
    const size_t n_rows = (size_t)shape->n_rows;
    const size_t cold = (size_t)hypura_cold_bytes(LEAST_WEIGHTS_BYTES, LEAST_WEIGHTS_BYTES);
    const size_t all = cold < ROW_BYTES / n_rows ? cold : ROW_BYTES / n_rows;
    const size_t wanted = all > bytes ? (all + bytes - 1) / bytes : 1;
    const int n = wanted < MAX_WEIGHTS ? (int)wanted : MAX_WEIGHTS;
    hypura_status status = timed_graph_open(&g, n_threads, MOST_TENSORS, error);
    if (status != HYPURA_OK) {
        return status;
    }
    status = build_products(&g, shape, n, error);
    if (status == HYPURA_OK) {
        status = timed_graph_run(&g, most_us, &seconds, disturbed, error);
    }
    timed_graph_close(&g);
    *bytes_per_s = (double)bytes * n * shape->n_rows / seconds;
    return status;
}
