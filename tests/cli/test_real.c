/*
 * test_real.c - the program as it is installed, with the library behind it, on
 * small models: what the commands say about one model fits together, and paging
 * changes no byte of an answer.
 *
 *     test_real PROGRAM MKMODEL
 */
#include "driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct {
    const char *file;
    int experts;
    const char *mode; /* when limited to 60 % */
} models[] = {{"moe-tied-q8_0.gguf", 8, "experts"}, {"dense-tied-q8_0.gguf", 0, "dense"}};

#define N_MODELS (sizeof models / sizeof *models)

static json_t *run_json(const char *const *words)
{
    process run = driver_run(words, NULL, NULL);
    driver_expect(&run, 0, NULL, NULL);
    json_t *object = json_loads(run.output, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(object);
    driver_clear(&run);
    return object;
}

#define RUN_JSON(...) run_json((const char *[]){__VA_ARGS__, "--json", NULL})

static void test_profile(void **state)
{
    (void)state;
    json_t *measured = RUN_JSON("profile");
    json_t *stored = RUN_JSON("profile");
    assert_true(driver_integer(measured, "ram_limit_bytes") > 0);
    assert_true(driver_real(measured, "direct_bytes_per_s") > 0.0);
    /* The second call shows what the first one measured, unless that was beside other work. */
    if (driver_integer(measured, "disturbed") == 0) {
        assert_int_equal(driver_integer(measured, "measured_unix_s"), driver_integer(stored, "measured_unix_s"));
        assert_true(driver_real(measured, "direct_bytes_per_s") == driver_real(stored, "direct_bytes_per_s"));
    }
    json_decref(measured);
    json_decref(stored);
}

static void test_inspect(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        json_t *object = RUN_JSON("inspect", models[i].file, "--tensors");
        const json_t *role;
        const json_t *tensor;
        const char *name;
        size_t index;
        int64_t by_role = 0;
        int64_t by_tensor = 0;
        json_object_foreach((json_t *)(uintptr_t)json_object_get(object, "roles"), name, role)
        {
            by_role += driver_integer(role, "bytes");
        }
        json_array_foreach(json_object_get(object, "tensors"), index, tensor)
        {
            by_tensor += driver_integer(tensor, "bytes");
        }
        assert_int_equal(driver_integer(object, "experts"), models[i].experts);
        assert_int_equal(by_role, driver_integer(object, "tensor_bytes"));
        assert_int_equal(by_tensor, by_role);
        assert_int_equal(index, driver_integer(object, "n_tensors"));
        json_decref(object);
    }
}

static void test_floor_is_a_floor(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        char floor_bytes[32];
        char below[32];
        json_t *object = RUN_JSON("estimate", models[i].file, "--threads=1", "--weights", "60%");
        assert_string_equal(driver_string(object, "mode"), models[i].mode);
        int64_t bytes = driver_integer(object, "floor_weights_bytes");
        json_decref(object);
        snprintf(floor_bytes, sizeof floor_bytes, "%lld", (long long)bytes);
        snprintf(below, sizeof below, "%lld", (long long)bytes - 1);
        process run = RUN("estimate", models[i].file, "--threads=1", "--weights", floor_bytes);
        driver_expect(&run, 0, NULL, NULL);
        driver_clear(&run);
        run = RUN("run", models[i].file, "--raw", "--prompt", "a", "--max-tokens", "1", "--weights", below);
        driver_expect(&run, 1, NULL, floor_bytes); /* refused, the floor named */
        assert_string_equal(run.output, "");
        driver_clear(&run);
    }
}

/* One run of each variant in a process of its own. */
static void test_bench(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        json_t *object = RUN_JSON("bench", models[i].file, "--threads=1", "--weights=60%", "--baseline", "--tokens=2",
                                  "--prompt-tokens=3", "--runs=1", "--io-limit=1e9");
        const json_t *cell = json_array_get(json_object_get(object, "cells"), 0);
        const json_t *hypura = json_object_get(cell, "hypura");
        assert_string_equal(driver_string(cell, "mode"), models[i].mode);
        assert_true(driver_real(hypura, "decode_tok_s") > 0.0);
        assert_true(driver_real(hypura, "bytes_per_token") > 0.0);
        assert_true(driver_real(hypura, "direct_bytes_per_s") <= 1e9);
        assert_true(driver_real(json_object_get(cell, "baseline"), "decode_tok_s") > 0.0);
        json_decref(object);
    }
}

