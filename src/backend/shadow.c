/*
 * shadow.c - nodes and graphs that live for one call. A shadow node is a copy of a
 * node of libllama's graph whose sources were swapped for memory that the pager
 * has filled; libllama's own graph is never written to. All come from fixed
 * memory of the instance, so that decoding allocates nothing.
 */
#include "backend/internal.h"

#include "base/clock.h"
#include "ggml-cpu.h"
#include "os/os.h"

#include <string.h>

#define ARENA_ALIGN 64
#define SPARSE_SLOTS 1024 /* 4 to 8 MiB */

void shadow_begin(backend_instance *instance)
{
    instance->n_tensors = 0;
    instance->graph.n_nodes = 0;
    instance->rows.used = 0;
    instance->indices.used = 0;
}

bool shadow_has_room(const backend_instance *instance, int n_tensors)
{
    return instance->n_tensors + n_tensors <= SHADOW_MAX_TENSORS;
}

static struct ggml_tensor *next_tensor(backend_instance *instance)
{
    GGML_ASSERT(instance->n_tensors < SHADOW_MAX_TENSORS);
    return &instance->tensors[instance->n_tensors++];
}

struct ggml_tensor *shadow_tensor(backend_instance *instance, enum ggml_type type, int64_t ne0, int64_t ne1,
                                  int64_t ne2, void *data)
{
    struct ggml_tensor *tensor = next_tensor(instance);
    memset(tensor, 0, sizeof(*tensor));
    tensor->type = type;
    tensor->buffer = instance->host;
    tensor->ne[0] = ne0;
    tensor->ne[1] = ne1;
    tensor->ne[2] = ne2;
    tensor->ne[3] = 1;
    tensor->nb[0] = ggml_type_size(type);
    tensor->nb[1] = ggml_row_size(type, ne0);
    tensor->nb[2] = tensor->nb[1] * (size_t)ne1;
    tensor->nb[3] = tensor->nb[2] * (size_t)ne2;
    tensor->data = data;
    tensor->flags = GGML_TENSOR_FLAG_COMPUTE;
    return tensor;
}

struct ggml_tensor *shadow_copy(backend_instance *instance, const struct ggml_tensor *tensor)
{
    struct ggml_tensor *copy = next_tensor(instance);
    *copy = *tensor;
    copy->buffer = instance->host;
    copy->view_src = NULL;
    copy->view_offs = 0;
    copy->extra = NULL;
    copy->flags |= GGML_TENSOR_FLAG_COMPUTE;
    return copy;
}

void backend_set_form(struct ggml_tensor *weights, const hypura_pager *pager, int tensor)
{
    const hypura_repack *repack = hypura_pager_repack(pager, tensor);
    if (repack) {
        weights->buffer = repack->buffer;
        weights->extra = repack->traits;
    }
}

void shadow_add(backend_instance *instance, struct ggml_tensor *node)
{
    instance->nodes[instance->graph.n_nodes++] = node;
}

static enum ggml_status timed_compute(backend_instance *instance, struct ggml_cgraph *graph)
{
    const uint64_t         begin_us = hypura_clock_us();
    const enum ggml_status status = ggml_backend_graph_compute(instance->inner, graph);
    instance->compute_us += hypura_clock_us() - begin_us;
    return status;
}

enum ggml_status shadow_run(backend_instance *instance)
{
    if (instance->graph.n_nodes == 0) {
        return GGML_STATUS_SUCCESS;
    }
    const enum ggml_status status = timed_compute(instance, &instance->graph);
    instance->graph.n_nodes = 0;
    return status;
}

uint64_t shadow_begin_alone(backend_instance *instance)
{
    ggml_backend_cpu_set_n_threads(instance->inner, 1);
    return instance->compute_us;
}

void shadow_end_alone(backend_instance *instance, uint64_t begun_us, hypura_alone *alone, uint64_t bytes)
{
    ggml_backend_cpu_set_n_threads(instance->inner, instance->n_threads);
    hypura_alone_took(alone, bytes, instance->compute_us - begun_us);
}

static bool reserve_sparse(backend_instance *instance, size_t bytes)
{
    if (bytes <= instance->sparse_bytes) {
        return true;
    }
    hypura_os_memory_unmap(instance->sparse, instance->sparse_bytes);
    instance->sparse = hypura_os_memory_map(bytes, HYPURA_OS_MAP_NORESERVE | HYPURA_OS_MAP_SMALL);
    instance->sparse_bytes = instance->sparse ? bytes : 0;
    instance->sparse_slots = 0;
    return instance->sparse != NULL;
}

/* Each slot that rows select takes a page or two, which stay until there are many. */
static void trim_sparse(backend_instance *instance, uint32_t n_slots)
{
    instance->sparse_slots += n_slots;
    if (instance->sparse_slots > SPARSE_SLOTS) {
        (void)hypura_os_memory_discard(instance->sparse, instance->sparse_bytes);
        instance->sparse_slots = 0;
    }
}

bool shadow_run_sparse(backend_instance *instance, uint32_t n_slots, enum ggml_status *status)
{
    struct ggml_cplan plan = ggml_graph_plan(&instance->graph, instance->n_threads, instance->threadpool);
    const bool can = reserve_sparse(instance, plan.work_size);
    if (can) {
        const uint64_t begin_us = hypura_clock_us();
        plan.work_data = (uint8_t *)instance->sparse;
        plan.abort_callback = backend_ends_here;
        plan.abort_callback_data = instance;
        *status = ggml_graph_compute(&instance->graph, &plan);
        instance->compute_us += hypura_clock_us() - begin_us;
        trim_sparse(instance, n_slots);
    }
    instance->graph.n_nodes = 0;
    return can;
}

enum ggml_status backend_run_plain(backend_instance *instance, struct ggml_cgraph *graph, int first, int last)
{
    if (first >= last) {
        return GGML_STATUS_SUCCESS;
    }
    const int n_pending = instance->graph.n_nodes;
    if (n_pending > 0 && last - first <= instance->graph.size - n_pending) {
        memcpy(instance->nodes + n_pending, graph->nodes + first, (size_t)(last - first) * sizeof(*graph->nodes));
        instance->graph.n_nodes += last - first;
        return GGML_STATUS_SUCCESS;
    }
    const enum ggml_status status = shadow_run(instance);
    if (status != GGML_STATUS_SUCCESS) {
        return status;
    }
    struct ggml_cgraph part = ggml_graph_view(graph, first, last);
    return timed_compute(instance, &part);
}

bool arena_reserve(backend_arena *arena, size_t bytes)
{
    if (bytes <= arena->bytes) {
        return true;
    }
    char *memory = hypura_os_memory_map(bytes, 0);
    if (!memory) {
        return false;
    }
    arena_free(arena);
    arena->memory = memory;
    arena->bytes = bytes;
    return true;
}

void *arena_take(backend_arena *arena, size_t bytes)
{
    const size_t at = (arena->used + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    if (at + bytes > arena->bytes) {
        return NULL;
    }
    arena->used = at + bytes;
    return arena->memory + at;
}

void arena_free(backend_arena *arena)
{
    hypura_os_memory_unmap(arena->memory, arena->bytes);
    *arena = (backend_arena){0};
}
