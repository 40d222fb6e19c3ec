/*
 * test_unified.c - a GPU whose memory is the host's, over the device that stands for one:
 * one limit on both, the same bits as plain llama.cpp, and not a byte more than that limit.
 */
#include "gpu_fixture.h"
#include "mixture_fixture.h"

#include "hw/modules.h"

#include <errno.h>

static int integrated(void **state)
{
    const int result = use_mixture(state);
    standin_set_faults(&(standin_faults){.unified = true});
    return result;
}

/* As on a Mac: copies are queued behind what is computed. */
static int of_metal(void **state)
{
    const int result = use_mixture(state);
    standin_set_faults(&(standin_faults){.addressable = true, .no_events = true});
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
    uint64_t read_bytes[N_LIMITS];
    for (uint64_t i = 0; i < N_LIMITS; i++) {
        options.memory_bytes = least + (most - least) * i / (N_LIMITS - 1) + (UINT64_C(1) << 20);
        const hypura_plan plan = gpu_plan_of(&options);
        assert_true(plan.unified && plan.n_gpu_layers == all.n_gpu_layers);
        assert_true(taken_bytes(&plan) <= options.memory_bytes);
        read_bytes[i] = run_same(&options).bytes_read;
        assert_true(standin_read_counts().bytes_used <= plan.vram_bytes + (UINT64_C(1) << 20));
    }
    assert_true(read_bytes[N_LIMITS - 1] < read_bytes[0] / 2);
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

static hypura_model_options tight_options(void)
{
    hypura_model_options options = gpu_options(gpu_mixture(), STANDIN_NAME);
    options.memory_bytes = UINT64_C(8) << 30;
    const hypura_plan all = gpu_plan_of(&options);
    options.memory_bytes = taken_bytes(&all) - (all.vram_bytes - all.floor_vram_bytes) * 3 / 4;
    return options;
}

/* What decoding lacks is read where it is computed with; of prompts it passes through the host. */
static void reads_land_where_the_host_may_write(void **state)
{
    (void)state;
    const hypura_model_options options = tight_options();
    const uint64_t mapped_before = standin_read_counts().bytes_mapped;
    const hypura_statistics lands = run_same(&options);
    assert_true(lands.bytes_landed > 0);
    assert_int_equal(standin_read_counts().bytes_mapped, mapped_before); /* a mapping would hold what is paged, too */
    standin_set_faults(&(standin_faults){.unified = true, .no_events = true});
    const hypura_statistics copies = run_same(&options);
    assert_int_equal(copies.bytes_landed, 0);
    assert_int_equal(copies.bytes_uploaded, lands.bytes_uploaded + lands.bytes_landed);
}

static int64_t fail_once(void *user, uint64_t nth, int64_t result)
{
    return nth == *(const uint64_t *)user ? -EIO : result;
}

/* Whichever read fails: an error, and what else was to land with it is not taken for what is meant later. */
static void a_drive_that_fails_spoils_nothing(void **state)
{
    (void)state;
    const hypura_model_options options = tight_options();
    uint64_t n_failed = 0;
    for (uint64_t nth = 20; nth < 500; nth += 19) {
        const hypura_model_extras extras = {.all_logits = true, .io_hook = fail_once, .io_hook_user = &nth};
        hypura_model *model = NULL;
        hypura_error error;
        hypura_status status = hypura_model_open_with(&options, &extras, &model, &error);
        if (status == HYPURA_OK) {
            uint64_t differing = 0;
            status = hypura_script_follow(model, &mixture.script, &differing, &error);
            n_failed += status != HYPURA_OK;
            llama_memory_clear(llama_get_memory(model->ctx), true);
            assert_same(model);
        }
        hypura_model_close(model);
    }
    assert_true(n_failed > 10);
}

/* A model whose last layers are the GPU's: no mapping of the whole file there either. */
static void dense_layers_are_not_mapped(void **state)
{
    (void)state;
    hypura_model_options options = gpu_options(HYPURA_TINY "/dense-f32.gguf", STANDIN_NAME);
    options.memory_bytes = UINT64_C(8) << 30;
    const hypura_plan all = gpu_plan_of(&options);
    options.memory_bytes = taken_bytes(&all) - all.vram_resident_bytes / 8;
    const hypura_plan plan = gpu_plan_of(&options);
    assert_true(plan.unified && plan.n_gpu_layers > 0 && plan.mode != HYPURA_MODE_RESIDENT);
    hypura_model_options plain = options;
    plain.plain = true;
    plain.force_paging = false;
    plain.memory_bytes = 0;
    plain.n_gpu_layers = plan.n_gpu_layers;
    hypura_script script;
    uint64_t budget = 1 << 20;
    uint64_t differing = 1;
    hypura_error error;
    hypura_model *model = open_model(&plain);
    fixture_ok(hypura_script_write(model, 20, 4, &budget, &script, &error), &error);
    hypura_model_close(model);
    const uint64_t mapped_before = standin_read_counts().bytes_mapped;
    assert_true(mapped_before > 0); /* plain libllama does */
    model = open_model(&options);
    assert_int_equal(standin_read_counts().bytes_mapped, mapped_before);
    fixture_ok(hypura_script_follow(model, &script, &differing, &error), &error);
    assert_int_equal(differing, 0);
    hypura_model_close(model);
    hypura_script_clear(&script);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_is_known_by_what_it_says, integrated, gpu_no_faults),
        cmocka_unit_test_setup_teardown(every_limit_gives_the_same_bits, integrated, gpu_no_faults),
        cmocka_unit_test_setup_teardown(experts_are_held_once, integrated, gpu_no_faults),
        cmocka_unit_test_setup_teardown(reads_land_where_the_host_may_write, of_metal, gpu_no_faults),
        cmocka_unit_test_setup_teardown(a_drive_that_fails_spoils_nothing, of_metal, gpu_no_faults),
        cmocka_unit_test_setup_teardown(dense_layers_are_not_mapped, of_metal, gpu_no_faults),
    };
    return cmocka_run_group_tests(tests, gpu_setup, fixture_teardown);
}
