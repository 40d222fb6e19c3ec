/*
 * probe_gpu.c - what a GPU's link and memory give, through ggml alone: copies from
 * memory that its driver pinned and from any other, copies within its memory, the time
 * until the result of a small piece of work is back, and what small graphs and small
 * operations take that follow each other.
 *
 * What always holds: less than 200 MB of its memory are taken, for a fraction of a
 * second; what cannot be measured stays 0.
 */
#include "hw/probe.h"

#include "base/clock.h"
#include "hw/modules.h"

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES  ((size_t)64 << 20)
#define PIECE_BYTES  ((size_t)1 << 20) /* about a matrix of an expert: drivers take their time for each copy */
#define MEASURE_US   30000u
#define ROUND_TRIPS  50
#define QUEUED       16 /* graphs, before they are waited for */
#define CHAIN        64 /* operations in one */

typedef struct gpu_probe {
    ggml_backend_t backend;
    struct ggml_context *ctx;
    ggml_backend_buffer_t memory;
    struct ggml_tensor *a; /* a block each */
    struct ggml_tensor *b;
    struct ggml_cgraph *copy; /* a to b */
    struct ggml_cgraph *tiny; /* one row doubled */
    struct ggml_tensor *result;
    struct ggml_cgraph *chain; /* the same, again and again */
} gpu_probe;

static void close_probe(gpu_probe *p)
{
    ggml_backend_buffer_free(p->memory);
    ggml_free(p->ctx);
    ggml_backend_free(p->backend);
}

static bool open_probe(gpu_probe *p, ggml_backend_dev_t device)
{
    const struct ggml_init_params params = {
        .mem_size = (16 + CHAIN) * ggml_tensor_overhead() + 3 * ggml_graph_overhead(), .no_alloc = true};
    *p = (gpu_probe){.backend = ggml_backend_dev_init(device, NULL), .ctx = ggml_init(params)};
    if (!p->backend || !p->ctx) {
        return false;
    }
    p->a = ggml_new_tensor_1d(p->ctx, GGML_TYPE_F32, (int64_t)(BLOCK_BYTES / sizeof(float)));
    p->b = ggml_new_tensor_1d(p->ctx, GGML_TYPE_F32, (int64_t)(BLOCK_BYTES / sizeof(float)));
    struct ggml_tensor *row = ggml_new_tensor_1d(p->ctx, GGML_TYPE_F32, 8);
    p->copy = ggml_new_graph(p->ctx);
    p->tiny = ggml_new_graph(p->ctx);
    ggml_build_forward_expand(p->copy, ggml_cpy(p->ctx, p->a, p->b));
    p->result = ggml_scale(p->ctx, row, 2.0f);
    ggml_build_forward_expand(p->tiny, p->result);
    struct ggml_tensor *last = row;
    for (int i = 0; i < CHAIN; i++) {
        last = ggml_scale(p->ctx, last, i % 2 ? 0.5f : 2.0f);
    }
    p->chain = ggml_new_graph(p->ctx);
    ggml_build_forward_expand(p->chain, last);
    p->memory = ggml_backend_alloc_ctx_tensors(p->ctx, p->backend);
    if (p->memory) {
        ggml_backend_buffer_clear(p->memory, 0);
    }
    return p->memory != NULL;
}

/* A block from host memory piece by piece, no byte twice: what a GPU has read it may
 * keep. As often as fits the time. */
static double upload_rate(const gpu_probe *p, const char *block)
{
    uint64_t n = 0;
    ggml_backend_tensor_set_async(p->backend, p->a, block, 0, BLOCK_BYTES); /* the first touch is not measured */
    ggml_backend_synchronize(p->backend);
    const uint64_t begin_us = hypura_clock_us();
    uint64_t now_us = begin_us;
    while (now_us - begin_us < MEASURE_US) {
        for (size_t at = 0; at < BLOCK_BYTES; at += PIECE_BYTES) {
            ggml_backend_tensor_set_async(p->backend, n % 2 ? p->b : p->a, block + at, at, PIECE_BYTES);
        }
        ggml_backend_synchronize(p->backend);
        now_us = hypura_clock_us();
        n++;
    }
    return (double)(n * BLOCK_BYTES) * 1e6 / (double)(now_us - begin_us);
}

