/*
 * test_kv_cache.c - keys and values kept as other types: what they take is planned for, contexts have them, and the output
 * has llama.cpp's bits with the same types.
 */
#include "engine_fixture.h"

#include "engine/llama/kv_cache.h"
#include "engine/measure/replay.h"
#include "hypura_measure.h"

#include <string.h>

static void names_are_of_ggml(void **state)
{
    (void)state;
    const char *const *names = hypura_kv_cache_types();
    assert_string_equal(names[0], "f16");
    for (int i = 0; names[i]; i++) {
        assert_string_equal(ggml_type_name(hypura_kv_cache_type(names[i])), names[i]);
        assert_true(strlen(names[i]) < HYPURA_KV_CACHE_NAME);
    }
    assert_int_equal(hypura_kv_cache_type(NULL), GGML_TYPE_F16);
}

static void unknown_types_are_refused(void **state)
{
    (void)state;
    hypura_plan *plan = NULL;
    hypura_error error;
    hypura_model_options options = {.path = fixture_model("smollm2-135m.gguf"), .kv_cache = {.type_v = "q3_K"}};
    fixture_fails(HYPURA_ERR_USAGE, hypura_estimate(&options, &plan, &error), &error,
                  "cannot keep values as 'q3_K': there are f16, bf16, f32, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl");
    options.kv_cache = (hypura_kv_cache){.type_k = "", .type_v = "f16"};
    fixture_fails(HYPURA_ERR_USAGE, hypura_estimate(&options, &plan, &error), &error, "cannot keep keys as ''");
}

/* Of bytes, for which no speed has to be measured. */
static hypura_plan *plan_of(const char *type_k, const char *type_v)
{
    hypura_preparation prepared;
    hypura_error error;
    const hypura_model_options options = {.path = fixture_model("smollm2-8x135m.gguf"),
                                          .memory_bytes = UINT64_C(400) << 20,
                                          .kv_cache = {.type_k = type_k, .type_v = type_v},
                                          .n_context = 4096,
                                          .n_threads = 1,
                                          .cache_dir = fixture_cache_dir()};
    fixture_ok(hypura_prepare(&options, NULL, true, &prepared, &error), &error);
    hypura_plan *plan = prepared.plan;
    prepared.plan = NULL;
    hypura_prepare_clear(&prepared);
    return plan;
}

/* What a smaller cache leaves goes to experts. */
static void the_plan_counts_them(void **state)
{
    (void)state;
    const uint64_t n_numbers = UINT64_C(30) * 3 * 64 * 4096; /* layers, heads, numbers of a head, tokens */
    hypura_plan *plain = plan_of(NULL, NULL);
    hypura_plan *keys = plan_of("q8_0", NULL);
    hypura_plan *both = plan_of("q8_0", "q4_0");
    assert_int_equal(plain->kv_bytes, n_numbers * (2 + 2));
    assert_int_equal(keys->kv_bytes, n_numbers * 34 / 32 + n_numbers * 2);
    assert_int_equal(both->kv_bytes, n_numbers * 34 / 32 + n_numbers * 18 / 32);
    assert_true(plain->pool_bytes < keys->pool_bytes && keys->pool_bytes < both->pool_bytes);
    hypura_plan_free(plain);
    hypura_plan_free(keys);
    hypura_plan_free(both);
}

static void bits_are_those_of_llama_cpp(void **state)
{
    (void)state;
    static const struct {
        const char *(*find)(const char *name);
        const char *model;
        uint64_t weights_bytes;
        hypura_kv_cache kv_cache;
    } cases[] = {{fixture_model, "smollm2-8x135m.gguf", UINT64_C(200) << 20, {.type_k = "q8_0", .type_v = "q8_0"}},
                 {fixture_words, "moe-words.gguf", UINT64_C(15) << 20, {.type_k = "bf16", .type_v = "q4_0"}},
                 {fixture_words, "words.gguf", UINT64_C(5) << 20, {.type_k = "q5_1", .type_v = NULL}}};
    const uint32_t prompt = 21;
    const char *const engine = "pool";
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hypura_verify_report report;
        hypura_error error;
        const hypura_verify_options options = {.model.path = cases[i].find(cases[i].model),
                                               .model.kv_cache = cases[i].kv_cache,
                                               .weights_bytes = &cases[i].weights_bytes,
                                               .n_weights = 1,
                                               .prompt_tokens = &prompt,
                                               .n_prompts = 1,
                                               .io_engines = &engine,
                                               .n_io_engines = 1,
                                               .tokens = 3,
                                               .model.n_threads = 2,
                                               .model.cache_dir = fixture_cache_dir()};
        fixture_ok(hypura_verify(&options, &report, &error), &error);
        assert_true(report.identical);
        assert_true(report.n_cases > 0 && report.cases[0].bytes_read > 0);
        hypura_verify_report_clear(&report);
    }
}

static hypura_model *open_with(hypura_kv_cache kv_cache)
{
    const hypura_model_options options = {.path = fixture_words("words.gguf"),
                                          .kv_cache = kv_cache,
                                          .plain = true,
                                          .no_repack = true,
                                          .n_threads = 2,
                                          .n_ubatch = 32,
                                          .n_context = 64};
    hypura_model *model = NULL;
    hypura_error error;
    fixture_ok(hypura_model_open_with(&options, &(hypura_model_extras){.all_logits = true}, &model, &error), &error);
    return model;
}

/* Else nothing was compared above. */
static void each_type_changes_the_output(void **state)
{
    (void)state;
    static const hypura_kv_cache others[] = {{.type_k = "q8_0"}, {.type_v = "q8_0"}};
    uint64_t budget = UINT64_C(16) << 20;
    uint64_t differing = 1;
    hypura_script script;
    hypura_error error;
    hypura_model *model = open_with((hypura_kv_cache){.type_k = "f16"});
    fixture_ok(hypura_script_write(model, 20, 3, &budget, &script, &error), &error);
    hypura_model_close(model);
    model = open_with((hypura_kv_cache){.type_k = NULL});
    fixture_ok(hypura_script_follow(model, &script, &differing, &error), &error);
    assert_int_equal(differing, 0);
    hypura_model_close(model);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        model = open_with(others[i]);
        fixture_ok(hypura_script_follow(model, &script, &differing, &error), &error);
        assert_true(differing > 0);
        hypura_model_close(model);
    }
    hypura_script_clear(&script);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_of_ggml),           cmocka_unit_test(unknown_types_are_refused),
        cmocka_unit_test(the_plan_counts_them),        cmocka_unit_test(bits_are_those_of_llama_cpp),
        cmocka_unit_test(each_type_changes_the_output),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
