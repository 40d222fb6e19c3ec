/*
 * test_gpus_remote.c - devices of other machines: the last layers are theirs, whole, and what that takes of a token.
 */
#include "gpus_fixture.h"

#include <math.h>

/* Of another machine: slower to reach than any GPU, and never asked for less than whole layers. */
static void add_remote(uint64_t bytes)
{
    add_gpu(bytes);
    gpus.list[gpus.n - 1].remote = true;
    gpus.list[gpus.n - 1].upload_bytes_per_s = 100e6;
    gpus.list[gpus.n - 1].round_trip_us = 300.0;
}

/* Whole layers from the last one on, as many as fit, and the host has the rest to page. */
static void a_remote_device_has_the_last_layers(void **state)
{
    (void)state;
    hypura_plan *alone = solve(true);
    add_remote(100 * MIB);
    hypura_plan *plan = solve(true);
    assert_int_equal(plan->n_gpus, 1);
    assert_true(plan->gpus[0].remote);
    assert_int_equal(plan->n_vram_pools, 0);
    assert_true(plan->gpus[0].n_layers > 1 && plan->gpus[0].n_layers < LAYERS);
    assert_true(plan->gpus[0].vram_bytes + 32 * MIB > 100 * MIB); /* another layer has no room */
    assert_true(plan->weights_bytes < alone->weights_bytes);
    assert_true(plan->floor_weights_bytes <= alone->floor_weights_bytes);
    assert_int_equal(plan->kv_bytes + plan->vram_kv_bytes, alone->kv_bytes + alone->vram_kv_bytes);
    for (int t = 0; t < b.map.n_tensors; t++) {
        const bool last = b.tensors[t].layer >= plan->gpus[0].first_layer;
        assert_true(!last || plan->placements[t].place == HYPURA_PLACE_VRAM);
    }
    hypura_plan_free(plan);
    gpus.list[0].bytes = GIB; /* all of it fits there */
    plan = solve(false);
    assert_int_equal(plan->n_gpu_layers, LAYERS + 1);
    assert_int_equal(plan->mode, HYPURA_MODE_RESIDENT);
    hypura_plan_free(plan);
    gpus.list[0].bytes = MIB; /* not even the output */
    plan = solve(true);
    assert_int_equal(plan->n_gpus, 0);
    assert_int_equal(plan->floor_weights_bytes, alone->floor_weights_bytes);
    hypura_plan_free(plan);
    hypura_plan_free(alone);
}

/* A token takes a round trip more, and what its numbers take on the way. */
static void a_network_takes_its_time(void **state)
{
    (void)state;
    b.map.embedding_length = 1000;
    add_remote(GIB);
    hypura_plan *near = solve(false);
    const double bytes = near->gpus[0].link_bytes_per_token;
    assert_true(bytes > 4000.0);
    gpus.list[0].round_trip_us += 1000.0;
    hypura_plan *far = solve(false);
    assert_true(fabs(far->compute_s - near->compute_s - 1e-3) < 1e-9);
    gpus.list[0].upload_bytes_per_s /= 2.0;
    hypura_plan *narrow = solve(false);
    assert_true(fabs(narrow->compute_s - far->compute_s - bytes / 100e6) < 1e-9);
    gpus.list[0].bytes = 100 * MIB; /* the host has layers before: the outputs of a token's experts are summed up there */
    hypura_plan *part = solve(false);
    assert_true(part->gpus[0].first_layer > 0);
    assert_true(fabs(part->gpus[0].link_bytes_per_token - bytes - USED * 4000.0) < 1e-6);
    hypura_plan_free(near);
    hypura_plan_free(far);
    hypura_plan_free(narrow);
    hypura_plan_free(part);
}

/* The GPU here pages experts of the layers that the other machine has no room for; a limit on GPU memory is not one on
 * that, and moves no layer. */
static void a_gpu_here_has_the_layers_before(void **state)
{
    (void)state;
    add_gpu(80 * MIB);
    add_remote(150 * MIB);
    hypura_plan *plan = solve(true);
    assert_int_equal(plan->n_gpus, 2);
    assert_int_equal(plan->n_gpu_layers, LAYERS + 1);
    assert_false(plan->gpus[0].remote);
    assert_true(plan->gpus[1].remote);
    assert_true(plan->n_vram_pools > 0);
    for (int i = 0; i < plan->n_vram_pools; i++) {
        assert_int_equal(plan->vram_pools[i].gpu, 0);
    }
    const int first = plan->gpus[1].first_layer;
    for (uint32_t percent = 0; percent <= 100; percent += 25) {
        gpus.total_bytes = hypura_plan_vram_at(plan, percent);
        hypura_plan *less = solve(true);
        assert_int_equal(less->gpus[less->n_gpus - 1].first_layer, first);
        assert_true(less->n_vram_pools > 0 || percent == 100);
        hypura_plan_free(less);
    }
    hypura_plan_free(plan);
}

static void a_gpu_here_that_holds_all_is_enough(void **state)
{
    (void)state;
    add_gpu(GIB);
    add_remote(GIB);
    hypura_plan *plan = solve(false);
    assert_int_equal(plan->n_gpus, 1);
    assert_false(plan->gpus[0].remote);
    hypura_plan_free(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_remote_device_has_the_last_layers, make_mixture),
        cmocka_unit_test_setup(a_remote_device_has_the_last_layers, make_dense),
        cmocka_unit_test_setup(a_network_takes_its_time, make_mixture),
        cmocka_unit_test_setup(a_gpu_here_has_the_layers_before, make_mixture),
        cmocka_unit_test_setup(a_gpu_here_that_holds_all_is_enough, make_mixture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
