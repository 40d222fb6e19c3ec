/*
 * test_lora.c - LoRA adapters: with them too every logit has the bits of plain libllama, which has them as well; and what
 * is no adapter for a model is refused by name.
 */
#include "engine_fixture.h"

#include "backend/internal.h"
#include "engine/measure/replay.h"
#include "engine/prepare/estimate.h"
#include "hypura_measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct paths {
    char model[1024];
    char adapters[3][1024];
} paths;

static void make_adapter(const char *model, const char *adapter, const char *options)
{
    char command[4096];
    snprintf(command, sizeof command, "'%s' lora '%s' '%s' %s", HYPURA_TEST_MKMODEL, model, adapter, options);
    assert_int_equal(system(command), 0);
}

/* Three adapters of different rank, type and seed. */
static paths make(const char *model)
{
    static const char *const options[] = {"--rank 4 --seed 1", "--rank 8 --seed 2 --type f16", "--rank 1 --seed 3"};
    static const char *const names[] = {"a.gguf", "b.gguf", "c.gguf"};
    paths made;
    snprintf(made.model, sizeof made.model, "%s", model);
    for (int i = 0; i < 3; i++) {
        snprintf(made.adapters[i], sizeof made.adapters[i], "%s", fixture_path(names[i]));
        make_adapter(model, made.adapters[i], options[i]);
    }
    return made;
}

/* ---- the same bits ----------------------------------------------------------- */

static void verify_forms(const char *path, const hypura_adapter *adapters, int n, bool repack, bool resize)
{
    const uint32_t prompt = 37; /* 16, 16 and 5 together, then one by one */
    hypura_verify_options options = fixture_verify_options(path, repack, resize);
    options.model.adapters = adapters;
    options.model.n_adapters = n;
    options.prompt_tokens = &prompt;
    options.n_prompts = 1;
    options.model.n_threads = repack ? 2 : 1;
    hypura_verify_report report = fixture_verify(options);
    assert_true(report.n_cases >= 3);
    assert_true(report.cases[0].bytes_read > 0);
    hypura_verify_report_clear(&report);
}

/* What differs: dense and experts, gate and up in one, biases of experts, experts that all tokens share, scales. */
static void no_bit_differs(void **state)
{
    (void)state;
    static const char *const archs[] = {"llama-dense.gguf",   "gemma3-dense.gguf",   "phi3-dense.gguf",   "olmoe-moe.gguf",
                                        "qwen3moe-moe.gguf",  "gpt-oss-moe.gguf",    "deepseek2-moe.gguf", "llama4-moe.gguf",
                                        "dbrx-moe.gguf",      "qwen3next-moe.gguf"};
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        const paths made = make(fixture_arch(archs[i]));
        const hypura_adapter one = {made.adapters[0], 1.0f};
        verify_forms(made.model, &one, 1, false, false);
    }
}

/* Weights of the architectures above have one form alone. */
static void no_bit_differs_over_repacked_weights(void **state)
{
    (void)state;
    static const char *const shapes[] = {"llama-tiny", "qwen3-tiny"};
    char path[1024];
    snprintf(path, sizeof path, "%s", fixture_path("repacked.gguf"));
    for (int i = 0; i < 2; i++) {
        char command[4096];
        snprintf(command, sizeof command, "'%s' shape %s '%s' --layers 2 --type q4_0", HYPURA_TEST_MKMODEL, shapes[i], path);
        assert_int_equal(system(command), 0);
        const paths made = make(path);
        const hypura_adapter one = {made.adapters[0], 1.0f};
        verify_forms(path, &one, 1, true, false);
    }
}

/* llama.cpp adds them in an order by address, which three do not have by themselves. */
static void several_add_up_in_their_order(void **state)
{
    (void)state;
    static const char *const archs[] = {"llama-dense.gguf", "olmoe-moe.gguf"};
    for (int i = 0; i < 2; i++) {
        const paths made = make(fixture_arch(archs[i]));
        const hypura_adapter all[] = {{made.adapters[0], 1.0f}, {made.adapters[1], -0.75f}, {made.adapters[2], 1e-3f}};
        for (int n = 2; n <= 3; n++) {
            verify_forms(made.model, all, n, false, false);
        }
    }
}

static void no_bit_differs_while_pools_change(void **state)
{
    (void)state;
    static const char *const archs[] = {"llama-dense.gguf", "olmoe-moe.gguf"};
    for (int i = 0; i < 2; i++) {
        const paths made = make(fixture_arch(archs[i]));
        const hypura_adapter one = {made.adapters[0], 2.0f};
        verify_forms(made.model, &one, 1, false, true);
    }
}

