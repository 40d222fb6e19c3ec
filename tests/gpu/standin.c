/*
 * standin.c - see standin.h. One thread at a time uses the device, as everywhere in
 * these tests: nothing here is locked.
 */
#include "standin_memory.h"
#include "standin_queue.h"

#include "ggml-cpu.h"
#include "ggml-impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DESCRIPTION "the CPU behind memory of its own"

/* ---- one instance ------------------------------------------------------------------ */

typedef struct standin {
    ggml_backend_t cpu;
    standin_queue *queue;
    standin_queue *uploads;     /* copies that overtake, where they are scrambled; or NULL */
    bool           has_uploads; /* that what is computed next does not wait for yet */
    standin_mark   waits_for;   /* copies that overtake */
} standin;

typedef struct standin_event {
    struct ggml_backend_event event; /* first: it is freed by its address */
    standin_mark              mark;
} standin_event;

/* What is asked for next comes behind the copies that overtake. */
static void join_uploads(standin *s)
{
    if (s->has_uploads) {
        standin_queue_wait(s->queue, standin_queue_end(s->uploads));
        s->has_uploads = false;
    }
}

/* All that it was asked for so far. */
static void flush(standin *s)
{
    join_uploads(s);
    standin_queue_run(standin_queue_end(s->queue));
}

/* Where computing is late, what waits for nothing of it is early; but for what ggml-vulkan hands over with a graph. */
static void add_copy(standin *s, void *to, const void *from, size_t bytes)
{
    const bool at_once = standin_wrong.computes_late && !standin_wrong.copies_overtake && standin_wrong.scrambles == 0 &&
                         standin_wrong.lags == 0 && standin_queue_is_empty(s->queue);
    join_uploads(s);
    standin_queue_copy(s->queue, to, from, bytes);
    if (at_once) {
        flush(s);
    }
}

static const char *instance_name(ggml_backend_t backend)
{
    return ggml_backend_dev_name(backend->device);
}

static void instance_free(ggml_backend_t backend)
{
    standin *s = backend->context;
    flush(s);
    standin_queue_close(s->queue);
    if (s->uploads) {
        standin_queue_close(s->uploads);
    }
    ggml_backend_free(s->cpu);
    free(s);
    free(backend);
}

/* As where a copy needs memory of the device by itself. */
static void begin_copy(void)
{
    standin_need();
    if (standin_wrong.copy_throws_after > 0 && --standin_wrong.copy_throws_after == 0) {
        standin_throw("standin: no memory for a copy on purpose");
    }
}

/* Where copies overtake, they have a queue of their own in each instance, as ggml-vulkan's: what is computed next waits for them,
 * and they wait for nothing that is computed, but for events that the instance was told to wait for. */
static void add_upload(standin *s, void *to, const void *from, size_t bytes)
{
    if (!standin_wrong.copies_overtake) {
        add_copy(s, to, from, bytes);
        return;
    }
    if (s->uploads) {
        standin_queue_wait(s->uploads, s->waits_for);
        standin_queue_copy(s->uploads, to, from, bytes);
        s->has_uploads = true;
    } else {
        standin_queue_run(s->waits_for);
        memcpy(standin_seen(to), from, bytes);
    }
}

static void instance_set(ggml_backend_t backend, struct ggml_tensor *tensor, const void *data, size_t offset,
                         size_t size)
{
    begin_copy();
    add_upload(backend->context, (char *)tensor->data + offset, data, size);
    standin_counted.bytes_to_device += size;
    standin_counted.n_copies_to_device++;
}

