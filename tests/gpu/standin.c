/*
 * standin.c - see standin.h. One thread at a time uses the device, as everywhere in
 * these tests: nothing here is locked.
 */
#include "standin.h"

#include "ggml-backend-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_REGIONS = 4096, MAX_COPIES = 65536, ALIGN = 64, GIB_OF_MEMORY = 64 };
#define ARENA_BYTES ((size_t)256 << 30)

static standin_faults faults;
static standin_counts counts;
static uint64_t       bytes_used[STANDIN_N]; /* of each device's memory */

/* ---- memory ------------------------------------------------------------------- */

/* The same pages twice: where tensors say that they lie no access is allowed, and the
 * device itself works at the other place. */
typedef struct region {
    size_t at;
    size_t bytes;  /* 0: free */
    int    device; /* whose memory it is */
} region;

static char  *shown;
static char  *real;
static size_t high; /* no buffer lies above */
static region regions[MAX_REGIONS];

static bool open_arena(void)
{
    if (shown) {
        return true;
    }
    const int file = memfd_create("standin", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, ARENA_BYTES) != 0) {
        return false;
    }
    shown = mmap(NULL, ARENA_BYTES, PROT_NONE, MAP_SHARED | MAP_NORESERVE, file, 0);
    real = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
    close(file);
    return shown != MAP_FAILED && real != MAP_FAILED;
}

/* Above everything else: buffers come and go together. */
static bool take_region(region *r, size_t bytes)
{
    if (!open_arena() || high + bytes > ARENA_BYTES) {
        return false;
    }
    *r = (region){.at = high, .bytes = bytes};
    high += bytes;
    return true;
}

static void give_region(region *r)
{
    madvise(real + r->at, r->bytes, MADV_REMOVE);
    *r = (region){0};
    high = 0;
    for (int i = 0; i < MAX_REGIONS; i++) {
        const size_t end = regions[i].at + regions[i].bytes;
        high = end > high ? end : high;
    }
}

static bool is_in(const char *arena, const void *address)
{
    return (const char *)address >= arena && (const char *)address < arena + ARENA_BYTES;
}

/* An address as the device sees it; those of the host stay. */
static void *seen(const void *address)
{
    return is_in(shown, address) ? real + ((const char *)address - shown) : (void *)(uintptr_t)address;
}

static void move(struct ggml_tensor *tensor, const char *from, char *to)
{
    if (tensor && is_in(from, tensor->data)) {
        tensor->data = to + ((const char *)tensor->data - from);
    }
}

static void move_all(struct ggml_cgraph *graph, const char *from, char *to)
{
    for (int i = 0; i < graph->n_nodes; i++) {
        move(graph->nodes[i], from, to);
        for (int s = 0; s < GGML_MAX_SRC; s++) {
            move(graph->nodes[i]->src[s], from, to);
        }
    }
}

static uint64_t memory_bytes(int device)
{
    const uint64_t bytes = device == 0 ? faults.memory_bytes : faults.second_memory_bytes;
    return bytes > 0 ? bytes : (uint64_t)GIB_OF_MEMORY << 30;
}

/* Which of the two it is. */
static int index_of(ggml_backend_dev_t device)
{
    return (int)(intptr_t)device->context;
}

/* Since a device was lost that stays so. */
static bool is_lost;

static void need_device(void)
{
    if (is_lost) {
        GGML_ABORT("standin: the device is lost");
    }
}

static void buffer_free(ggml_backend_buffer_t buffer)
{
    need_device();
    region *r = buffer->context;
    counts.bytes_used -= r->bytes;
    bytes_used[r->device] -= r->bytes;
    give_region(r);
}

static void *buffer_base(ggml_backend_buffer_t buffer)
{
    return shown + ((region *)buffer->context)->at;
}

static void buffer_memset(ggml_backend_buffer_t buffer, struct ggml_tensor *tensor, uint8_t value, size_t offset,
                          size_t size)
{
    (void)buffer;
    memset((char *)seen(tensor->data) + offset, value, size);
}

