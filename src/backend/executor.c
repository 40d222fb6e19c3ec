/*
 * executor.c - one backend instance, made by libllama for each context. Walks the
 * graph of a split and hands its parts out: chains of expert products, dense
 * products, embedding rows; everything else runs on the inner backend as it is.
 *
 * The scheduler calls from the context's thread alone. Graphs of several contexts
 * of one model exclude each other through the pager's enter and leave.
 */
#include "backend/internal.h"

#include "base/clock.h"
#include "ggml-cpu.h"
#include "os/os.h"

#include <stdlib.h>
#include <string.h>

static const char *instance_name(ggml_backend_t backend)
{
    (void)backend;
    return "Hypura";
}

void backend_close_worker(backend_instance *instance)
{
    ggml_backend_free(instance->inner);
    ggml_backend_buffer_free(instance->host);
    if (instance->threadpool) {
        ggml_threadpool_free(instance->threadpool);
    }
    arena_free(&instance->rows);
    arena_free(&instance->indices);
    arena_free(&instance->converted);
    hypura_os_memory_unmap(instance->sparse, instance->sparse_bytes);
    free(instance->tensors);
    free(instance->nodes);
}

static void instance_free(ggml_backend_t backend)
{
    backend_let_team_go(backend->context);
    backend_close_worker(backend->context);
    free(backend->context);
    free(backend);
}

/* Graphs hold branches that this run does not take: their nodes are not marked. */
static const backend_weight *streamed(const struct ggml_tensor *node)
{
    if ((node->flags & GGML_TENSOR_FLAG_COMPUTE) == 0) {
        return NULL;
    }
    const bool reads_weight =
        node->op == GGML_OP_MUL_MAT_ID || node->op == GGML_OP_MUL_MAT || node->op == GGML_OP_GET_ROWS;
    return reads_weight ? backend_weight_of(node) : NULL;
}

static enum ggml_status run_streamed(backend_instance *instance, struct ggml_cgraph *graph, int at,
                                     const backend_weight *weight, int *n_nodes)
{
    struct ggml_tensor *node = graph->nodes[at];
    *n_nodes = 1;
    if (node->op == GGML_OP_MUL_MAT) {
        return backend_run_dense(instance, node, weight);
    }
    const enum ggml_status status = shadow_run(instance);
    if (status != GGML_STATUS_SUCCESS) {
        return status;
    }
    if (node->op == GGML_OP_GET_ROWS) {
        return backend_run_rows(instance, node, weight);
    }
    backend_chain work;
    chain_find(graph, at, &work);
    if (work.n == 0) {
        GGML_LOG_ERROR("hypura: the rows that %s reads have a layout that cannot be paged\n", node->name);
        return GGML_STATUS_FAILED;
    }
    *n_nodes = work.n;
    return backend_run_chain(instance, &work);
}

static enum ggml_status instance_compute(ggml_backend_t backend, struct ggml_cgraph *graph)
{
    backend_instance *instance = backend->context;
    hypura_pager     *pager = NULL;
    const uint64_t    begin_us = hypura_clock_us();
    enum ggml_status  status = GGML_STATUS_SUCCESS;
    int               plain = 0; /* first node not yet run */
    instance->compute_us = 0;
    instance->read_failed = false;
    shadow_begin(instance);
    /* What ggml fuses it finds by these: the same whether nodes pass through the shadow graph or not. */
    instance->graph.use_counts = graph->use_counts;
    instance->graph.visited_hash_set = graph->visited_hash_set;
    backend_begin_graph();
    for (int i = 0; i < graph->n_nodes && status == GGML_STATUS_SUCCESS;) {
        const backend_weight *weight = streamed(graph->nodes[i]);
        if (!weight) {
            i++;
            continue;
        }
        if (!pager) {
            pager = weight->pager;
            hypura_pager_enter(pager);
            const int *processors;
            const int  n_processors = hypura_pager_processors(pager, &processors);
            backend_place_team(instance, processors, n_processors);
        }
        int n_nodes = 0;
        status = backend_run_plain(instance, graph, plain, i);
        if (status == GGML_STATUS_SUCCESS) {
            status = run_streamed(instance, graph, i, weight, &n_nodes);
        }
        i += n_nodes;
        plain = i;
    }
    if (status == GGML_STATUS_SUCCESS) {
        status = backend_run_plain(instance, graph, plain, graph->n_nodes);
    }
    if (status == GGML_STATUS_SUCCESS) {
        status = shadow_run(instance);
    }
    if (pager) {
        hypura_pager_add_time(pager, instance->compute_us, hypura_clock_us() - begin_us, instance->keeps_places);
        hypura_pager_leave(pager);
    }
    return status;
}