/* As strict as CUDA: rows do not overlap, nor are they further apart than it takes. */
static void instance_set_2d(ggml_backend_t backend, struct ggml_tensor *tensor, const void *data, size_t offset, size_t size,
                            size_t n_copies, size_t stride_tensor, size_t stride_data)
{
    if (stride_tensor < size || stride_data < size || stride_tensor > INT32_MAX || stride_data > INT32_MAX) {
        GGML_ABORT("standin: rows of %zu bytes, %zu and %zu apart", size, stride_tensor, stride_data);
    }
    begin_copy();
    for (size_t i = 0; i < n_copies; i++) {
        add_upload(backend->context, (char *)tensor->data + offset + i * stride_tensor,
                   (const char *)data + i * stride_data, size);
    }
    standin_counted.bytes_to_device += n_copies * size;
    standin_counted.n_copies_to_device++;
}

static void instance_get(ggml_backend_t backend, const struct ggml_tensor *tensor, void *data, size_t offset,
                         size_t size)
{
    standin_need();
    add_copy(backend->context, data, (const char *)tensor->data + offset, size);
}

static bool instance_copy(ggml_backend_t from, ggml_backend_t to, const struct ggml_tensor *source,
                          struct ggml_tensor *target)
{
    (void)from, (void)source, (void)target;
    if (to->iface.get_name != instance_name) {
        GGML_ABORT("a handle that is not this device's");
    }
    return false; /* ggml copies through the buffers then */
}

static void instance_synchronize(ggml_backend_t backend)
{
    standin_need();
    standin_wait(false);
    standin       *s = backend->context;
    standin_queue *queue = s->queue;
    join_uploads(s);
    if (standin_wrong.wait_throws_after > 0 && !standin_queue_is_empty(queue) && --standin_wrong.wait_throws_after == 0) {
        standin_queue_forget(queue);
        if (s->uploads) {
            standin_queue_forget(s->uploads);
        }
        standin_throw("standin: a wait fails on purpose");
    }
    flush(s);
}

/* As pager/vram_routers.c names it. */
static bool asks_router(const struct ggml_tensor *node)
{
    return node->op == GGML_OP_MUL_MAT && strncmp(node->name, "asked-", 6) == 0;
}

/* As pager/vram_report.c names it: the last of a graph brings ids to the host. */
static bool reports(const struct ggml_cgraph *graph)
{
    return graph->n_nodes > 0 && strncmp(graph->nodes[graph->n_nodes - 1]->name, "reported-", 9) == 0;
}

static enum ggml_status instance_compute(ggml_backend_t backend, struct ggml_cgraph *graph)
{
    standin *s = backend->context;
    standin_need();
    standin_counted.n_graphs++;
    standin_counted.n_asked += graph->n_nodes > 0 && asks_router(graph->nodes[graph->n_nodes - 1]);
    standin_counted.n_reported += reports(graph);
    if (!standin_wrong.computes_late) {
        flush(s);
    }
    if (standin_wrong.fail_after > 0 && --standin_wrong.fail_after == 0) {
        GGML_LOG_ERROR("standin: a graph fails on purpose\n");
        return GGML_STATUS_FAILED;
    }
    if (standin_index(backend->device) == standin_wrong.lost_device && standin_wrong.lose_after > 0 && --standin_wrong.lose_after == 0) {
        standin_lost = standin_wrong.stays_lost;
        if (standin_wrong.losing_aborts) {
            standin_abort();
        }
        standin_throw("standin: device lost on purpose");
    }
    if (standin_wrong.silent_after > 0 && --standin_wrong.silent_after == 0) {
        atomic_store(&standin_silent, true);
    }
    if (atomic_load(&standin_silent)) {
        return GGML_STATUS_SUCCESS; /* as far as it was handed over */
    }
    if (standin_wrong.slow_after > 0 && --standin_wrong.slow_after == 0) {
        standin_be_slow(standin_wrong.slow_us);
    }
    if (standin_wrong.pace_us > 0) {
        (void)usleep((useconds_t)standin_wrong.pace_us);
    }
    standin_counted.n_graphs_of[standin_index(backend->device)]++;
    standin_check_memory(graph, standin_index(backend->device));
    if (standin_wrong.abort_after > 0 && --standin_wrong.abort_after == 0) {
        GGML_ABORT("standin: out of memory on purpose");
    }
    if (standin_wrong.computes_late) {
        join_uploads(s);
        standin_queue_graph(s->queue, graph);
        return GGML_STATUS_SUCCESS;
    }
    standin_move_all(graph, true);
    const enum ggml_status status = ggml_backend_graph_compute(s->cpu, graph);
    standin_move_all(graph, false);
    return status;
}