static void buffer_set(ggml_backend_buffer_t buffer, struct ggml_tensor *tensor, const void *data, size_t offset,
                       size_t size)
{
    (void)buffer;
    memcpy((char *)seen(tensor->data) + offset, data, size);
    counts.bytes_to_device += size;
}

static void buffer_get(ggml_backend_buffer_t buffer, const struct ggml_tensor *tensor, void *data, size_t offset,
                       size_t size)
{
    (void)buffer;
    memcpy(data, (const char *)seen(tensor->data) + offset, size);
}

static void buffer_clear(ggml_backend_buffer_t buffer, uint8_t value)
{
    region *r = buffer->context;
    memset(real + r->at, value, r->bytes);
}

static const char *type_name(ggml_backend_buffer_type_t type)
{
    return ggml_backend_dev_name(type->device);
}

static ggml_backend_buffer_t type_alloc(ggml_backend_buffer_type_t type, size_t size)
{
    static const struct ggml_backend_buffer_i interface = {
        .free_buffer = buffer_free,
        .get_base = buffer_base,
        .memset_tensor = buffer_memset,
        .set_tensor = buffer_set,
        .get_tensor = buffer_get,
        .clear = buffer_clear,
    };
    const size_t bytes = (size + 4095) / 4096 * 4096 + 4096;
    int          at = 0;
    while (at < MAX_REGIONS && regions[at].bytes > 0) {
        at++;
    }
    const int device = index_of(type->device);
    if (at == MAX_REGIONS || bytes_used[device] + bytes > memory_bytes(device) || !take_region(&regions[at], bytes)) {
        return NULL;
    }
    regions[at].device = device;
    counts.bytes_used += bytes;
    bytes_used[device] += bytes;
    return ggml_backend_buffer_init(type, interface, &regions[at], size);
}

static size_t type_alignment(ggml_backend_buffer_type_t type)
{
    (void)type;
    return ALIGN;
}

static size_t type_max_size(ggml_backend_buffer_type_t type)
{
    (void)type;
    return faults.max_buffer_bytes > 0 ? faults.max_buffer_bytes : SIZE_MAX;
}

static ggml_backend_buffer_type_t device_type_of_buffers(ggml_backend_dev_t device)
{
    static struct ggml_backend_buffer_type types[STANDIN_N];
    struct ggml_backend_buffer_type       *type = &types[index_of(device)];
    type->iface = (struct ggml_backend_buffer_type_i){
        .get_name = type_name,
        .alloc_buffer = type_alloc,
        .get_alignment = type_alignment,
        .get_max_size = type_max_size,
    };
    type->device = device;
    return type;
}

/* ---- pinned memory of the host --------------------------------------------------- */

static const char *host_name(ggml_backend_buffer_type_t type)
{
    (void)type;
    return STANDIN_NAME "_Host";
}

static ggml_backend_buffer_t host_alloc(ggml_backend_buffer_type_t type, size_t size)
{
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (buffer && !faults.no_pinned) {
        buffer->buft = type;
    }
    return buffer;
}

static size_t host_max_size(ggml_backend_buffer_type_t type)
{
    (void)type;
    return (size_t)1 << 20; /* small, so that pools come in pieces */
}

static bool host_is_host(ggml_backend_buffer_type_t type)
{
    (void)type;
    return true;
}

static ggml_backend_buffer_type_t device_host_type(ggml_backend_dev_t device)
{
    static struct ggml_backend_buffer_type type = {
        .iface =
            {
                .get_name = host_name,
                .alloc_buffer = host_alloc,
                .get_alignment = type_alignment,
                .get_max_size = host_max_size,
                .is_host = host_is_host,
            },
    };
    type.device = device;
    return &type;
}

/* ---- one instance ------------------------------------------------------------------ */

typedef struct late_copy {
    void       *to;
    const void *from;
    size_t      bytes;
} late_copy;

typedef struct standin {
    ggml_backend_t cpu;
    int            n_copies;
    late_copy      copies[MAX_COPIES];
} standin;

