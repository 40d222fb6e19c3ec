/*
 * rpc_serve.c - this machine's devices for hypura and llama.cpp on others, by ggml's own RPC server.
 *
 * ggml says of the processor that all memory is free, and knows no limit: the devices that clients see are copies of its own
 * that tell what is free now, within the limit. A copy and its instances differ from ggml's in that alone.
 */
#include "engine/llama/gpu.h"

#include "base/status.h"
#include "engine/llama/llama_shim.h"
#include "hw/rpc_link.h"
#include "hypura_server.h"
#include "os/os.h"

#include "ggml-backend-impl.h"

#include <stdio.h>
#include <string.h>

#define DEFAULT_PORT 50052 /* llama.cpp's */
#define SPARE_BYTES  (UINT64_C(512) << 20)

typedef struct shown {
    struct ggml_backend_device device; /* first: what ggml hands back is this */
    ggml_backend_dev_t inner;
    uint64_t limit_bytes;
} shown;

static shown *shown_of(ggml_backend_dev_t device)
{
    return (shown *)(void *)device;
}

static void shown_memory(ggml_backend_dev_t device, size_t *free_bytes, size_t *total_bytes)
{
    const shown *s = shown_of(device);
    hypura_os_memory memory;
    hypura_error error;
    ggml_backend_dev_memory(s->inner, free_bytes, total_bytes);
    if (ggml_backend_dev_type(s->inner) == GGML_BACKEND_DEVICE_TYPE_CPU && hypura_os_memory_read(&memory, &error) == HYPURA_OK) {
        *free_bytes = memory.available_bytes > SPARE_BYTES ? (size_t)(memory.available_bytes - SPARE_BYTES) : 0;
        *total_bytes = (size_t)memory.limit_bytes;
    }
    if (s->limit_bytes > 0 && *free_bytes > s->limit_bytes) {
        *free_bytes = (size_t)s->limit_bytes;
    }
}

static ggml_backend_t shown_init(ggml_backend_dev_t device, const char *params)
{
    ggml_backend_t backend = ggml_backend_dev_init(shown_of(device)->inner, params);
    if (backend) {
        backend->device = device;
    }
    return backend;
}

/* ggml lists no GPU here: the processor. */
static void add_processor(hypura_gpus_found *found)
{
    ggml_backend_dev_t processor = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (found->n == 0 && processor) {
        found->devices[found->n++] = processor;
    }
}

hypura_status hypura_rpc_serve(const hypura_rpc_options *options, hypura_error *error)
{
    static shown copies[HYPURA_MAX_GPUS]; /* for as long as the process lives, as ggml's own */
    ggml_backend_dev_t devices[HYPURA_MAX_GPUS];
    hypura_gpus_found found;
    char endpoint[280];
    const char *host = options->host ? options->host : "127.0.0.1";
    const int port = options->port > 0 ? options->port : DEFAULT_PORT;
    hypura_error_clear(error);
    hypura_status status = hypura_gpus_find(options->gpu, &found, error);
    if (status != HYPURA_OK) {
        return status;
    }
    add_processor(&found);
    for (int i = 0; i < found.n; i++) {
        copies[i] = (shown){.device = *found.devices[i], .inner = found.devices[i], .limit_bytes = options->memory_bytes};
        copies[i].device.iface.get_memory = shown_memory;
        copies[i].device.iface.init_backend = shown_init;
        devices[i] = &copies[i].device;
    }
    if (strchr(host, ':') || snprintf(endpoint, sizeof(endpoint), "%s:%d", host, port) >= (int)sizeof(endpoint)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s is no address to listen on: one of IPv4, or a name", host);
    }
    const int n_threads = options->n_threads > 0 ? options->n_threads : hypura_shim_n_cores();
    hypura_rpc_start_server(endpoint, NULL, (size_t)n_threads, (size_t)found.n, devices);
    return hypura_fail_errno(error, rpc_link_listen_errno(), "cannot listen on %s", endpoint);
}
