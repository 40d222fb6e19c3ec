/*
 * test_lora.c - LoRA adapters over a GPU: no logit has other bits than plain libllama's, which has the adapter in the same
 * GPU's memory; also where layers are handed over before it is known that their experts are there, and computed again.
 */
#include "gpu_fixture.h"

#include <stdlib.h>

static const char *make_adapter(const char *model)
{
    static char path[1024];
    char command[4096];
    snprintf(path, sizeof path, "%s", fixture_path("adapter.gguf"));
    snprintf(command, sizeof command, "'%s' lora '%s' '%s' --rank 4", HYPURA_TEST_MKMODEL, model, path);
    assert_int_equal(system(command), 0);
    return path;
}

static hypura_verify_report verify(const char *model, const char *gpus, hypura_gpu_misses misses)
{
    const uint32_t prompts[] = {1, 7, 40};
    const uint32_t ubatch = 32;
    const hypura_adapter one = {make_adapter(model), 1.0f};
    const hypura_verify_options options = {.model.path = model,
                                           .model.adapters = &one,
                                           .model.n_adapters = 1,
                                           .model.gpu = gpus,
                                           .prompt_tokens = prompts,
                                           .n_prompts = 3,
                                           .ubatches = &ubatch,
                                           .n_ubatches = 1,
                                           .tokens = 3,
                                           .no_repack = true,
                                           .model.gpu_misses = misses,
                                           .model.n_threads = 1,
                                           .model.cache_dir = gpu_cache_dir};
    hypura_verify_report report;
    hypura_error error;
    fixture_ok(hypura_verify(&options, &report, &error), &error);
    assert_true(report.n_cases >= 3);
    return report;
}

static void no_bit_differs_over(const char *model, const char *gpus, bool runs_ahead)
{
    hypura_verify_report report = verify(model, gpus, HYPURA_GPU_MISSES_UPLOAD);
    uint64_t n_ahead = 0;
    uint64_t n_repeated = 0;
    uint64_t uploaded = 0;
    for (int i = 0; i < report.n_cases; i++) {
        n_ahead += report.cases[i].n_ahead;
        n_repeated += report.cases[i].n_repeated;
        uploaded += report.cases[i].bytes_uploaded;
    }
    assert_true(report.identical);
    assert_true(uploaded > 0);
    assert_true(!runs_ahead || (n_ahead > 0 && n_repeated > 0));
    hypura_verify_report_clear(&report);
}

static void no_bit_differs(void **state)
{
    (void)state;
    char model[1024];
    snprintf(model, sizeof model, "%s", gpu_mixture());
    no_bit_differs_over(model, STANDIN_NAME, true);
    no_bit_differs_over(model, STANDIN_BOTH, true);
}

/* What stands between an expert's products, and beside experts. */
static void no_bit_of_other_architectures_differs(void **state)
{
    (void)state;
    static const char *const archs[] = {"deepseek2-moe.gguf", "gpt-oss-moe.gguf", "llama4-moe.gguf", "qwen3next-moe.gguf"};
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        char model[1024];
        snprintf(model, sizeof model, "%s", fixture_arch(archs[i]));
        no_bit_differs_over(model, STANDIN_NAME, false);
    }
}

/* The processor knows no adapter of the GPU's: what is missing is uploaded, and counted. */
static void the_processor_leaves_adapted_experts_to_the_gpu(void **state)
{
    (void)state;
    char path[1024];
    snprintf(path, sizeof path, "%s", gpu_mixture());
    hypura_verify_report report = verify(path, STANDIN_NAME, HYPURA_GPU_MISSES_CPU);
    assert_true(report.identical);
    for (int i = 0; i < report.n_cases; i++) {
        assert_int_equal(report.cases[i].n_cpu_rows, 0);
    }
    hypura_verify_report_clear(&report);
}

static hypura_plan plan_with(const char *model, const hypura_adapter *adapters, int n)
{
    hypura_model_options options = gpu_options(model, STANDIN_NAME);
    options.adapters = adapters;
    options.n_adapters = n;
    return gpu_plan_of(&options);
}

static void its_memory_is_the_gpus(void **state)
{
    (void)state;
    char model[1024];
    snprintf(model, sizeof model, "%s", gpu_mixture());
    const hypura_adapter one = {make_adapter(model), 1.0f};
    const hypura_plan without = plan_with(model, NULL, 0);
    const hypura_plan with = plan_with(model, &one, 1);
    assert_true(with.adapter_bytes > 0);
    assert_true(with.vram_compute_bytes >= without.vram_compute_bytes + with.adapter_bytes);
    assert_true(with.floor_vram_bytes >= without.floor_vram_bytes + with.adapter_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_bit_differs),
        cmocka_unit_test(no_bit_of_other_architectures_differs),
        cmocka_unit_test(the_processor_leaves_adapted_experts_to_the_gpu),
        cmocka_unit_test(its_memory_is_the_gpus),
    };
    return cmocka_run_group_tests(tests, gpu_setup, fixture_teardown);
}
