/*
 * probe_compute.c - see probe_compute.h.
 */
#include "hw/probe_compute.h"

#include "base/clock.h"
#include "base/status.h"

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Together the weights are larger than any last-level cache that two of these probes
 * could share; a small one is repeated until they are. */
#define WEIGHTS_BYTES ((size_t)128 << 20)
#define SMALL_VALUES  1024

/* With many rows, computing and not memory is what takes time: fewer weights do. */
#define ROW_BYTES ((size_t)2 << 30)

/* A run in which the threads had a processor for less of the time was disturbed. */
#define CALM_SHARE 0.9

enum { MAX_WEIGHTS = 512, N_RUNS = 5, MOST_RUNS = 50, N_SMALL_NODES = 256 };

/* A graph, what computes it, and what belongs to them. */
typedef struct bench_graph {
    ggml_backend_t backend;
    struct ggml_threadpool *threads;
    int n_threads;
    struct ggml_context *context;
    struct ggml_cgraph *graph;
    ggml_backend_buffer_t weights;
    ggml_backend_buffer_t values;
} bench_graph;

static void graph_close(bench_graph *g)
{
    ggml_backend_buffer_free(g->values);
    ggml_backend_buffer_free(g->weights);
    ggml_free(g->context);
    ggml_backend_free(g->backend);
    ggml_threadpool_free(g->threads);
}

static hypura_status graph_open(bench_graph *g, int n_threads, hypura_error *error)
{
    const struct ggml_init_params params = {
        .mem_size = ggml_tensor_overhead() * (2 * MAX_WEIGHTS + 8) + ggml_graph_overhead(), .no_alloc = true};
    struct ggml_threadpool_params wanted = ggml_threadpool_params_default(n_threads);
    memset(g, 0, sizeof(*g));
    g->n_threads = n_threads;
    g->backend = ggml_backend_cpu_init();
    g->context = ggml_init(params);
    g->threads = ggml_threadpool_new(&wanted);
    if (!g->backend || !g->context || !g->threads) {
        graph_close(g);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to measure %d threads with", n_threads);
    }
    ggml_backend_cpu_set_n_threads(g->backend, n_threads);
    ggml_backend_cpu_set_threadpool(g->backend, g->threads);
    g->graph = ggml_new_graph(g->context);
    return HYPURA_OK;
}

static uint64_t processor_us(void)
{
    struct timespec spent;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    return (uint64_t)spent.tv_sec * 1000000u + (uint64_t)spent.tv_nsec / 1000u;
}

/* The fastest of a few runs after one that is not counted: what others do on the
 * machine meanwhile only makes a run longer, and a thread that has to wait for its
 * processor holds all up. What is measured is kept for good, so on a busy machine more
 * runs are made until one was not disturbed; threads that wait for others spin. */
static hypura_status graph_time(bench_graph *g, double *seconds, hypura_error *error)
{
    uint64_t best_us = UINT64_MAX;
    bool calm = false;
    for (int i = -1; i < N_RUNS || (!calm && i < MOST_RUNS); i++) {
        const uint64_t spent_us = processor_us();
        const uint64_t begin_us = hypura_clock_us();
        if (ggml_backend_graph_compute(g->backend, g->graph) != GGML_STATUS_SUCCESS) {
            return hypura_fail(error, HYPURA_ERR_BACKEND, "the CPU backend failed to compute what is to be measured");
        }
        const uint64_t us = hypura_clock_us() - begin_us + 1;
        calm = calm || (i >= 0 && (double)(processor_us() - spent_us) >= CALM_SHARE * (double)us * g->n_threads);
        best_us = i >= 0 && us < best_us ? us : best_us;
    }
    *seconds = (double)best_us * 1e-6;
    return HYPURA_OK;
}

static hypura_status give_values(bench_graph *g, hypura_error *error)
{
    g->values = ggml_backend_alloc_ctx_tensors(g->context, g->backend);
    if (!g->values) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the values of what is to be measured");
    }
    ggml_backend_buffer_clear(g->values, 0);
    return HYPURA_OK;
}

/* ---- products ---------------------------------------------------------------- */

/* What libllama would give a weight: a layout of the processor's own, or plain memory. */
static ggml_backend_buffer_type_t weight_buffer_type(const bench_graph *g, struct ggml_tensor *product, bool repack)
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