/* The ways that an expert's rows may take. */
static void no_bit_differs_whichever_way_rows_go(void **state)
{
    (void)state;
    static const char *const archs[] = {"olmoe-moe.gguf", "gpt-oss-moe.gguf", "dbrx-moe.gguf"};
    const uint64_t before = backend_count_most();
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        const paths made = make(fixture_arch(archs[i]));
        const hypura_adapter both[] = {{made.adapters[0], 1.0f}, {made.adapters[1], 1.0f}};
        backend_set_wide(true);
        verify_forms(made.model, both, 2, false, false);
        backend_set_wide(false);
        backend_set_single_groups(true);
        verify_forms(made.model, both, 2, true, false);
        backend_set_single_groups(false);
    }
    assert_true(backend_count_most() > before);
}

static void embeddings_are_adapted_too(void **state)
{
    (void)state;
    static const char *const archs[] = {"llama-dense.gguf", "olmoe-moe.gguf"};
    for (int i = 0; i < 2; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s", fixture_path("embeddings.gguf"));
        const char *model = fixture_arch(archs[i]);
        make_adapter(model, path, "--rank 4 --embeddings");
        const hypura_adapter one = {path, 1.0f};
        verify_forms(model, &one, 1, false, false);
    }
}

/* ---- that they are applied ------------------------------------------------------ */

static hypura_model *open_paged(const char *path, const hypura_adapter *adapters, int n)
{
    const hypura_model_options options = {.path = path,
                                          .adapters = adapters,
                                          .n_adapters = n,
                                          .force_paging = true,
                                          .no_repack = true,
                                          .n_threads = 1,
                                          .n_ubatch = 16,
                                          .n_context = 64,
                                          .cache_dir = fixture_cache_dir()};
    hypura_model *model = NULL;
    hypura_error error;
    fixture_ok(hypura_model_open_with(&options, &(hypura_model_extras){.all_logits = true}, &model, &error), &error);
    return model;
}

/* Logits of one that differ from those of the other. */
static uint64_t compare(const char *path, const hypura_adapter *one, int n_one, const hypura_adapter *other, int n_other)
{
    hypura_script script;
    hypura_error error;
    uint64_t budget = 1 << 22;
    uint64_t differing = 0;
    hypura_model *model = open_paged(path, one, n_one);
    fixture_ok(hypura_script_write(model, 20, 4, &budget, &script, &error), &error);
    hypura_model_close(model);
    model = open_paged(path, other, n_other);
    fixture_ok(hypura_script_follow(model, &script, &differing, &error), &error);
    hypura_model_close(model);
    hypura_script_clear(&script);
    return differing;
}

static void each_of_them_matters(void **state)
{
    (void)state;
    static const char *const archs[] = {"llama-dense.gguf", "olmoe-moe.gguf"};
    for (int i = 0; i < 2; i++) {
        const paths made = make(fixture_arch(archs[i]));
        const hypura_adapter all[] = {{made.adapters[0], 1.0f}, {made.adapters[1], 1.0f}};
        const hypura_adapter half = {made.adapters[0], 0.5f};
        const hypura_adapter none = {made.adapters[0], 0.0f};
        assert_int_equal(compare(made.model, all, 1, all, 1), 0);
        assert_true(compare(made.model, all, 1, NULL, 0) > 1000);
        assert_true(compare(made.model, all, 1, &half, 1) > 1000);
        assert_true(compare(made.model, all, 1, all + 1, 1) > 1000);
        assert_true(compare(made.model, all, 2, all, 1) > 1000);
        assert_int_equal(compare(made.model, NULL, 0, &none, 1), 0);
    }
}

/* What computing one token after the other asks the pager for. */
static uint64_t bytes_needed(const char *path, const hypura_adapter *adapters, int n)
{
    hypura_script script;
    hypura_statistics statistics;
    hypura_error error;
    uint64_t budget = 1 << 22;
    hypura_model *model = open_paged(path, adapters, n);
    hypura_model_reset_statistics(model);
    fixture_ok(hypura_script_write(model, 1, 6, &budget, &script, &error), &error);
    hypura_model_statistics(model, &statistics);
    hypura_model_close(model);
    hypura_script_clear(&script);
    assert_true(statistics.bytes_needed > 0);
    return statistics.bytes_needed;
}

/* An expert goes through its matrices and the adapter's in one visit: it is not leased for each product anew. */
static void experts_are_needed_once(void **state)
{
    (void)state;
    static const char *const archs[] = {"olmoe-moe.gguf", "qwen3moe-moe.gguf", "gpt-oss-moe.gguf", "dbrx-moe.gguf"};
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        const paths made = make(fixture_arch(archs[i]));
        const hypura_adapter two[] = {{made.adapters[0], 1.0f}, {made.adapters[1], 1.0f}};
        const uint64_t without = bytes_needed(made.model, NULL, 0);
        assert_int_equal(bytes_needed(made.model, two, 1), without);
        assert_int_equal(bytes_needed(made.model, two, 2), without);
    }
}

