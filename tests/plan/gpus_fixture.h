/*
 * gpus_fixture.h - models made by hand, planned over several GPUs; what always holds of such a plan.
 */
#ifndef HYPURA_TESTS_GPUS_FIXTURE_H
#define HYPURA_TESTS_GPUS_FIXTURE_H

#include "builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

enum { LAYERS = BUILDER_LAYERS, EXPERTS = 32, USED = 4 };

static builder b;
static hypura_plan_gpus gpus;

static inline int make_mixture(void **state)
{
    (void)state;
    builder_layers(&b, true);
    gpus = (hypura_plan_gpus){.n = 0};
    return 0;
}

static inline int make_dense(void **state)
{
    (void)state;
    builder_layers(&b, false);
    gpus = (hypura_plan_gpus){.n = 0};
    return 0;
}

static inline void add_gpu(uint64_t bytes)
{
    static const char *const names[] = {"A", "B", "C", "D"};
    gpus.list[gpus.n] = (hypura_plan_gpu){.name = names[gpus.n],
                                          .bytes = bytes,
                                          .upload_bytes_per_s = 10e9,
                                          .memory_bytes_per_s = 500e9,
                                          .round_trip_us = 20.0};
    gpus.n++;
}

/* What always holds. */
static inline void check(const hypura_plan *plan)
{
    hypura_gpu_plan sum = {.n_layers = 0};
    uint64_t here_bytes = 0;
    int next = LAYERS + 1 - plan->n_gpu_layers;
    for (int g = 0; g < plan->n_gpus; g++) {
        const hypura_gpu_plan *gpu = &plan->gpus[g];
        assert_int_equal(gpu->first_layer, next);
        assert_true(gpu->n_layers > 0);
        next += gpu->n_layers;
        assert_int_equal(gpu->vram_bytes, gpu->resident_bytes + gpu->slot_bytes + gpu->stage_bytes + gpu->kv_bytes +
                                              gpu->compute_bytes);
        for (int i = 0; i < gpus.n && gpus.total_bytes == 0; i++) {
            assert_true(strcmp(gpu->name, gpus.list[i].name) != 0 || gpu->vram_bytes <= gpus.list[i].bytes);
        }
        assert_true(!gpu->remote || (gpu->slot_bytes == 0 && gpu->stage_bytes == 0));
        assert_true(g == 0 || gpu->remote >= plan->gpus[g - 1].remote);
        here_bytes += gpu->remote ? 0 : gpu->vram_bytes;
        sum.vram_bytes += gpu->vram_bytes;
        sum.resident_bytes += gpu->resident_bytes;
        sum.slot_bytes += gpu->slot_bytes;
        sum.stage_bytes += gpu->stage_bytes;
        sum.kv_bytes += gpu->kv_bytes;
        sum.compute_bytes += gpu->compute_bytes;
    }
    assert_int_equal(next, LAYERS + 1);
    assert_int_equal(sum.vram_bytes, plan->vram_bytes);
    assert_int_equal(sum.resident_bytes, plan->vram_resident_bytes);
    assert_int_equal(sum.slot_bytes, plan->vram_slot_bytes);
    assert_int_equal(sum.stage_bytes, plan->vram_stage_bytes);
    assert_int_equal(sum.kv_bytes, plan->vram_kv_bytes);
    assert_int_equal(sum.compute_bytes, plan->vram_compute_bytes);
    assert_true(gpus.total_bytes == 0 || here_bytes <= gpus.total_bytes);
    for (int t = 0; t < b.map.n_tensors; t++) { /* with the GPU of its layer, or with the host */
        const hypura_placement *placement = &plan->placements[t];
        const int g = placement->gpu;
        const int layer = b.tensors[t].layer < 0 ? LAYERS : b.tensors[t].layer;
        assert_int_equal(g >= 0, placement->place == HYPURA_PLACE_VRAM || placement->vram_pool >= 0);
        if (g >= 0) {
            assert_in_range(layer, plan->gpus[g].first_layer, plan->gpus[g].first_layer + plan->gpus[g].n_layers - 1);
            assert_true(placement->vram_pool < 0 || plan->vram_pools[placement->vram_pool].gpu == g);
        }
    }
}

static inline hypura_plan *solve(bool force_paging)
{
    const hypura_plan_options options = {
        .weights_bytes = 8 * GIB, .force_paging = force_paging, .gpus = gpus.n > 0 ? &gpus : NULL};
    hypura_plan *plan = NULL;
    hypura_error error;
    assert_int_equal(builder_solve(&b, &options, &plan, &error), HYPURA_OK);
    check(plan);
    return plan;
}

#endif
