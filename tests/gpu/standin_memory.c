/*
 * standin_memory.c - see standin_memory.h.
 */
#include "standin_memory.h"

#include "ggml-cpu.h"
#include "ggml-impl.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { MAX_REGIONS = 4096, ALIGN = 64, GIB_OF_MEMORY = 64 };
#define ARENA_BYTES ((size_t)256 << 30)

standin_faults standin_wrong;
standin_counts standin_counted;
bool           standin_lost;
atomic_bool    standin_silent;
bool           standin_asked;
static _Atomic(uint64_t) busy_until_us;

static uint64_t bytes_used[STANDIN_N]; /* of each device's memory */

/* What processes that share the devices have of their memory; one that has ended has none. */
enum { MAX_PROCESSES = 256 };
typedef struct process_share {
    atomic_int            pid; /* 0: free */
    _Atomic(unsigned long) bytes_used[STANDIN_N];
} process_share;
static process_share *processes; /* NULL: they are this process's alone */
static process_share *own;

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
static int    n_regions; /* none behind these was ever taken */

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
    for (int i = 0; i < n_regions; i++) {
        const size_t end = regions[i].at + regions[i].bytes;
        high = end > high ? end : high;
    }
}

static bool is_in(const char *arena, const void *address)
{
    return (const char *)address >= arena && (const char *)address < arena + ARENA_BYTES;
}

void *standin_seen(const void *address)
{
    return is_in(shown, address) ? real + ((const char *)address - shown) : (void *)(uintptr_t)address;
}

static void move(struct ggml_tensor *tensor, const char *from, char *to)
{
    if (tensor && is_in(from, tensor->data)) {
        tensor->data = to + ((const char *)tensor->data - from);
    }
}

void standin_move_all(struct ggml_cgraph *graph, bool to_device)
{
    const char *from = to_device ? shown : real;
    char       *to = to_device ? real : shown;
    for (int i = 0; i < graph->n_nodes; i++) {
        move(graph->nodes[i], from, to);
        for (int s = 0; s < GGML_MAX_SRC; s++) {
            move(graph->nodes[i]->src[s], from, to);
        }
    }
}

uint64_t standin_memory_bytes(int device)
{
    const uint64_t bytes = device == 0 ? standin_wrong.memory_bytes : standin_wrong.second_memory_bytes;
    return bytes > 0 ? bytes : (uint64_t)GIB_OF_MEMORY << 30;
}

static bool has_ended(int pid)
{
    return kill(pid, 0) != 0 && errno == ESRCH;
}

bool standin_share_memory(const char *path)
{
    const int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    const size_t bytes = MAX_PROCESSES * sizeof(*processes);
    if (file < 0 || ftruncate(file, (off_t)bytes) != 0) {
        return false;
    }
    process_share *all = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    for (int i = 0; all != MAP_FAILED && i < MAX_PROCESSES && !own; i++) {
        int pid = atomic_load(&all[i].pid);
        if ((pid == 0 || has_ended(pid)) && atomic_compare_exchange_strong(&all[i].pid, &pid, getpid())) {
            own = &all[i];
            for (int d = 0; d < STANDIN_N; d++) {
                atomic_store(&own->bytes_used[d], 0);
            }
        }
    }
    processes = own ? all : NULL;
    return own != NULL;
}

uint64_t standin_used_bytes(int device)
{
    uint64_t used = bytes_used[device];
    for (int i = 0; processes && i < MAX_PROCESSES; i++) {
        const int pid = atomic_load(&processes[i].pid);
        used += &processes[i] != own && pid != 0 && !has_ended(pid) ? atomic_load(&processes[i].bytes_used[device]) : 0;
    }
    return used;
}

static void tell_used(int device)
{
    if (own) {
        atomic_store(&own->bytes_used[device], bytes_used[device]);
    }
}

int standin_index(ggml_backend_dev_t device)
{
    return (int)(intptr_t)device->context;
}

void standin_abort(void)
{
    GGML_LOG_ERROR("Standin error: lost on purpose\n");
    GGML_ABORT("Standin error");
}

void standin_need(void)
{
    if (standin_lost && standin_wrong.waiting_throws) {
        standin_throw("standin: waiting for a device lost on purpose");
    } else if (standin_lost) {
        standin_abort();
    }
}

static uint64_t clock_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

void standin_be_slow(uint64_t us)
{
    atomic_store(&busy_until_us, clock_us() + us);
}

