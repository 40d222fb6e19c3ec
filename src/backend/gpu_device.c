/*
 * gpu_device.c - the device that stands for a GPU, see gpu.h. Owned by the engine,
 * one for each GPU of a model that is paged over it.
 *
 * libllama compares devices by their address, so that what belongs together (a
 * layer, its cache, flash attention) must all be on ours; buffers and events are
 * the GPU's own. What the GPU's backend lacks, ours lacks as well.
 */
#include "backend/gpu_internal.h"

#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static hypura_gpu *gpu_of(ggml_backend_dev_t device)
{
    return device->context;
}

static ggml_backend_dev_t inner_of(ggml_backend_dev_t device)
{
    return gpu_of(device)->inner;
}

/* ---- the device ---------------------------------------------------------------- */

static const char *device_name(ggml_backend_dev_t device)
{
    return gpu_of(device)->name;
}

static const char *device_description(ggml_backend_dev_t device)
{
    return ggml_backend_dev_description(inner_of(device));
}

static void device_memory(ggml_backend_dev_t device, size_t *free_bytes, size_t *total_bytes)
{
    ggml_backend_dev_memory(inner_of(device), free_bytes, total_bytes);
}

static enum ggml_backend_dev_type device_type(ggml_backend_dev_t device)
{
    (void)device;
    return GGML_BACKEND_DEVICE_TYPE_GPU;
}

static void device_props(ggml_backend_dev_t device, struct ggml_backend_dev_props *props)
{
    ggml_backend_dev_get_props(inner_of(device), props);
    props->name = device_name(device);
    props->type = device_type(device);
    props->caps.buffer_from_host_ptr = false;
}

static ggml_backend_t device_init(ggml_backend_dev_t device, const char *params)
{
    (void)params;
    return gpu_new_instance(gpu_of(device));
}

static ggml_backend_buffer_type_t device_buffer_type(ggml_backend_dev_t device)
{
    hypura_gpu *gpu = gpu_of(device);
    return gpu->memory.device ? &gpu->memory : ggml_backend_dev_buffer_type(gpu->inner);
}

static ggml_backend_buffer_type_t device_host_buffer_type(ggml_backend_dev_t device)
{
    return ggml_backend_dev_host_buffer_type(inner_of(device));
}

static bool reads_experts(const hypura_gpu *gpu, const struct ggml_tensor *op)
{
    const struct ggml_tensor *weights = op->src[0];
    return weights && weights->buffer && weights->buffer->buft == &gpu->experts;
}

/* The GPU never sees the weights themselves: slots and stages stand in for them, of
 * which no size is known to be too large. */
static bool device_supports_op(ggml_backend_dev_t device, const struct ggml_tensor *op)
{
    const hypura_gpu *gpu = gpu_of(device);
    if (!reads_experts(gpu, op)) {
        return ggml_backend_dev_supports_op(gpu->inner, op);
    }
    if (op->op != GGML_OP_MUL_MAT_ID) {
        return false;
    }
    struct ggml_tensor weights = *op->src[0];
    struct ggml_tensor copy = *op;
    weights.ne[2] = 1;
    weights.nb[3] = weights.nb[2];
    weights.buffer = NULL;
    weights.extra = NULL;
    copy.src[0] = &weights;
    return ggml_backend_dev_supports_op(gpu->inner, &copy);
}

static bool device_supports_buffer_type(ggml_backend_dev_t device, ggml_backend_buffer_type_t type)
{
    const hypura_gpu *gpu = gpu_of(device);
    return type == &gpu->experts || type == &gpu->memory || ggml_backend_dev_supports_buft(inner_of(device), type);
}

static bool device_offload_op(ggml_backend_dev_t device, const struct ggml_tensor *op)
{
    return ggml_backend_dev_offload_op(inner_of(device), op);
}

static ggml_backend_event_t device_event_new(ggml_backend_dev_t device)
{
    return ggml_backend_event_new(inner_of(device));
}

static void device_event_free(ggml_backend_dev_t device, ggml_backend_event_t event)
{
    (void)device;
    ggml_backend_event_free(event);
}

static void device_event_synchronize(ggml_backend_dev_t device, ggml_backend_event_t event)
{
    (void)device;
    ggml_backend_event_synchronize(event);
}

/* ---- functions by name ------------------------------------------------------------ */

static void *inner_function(ggml_backend_dev_t device, const char *name)
{
    return ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(inner_of(device)), name);
}

static void set_n_threads(ggml_backend_t backend, int n_threads)
{
    ggml_backend_set_n_threads_t set;
    void *address = inner_function(backend->device, "ggml_backend_set_n_threads");
    memcpy(&set, &address, sizeof(set));
    set(gpu_inner_instance(backend), n_threads);
}

static void set_abort_callback(ggml_backend_t backend, ggml_abort_callback callback, void *user)
{
    ggml_backend_set_abort_callback_t set;
    void *address = inner_function(backend->device, "ggml_backend_set_abort_callback");
    memcpy(&set, &address, sizeof(set));
    set(gpu_inner_instance(backend), callback, user);
}