static void instance_event_record(ggml_backend_t backend, ggml_backend_event_t event)
{
    standin_need();
    join_uploads(backend->context);
    *(standin_mark *)event->context = standin_queue_end(((standin *)backend->context)->queue);
}

static void instance_event_wait(ggml_backend_t backend, ggml_backend_event_t event)
{
    const standin_mark mark = *(standin_mark *)event->context;
    standin_need();
    ((standin *)backend->context)->waits_for = mark;
    if (standin_wrong.computes_late) {
        standin_queue_wait(((standin *)backend->context)->queue, mark);
    } else {
        standin_queue_run(mark);
    }
}

static void instance_optimize(ggml_backend_t backend, struct ggml_cgraph *graph,
                              struct ggml_backend_graph_optimize_params *params)
{
    (void)graph, (void)params;
    if (backend->iface.get_name != instance_name) {
        GGML_ABORT("a handle that is not this device's");
    }
    standin_counted.n_optimized++;
}

static ggml_backend_t device_init(ggml_backend_dev_t device, const char *params)
{
    static uint8_t  guid[16] = "hypura-standin";
    standin        *s = calloc(1, sizeof(*s));
    ggml_backend_t  backend = calloc(1, sizeof(*backend));
    (void)params;
    if (!s || !backend || !(s->cpu = ggml_backend_cpu_init()) || !(s->queue = standin_queue_open(s->cpu))) {
        if (s) {
            ggml_backend_free(s->cpu);
        }
        free(s);
        free(backend);
        return NULL;
    }
    s->uploads = standin_wrong.copies_overtake && standin_wrong.scrambles > 0 ? standin_queue_open(s->cpu) : NULL;
    ggml_backend_cpu_set_n_threads(s->cpu, 1);
    *backend = (struct ggml_backend){
        .guid = &guid,
        .iface =
            {
                .get_name = instance_name,
                .free = instance_free,
                .set_tensor_async = instance_set,
                .get_tensor_async = instance_get,
                .set_tensor_2d_async = standin_wrong.single_rows ? NULL : instance_set_2d,
                .cpy_tensor_async = instance_copy,
                .synchronize = instance_synchronize,
                .graph_compute = instance_compute,
                .event_record = instance_event_record,
                .event_wait = instance_event_wait,
                .graph_optimize = instance_optimize,
            },
        .device = device,
        .context = s,
    };
    return backend;
}

/* ---- device and registry -------------------------------------------------------------- */

static const char *device_name(ggml_backend_dev_t device)
{
    return standin_index(device) == 0 ? STANDIN_NAME : STANDIN_SECOND;
}

static const char *device_description(ggml_backend_dev_t device)
{
    (void)device;
    return DESCRIPTION;
}

static void device_memory(ggml_backend_dev_t device, size_t *free_bytes, size_t *total_bytes)
{
    while (standin_asked && standin_index(device) == 0) {
        (void)usleep(1000);
    }
    const uint64_t used = standin_used_bytes(standin_index(device));
    *total_bytes = standin_memory_bytes(standin_index(device));
    *free_bytes = *total_bytes > used ? *total_bytes - used : 0;
}

static const char *small_name(ggml_backend_dev_t device)
{
    (void)device;
    return STANDIN_SMALL;
}

static void small_memory(ggml_backend_dev_t device, size_t *free_bytes, size_t *total_bytes)
{
    (void)device;
    *free_bytes = *total_bytes = 4096;
}