static void verify_notices_what_changes_nothing(void **state)
{
    (void)state;
    const paths made = make(fixture_arch("llama-dense.gguf"));
    const hypura_adapter none = {made.adapters[0], 0.0f};
    const hypura_verify_options options = {
        .model.path = made.model, .model.adapters = &none, .model.n_adapters = 1, .model.n_threads = 1,
        .model.cache_dir = fixture_cache_dir()};
    hypura_verify_report report;
    hypura_error error;
    fixture_fails(HYPURA_ERR_USAGE, hypura_verify(&options, &report, &error), &error, "nothing of it to verify");
    assert_int_equal(hypura_verify(&options, &report, NULL), HYPURA_ERR_USAGE); /* whoever hears no reason is told as well */
    assert_null(report.cases);
}

/* ---- memory ------------------------------------------------------------------------ */

static hypura_plan plan_of(const char *path, const hypura_adapter *adapters, int n)
{
    const hypura_model_options options = {.path = path,
                                          .adapters = adapters,
                                          .n_adapters = n,
                                          .force_paging = true,
                                          .n_threads = 1,
                                          .cache_dir = fixture_cache_dir()};
    hypura_preparation prepared;
    hypura_error error;
    fixture_ok(hypura_prepare(&options, NULL, false, &prepared, &error), &error);
    hypura_plan plan = *prepared.plan;
    hypura_prepare_clear(&prepared);
    return plan;
}

static void their_memory_is_the_models(void **state)
{
    (void)state;
    const paths made = make(fixture_arch("olmoe-moe.gguf"));
    const hypura_adapter both[] = {{made.adapters[0], 1.0f}, {made.adapters[1], 1.0f}};
    size_t bytes[2];
    free(fixture_read(made.adapters[0], &bytes[0]));
    free(fixture_read(made.adapters[1], &bytes[1]));
    const hypura_plan without = plan_of(made.model, NULL, 0);
    const hypura_plan one = plan_of(made.model, both, 1);
    const hypura_plan two = plan_of(made.model, both, 2);
    assert_int_equal(without.adapter_bytes, 0);
    assert_in_range(one.adapter_bytes, bytes[0] * 9 / 10, bytes[0] * 11 / 10);
    assert_in_range(two.adapter_bytes, (bytes[0] + bytes[1]) * 9 / 10, (bytes[0] + bytes[1]) * 11 / 10);
    assert_int_equal(one.overhead_bytes, without.overhead_bytes + one.adapter_bytes);
    assert_true(one.compute_bytes >= without.compute_bytes);
    assert_true(two.floor_memory_bytes >= without.floor_memory_bytes + two.adapter_bytes);
}

/* ---- what is refused ---------------------------------------------------------------- */

static void refuses(const char *model, const char *adapter, hypura_status wanted, const char *text)
{
    const hypura_adapter one = {adapter, 1.0f};
    const hypura_model_options options = {
        .path = model, .adapters = &one, .n_adapters = 1, .n_threads = 1, .cache_dir = fixture_cache_dir()};
    hypura_model *opened = NULL;
    hypura_error error;
    fixture_fails(wanted, hypura_model_open(&options, &opened, &error), &error, text);
    assert_null(opened);
    assert_true(adapter[0] == '\0' || strstr(error.message, adapter) != NULL);
}

/* The adapter with the first of one text replaced by another of its length, or cut behind so many bytes. */
static const char *damaged(const char *adapter, const char *from, const char *to, size_t length)
{
    size_t n;
    char *bytes = fixture_read(adapter, &n);
    const size_t m = strlen(from);
    bool found = m == 0;
    for (size_t i = 0; i + m <= n && !found; i++) {
        found = memcmp(bytes + i, from, m) == 0;
        if (found) {
            memcpy(bytes + i, to, m);
        }
    }
    assert_true(found);
    static char path[1024];
    snprintf(path, sizeof path, "%s", fixture_path("damaged.gguf"));
    fixture_write(path, bytes, length > 0 ? length : n);
    free(bytes);
    return path;
}