static ggml_backend_buffer_type_t *get_extra_bufts(ggml_backend_dev_t device)
{
    ggml_backend_dev_get_extra_bufts_t get;
    void *address = inner_function(device, "ggml_backend_dev_get_extra_bufts");
    memcpy(&get, &address, sizeof(get));
    return get(inner_of(device));
}

/* Only those whose handles can be unwrapped; libllama does without the others. */
static void *registry_function(ggml_backend_reg_t registry, const char *name)
{
    hypura_gpu *gpu = registry->context;
    void       *function = NULL;
    if (!inner_function(&gpu->device, name)) {
        return NULL;
    }
    if (strcmp(name, "ggml_backend_set_n_threads") == 0) {
        ggml_backend_set_n_threads_t ours = set_n_threads;
        memcpy(&function, &ours, sizeof(function));
    } else if (strcmp(name, "ggml_backend_set_abort_callback") == 0) {
        ggml_backend_set_abort_callback_t ours = set_abort_callback;
        memcpy(&function, &ours, sizeof(function));
    } else if (strcmp(name, "ggml_backend_dev_get_extra_bufts") == 0) {
        ggml_backend_dev_get_extra_bufts_t ours = get_extra_bufts;
        memcpy(&function, &ours, sizeof(function));
    }
    return function;
}

static const char *registry_name(ggml_backend_reg_t registry)
{
    (void)registry;
    return "Hypura over a GPU";
}

static size_t registry_count(ggml_backend_reg_t registry)
{
    (void)registry;
    return 1;
}

static ggml_backend_dev_t registry_device(ggml_backend_reg_t registry, size_t index)
{
    hypura_gpu *gpu = registry->context;
    return index == 0 ? &gpu->device : NULL;
}

/* ---- the buffer type of streamed experts --------------------------------------------- */

/* One of its own for each GPU: libllama takes types of one name for the same. */
static const char *experts_name(ggml_backend_buffer_type_t type)
{
    return ((hypura_gpu *)type->context)->experts_name;
}

/* libllama asks for a buffer of no bytes when it loads no weights. */
static ggml_backend_buffer_t experts_alloc(ggml_backend_buffer_type_t type, size_t bytes)
{
    return bytes == 0 ? backend_alloc_weights(type, ((hypura_gpu *)type->context)->pager, NULL, 0) : NULL;
}

/* Adapters lie where libllama put the weights that they are for, and are no weights of the file: they get memory of the GPU. */
static ggml_backend_buffer_t experts_alloc_n(ggml_backend_buffer_type_t type, struct ggml_tensor **tensors, int n)
{
    const hypura_gpu *gpu = type->context;
    backend_weight    first;
    if (n > 0 && !backend_describe_weight(gpu->pager, tensors[0]->name, &first)) {
        return ggml_backend_buft_alloc_buffer_n(ggml_backend_dev_buffer_type(gpu->inner), tensors, n);
    }
    return backend_alloc_weights(type, ((hypura_gpu *)type->context)->pager, tensors, n);
}

static size_t experts_alignment(ggml_backend_buffer_type_t type)
{
    return ggml_backend_buft_get_alignment(ggml_backend_dev_buffer_type(((hypura_gpu *)type->context)->inner));
}

/* ---- the GPU's memory by another name ------------------------------------------------ */

/*
 * libllama gives a GPU that can use the host's memory as it is the mapping of the file, from
 * the first to the last of its weights. What is paged lies between them, and Metal keeps all of
 * it in memory. It asks the device of the buffer type: over such a GPU this one, which is ours
 * and cannot. Its buffers are the GPU's own.
 */
static ggml_backend_buffer_type_t inner_type(ggml_backend_buffer_type_t type)
{
    return ggml_backend_dev_buffer_type(((hypura_gpu *)type->context)->inner);
}

static const char *memory_name(ggml_backend_buffer_type_t type)
{
    return ggml_backend_buft_name(inner_type(type));
}

static ggml_backend_buffer_t memory_alloc(ggml_backend_buffer_type_t type, size_t bytes)
{
    return ggml_backend_buft_alloc_buffer(inner_type(type), bytes);
}

static size_t memory_alignment(ggml_backend_buffer_type_t type)
{
    return ggml_backend_buft_get_alignment(inner_type(type));
}

static size_t memory_max_size(ggml_backend_buffer_type_t type)
{
    return ggml_backend_buft_get_max_size(inner_type(type));
}

static size_t memory_alloc_size(ggml_backend_buffer_type_t type, const struct ggml_tensor *tensor)
{
    return ggml_backend_buft_get_alloc_size(inner_type(type), tensor);
}

static bool memory_is_host(ggml_backend_buffer_type_t type)
{
    return ggml_backend_buft_is_host(inner_type(type));
}