static ggml_backend_buffer_type_t small_type(ggml_backend_dev_t device)
{
    (void)device;
    return ggml_backend_cpu_buffer_type();
}

static ggml_backend_t small_init(ggml_backend_dev_t device, const char *params)
{
    (void)device;
    (void)params;
    return NULL;
}

static const char *twin_name(ggml_backend_dev_t device)
{
    (void)device;
    return STANDIN_TWIN;
}

static void twin_memory(ggml_backend_dev_t device, size_t *free_bytes, size_t *total_bytes)
{
    device_memory(device, free_bytes, total_bytes);
    *free_bytes *= 2;
    *total_bytes *= 2;
}

static enum ggml_backend_dev_type device_kind(ggml_backend_dev_t device)
{
    (void)device;
    return standin_wrong.unified ? GGML_BACKEND_DEVICE_TYPE_IGPU : GGML_BACKEND_DEVICE_TYPE_GPU;
}

static void device_props(ggml_backend_dev_t device, struct ggml_backend_dev_props *props)
{
    memset(props, 0, sizeof(*props));
    props->name = ggml_backend_dev_name(device);
    props->description = device_description(device);
    props->type = device_kind(device);
    props->device_id = device->iface.get_memory == small_memory ? NULL : standin_index(device) == 0 ? "0000:5a:00.0" : "0000:5b:00.0";
    ggml_backend_dev_memory(device, &props->memory_free, &props->memory_total);
    props->caps = (struct ggml_backend_dev_caps){.async = true, .host_buffer = true, .events = true, .mmap_support = true};
    props->caps.buffer_from_host_ptr = standin_wrong.addressable;
}

static bool device_supports_op(ggml_backend_dev_t device, const struct ggml_tensor *op)
{
    (void)device;
    if (standin_wrong.asks_no_routers && asks_router(op)) {
        return false;
    }
    return ggml_backend_dev_supports_op(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU), op);
}

static bool device_supports_type(ggml_backend_dev_t device, ggml_backend_buffer_type_t type)
{
    return type == standin_buffers(device);
}

static ggml_backend_event_t device_event_new(ggml_backend_dev_t device)
{
    const bool fails = standin_wrong.no_events || (standin_wrong.event_fails > 0 && --standin_wrong.event_fails == 0);
    standin_event *made = fails ? NULL : calloc(1, sizeof(*made));
    if (!made) {
        return NULL;
    }
    made->event = (struct ggml_backend_event){.device = device, .context = &made->mark};
    return &made->event;
}

static void device_event_free(ggml_backend_dev_t device, ggml_backend_event_t event)
{
    (void)device;
    free(event);
}

static void device_event_synchronize(ggml_backend_dev_t device, ggml_backend_event_t event)
{
    (void)device;
    standin_wait(true);
    standin_queue_run(*(standin_mark *)event->context);
}

static const char *registry_name(ggml_backend_reg_t registry)
{
    (void)registry;
    return standin_wrong.copies_overtake ? "Vulkan" : "Standin";
}

static size_t registry_count(ggml_backend_reg_t registry)
{
    (void)registry;
    return 3;
}

static ggml_backend_dev_t registry_device(ggml_backend_reg_t registry, size_t index);

static void set_n_threads(ggml_backend_t backend, int n_threads)
{
    if (backend->iface.get_name != instance_name) {
        GGML_ABORT("a handle that is not this device's");
    }
    ggml_backend_cpu_set_n_threads(((standin *)backend->context)->cpu, n_threads);
}

static void *registry_function(ggml_backend_reg_t registry, const char *name)
{
    (void)registry;
    void *function = NULL;
    if (strcmp(name, "ggml_backend_set_n_threads") == 0) {
        ggml_backend_set_n_threads_t ours = set_n_threads;
        memcpy(&function, &ours, sizeof(function));
    }
    return function;
}