static double copy_rate(const gpu_probe *p)
{
    uint64_t n = 0;
    if (ggml_backend_graph_compute(p->backend, p->copy) != GGML_STATUS_SUCCESS) {
        return 0.0;
    }
    const uint64_t begin_us = hypura_clock_us();
    uint64_t now_us = begin_us;
    while (now_us - begin_us < MEASURE_US) {
        for (int i = 0; i < 4; i++, n++) {
            (void)ggml_backend_graph_compute_async(p->backend, p->copy);
        }
        ggml_backend_synchronize(p->backend);
        now_us = hypura_clock_us();
    }
    return (double)(n * BLOCK_BYTES) * 1e6 / (double)(now_us - begin_us);
}

static double round_trip_us(const gpu_probe *p, void *back)
{
    uint64_t begin_us = 0;
    for (int i = 0; i <= ROUND_TRIPS; i++) { /* the first one builds what it needs */
        if (i == 1) {
            begin_us = hypura_clock_us();
        }
        if (ggml_backend_graph_compute_async(p->backend, p->tiny) != GGML_STATUS_SUCCESS) {
            return 0.0;
        }
        ggml_backend_tensor_get_async(p->backend, p->result, back, 0, ggml_nbytes(p->result));
        ggml_backend_synchronize(p->backend);
    }
    return (double)(hypura_clock_us() - begin_us) / ROUND_TRIPS;
}

/* One of many that are handed over without waiting. */
static double queued_us(const gpu_probe *p, struct ggml_cgraph *graph)
{
    uint64_t n = 0;
    uint64_t begin_us = hypura_clock_us();
    uint64_t now_us = begin_us;
    for (int round = 0; round == 0 || now_us - begin_us < MEASURE_US; round++) {
        if (round == 1) { /* the first ones build what they need */
            begin_us = now_us;
            n = 0;
        }
        for (int i = 0; i < QUEUED; i++, n++) {
            if (ggml_backend_graph_compute_async(p->backend, graph) != GGML_STATUS_SUCCESS) {
                return 0.0;
            }
        }
        ggml_backend_synchronize(p->backend);
        now_us = hypura_clock_us();
    }
    return (double)(now_us - begin_us) / (double)n;
}

static void measure_small_work(const gpu_probe *p, hypura_device *measured)
{
    const double chain_us = queued_us(p, p->chain);
    measured->hand_over_us = queued_us(p, p->tiny);
    measured->operation_us =
        chain_us > measured->hand_over_us ? (chain_us - measured->hand_over_us) / (CHAIN - 1) : chain_us / CHAIN;
}

/* What returned was a sign of life. */
static void go_on(hypura_patience *patience, const hypura_device *measured)
{
    hypura_patience_turn(patience, measured->name, "for it to be measured");
}

static void measure(const gpu_probe *p, ggml_backend_dev_t device, hypura_patience *patience, hypura_device *measured)
{
    char *pageable = calloc(1, BLOCK_BYTES);
    ggml_backend_buffer_type_t type = ggml_backend_dev_host_buffer_type(device);
    ggml_backend_buffer_t pinned = type ? ggml_backend_buft_alloc_buffer(type, BLOCK_BYTES) : NULL;
    char *block = pinned ? ggml_backend_buffer_get_base(pinned) : pageable;
    if (pageable) {
        measured->upload_pageable_bytes_per_s = upload_rate(p, pageable);
        go_on(patience, measured);
    }
    if (block) {
        memset(block, 0, BLOCK_BYTES);
        measured->upload_bytes_per_s = pinned ? upload_rate(p, block) : measured->upload_pageable_bytes_per_s;
        go_on(patience, measured);
        measured->round_trip_us = round_trip_us(p, block);
        go_on(patience, measured);
        measure_small_work(p, measured);
        go_on(patience, measured);
    }
    measured->device_memory_bytes_per_s = copy_rate(p);
    go_on(patience, measured);
    ggml_backend_synchronize(p->backend);
    ggml_backend_buffer_free(pinned);
    free(pageable);
}

void hypura_probe_gpu(hypura_patience *patience, hypura_device *measured)
{
    ggml_backend_dev_t device = ggml_backend_dev_by_name(measured->name);
    gpu_probe probe;
    go_on(patience, measured);
    measured->unified = device && hypura_modules_is_unified(device);
    if (!device) {
        return;
    }
    if (open_probe(&probe, device)) {
        go_on(patience, measured);
        measure(&probe, device, patience, measured);
    }
    close_probe(&probe);
}
