/*
 * test_gpu.c - what goes wrong on a GPU ends in a message or in a smaller pool, never
 * in other text; and what the plan and the statistics say of the tier is so.
 */
#include "../engine/engine_fixture.h"

#include "engine/replay.h"
#include "standin.h"

#include <stdlib.h>
#include <string.h>

enum { LEAST = 10 }; /* per cent: near the floor, with room for the logits of all tokens */

static hypura_model_options options_of(const char *path, uint64_t vram_bytes)
{
    return (hypura_model_options){.path = path,
                                  .gpu = STANDIN_NAME,
                                  .vram_bytes = vram_bytes,
                                  .force_paging = true,
                                  .n_context = 64,
                                  .n_ubatch = 32,
                                  .n_threads = 1,
                                  .no_repack = true,
                                  .cache_dir = fixture_cache_dir()};
}

static hypura_model *open_model(const hypura_model_options *options)
{
    hypura_model *model = NULL;
    hypura_error error;
    fixture_ok(hypura_model_open_with(options, &(hypura_model_extras){.all_logits = true}, &model, &error), &error);
    return model;
}

/* A limit on GPU memory that makes slots necessary. */
static uint64_t limit_at(const char *path, uint32_t percent)
{
    hypura_model_options wanted = options_of(path, 0);
    hypura_plan *plan = NULL;
    hypura_error error;
    fixture_ok(hypura_estimate(&wanted, &plan, &error), &error);
    assert_string_equal(plan->gpu, STANDIN_NAME);
    const uint64_t bytes = hypura_plan_vram_at(plan, percent);
    hypura_plan_free(plan);
    return bytes;
}

/* A prompt that passes through a stage and steps that read slots, as plain puts them out. */
static void write_script(const char *path, hypura_script *script)
{
    hypura_model_options options = options_of(path, 0);
    options.force_paging = false;
    options.plain = true;
    hypura_model *model = open_model(&options);
    uint64_t budget = 1 << 22;
    hypura_error error;
    fixture_ok(hypura_script_write(model, 20, 4, &budget, script, &error), &error);
    hypura_model_close(model);
}

static void assert_same(hypura_model *model, const hypura_script *script)
{
    hypura_error error;
    uint64_t differing = 1;
    fixture_ok(hypura_script_follow(model, script, &differing, &error), &error);
    assert_int_equal(differing, 0);
}

static int setup(void **state)
{
    standin_register();
    return fixture_setup(state);
}

static int no_faults(void **state)
{
    (void)state;
    standin_set_faults(&(standin_faults){0});
    return 0;
}

/* ---- tests ------------------------------------------------------------------ */

static void statistics_tell_of_the_tier(void **state)
{
    (void)state;
    const char *path = fixture_arch("olmoe-moe.gguf");
    hypura_script script;
    hypura_statistics s;
    write_script(path, &script);
    const hypura_model_options options = options_of(path, limit_at(path, LEAST));
    hypura_model *model = open_model(&options);
    const hypura_plan *plan = hypura_model_plan(model);
    assert_int_equal(plan->n_gpu_layers, hypura_model_map(model)->n_layers + 1);
    assert_true(plan->n_vram_pools > 0);
    assert_true(plan->vram_bytes <= options.vram_bytes);
    assert_int_equal(plan->vram_bytes, plan->vram_resident_bytes + plan->vram_slot_bytes + plan->vram_stage_bytes +
                                           plan->vram_kv_bytes + plan->vram_compute_bytes);
    const standin_counts before = standin_read_counts();
    assert_same(model, &script);
    const standin_counts after = standin_read_counts();
    hypura_model_statistics(model, &s);
    assert_true(s.bytes_uploaded > 0);
    assert_true(after.bytes_to_device - before.bytes_to_device >= s.bytes_uploaded);
    assert_true(after.n_optimized > before.n_optimized); /* the device's own view of a graph was asked for */
    assert_true(s.vram_bytes_needed > s.vram_bytes_hit);
    assert_true(s.bytes_needed >= s.bytes_uploaded); /* what the GPU lacked was asked of RAM */
    assert_true(s.locked_bytes > 0);
    /* one for each step and layer with slots, one for the prompt where it does not take all experts */
    assert_true(s.n_readbacks >= 4 * (uint64_t)hypura_model_map(model)->n_layers);
    hypura_model_close(model);
    hypura_script_clear(&script);
    assert_int_equal(standin_read_counts().bytes_used, 0);
}