/* Every byte is written: memory that never was is one page of zeros to the processor. */
static hypura_status fill_weights(bench_graph *g, struct ggml_tensor **weights, int n, hypura_error *error)
{
    const size_t bytes = ggml_nbytes(weights[0]);
    ggml_backend_buffer_type_t type = ggml_backend_buffer_get_type(g->weights);
    const size_t align = ggml_backend_buft_get_alignment(type);
    const size_t stride = (ggml_backend_buft_get_alloc_size(type, weights[0]) + align - 1) / align * align;
    char *base = ggml_backend_buffer_get_base(g->weights);
    void *zeros = calloc(1, bytes);
    for (int i = 0; zeros && i < n; i++) {
        if (ggml_backend_tensor_alloc(g->weights, weights[i], base + (size_t)i * stride) != GGML_STATUS_SUCCESS) {
            break;
        }
        ggml_backend_tensor_set(weights[i], zeros, 0, bytes);
    }
    free(zeros);
    return zeros ? HYPURA_OK : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a weight of %zu bytes", bytes);
}

static hypura_status build_products(bench_graph *g, const hypura_product_shape *shape, int n, hypura_error *error)
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
    const size_t align = ggml_backend_buft_get_alignment(type);
    const size_t stride = (ggml_backend_buft_get_alloc_size(type, weights[0]) + align - 1) / align * align;
    g->weights = ggml_backend_buft_alloc_buffer(type, stride * (size_t)n);
    if (!g->weights) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %d weights of %zu bytes to measure with", n,
                           stride);
    }
    ggml_backend_buffer_set_usage(g->weights, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    hypura_status status = fill_weights(g, weights, n, error);
    if (status == HYPURA_OK) {
        status = give_values(g, error);
    }
    for (int32_t i = 0; status == HYPURA_OK && ids && i < ggml_nelements(ids); i++) {
        const int32_t expert = i % n_used;
        ggml_backend_tensor_set(ids, &expert, (size_t)i * sizeof(expert), sizeof(expert));
    }
    return status;
}

hypura_status hypura_probe_repack(const hypura_product_shape *shape, double *bytes_per_s, hypura_error *error)
{
    bench_graph g;
    hypura_product_shape wanted = *shape;
    wanted.repack = true;
    wanted.n_rows = 1;
    *bytes_per_s = 0;
    hypura_status status = graph_open(&g, 1, error);
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
    graph_close(&g);
    return status;
}

hypura_status hypura_probe_products(const hypura_product_shape *shape, int n_threads, double *bytes_per_s,
                                    hypura_error *error)
{
    bench_graph g;
    double seconds = 1.0;
    const size_t n_matrices = shape->n_used > 0 ? (size_t)shape->n_used : 1;
    const size_t bytes = ggml_row_size((enum ggml_type)shape->type, shape->columns) * (size_t)shape->rows * n_matrices;
    if (bytes == 0 || shape->n_rows < 1) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a product without values cannot be measured");
    }
    const size_t n_rows = (size_t)shape->n_rows;
    const size_t all = WEIGHTS_BYTES < ROW_BYTES / n_rows ? WEIGHTS_BYTES : ROW_BYTES / n_rows;
    const size_t wanted = (all + bytes - 1) / bytes;
    const int n = wanted < MAX_WEIGHTS ? (int)wanted : MAX_WEIGHTS;
    hypura_status status = graph_open(&g, n_threads, error);
    if (status != HYPURA_OK) {
        return status;
    }
    status = build_products(&g, shape, n, error);
    if (status == HYPURA_OK) {
        status = graph_time(&g, &seconds, error);
    }
    graph_close(&g);
    *bytes_per_s = (double)bytes * n * shape->n_rows / seconds;
    return status;
}

/* ---- nodes ---------------------------------------------------------------------- */

hypura_status hypura_probe_node(int n_threads, double *seconds, hypura_error *error)
{
    bench_graph g;
    hypura_status status = graph_open(&g, n_threads, error);
    if (status != HYPURA_OK) {
        return status;
    }
    struct ggml_tensor *value = ggml_new_tensor_1d(g.context, GGML_TYPE_F32, SMALL_VALUES);
    struct ggml_tensor *sum = value;
    for (int i = 0; i < N_SMALL_NODES; i++) {
        sum = ggml_add(g.context, sum, value);
    }
    ggml_build_forward_expand(g.graph, sum);
    status = give_values(&g, error);
    if (status == HYPURA_OK) {
        status = graph_time(&g, seconds, error);
    }
    graph_close(&g);
    *seconds /= (double)N_SMALL_NODES;
    return status;
}