static void flush(standin *s)
{
    for (int i = 0; i < s->n_copies; i++) {
        memcpy(seen(s->copies[i].to), seen(s->copies[i].from), s->copies[i].bytes);
    }
    s->n_copies = 0;
}

static void add_copy(standin *s, void *to, const void *from, size_t bytes)
{
    if (s->n_copies == MAX_COPIES) {
        flush(s);
    }
    s->copies[s->n_copies++] = (late_copy){.to = to, .from = from, .bytes = bytes};
}

static const char *instance_name(ggml_backend_t backend)
{
    return ggml_backend_dev_name(backend->device);
}

static void instance_free(ggml_backend_t backend)
{
    standin *s = backend->context;
    flush(s);
    ggml_backend_free(s->cpu);
    free(s);
    free(backend);
}

static void instance_set(ggml_backend_t backend, struct ggml_tensor *tensor, const void *data, size_t offset,
                         size_t size)
{
    add_copy(backend->context, (char *)tensor->data + offset, data, size);
    counts.bytes_to_device += size;
    counts.n_copies_to_device++;
}

/* As strict as CUDA: rows do not overlap, nor are they further apart than it takes. */
static void instance_set_2d(ggml_backend_t backend, struct ggml_tensor *tensor, const void *data, size_t offset, size_t size,
                            size_t n_copies, size_t stride_tensor, size_t stride_data)
{
    if (stride_tensor < size || stride_data < size || stride_tensor > INT32_MAX || stride_data > INT32_MAX) {
        GGML_ABORT("standin: rows of %zu bytes, %zu and %zu apart", size, stride_tensor, stride_data);
    }
    for (size_t i = 0; i < n_copies; i++) {
        add_copy(backend->context, (char *)tensor->data + offset + i * stride_tensor,
                 (const char *)data + i * stride_data, size);
    }
    counts.bytes_to_device += n_copies * size;
    counts.n_copies_to_device++;
}

static void instance_get(ggml_backend_t backend, const struct ggml_tensor *tensor, void *data, size_t offset,
                         size_t size)
{
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
    need_device();
    flush(backend->context);
}

static bool is_view(const struct ggml_tensor *node)
{
    return node->op == GGML_OP_NONE || node->op == GGML_OP_VIEW || node->op == GGML_OP_RESHAPE ||
           node->op == GGML_OP_PERMUTE || node->op == GGML_OP_TRANSPOSE;
}

/* A device computes with its own memory alone; views are no work, wherever they lie. */
static void check_memory(const struct ggml_cgraph *graph, int device)
{
    for (int i = 0; i < graph->n_nodes; i++) {
        for (int s = -1; s < GGML_MAX_SRC && !is_view(graph->nodes[i]); s++) {
            const struct ggml_tensor *tensor = s < 0 ? graph->nodes[i] : graph->nodes[i]->src[s];
            if (tensor && is_in(shown, tensor->data)) {
                const size_t at = (size_t)((const char *)tensor->data - shown);
                for (int r = 0; r < MAX_REGIONS; r++) {
                    if (at >= regions[r].at && at < regions[r].at + regions[r].bytes && regions[r].device != device) {
                        GGML_ABORT("%s of node %s lies in another device's memory", tensor->name, graph->nodes[i]->name);
                    }
                }
            }
        }
    }
}

static enum ggml_status instance_compute(ggml_backend_t backend, struct ggml_cgraph *graph)
{
    standin *s = backend->context;
    counts.n_graphs++;
    flush(s);
    if (faults.fail_after > 0 && --faults.fail_after == 0) {
        GGML_LOG_ERROR("standin: a graph fails on purpose\n");
        return GGML_STATUS_FAILED;
    }
    if (index_of(backend->device) == faults.lost_device && faults.lose_after > 0 && --faults.lose_after == 0) {
        is_lost = faults.stays_lost;
        standin_throw("standin: device lost on purpose");
    }
    counts.n_graphs_of[index_of(backend->device)]++;
    check_memory(graph, index_of(backend->device));
    if (faults.abort_after > 0 && --faults.abort_after == 0) {
        GGML_ABORT("standin: out of memory on purpose");
    }
    move_all(graph, shown, real);
    const enum ggml_status status = ggml_backend_graph_compute(s->cpu, graph);
    move_all(graph, real, shown);
    return status;
}