/* With few slots much of what is handed over before its experts are known is computed a
 * second time, and nothing else when that is not wanted; the text is the same. */
static void running_ahead_changes_no_bit(void **state)
{
    (void)state;
    const char *path = fixture_arch("olmoe-moe.gguf");
    const hypura_foresight ways[] = {HYPURA_FORESIGHT_ON, HYPURA_FORESIGHT_AUTO, HYPURA_FORESIGHT_OFF};
    hypura_script script;
    write_script(path, &script);
    for (int i = 0; i < 3; i++) {
        hypura_statistics s;
        hypura_model_options options = options_of(path, limit_at(path, 50));
        options.foresight = ways[i];
        hypura_model *model = open_model(&options);
        assert_same(model, &script);
        hypura_model_statistics(model, &s);
        assert_true(s.n_repeated <= s.n_ahead && s.n_ahead <= s.n_readbacks);
        if (ways[i] == HYPURA_FORESIGHT_ON) {
            assert_true(s.n_ahead >= 3 * (uint64_t)hypura_model_map(model)->n_layers);
            assert_true(s.n_repeated > 0 && s.n_repeated < s.n_ahead); /* some in vain, some not */
        } else if (ways[i] == HYPURA_FORESIGHT_OFF) {
            assert_int_equal(s.n_ahead, 0);
        }
        hypura_model_close(model);
    }
    hypura_script_clear(&script);
}

static void a_failed_graph_is_an_error(void **state)
{
    (void)state;
    const char *path = fixture_arch("olmoe-moe.gguf");
    hypura_script script;
    write_script(path, &script);
    const hypura_model_options options = options_of(path, limit_at(path, LEAST));
    hypura_model *model = open_model(&options);
    hypura_error error;
    uint64_t differing;
    for (int graph = 1; graph <= 6; graph++) {
        standin_set_faults(&(standin_faults){.fail_after = graph});
        fixture_fails(HYPURA_ERR_BACKEND, hypura_script_follow(model, &script, &differing, &error), &error, "decode");
        standin_set_faults(&(standin_faults){0});
        assert_same(model, &script); /* what was in flight left nothing behind */
    }
    hypura_model_close(model);
    hypura_script_clear(&script);
}

static void a_lost_device_is_an_error(void **state)
{
    (void)state;
    const char *path = fixture_arch("olmoe-moe.gguf");
    hypura_script script;
    write_script(path, &script);
    const hypura_model_options options = options_of(path, limit_at(path, LEAST));
    hypura_model *model = open_model(&options);
    hypura_error error;
    uint64_t differing;
    for (int graph = 1; graph <= 4; graph++) {
        standin_set_faults(&(standin_faults){.lose_after = graph});
        fixture_fails(HYPURA_ERR_BACKEND, hypura_script_follow(model, &script, &differing, &error), &error,
                      "device lost");
        standin_set_faults(&(standin_faults){0});
    }
    assert_same(model, &script);
    hypura_model_close(model);
    hypura_script_clear(&script);
}

/* Somebody else took the memory between the plan and the pools. */
static void memory_that_is_gone_is_an_error(void **state)
{
    (void)state;
    const char *path = fixture_arch("olmoe-moe.gguf");
    const hypura_model_options options = options_of(path, limit_at(path, 50));
    hypura_model *model = NULL;
    hypura_error error;
    standin_set_faults(&(standin_faults){.memory_bytes = options.vram_bytes / 4});
    fixture_fails(HYPURA_ERR_MEMORY, hypura_model_open(&options, &model, &error), &error, STANDIN_NAME);
    assert_null(model);
    standin_set_faults(&(standin_faults){0});
    assert_int_equal(standin_read_counts().bytes_used, 0);
}

/* Without a limit the plan fits what is free. */
static void less_memory_is_a_smaller_pool(void **state)
{
    (void)state;
    const char *path = fixture_arch("olmoe-moe.gguf");
    const uint64_t margin = UINT64_C(768) << 20; /* left to the driver */
    const uint64_t floor = limit_at(path, LEAST);
    hypura_script script;
    write_script(path, &script);
    standin_set_faults(&(standin_faults){.memory_bytes = margin + floor});
    const hypura_model_options options = options_of(path, 0);
    hypura_model *model = open_model(&options);
    assert_true(hypura_model_plan(model)->n_vram_pools > 0);
    assert_true(hypura_model_plan(model)->vram_bytes <= floor);
    assert_same(model, &script);
    hypura_model_close(model);
    hypura_script_clear(&script);
}

