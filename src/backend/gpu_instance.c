/*
 * gpu_instance.c - one instance over a GPU, made by libllama for each context: graphs
 * with streamed experts go through the executor, everything else to the instance of the
 * GPU's backend that it wraps.
 *
 * What always holds: between enter and leave this instance alone of those over its GPU has
 * work queued.
 */
#include "backend/gpu_internal.h"

#include <stdlib.h>

/* gpu_walk to enum ggml_status. */
static enum ggml_status settle(void *user)
{
    const gpu_walk *walk = user;
    ggml_backend_synchronize(walk->instance->inner);
    hypura_vram_begin(walk->vram, walk->instance->inner);
    hypura_vram_settle(walk->vram);
    return GGML_STATUS_SUCCESS;
}

static void recover(const gpu_walk *walk)
{
    if (walk->instance->unsure) {
        (void)gpu_guard(settle, (void *)walk); /* what was queued must not arrive later */
        hypura_vram_failed(walk->vram);
        walk->instance->unsure = false;
    }
}

static enum ggml_status instance_compute(ggml_backend_t backend, struct ggml_cgraph *graph)
{
    gpu_instance *instance = backend->context;
    hypura_pager *pager = instance->gpu->pager;
    if (gpu_next_cut(instance, graph, 0, NULL).at == graph->n_nodes) {
        return ggml_backend_graph_compute_async(instance->inner, graph);
    }
    gpu_walk walk = {.instance = instance, .vram = hypura_pager_vram(pager, instance->gpu->index), .graph = graph};
    hypura_pager_enter(pager);
    recover(&walk);
    instance->unsure = true;
    const enum ggml_status status = gpu_guard(gpu_walk_graph, &walk);
    instance->unsure = status != GGML_STATUS_SUCCESS;
    gpu_swap_back(instance);
    recover(&walk);
    hypura_vram_tell(walk.vram);
    hypura_pager_leave(pager);
    return status;
}

/* ---- everything else is the inner instance's -------------------------------------------- */

static gpu_instance *instance_of(ggml_backend_t backend)
{
    return backend->context;
}

static const char *instance_name(ggml_backend_t backend)
{
    return instance_of(backend)->gpu->name;
}

static void instance_free(ggml_backend_t backend)
{
    gpu_instance *instance = backend->context;
    hypura_vram  *vram = hypura_pager_vram(instance->gpu->pager, instance->gpu->index);
    if (vram) {
        ggml_backend_synchronize(instance->inner);
        hypura_vram_forget(vram, instance->inner);
    }
    for (int s = 0; s < HYPURA_MAX_STAGES; s++) {
        ggml_backend_event_free(instance->stage_done[s]);
    }
    ggml_backend_free(instance->inner);
    free(instance->swapped);
    free(instance->ids);
    free(instance->pieces.list);
    free(instance->pieces.nodes);
    free(instance->odds);
    free(instance->n_late);
    free(instance->row);
    gpu_close_hybrid(instance->hybrid);
    free(instance);
    free(backend);
}

static void instance_set_async(ggml_backend_t backend, struct ggml_tensor *tensor, const void *data, size_t offset,
                               size_t size)
{
    ggml_backend_t inner = instance_of(backend)->inner;
    inner->iface.set_tensor_async(inner, tensor, data, offset, size);
}

static void instance_get_async(ggml_backend_t backend, const struct ggml_tensor *tensor, void *data, size_t offset,
                               size_t size)
{
    ggml_backend_t inner = instance_of(backend)->inner;
    inner->iface.get_tensor_async(inner, tensor, data, offset, size);
}

static void instance_set_2d_async(ggml_backend_t backend, struct ggml_tensor *tensor, const void *data, size_t offset,
                                  size_t size, size_t n_copies, size_t stride_tensor, size_t stride_data)
{
    ggml_backend_t inner = instance_of(backend)->inner;
    inner->iface.set_tensor_2d_async(inner, tensor, data, offset, size, n_copies, stride_tensor, stride_data);
}

static void instance_get_2d_async(ggml_backend_t backend, const struct ggml_tensor *tensor, void *data, size_t offset,
                                  size_t size, size_t n_copies, size_t stride_tensor, size_t stride_data)
{
    ggml_backend_t inner = instance_of(backend)->inner;
    inner->iface.get_tensor_2d_async(inner, tensor, data, offset, size, n_copies, stride_tensor, stride_data);
}