static void instance_event_record(ggml_backend_t backend, ggml_backend_event_t event)
{
    event->context = backend->context;
}

static void instance_event_wait(ggml_backend_t backend, ggml_backend_event_t event)
{
    (void)backend;
    if (event->context) {
        flush(event->context);
    }
}

static void instance_optimize(ggml_backend_t backend, struct ggml_cgraph *graph,
                              struct ggml_backend_graph_optimize_params *params)
{
    (void)graph, (void)params;
    if (backend->iface.get_name != instance_name) {
        GGML_ABORT("a handle that is not this device's");
    }
    counts.n_optimized++;
}

static ggml_backend_t device_init(ggml_backend_dev_t device, const char *params)
{
    static uint8_t  guid[16] = "hypura-standin";
    standin        *s = calloc(1, sizeof(*s));
    ggml_backend_t  backend = calloc(1, sizeof(*backend));
    (void)params;
    if (!s || !backend || !(s->cpu = ggml_backend_cpu_init())) {
        free(s);
        free(backend);
        return NULL;
    }
    ggml_backend_cpu_set_n_threads(s->cpu, 1);
    *backend = (struct ggml_backend){
        .guid = &guid,
        .iface =
            {
                .get_name = instance_name,
                .free = instance_free,
                .set_tensor_async = instance_set,
                .get_tensor_async = instance_get,
                .set_tensor_2d_async = faults.single_rows ? NULL : instance_set_2d,
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
    return index_of(device) == 0 ? STANDIN_NAME : STANDIN_SECOND;
}

static const char *device_description(ggml_backend_dev_t device)
{
    (void)device;
    return "the CPU behind memory of its own";
}

static void device_memory(ggml_backend_dev_t device, size_t *free_bytes, size_t *total_bytes)
{
    const uint64_t used = bytes_used[index_of(device)];
    *total_bytes = memory_bytes(index_of(device));
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
    return GGML_BACKEND_DEVICE_TYPE_GPU;
}

static void device_props(ggml_backend_dev_t device, struct ggml_backend_dev_props *props)
{
    memset(props, 0, sizeof(*props));
    props->name = ggml_backend_dev_name(device);
    props->description = device_description(device);
    props->type = device_kind(device);
    props->device_id = device->iface.get_memory == small_memory ? NULL : index_of(device) == 0 ? "0000:5a:00.0" : "0000:5b:00.0";
    ggml_backend_dev_memory(device, &props->memory_free, &props->memory_total);
    props->caps = (struct ggml_backend_dev_caps){.async = true, .host_buffer = true, .events = true, .mmap_support = true};
}

static bool device_supports_op(ggml_backend_dev_t device, const struct ggml_tensor *op)
{
    (void)device;
    return ggml_backend_dev_supports_op(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU), op);
}

static bool device_supports_type(ggml_backend_dev_t device, ggml_backend_buffer_type_t type)
{
    return type == device_type_of_buffers(device);
}

static ggml_backend_event_t device_event_new(ggml_backend_dev_t device)
{
    const bool fails = faults.no_events || (faults.event_fails > 0 && --faults.event_fails == 0);
    ggml_backend_event_t event = fails ? NULL : calloc(1, sizeof(*event));
    if (event) {
        event->device = device;
    }
    return event;
}

static void device_event_free(ggml_backend_dev_t device, ggml_backend_event_t event)
{
    (void)device;
    free(event);
}

static void device_event_synchronize(ggml_backend_dev_t device, ggml_backend_event_t event)
{
    (void)device;
    if (event->context) {
        flush(event->context);
    }
}

static const char *registry_name(ggml_backend_reg_t registry)
{
    (void)registry;
    return "Standin";
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
            .get_buffer_type = device_type_of_buffers,
            .get_host_buffer_type = device_host_type,
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

void standin_set_faults(const standin_faults *wanted)
{
    faults = *wanted;
}

standin_counts standin_read_counts(void)
{
    return counts;
}