static void memory_that_is_not_pinned_will_do(void **state)
{
    (void)state;
    const char *path = fixture_arch("olmoe-moe.gguf");
    hypura_script script;
    hypura_statistics s;
    write_script(path, &script);
    const hypura_model_options options = options_of(path, limit_at(path, LEAST));
    standin_set_faults(&(standin_faults){.no_pinned = true});
    hypura_model *model = open_model(&options);
    assert_same(model, &script);
    hypura_model_statistics(model, &s);
    assert_int_equal(s.locked_bytes, 0);
    assert_true(s.bytes_uploaded > 0);
    hypura_model_close(model);
    hypura_script_clear(&script);
}

/* A device whose buffers are small has several pools for experts of one size. */
static void small_buffers_are_several_pools(void **state)
{
    (void)state;
    const char *path = fixture_arch("olmoe-moe.gguf");
    hypura_script script;
    hypura_plan *plan = NULL;
    hypura_error error;
    write_script(path, &script);
    hypura_model_options options = options_of(path, 0);
    fixture_ok(hypura_estimate(&options, &plan, &error), &error);
    const uint64_t bytes = hypura_plan_vram_at(plan, 100);
    const uint64_t slot_bytes = plan->vram_pools[0].slot_bytes;
    const int n_pools = plan->n_vram_pools;
    hypura_plan_free(plan);
    standin_set_faults(&(standin_faults){.max_buffer_bytes = 2 * slot_bytes});
    options.vram_bytes = bytes;
    hypura_model *model = open_model(&options);
    assert_true(hypura_model_plan(model)->n_vram_pools >= n_pools);
    assert_same(model, &script);
    hypura_model_close(model);
    hypura_script_clear(&script);
}

/* A dense model: the last layers on the GPU, the others where they lie. */
static void dense_layers_are_split(void **state)
{
    (void)state;
    const char *path = fixture_arch("llama-dense.gguf");
    hypura_plan *plan = NULL;
    hypura_error error;
    hypura_model_options options = options_of(path, 0);
    options.force_paging = false;
    fixture_ok(hypura_estimate(&options, &plan, &error), &error);
    assert_int_equal(plan->n_vram_pools, 0);
    const uint64_t full = plan->full_vram_bytes;
    const int n_all = plan->n_gpu_layers;
    hypura_plan_free(plan);
    int last = -1;
    for (uint64_t eighth = 1; eighth <= 8; eighth++) {
        options.vram_bytes = full * eighth / 8;
        fixture_ok(hypura_estimate(&options, &plan, &error), &error);
        assert_true(plan->vram_bytes <= options.vram_bytes);
        assert_true(plan->n_gpu_layers >= last);
        last = plan->n_gpu_layers;
        hypura_plan_free(plan);
    }
    assert_int_equal(last, n_all);
}

static void no_gpu_of_that_name(void **state)
{
    (void)state;
    hypura_model_options options = options_of(fixture_arch("olmoe-moe.gguf"), 0);
    hypura_plan *plan = NULL;
    hypura_error error;
    options.gpu = "Vulkan99";
    fixture_fails(HYPURA_ERR_USAGE, hypura_estimate(&options, &plan, &error), &error, "Vulkan99");
    options.gpu = "none";
    fixture_ok(hypura_estimate(&options, &plan, &error), &error);
    assert_string_equal(plan->gpu, "");
    hypura_plan_free(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(statistics_tell_of_the_tier, no_faults),
        cmocka_unit_test_teardown(running_ahead_changes_no_bit, no_faults),
        cmocka_unit_test_teardown(a_failed_graph_is_an_error, no_faults),
        cmocka_unit_test_teardown(a_lost_device_is_an_error, no_faults),
        cmocka_unit_test_teardown(memory_that_is_gone_is_an_error, no_faults),
        cmocka_unit_test_teardown(less_memory_is_a_smaller_pool, no_faults),
        cmocka_unit_test_teardown(memory_that_is_not_pinned_will_do, no_faults),
        cmocka_unit_test_teardown(small_buffers_are_several_pools, no_faults),
        cmocka_unit_test_teardown(dense_layers_are_split, no_faults),
        cmocka_unit_test_teardown(no_gpu_of_that_name, no_faults),
    };
    return cmocka_run_group_tests(tests, setup, fixture_teardown);
}
