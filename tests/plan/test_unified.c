/*
 * test_unified.c - a GPU whose memory is the host's: one limit holds for both. Models are
 * made by hand.
 */
#include "builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

enum { LAYERS = BUILDER_LAYERS };

static builder b;
static hypura_plan_gpus gpus;

static void make(bool mixture)
{
    builder_layers(&b, mixture);
    b.survey.compute_bytes = 1 * MIB;
    gpus = (hypura_plan_gpus){.n = 1,
                              .list = {{.name = "A",
                                        .bytes = GIB,
                                        .upload_bytes_per_s = 10e9,
                                        .memory_bytes_per_s = 100e9,
                                        .round_trip_us = 20.0,
                                        .unified = true}}};
}

static int make_mixture(void **state)
{
    (void)state;
    make(true);
    return 0;
}

static int make_dense(void **state)
{
    (void)state;
    make(false);
    return 0;
}

static uint64_t taken_bytes(const hypura_plan *plan)
{
    return plan->weights_bytes + plan->kv_bytes + plan->compute_bytes + plan->overhead_bytes + plan->vram_bytes;
}

static hypura_plan *solve(uint64_t memory_bytes)
{
    const hypura_plan_options options = {.memory_bytes = memory_bytes, .overhead_bytes = 2 * MIB, .gpus = &gpus};
    return builder_wanted(&b, &options);
}

static void one_limit_holds_for_both(void **state)
{
    uint64_t held_before = 0;
    (void)state;
    for (uint64_t memory = 96 * MIB; memory <= 400 * MIB; memory += 3 * MIB) {
        hypura_plan *plan = solve(memory);
        assert_true(plan->unified && plan->n_gpu_layers == LAYERS + 1);
        assert_true(taken_bytes(plan) <= memory);
        assert_true(plan->floor_memory_bytes <= memory);
        assert_true(plan->n_vram_pools > 0 || plan->mode == HYPURA_MODE_RESIDENT);
        const uint64_t held = plan->vram_slot_bytes + plan->vram_resident_bytes;
        assert_true(held >= held_before);
        held_before = held;
        hypura_plan_free(plan);
    }
    assert_true(held_before > 290 * MIB); /* all experts, in the end */
}

/* Experts pass through the host: what it holds of them, the GPU could. */
static void the_gpu_has_what_the_host_does_not_need(void **state)
{
    (void)state;
    hypura_plan *plan = solve(200 * MIB);
    assert_int_equal(plan->mode, HYPURA_MODE_EXPERTS);
    assert_true(plan->pool_bytes <= 200 * MIB / 12);
    assert_true(plan->pools[0].n_slots > plan->pools[0].n_floor);
    assert_true(200 * MIB - taken_bytes(plan) < 2 * MIB);
    hypura_plan_free(plan);

    gpus.list[0].unified = false; /* the same GPU with memory of its own takes it beside */
    plan = solve(200 * MIB);
    assert_true(!plan->unified && taken_bytes(plan) > 300 * MIB);
    hypura_plan_free(plan);
}

/* More than the GPU may take is the host's, as slots behind it. */
static void its_own_limit_holds_too(void **state)
{
    (void)state;
    gpus.list[0].bytes = 120 * MIB;
    hypura_plan *plan = solve(300 * MIB);
    assert_true(plan->vram_bytes <= 120 * MIB);
    assert_true(plan->pool_bytes > 100 * MIB);
    assert_true(taken_bytes(plan) <= 300 * MIB);
    hypura_plan_free(plan);
    gpus.list[0].bytes = GIB;
    gpus.total_bytes = 100 * MIB;
    plan = solve(300 * MIB);
    assert_true(plan->vram_bytes <= 100 * MIB);
    hypura_plan_free(plan);
}

static void without_a_limit_some_is_left_to_others(void **state)
{
    (void)state;
    b.profile.ram_available_bytes = 200 * MIB;
    hypura_plan *plan = solve(0);
    assert_int_equal(plan->mode, HYPURA_MODE_EXPERTS);
    assert_true(taken_bytes(plan) <= 150 * MIB); /* a quarter is */
    assert_true(plan->memory_bytes == taken_bytes(plan));
    hypura_plan_free(plan);
    b.profile.ram_available_bytes = GIB;
    plan = solve(0);
    assert_int_equal(plan->mode, HYPURA_MODE_RESIDENT);
    hypura_plan_free(plan);
}

static void dense_layers_are_shared_out(void **state)
{
    (void)state;
    for (uint64_t memory = 60 * MIB; memory <= 200 * MIB; memory += 3 * MIB) {
        hypura_plan *plan = solve(memory);
        assert_true(taken_bytes(plan) <= memory);
        assert_true(memory > 160 * MIB ? plan->n_gpu_layers == LAYERS + 1 : plan->n_gpu_layers > 0);
        hypura_plan_free(plan);
    }
}

static void what_is_below_the_floor_is_refused(void **state)
{
    (void)state;
    const hypura_plan_options options = {.memory_bytes = 8 * MIB, .overhead_bytes = 2 * MIB, .gpus = &gpus};
    hypura_plan *plan = NULL;
    hypura_error error;
    assert_int_equal(builder_solve(&b, &options, &plan, &error), HYPURA_ERR_BUDGET);
    assert_null(plan);
    assert_non_null(strstr(error.message, "below the floor"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(one_limit_holds_for_both, make_mixture),
        cmocka_unit_test_setup(the_gpu_has_what_the_host_does_not_need, make_mixture),
        cmocka_unit_test_setup(its_own_limit_holds_too, make_mixture),
        cmocka_unit_test_setup(without_a_limit_some_is_left_to_others, make_mixture),
        cmocka_unit_test_setup(dense_layers_are_shared_out, make_dense),
        cmocka_unit_test_setup(what_is_below_the_floor_is_refused, make_mixture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