void standin_wait(bool for_event)
{
    if (for_event && atomic_load(&standin_silent) && standin_wrong.silence_is_told) {
        standin_throw("standin: silent on purpose");
    }
    while (atomic_load(&standin_silent) || clock_us() < atomic_load(&busy_until_us)) {
        (void)usleep(1000);
    }
}

static void buffer_free(ggml_backend_buffer_t buffer)
{
    standin_need();
    region *r = buffer->context;
    standin_counted.bytes_used -= r->bytes;
    bytes_used[r->device] -= r->bytes;
    tell_used(r->device);
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
    standin_need();
    standin_wait(false);
    memset((char *)standin_seen(tensor->data) + offset, value, size);
}

static void buffer_set(ggml_backend_buffer_t buffer, struct ggml_tensor *tensor, const void *data, size_t offset,
                       size_t size)
{
    (void)buffer;
    standin_need();
    standin_wait(false);
    memcpy((char *)standin_seen(tensor->data) + offset, data, size);
    standin_counted.bytes_to_device += size;
}

static void buffer_get(ggml_backend_buffer_t buffer, const struct ggml_tensor *tensor, void *data, size_t offset,
                       size_t size)
{
    (void)buffer;
    standin_need();
    standin_wait(false);
    memcpy(data, (const char *)standin_seen(tensor->data) + offset, size);
}

static void buffer_clear(ggml_backend_buffer_t buffer, uint8_t value)
{
    standin_need();
    standin_wait(false);
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
    const int  device = standin_index(type->device);
    const bool refused = standin_wrong.refuses_buffer > 0 && --standin_wrong.refuses_buffer == 0;
    if (refused || standin_lost || at == MAX_REGIONS || standin_used_bytes(device) + bytes > standin_memory_bytes(device) ||
        !take_region(&regions[at], bytes)) {
        return NULL;
    }
    regions[at].device = device;
    n_regions = at < n_regions ? n_regions : at + 1;
    standin_counted.bytes_used += bytes;
    bytes_used[device] += bytes;
    tell_used(device);
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
    return standin_wrong.max_buffer_bytes > 0 ? standin_wrong.max_buffer_bytes : SIZE_MAX;
}

ggml_backend_buffer_type_t standin_buffers(ggml_backend_dev_t device)
{
    static struct ggml_backend_buffer_type types[STANDIN_N];
    struct ggml_backend_buffer_type       *type = &types[standin_index(device)];
    type->iface = (struct ggml_backend_buffer_type_i){
        .get_name = type_name,
        .alloc_buffer = type_alloc,
        .get_alignment = type_alignment,
        .get_max_size = type_max_size,
    };
    type->device = device;
    return type;
}

void standin_open_memory(bool open)
{
    if (open_arena()) {
        (void)mprotect(shown, ARENA_BYTES, open ? PROT_READ | PROT_WRITE : PROT_NONE);
    }
}

static void mapped_free(ggml_backend_buffer_t buffer)
{
    (void)buffer;
}

static void *mapped_base(ggml_backend_buffer_t buffer)
{
    return buffer->context;
}

ggml_backend_buffer_t standin_map(ggml_backend_dev_t device, void *memory, size_t bytes, size_t max_tensor_bytes)
{
    static const struct ggml_backend_buffer_i interface = {
        .free_buffer = mapped_free,
        .get_base = mapped_base,
        .set_tensor = buffer_set,
        .get_tensor = buffer_get,
    };
    (void)max_tensor_bytes;
    standin_counted.bytes_mapped += bytes;
    return ggml_backend_buffer_init(standin_buffers(device), interface, memory, bytes);
}

void standin_check_memory(const struct ggml_cgraph *graph, int device)
{
    for (int i = 0; i < graph->n_nodes; i++) {
        for (int s = -1; s < GGML_MAX_SRC && !ggml_op_is_empty(graph->nodes[i]->op); s++) {
            const struct ggml_tensor *tensor = s < 0 ? graph->nodes[i] : graph->nodes[i]->src[s];
            if (tensor && is_in(shown, tensor->data)) {
                const size_t at = (size_t)((const char *)tensor->data - shown);
                for (int r = 0; r < n_regions; r++) {
                    if (at >= regions[r].at && at < regions[r].at + regions[r].bytes && regions[r].device != device) {
                        GGML_ABORT("%s of node %s lies in another device's memory", tensor->name, graph->nodes[i]->name);
                    }
                }
            }
        }
    }
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
    if (buffer && !standin_wrong.no_pinned) {
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

ggml_backend_buffer_type_t standin_host_buffers(ggml_backend_dev_t device)
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
