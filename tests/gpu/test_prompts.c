/*
 * test_prompts.c - how many tokens of a prompt are computed together over a GPU: as many
 * as the kinds of model and device make worth while, whatever memory holds, and fewer
 * only where it ends.
 */
#include "gpu_fixture.h"

#include "engine/llama/gpu.h"

static hypura_model_options mixture_options(void)
{
    hypura_model_options options = gpu_options(gpu_mixture(), STANDIN_NAME);
    options.n_context = 4096;
    options.n_ubatch = 0;
    return options;
}

/* So that a prompt brings what is missing seldom; and whatever the limit is, as sums are rounded by parts. */
static void prompts_are_long_parts_whatever_the_limit(void **state)
{
    (void)state;
    hypura_model_options options = mixture_options();
    const hypura_plan whole = gpu_plan_of(&options);
    assert_int_equal(whole.n_ubatch, 2048);
    for (uint32_t percent = 0; percent <= 100; percent += 50) {
        options.vram_bytes = hypura_plan_vram_at(&whole, percent);
        const hypura_plan plan = gpu_plan_of(&options);
        assert_int_equal(plan.n_ubatch, 2048);
        assert_int_equal(plan.best_ubatch, 2048);
        assert_true(plan.vram_bytes <= options.vram_bytes);
        assert_true(plan.vram_compute_bytes > 0);
    }
    options.force_paging = false; /* all of it held */
    options.vram_bytes = 0;
    assert_int_equal(gpu_plan_of(&options).n_ubatch, 2048);
    options.n_context = 100;
    assert_int_equal(gpu_plan_of(&options).n_ubatch, 100);
    options.n_context = 4096;
    options.n_ubatch = 64; /* who asks for a number has it */
    assert_int_equal(gpu_plan_of(&options).n_ubatch, 64);
    options.n_ubatch = 0;
    options.gpu = "none";
    assert_int_equal(gpu_plan_of(&options).n_ubatch, 512);
    hypura_map *dense = NULL;
    hypura_error error;
    uint32_t n_ubatch = 0;
    fixture_ok(hypura_map_open(HYPURA_TINY "/dense-q8_0.gguf", &dense, &error), &error);
    dense->context_length = options.n_context;
    fixture_ok(hypura_load_sizes(dense, true, &options.n_context, &n_ubatch, &error), &error);
    assert_int_equal(n_ubatch, 512);
    hypura_map_close(dense);
    hypura_gpus_found found;
    fixture_ok(hypura_gpus_find(STANDIN_NAME, &found, &error), &error);
    assert_true(found.discrete);
    standin_set_faults(&(standin_faults){.unified = true});
    fixture_ok(hypura_gpus_find(STANDIN_NAME, &found, &error), &error);
    standin_set_faults(&(standin_faults){0});
    assert_false(found.discrete); /* memory without a link between */
}

/* Only where the least of what the GPU needs leaves no room to compute so many, parts are shorter, which is told; and
 * only where the shortest have no room either, layers stay with the host. */
static void prompts_are_shorter_parts_where_memory_ends(void **state)
{
    (void)state;
    hypura_model_options options = mixture_options();
    const hypura_plan best = gpu_plan_of(&options);
    uint64_t floors[2];
    for (int i = 0; i < 2; i++) {
        options.n_ubatch = i == 0 ? 512 : 1024;
        floors[i] = gpu_plan_of(&options).floor_vram_bytes;
    }
    assert_true(floors[0] < floors[1] && floors[1] < best.floor_vram_bytes);
    options.n_ubatch = 0;
    const struct {
        uint64_t bytes;
        uint32_t n_ubatch;
        bool all;
    } limits[] = {{best.floor_vram_bytes - 1, 1024, true},
                  {floors[1], 1024, true},
                  {floors[1] - 1, 512, true},
                  {floors[0], 512, true},
                  {floors[0] - 1, 512, false}};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        options.vram_bytes = limits[i].bytes;
        const hypura_plan plan = gpu_plan_of(&options);
        assert_int_equal(plan.n_ubatch, limits[i].n_ubatch);
        assert_true((plan.n_gpu_layers == best.n_gpu_layers) == limits[i].all);
        assert_true(plan.vram_bytes <= limits[i].bytes);
        assert_int_equal(plan.best_ubatch, plan.n_gpus > 0 ? 2048 : 512);
    }
}

/* Each with what it was opened with, on both sides. */
static void parts_of_any_length_are_the_same(void **state)
{
    (void)state;
    static const uint32_t prompts[] = {600};
    hypura_model_options options = mixture_options();
    options.n_context = 603;
    options.n_ubatch = 512;
    hypura_plan shorter;
    {
        hypura_preparation prepared;
        hypura_error error;
        fixture_ok(hypura_prepare(&options, NULL, true, &prepared, &error), &error);
        shorter = *prepared.plan;
        hypura_prepare_clear(&prepared);
    }
    const uint64_t vram[] = {shorter.floor_vram_bytes, hypura_plan_vram_at(&shorter, 50)};
    hypura_verify_report report;
    gpu_verify((hypura_verify_options){.model.path = options.path,
                                       .model.gpu = options.gpu,
                                       .vram_bytes = vram,
                                       .n_vram = 2,
                                       .prompt_tokens = prompts,
                                       .n_prompts = 1},
               2, &report);
    assert_int_equal(report.cases[0].ubatch, 512);
    assert_int_equal(report.cases[1].ubatch, 603);
    hypura_verify_report_clear(&report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(prompts_are_long_parts_whatever_the_limit, gpu_no_faults),
        cmocka_unit_test_teardown(prompts_are_shorter_parts_where_memory_ends, gpu_no_faults),
        cmocka_unit_test_teardown(parts_of_any_length_are_the_same, gpu_no_faults),
    };
    return cmocka_run_group_tests(tests, gpu_setup, fixture_teardown);
}
