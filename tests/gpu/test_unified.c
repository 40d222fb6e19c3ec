/*
 * test_unified.c - a GPU whose memory is the host's, over the device that stands for one:
 * one limit on both, the same bits as plain llama.cpp, and not a byte more than that limit.
 */
#include "gpu_fixture.h"
#include "mixture_fixture.h"

#include "hw/modules.h"

static int integrated(void **state)
{
    const int result = use_mixture(state);
    standin_set_faults(&(standin_faults){.unified = true});
    return result;
}

static uint64_t taken_bytes(const hypura_plan *plan)
{
    return plan->weights_bytes + plan->kv_bytes + plan->compute_bytes + plan->overhead_bytes + plan->vram_bytes;
}

static void it_is_known_by_what_it_says(void **state)
{
    (void)state;
    ggml_backend_dev_t device = ggml_backend_dev_by_name(STANDIN_NAME);
    assert_true(hypura_modules_is_unified(device));
    standin_set_faults(&(standin_faults){0});
    assert_false(hypura_modules_is_unified(device));
    assert_false(hypura_modules_is_unified(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU)));
}

/* From the least that can run to all of it. Prompts are parts as without a link, whatever the limit. */
static void every_limit_gives_the_same_bits(void **state)
{
    enum { N_LIMITS = 4 };
    (void)state;
    hypura_model_options options = gpu_options(gpu_mixture(), STANDIN_NAME);
    options.n_ubatch = 0;
    options.memory_bytes = UINT64_C(8) << 30;
    const hypura_plan all = gpu_plan_of(&options);
    assert_true(all.unified);
    assert_int_equal(all.n_ubatch, options.n_context);
    const uint64_t most = taken_bytes(&all);
    const uint64_t least = most - (all.vram_bytes - all.floor_vram_bytes);
    hypura_statistics before = {.bytes_read = UINT64_MAX};
    for (uint64_t i = 0; i < N_LIMITS; i++) {
        options.memory_bytes = least + (most - least) * i / (N_LIMITS - 1) + (UINT64_C(1) << 20);
        const hypura_plan plan = gpu_plan_of(&options);
        assert_true(plan.unified && plan.n_gpu_layers == all.n_gpu_layers);
        assert_true(taken_bytes(&plan) <= options.memory_bytes);
        const hypura_statistics now = run_same(&options);
        assert_true(standin_read_counts().bytes_used <= plan.vram_bytes + (UINT64_C(1) << 20));
        assert_true(now.bytes_read <= before.bytes_read);
        before = now;
    }
}

/* The host keeps a few slots, for experts on their way. */
static void experts_are_held_once(void **state)
{
    (void)state;
    hypura_model_options options = gpu_options(gpu_mixture(), STANDIN_NAME);
    options.memory_bytes = UINT64_C(8) << 30;
    const hypura_plan all = gpu_plan_of(&options);
    options.memory_bytes = taken_bytes(&all) - all.vram_slot_bytes / 2;
    const hypura_plan shared = gpu_plan_of(&options);
    standin_set_faults(&(standin_faults){0});
    const hypura_plan apart = gpu_plan_of(&options);
    assert_true(!apart.unified && apart.pool_bytes > shared.pool_bytes);
    assert_true(taken_bytes(&apart) > options.memory_bytes);
    assert_true(shared.vram_bytes < all.vram_bytes - all.vram_slot_bytes / 3);
    assert_true(shared.pools[0].n_slots <= 5 * shared.pools[0].n_floor);
    assert_true(all.pools[0].n_slots <= 5 * all.pools[0].n_floor);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_is_known_by_what_it_says, integrated, gpu_no_faults),
        cmocka_unit_test_setup_teardown(every_limit_gives_the_same_bits, integrated, gpu_no_faults),
        cmocka_unit_test_setup_teardown(experts_are_held_once, integrated, gpu_no_faults),
    };
    return cmocka_run_group_tests(tests, gpu_setup, fixture_teardown);
}