static void what_is_no_adapter_for_a_model_is_refused(void **state)
{
    (void)state;
    const paths made = make(fixture_arch("olmoe-moe.gguf"));
    const char *good = made.adapters[0];
    size_t n;
    free(fixture_read(good, &n));
    refuses(made.model, "", HYPURA_ERR_USAGE, "without a path");
    refuses(made.model, fixture_path("nowhere.gguf"), HYPURA_ERR_IO, "cannot open");
    refuses(made.model, made.model, HYPURA_ERR_FORMAT, "it is no adapter");
    refuses(made.model, damaged(good, "", "", n - 100), HYPURA_ERR_FORMAT, "truncated");
    refuses(made.model, damaged(good, "", "", 40), HYPURA_ERR_FORMAT, "truncated");
    refuses(made.model, damaged(good, "", "", 3), HYPURA_ERR_FORMAT, "truncated");
    refuses(made.model, damaged(good, "adapter.type", "adapter.tipe", 0), HYPURA_ERR_UNSUPPORTED, "only 'lora'");
    refuses(made.model, damaged(good, "blk.1.ffn_up_exps.weight.lora_b", "blk.1.ffn_xp_exps.weight.lora_b", 0),
            HYPURA_ERR_FORMAT, "'blk.1.ffn_up_exps.weight.lora_b' is not");
    refuses(made.model, damaged(good, "ffn_up_exps.weight.lora_b", "ffn_up_exps.weight.lora_c", 0),
            HYPURA_ERR_FORMAT, "'blk.0.ffn_up_exps.weight.lora_b' is not");
    refuses(made.model, damaged(good, "ffn_up_exps.weight.lora_a", "ffn_up_exps.weight.lora_c", 0),
            HYPURA_ERR_UNSUPPORTED, "is no part of a LoRA");

    char other[1024];
    snprintf(other, sizeof other, "%s", fixture_path("other.gguf"));
    make_adapter(fixture_arch("llama-dense.gguf"), other, "--rank 4");
    refuses(made.model, other, HYPURA_ERR_UNSUPPORTED, "an adapter for the architecture 'llama'");
}

static void one_of_another_size_is_refused(void **state)
{
    (void)state;
    char small[1024], large[1024], adapter[1024], command[4096];
    snprintf(small, sizeof small, "%s", fixture_path("small.gguf"));
    snprintf(large, sizeof large, "%s", fixture_path("large.gguf"));
    snprintf(adapter, sizeof adapter, "%s", fixture_path("of-large.gguf"));
    snprintf(command, sizeof command, "'%s' shape llama-tiny '%s' --layers 2 && '%s' shape llama-tiny '%s' --layers 3",
             HYPURA_TEST_MKMODEL, small, HYPURA_TEST_MKMODEL, large);
    assert_int_equal(system(command), 0);
    make_adapter(large, adapter, "--rank 2");
    refuses(small, adapter, HYPURA_ERR_UNSUPPORTED, "is for a weight that");
    snprintf(command, sizeof command, "'%s' widen '%s' '%s' --hidden 8192", HYPURA_TEST_MKMODEL, small, large);
    assert_int_equal(system(command), 0);
    make_adapter(large, adapter, "--rank 2");
    refuses(small, adapter, HYPURA_ERR_UNSUPPORTED, "and the adapter's matrices for it are");
}

static void numbers_are_looked_at(void **state)
{
    (void)state;
    const paths made = make(fixture_arch("llama-dense.gguf"));
    hypura_adapter many[HYPURA_MAX_ADAPTERS + 1];
    for (int i = 0; i <= HYPURA_MAX_ADAPTERS; i++) {
        many[i] = (hypura_adapter){made.adapters[0], 1.0f};
    }
    hypura_model_options options = {.path = made.model, .adapters = many, .n_adapters = HYPURA_MAX_ADAPTERS + 1};
    hypura_model *opened = NULL;
    hypura_error error;
    fixture_fails(HYPURA_ERR_USAGE, hypura_model_open(&options, &opened, &error), &error, "9 adapters");
    many[0].scale = 1.0f / 0.0f;
    options.n_adapters = 1;
    fixture_fails(HYPURA_ERR_USAGE, hypura_model_open(&options, &opened, &error), &error, "has to be a number");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_bit_differs),
        cmocka_unit_test(no_bit_differs_over_repacked_weights),
        cmocka_unit_test(several_add_up_in_their_order),
        cmocka_unit_test(no_bit_differs_while_pools_change),
        cmocka_unit_test(no_bit_differs_whichever_way_rows_go),
        cmocka_unit_test(embeddings_are_adapted_too),
        cmocka_unit_test(each_of_them_matters),
        cmocka_unit_test(experts_are_needed_once),
        cmocka_unit_test(verify_notices_what_changes_nothing),
        cmocka_unit_test(their_memory_is_the_models),
        cmocka_unit_test(what_is_no_adapter_for_a_model_is_refused),
        cmocka_unit_test(one_of_another_size_is_refused),
        cmocka_unit_test(numbers_are_looked_at),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