/* All is computed by then. */
static void instance_synchronize(ggml_backend_t backend)
{
    backend_wait_ends(backend->context);
}

static ggml_guid_t instance_guid(void)
{
    static ggml_guid guid = {0x68, 0x79, 0x70, 0x75, 0x72, 0x61, 0x2d, 0x70,
                             0x61, 0x67, 0x65, 0x72, 0x2d, 0x30, 0x30, 0x31};
    return &guid;
}

/* Between two nodes: a graph ends with the wait whose read failed, or when libllama says so. */
bool backend_ends_here(void *user)
{
    backend_instance *instance = user;
    return instance->read_failed || (instance->abort && instance->abort(instance->abort_user));
}

bool backend_open_worker(backend_instance *instance)
{
    /* A host buffer needs an address, aligned as tensors are; shadow tensors bring their own. */
    static _Alignas(64) char   host_anchor[64];
    const size_t               graph_nodes = SHADOW_MAX_TENSORS;
    ggml_backend_dev_t         cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    instance->inner = cpu ? ggml_backend_dev_init(cpu, NULL) : NULL;
    instance->host = ggml_backend_cpu_buffer_from_ptr(host_anchor, sizeof(host_anchor));
    instance->tensors = malloc(SHADOW_MAX_TENSORS * sizeof(*instance->tensors));
    instance->nodes = malloc(graph_nodes * sizeof(struct ggml_tensor *));
    instance->graph.nodes = instance->nodes;
    instance->graph.size = (int)graph_nodes;
    if (instance->inner) {
        ggml_backend_cpu_set_abort_callback(instance->inner, backend_ends_here, instance);
    }
    return instance->inner && instance->host && instance->tensors && instance->nodes;
}

ggml_backend_t backend_new_instance(ggml_backend_dev_t device)
{
    backend_instance *instance = calloc(1, sizeof(*instance));
    ggml_backend_t    backend = calloc(1, sizeof(*backend));
    if (!instance || !backend || !backend_open_worker(instance)) {
        if (instance) {
            backend_close_worker(instance);
        }
        free(instance);
        free(backend);
        return NULL;
    }
    *backend = (struct ggml_backend){
        .guid = instance_guid(),
        .iface =
            {
                .get_name = instance_name,
                .free = instance_free,
                .synchronize = instance_synchronize,
                .graph_compute = instance_compute,
            },
        .device = device,
        .context = instance,
    };
    return backend;
}

/* ---- functions that libllama asks for by name -------------------------------- */

/* Without a pool of its own the CPU backend would make one for every graph. */
void backend_set_worker_threads(backend_instance *instance, int n_threads)
{
    if (instance->threadpool_threads < n_threads) {
        struct ggml_threadpool_params params = ggml_threadpool_params_default(n_threads);
        struct ggml_threadpool       *pool = ggml_threadpool_new(&params);
        if (pool) {
            ggml_backend_cpu_set_threadpool(instance->inner, pool);
            ggml_threadpool_free(instance->threadpool);
            instance->threadpool = pool;
            instance->threadpool_threads = n_threads;
        }
    }
    instance->n_threads = n_threads;
    ggml_backend_cpu_set_n_threads(instance->inner, n_threads);
}

static void set_n_threads(ggml_backend_t backend, int n_threads)
{
    backend_set_worker_threads(backend->context, n_threads);
}

static void set_abort_callback(ggml_backend_t backend, ggml_abort_callback callback, void *user)
{
    backend_instance *instance = backend->context;
    instance->abort = callback;
    instance->abort_user = user;
}

void *backend_instance_function(const char *name)
{
    ggml_backend_set_n_threads_t      n_threads = set_n_threads;
    ggml_backend_set_abort_callback_t abort_callback = set_abort_callback;
    void                             *function = NULL;
    if (strcmp(name, "ggml_backend_set_n_threads") == 0) {
        memcpy(&function, &n_threads, sizeof(function));
    } else if (strcmp(name, "ggml_backend_set_abort_callback") == 0) {
        memcpy(&function, &abort_callback, sizeof(function));
    }
    return function;
}