static bool instance_copy_async(ggml_backend_t from, ggml_backend_t to, const struct ggml_tensor *source,
                                struct ggml_tensor *target)
{
    ggml_backend_t inner = gpu_inner_instance(to);
    return inner->iface.cpy_tensor_async(gpu_inner_instance(from), inner, source, target);
}

/* It may throw, out of our hands. */
static void instance_synchronize(ggml_backend_t backend)
{
    const bool before = instance_of(backend)->unsure;
    instance_of(backend)->unsure = true;
    ggml_backend_synchronize(instance_of(backend)->inner);
    instance_of(backend)->unsure = before;
}

static void instance_event_record(ggml_backend_t backend, ggml_backend_event_t event)
{
    ggml_backend_event_record(event, instance_of(backend)->inner);
}

static void instance_event_wait(ggml_backend_t backend, ggml_backend_event_t event)
{
    ggml_backend_event_wait(instance_of(backend)->inner, event);
}

static void instance_optimize(ggml_backend_t backend, struct ggml_cgraph *graph,
                              struct ggml_backend_graph_optimize_params *params)
{
    ggml_backend_t inner = instance_of(backend)->inner;
    inner->iface.graph_optimize(inner, graph, params);
    gpu_keep_inputs(instance_of(backend), graph, params);
}

static ggml_guid_t instance_guid(void)
{
    static ggml_guid guid = {0x68, 0x79, 0x70, 0x75, 0x72, 0x61, 0x2d, 0x67,
                             0x70, 0x75, 0x2d, 0x2d, 0x2d, 0x30, 0x30, 0x31};
    return &guid;
}

ggml_backend_t gpu_inner_instance(ggml_backend_t backend)
{
    return backend->iface.graph_compute == instance_compute ? instance_of(backend)->inner : backend;
}

ggml_backend_t gpu_new_instance(hypura_gpu *gpu)
{
    gpu_instance  *instance = calloc(1, sizeof(*instance));
    ggml_backend_t backend = calloc(1, sizeof(*backend));
    ggml_backend_t inner = ggml_backend_dev_init(gpu->inner, NULL);
    if (!instance || !backend || !inner) {
        free(instance);
        free(backend);
        ggml_backend_free(inner);
        return NULL;
    }
    const bool computes = gpu->misses == HYPURA_GPU_MISSES_CPU && hypura_pager_vram(gpu->pager, gpu->index);
    instance->hybrid = computes ? gpu_open_hybrid(gpu) : NULL;
    if (computes && !instance->hybrid) {
        GGML_LOG_ERROR("hypura: no memory for the processor to compute what %s lacks: upload it instead\n", gpu->name);
        free(instance);
        free(backend);
        ggml_backend_free(inner);
        return NULL;
    }
    instance->gpu = gpu;
    instance->inner = inner;
    ggml_backend_synchronize(inner); /* takes what it needs of the device's memory now, not when it fails */
    instance->odds = calloc((size_t)hypura_pager_map(gpu->pager)->n_bundles + 1, sizeof(*instance->odds));
    instance->n_late = calloc((size_t)hypura_pager_map(gpu->pager)->n_bundles + 1, sizeof(*instance->n_late));
    instance->row = calloc((size_t)hypura_pager_map(gpu->pager)->embedding_length + 1, sizeof(*instance->row));
    for (int s = 0; inner->iface.event_record && s < HYPURA_MAX_STAGES; s++) {
        instance->stage_done[s] = ggml_backend_event_new(gpu->inner);
    }
    const struct ggml_backend_i *has = &inner->iface;
    *backend = (struct ggml_backend){
        .guid = instance_guid(),
        .iface =
            {
                .get_name = instance_name,
                .free = instance_free,
                .set_tensor_async = has->set_tensor_async ? instance_set_async : NULL,
                .get_tensor_async = has->get_tensor_async ? instance_get_async : NULL,
                .set_tensor_2d_async = has->set_tensor_2d_async ? instance_set_2d_async : NULL,
                .get_tensor_2d_async = has->get_tensor_2d_async ? instance_get_2d_async : NULL,
                .cpy_tensor_async = has->cpy_tensor_async ? instance_copy_async : NULL,
                .synchronize = has->synchronize ? instance_synchronize : NULL,
                .graph_compute = instance_compute,
                .event_record = has->event_record ? instance_event_record : NULL,
                .event_wait = has->event_wait ? instance_event_wait : NULL,
                .graph_optimize = has->graph_optimize ? instance_optimize : NULL,
            },
        .device = &gpu->device,
        .context = instance,
    };
    return backend;
}