/* The same greedy answer with everything in memory and with most of it paged. */
static void test_paging_changes_no_text(void **state)
{
    (void)state;
    static const char *const limits[] = {"--weights=60%", "--io-engine=pool"};
    for (size_t i = 0; i < N_MODELS; i++) {
        process plain = RUN("run", models[i].file, "--raw", "--prompt=abc", "--temp=0", "--max-tokens=12", "--threads=1",
                            "--plain");
        driver_expect(&plain, 0, NULL, "mode       plain");
        assert_true(plain.output_bytes > 1);
        for (size_t engines = 1; engines <= 2; engines++) {
            const char *words[DRIVER_MAX_WORDS] = {"run",
                                                   models[i].file,
                                                   "--raw",
                                                   "--prompt=abc",
                                                   "--temp=0",
                                                   "--max-tokens=12",
                                                   "--threads=1",
                                                   limits[0],
                                                   "--stats-json=s.json",
                                                   engines == 2 ? limits[1] : NULL};
            process paged = driver_run(words, NULL, NULL);
            driver_expect(&paged, 0, plain.output, NULL);
            assert_int_equal(paged.output_bytes, plain.output_bytes);
            json_t *object = json_load_file("s.json", 0, NULL);
            assert_non_null(object);
            const bool dense = strcmp(models[i].mode, "dense") == 0;
            assert_non_null(strstr(paged.error, dense ? "kept       " : "hits       "));
            assert_string_equal(driver_string(object, "mode"), models[i].mode);
            assert_true(driver_integer(object, "bytes_read") > 0);
            assert_true(engines == 1 || strcmp(driver_string(object, "io_engine"), "pool") == 0);
            json_decref(object);
            driver_clear(&paged);
        }
        driver_clear(&plain);
    }
}

/* The same route whether the pager or libllama tells it, and replay reads it. */
static void test_trace(void **state)
{
    (void)state;
    process run = RUN("run", models[0].file, "--raw", "--prompt=abc", "--temp=0", "--max-tokens=5", "--threads=1", "--weights=60%",
                      "--trace=paged.trace");
    driver_expect(&run, 0, NULL, NULL);
    driver_clear(&run);
    run = RUN("run", models[0].file, "--raw", "--prompt=abc", "--temp=0", "--max-tokens=5", "--plain",
              "--trace=plain.trace");
    driver_expect(&run, 0, NULL, NULL);
    driver_clear(&run);
    run = driver_shell("cmp paged.trace plain.trace && grep -vc '#' paged.trace");
    driver_expect(&run, 0, NULL, NULL);
    assert_true(strtol(run.output, NULL, 10) > 5);
    driver_clear(&run);
    json_t *object = RUN_JSON("replay", "paged.trace", "--slots=100%");
    assert_int_equal(driver_integer(object, "experts"), models[0].experts);
    assert_true(driver_integer(object, "tokens") >= 5);
    const json_t *row = json_array_get(json_object_get(object, "rows"), 0);
    assert_true(driver_real(row, "lru") > 0.0 && driver_real(row, "lru") == driver_real(row, "belady"));
    json_decref(object);

    run = RUN("run", models[0].file, "--raw", "--prompt=abc", "--max-tokens=5", "--trace=/dev/full");
    driver_expect(&run, 1, NULL, "cannot write the route /dev/full");
    driver_clear(&run);
    run = driver_shell("bash -c '(ulimit -f 1; \"$PROGRAM\" run --raw --temp 0 --max-tokens 200 --prompt abc --trace cut.trace "
                       "moe-tied-q8_0.gguf); echo $? $(ls | grep cut)' 2>&1");
    driver_expect(&run, 0, "cannot write the route cut.trace: File too large\n1\n", NULL);
    driver_clear(&run);
    run = RUN("run", models[1].file, "--raw", "--prompt=abc", "--trace=dense.trace");
    driver_expect(&run, 2, NULL, "has no experts");
    driver_clear(&run);
}

static void test_a_server_in_which_no_model_runs(void **state)
{
    (void)state;
    process run = RUN("serve", "--port=0", "--no-ollama", "--models=none", "--memory=32M");
    driver_expect(&run, 1, NULL, "no model runs in 32 MiB");
    driver_clear(&run);
}

static void test_verify(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        json_t *object = RUN_JSON("verify", models[i].file, "--weights=60%", "--prompt-tokens=1,5", "--tokens=2");
        assert_true(json_is_true(json_object_get(object, "identical")));
        const json_t *cases = json_object_get(object, "cases");
        assert_true(json_array_size(cases) >= 2);
        assert_true(driver_integer(json_array_get(cases, 0), "bytes_read") > 0);
        json_decref(object);
    }
}

static int setup(void **state)
{
    int failed = driver_setup(state);
    process run = driver_shell("\"$MKMODEL\" tiny .");
    failed = failed || run.code != 0;
    driver_clear(&run);
    return failed;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_profile),
        cmocka_unit_test(test_inspect),
        cmocka_unit_test(test_floor_is_a_floor),
        cmocka_unit_test(test_paging_changes_no_text),
        cmocka_unit_test(test_trace),
        cmocka_unit_test(test_a_server_in_which_no_model_runs),
        cmocka_unit_test(test_verify),
        cmocka_unit_test(test_bench),
    };
    if (argc != 3 || !driver_main(2, argv)) {
        return 2;
    }
    setenv("MKMODEL", argv[2], 1);
    return cmocka_run_group_tests(tests, setup, driver_teardown);
}