static struct ggml_backend_reg registry = {
    .api_version = GGML_BACKEND_API_VERSION,
    .iface =
        {
            .get_name = registry_name,
            .get_device_count = registry_count,
            .get_device = registry_device,
            .get_proc_address = registry_function,
        },
};

static struct ggml_backend_device device = {
    .iface =
        {
            .get_name = device_name,
            .get_description = device_description,
            .get_memory = device_memory,
            .get_type = device_kind,
            .get_props = device_props,
            .init_backend = device_init,
            .get_buffer_type = standin_buffers,
            .get_host_buffer_type = standin_host_buffers,
            .buffer_from_host_ptr = standin_map,
            .supports_op = device_supports_op,
            .supports_buft = device_supports_type,
            .event_new = device_event_new,
            .event_free = device_event_free,
            .event_synchronize = device_event_synchronize,
        },
    .reg = &registry,
};

static ggml_backend_dev_t registry_device(ggml_backend_reg_t from, size_t index)
{
    static struct ggml_backend_device small;
    static struct ggml_backend_device second;
    (void)from;
    small = device;
    small.iface.get_name = small_name;
    small.iface.get_memory = small_memory;
    small.iface.init_backend = small_init;
    small.iface.get_buffer_type = small_type;
    second = device;
    second.context = (void *)(intptr_t)1;
    return index == 0 ? &small : index == 1 ? &device : index == 2 ? &second : NULL;
}

static const char *twin_registry_name(ggml_backend_reg_t from)
{
    (void)from;
    return "Twin";
}

static size_t twin_count(ggml_backend_reg_t from)
{
    (void)from;
    return 1;
}

static ggml_backend_dev_t twin_device(ggml_backend_reg_t from, size_t index)
{
    static struct ggml_backend_device twin;
    twin = device;
    twin.iface.get_name = twin_name;
    twin.iface.get_memory = twin_memory;
    twin.reg = from;
    return index == 0 ? &twin : NULL;
}

static struct ggml_backend_reg twin_registry = {
    .api_version = GGML_BACKEND_API_VERSION,
    .iface =
        {
            .get_name = twin_registry_name,
            .get_device_count = twin_count,
            .get_device = twin_device,
            .get_proc_address = registry_function,
        },
};

void standin_register(void)
{
    static bool registered;
    if (!registered) {
        ggml_backend_register(&registry);
        ggml_backend_register(&twin_registry);
        registered = true;
    }
}

void standin_set_rates(hypura_profile *profile, double slower)
{
    static const char *const names[] = {STANDIN_NAME, STANDIN_SECOND, STANDIN_SMALL, STANDIN_TWIN};
    profile->n_devices = sizeof(names) / sizeof(*names);
    for (int i = 0; i < profile->n_devices; i++) {
        hypura_device *known = &profile->devices[i];
        const double link = strcmp(names[i], STANDIN_SECOND) == 0 ? 8e9 / slower : 8e9;
        *known = (hypura_device){.kind = "gpu",
                                 .upload_bytes_per_s = link,
                                 .upload_pageable_bytes_per_s = link,
                                 .device_memory_bytes_per_s = 100e9,
                                 .round_trip_us = 20.0,
                                 .hand_over_us = 5.0,
                                 .operation_us = 1.0};
        (void)snprintf(known->name, sizeof(known->name), "%s", names[i]);
        (void)snprintf(known->description, sizeof(known->description), "%s", DESCRIPTION);
    }
}

void standin_set_faults(const standin_faults *wanted)
{
    standin_wrong = *wanted;
    standin_wrong.computes_late = wanted->computes_late || wanted->scrambles > 0 || wanted->lags > 0;
    standin_open_memory(wanted->addressable);
}

bool standin_reads(const void *from, size_t bytes)
{
    return standin_queue_reads(from, bytes);
}

standin_counts standin_read_counts(void)
{
    return standin_counted;
}
