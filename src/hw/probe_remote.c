/*
 * probe_remote.c - what a device of another machine gives, through ggml alone: a product with a matrix that its server's
 * memory holds, whose result is waited for; a small one, which is a round trip of the network; and blocks that are sent.
 *
 * What always holds: MATRIX_BYTES and BLOCK_BYTES of its memory are taken for a moment, and the network carries
 * some blocks.
 */
#include "hw/remote.h"

#include "base/clock.h"
#include "base/median.h"
#include "hw/rpc_link.h"

#include <ggml-alloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS      4096
#define ROWS         8192 /* of 2 bytes a number: 64 MiB */
#define SMALL_ROWS   8
#define BLOCK_BYTES  ((size_t)2 << 20)
#define MEASURE_US   40000u
#define ROUND_TRIPS  15
#define PRODUCTS     5
#define MAX_MEASURED 16

typedef struct remote_probe {
    ggml_backend_t backend;
    struct ggml_context *ctx;
    ggml_backend_buffer_t memory;
    struct ggml_tensor *block;
    struct ggml_cgraph *large, *small; /* products */
    struct ggml_tensor *large_result, *small_result;
} remote_probe;

static bool open_probe(remote_probe *p, ggml_backend_dev_t device)
{
    const struct ggml_init_params params = {.mem_size = 16 * ggml_tensor_overhead() + 2 * ggml_graph_overhead(),
                                            .no_alloc = true};
    *p = (remote_probe){.backend = ggml_backend_dev_init(device, NULL), .ctx = ggml_init(params)};
    if (!p->backend || !p->ctx) {
        return false;
    }
    struct ggml_tensor *matrix = ggml_new_tensor_2d(p->ctx, GGML_TYPE_F16, COLUMNS, ROWS);
    struct ggml_tensor *vector = ggml_new_tensor_1d(p->ctx, GGML_TYPE_F32, COLUMNS);
    struct ggml_tensor *rows = ggml_new_tensor_2d(p->ctx, GGML_TYPE_F16, COLUMNS, SMALL_ROWS);
    p->block = ggml_new_tensor_1d(p->ctx, GGML_TYPE_I8, BLOCK_BYTES);
    p->large = ggml_new_graph(p->ctx);
    p->small = ggml_new_graph(p->ctx);
    p->large_result = ggml_mul_mat(p->ctx, matrix, vector);
    p->small_result = ggml_mul_mat(p->ctx, rows, vector);
    ggml_build_forward_expand(p->large, p->large_result);
    ggml_build_forward_expand(p->small, p->small_result);
    p->memory = ggml_backend_alloc_ctx_tensors(p->ctx, p->backend);
    if (p->memory) {
        ggml_backend_buffer_clear(p->memory, 0);
    }
    return p->memory != NULL;
}

static void close_probe(remote_probe *p)
{
    ggml_backend_buffer_free(p->memory);
    ggml_free(p->ctx);
    ggml_backend_free(p->backend);
}

/* The median of n; the first one is not counted. 0: it failed. */
static double product_us(const remote_probe *p, struct ggml_cgraph *graph, const struct ggml_tensor *result, int n)
{
    double took_us[ROUND_TRIPS + PRODUCTS];
    float back[SMALL_ROWS];
    for (int i = 0; i <= n; i++) {
        const uint64_t begin_us = hypura_clock_us();
        if (ggml_backend_graph_compute_async(p->backend, graph) != GGML_STATUS_SUCCESS) {
            return 0.0;
        }
        ggml_backend_tensor_get_async(p->backend, result, back, 0, sizeof(back));
        ggml_backend_synchronize(p->backend);
        if (i > 0) {
            took_us[i - 1] = (double)(hypura_clock_us() - begin_us);
        }
    }
    return hypura_median(took_us, n);
}

static double send_rate(const remote_probe *p, double round_trip_us)
{
    char *block = calloc(1, BLOCK_BYTES);
    float back[SMALL_ROWS];
    uint64_t n = 0;
    uint64_t now_us = 0;
    const uint64_t begin_us = hypura_clock_us();
    while (block && (n == 0 || now_us - begin_us < MEASURE_US)) {
        /* An answer tells that all before it has arrived. */
        ggml_backend_tensor_set_async(p->backend, p->block, block, 0, BLOCK_BYTES);
        ggml_backend_tensor_get_async(p->backend, p->small_result, back, 0, sizeof(back));
        ggml_backend_synchronize(p->backend);
        now_us = hypura_clock_us();
        n++;
    }
    free(block);
    const double took_us = (double)(now_us - begin_us) - (double)n * round_trip_us;
    return n > 0 && took_us > 0.0 ? (double)(n * BLOCK_BYTES) * 1e6 / took_us : 0.0;
}

static void measure(ggml_backend_dev_t device, hypura_device *measured)
{
    remote_probe probe;
    if (open_probe(&probe, device)) {
        measured->round_trip_us = product_us(&probe, probe.small, probe.small_result, ROUND_TRIPS);
        const double large_us = product_us(&probe, probe.large, probe.large_result, PRODUCTS);
        const double own_us = large_us - measured->round_trip_us;
        measured->device_memory_bytes_per_s = own_us > 0.0 ? (double)COLUMNS * ROWS * 2.0 * 1e6 / own_us : 0.0;
        measured->upload_bytes_per_s = send_rate(&probe, measured->round_trip_us);
        measured->upload_pageable_bytes_per_s = measured->upload_bytes_per_s;
    }
    close_probe(&probe);
    if (hypura_remote_check(device, NULL) != HYPURA_OK) {
        memset(measured, 0, sizeof(*measured));
    }
}

void hypura_probe_remote(ggml_backend_dev_t device, hypura_device *measured)
{
    static pthread_mutex_t measuring = PTHREAD_MUTEX_INITIALIZER;
    static struct {
        ggml_backend_dev_t device;
        hypura_device rates;
    } known[MAX_MEASURED];
    static int n_known;
    (void)pthread_mutex_lock(&measuring);
    int i = 0;
    while (i < n_known && known[i].device != device) {
        i++;
    }
    if (i < n_known) {
        *measured = known[i].rates;
    } else {
        memset(measured, 0, sizeof(*measured));
        measure(device, measured);
        if (n_known < MAX_MEASURED && measured->round_trip_us > 0.0) {
            known[n_known].device = device;
            known[n_known++].rates = *measured;
        }
    }
    (void)pthread_mutex_unlock(&measuring);
}