static void rename_memory(hypura_gpu *gpu)
{
    gpu->memory = (struct ggml_backend_buffer_type){
        .iface =
            {
                .get_name = memory_name,
                .alloc_buffer = memory_alloc,
                .get_alignment = memory_alignment,
                .get_max_size = memory_max_size,
                .get_alloc_size = memory_alloc_size,
                .is_host = memory_is_host,
            },
        .device = &gpu->device,
        .context = gpu,
    };
}

/* ---- open and close -------------------------------------------------------------------- */

/* Whether the GPU can turn ids into slots: rows of one number from a table of numbers. */
static bool can_look_up(ggml_backend_dev_t device)
{
    struct ggml_tensor table = {.type = GGML_TYPE_I32,
                                .ne = {1, 8, 1, 1},
                                .nb = {sizeof(int32_t), sizeof(int32_t), 8 * sizeof(int32_t), 8 * sizeof(int32_t)}};
    struct ggml_tensor ids = {.type = GGML_TYPE_I32,
                              .ne = {8, 1, 1, 1},
                              .nb = {sizeof(int32_t), 8 * sizeof(int32_t), 8 * sizeof(int32_t), 8 * sizeof(int32_t)}};
    struct ggml_tensor lookup = table;
    lookup.op = GGML_OP_GET_ROWS;
    lookup.src[0] = &table;
    lookup.src[1] = &ids;
    return ggml_backend_dev_supports_op(device, &lookup);
}

hypura_status hypura_gpu_open(void *device, int index, hypura_pager *pager, hypura_gpu **out, hypura_error *error)
{
    hypura_gpu *gpu = calloc(1, sizeof(*gpu));
    if (!gpu) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a device over %s", ggml_backend_dev_name(device));
    }
    const struct ggml_backend_device_i *has = &((ggml_backend_dev_t)device)->iface;
    gpu->inner = device;
    gpu->index = index;
    gpu->pager = pager;
    (void)snprintf(gpu->name, sizeof(gpu->name), "Hypura-%s", ggml_backend_dev_name(device));
    (void)snprintf(gpu->experts_name, sizeof(gpu->experts_name), "%s-Experts", gpu->name);
    gpu->records_late = strcmp(ggml_backend_reg_name(ggml_backend_dev_backend_reg(device)), "Vulkan") == 0;
    gpu->can_look_up = can_look_up(device);
    gpu->registry = (struct ggml_backend_reg){
        .api_version = GGML_BACKEND_API_VERSION,
        .iface =
            {
                .get_name = registry_name,
                .get_device_count = registry_count,
                .get_device = registry_device,
                .get_proc_address = registry_function,
            },
        .context = gpu,
    };
    gpu->device = (struct ggml_backend_device){
        .iface =
            {
                .get_name = device_name,
                .get_description = device_description,
                .get_memory = device_memory,
                .get_type = device_type,
                .get_props = device_props,
                .init_backend = device_init,
                .get_buffer_type = device_buffer_type,
                .get_host_buffer_type = has->get_host_buffer_type ? device_host_buffer_type : NULL,
                .supports_op = device_supports_op,
                .supports_buft = device_supports_buffer_type,
                .offload_op = has->offload_op ? device_offload_op : NULL,
                .event_new = has->event_new ? device_event_new : NULL,
                .event_free = has->event_free ? device_event_free : NULL,
                .event_synchronize = has->event_synchronize ? device_event_synchronize : NULL,
            },
        .reg = &gpu->registry,
        .context = gpu,
    };
    gpu->experts = (struct ggml_backend_buffer_type){
        .iface =
            {
                .get_name = experts_name,
                .alloc_buffer = experts_alloc,
                .alloc_buffer_n = experts_alloc_n,
                .get_alignment = experts_alignment,
            },
        .device = &gpu->device,
        .context = gpu,
    };
    if (hypura_pager_plan(pager)->gpus[index].addressable) {
        rename_memory(gpu);
    }
    *out = gpu;
    return HYPURA_OK;
}

void hypura_gpu_set_foresight(hypura_gpu *gpu, hypura_foresight foresight)
{
    gpu->foresight = foresight;
}

void hypura_gpu_set_misses(hypura_gpu *gpu, hypura_gpu_misses misses, int n_threads)
{
    gpu->misses = misses;
    gpu->n_threads = n_threads;
}

void hypura_gpu_close(hypura_gpu *gpu)
{
    free(gpu);
}

void *hypura_gpu_device(hypura_gpu *gpu)
{
    return &gpu->device;
}

void *hypura_gpu_expert_type(hypura_gpu *gpu)
{
    return &gpu->experts;
}

void hypura_gpu_set_select(hypura_gpu *gpu, hypura_gpu_select_fn select, void *user)
{
    gpu->select = select;
    gpu->select_user = user;
    hypura_pager_give_selections(gpu->pager, select != NULL);
}

void hypura_gpu_set_watch(hypura_gpu *gpu, hypura_gpu_watch_fn watch, void *user)
{
    gpu->watch = watch;
    gpu->watch_user = user;
}
