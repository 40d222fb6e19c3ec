/*
 * test_reports.c - what commands report, from outside: the JSON of each, and the
 * page of a bench.
 */
#include "driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_bench_json(void **state)
{
    (void)state;
    process run = RUN("bench", "moe.gguf", "--memory", "2M", "--weights", "4M,1M", "--baseline", "--tokens=7",
                      "--parallel=5", "--ubatch=9", "--io-engine=pool", "-ctv", "q8_0", "--json");
    driver_expect(&run, 0, NULL, NULL);
    json_t *object = driver_object(run.output, "machine model model_bytes tokens prompt_tokens parallel ubatch runs threads "
                                               "io_engine io_limit_bytes_per_s route emulated_recall cells");
    assert_string_equal(driver_string(object, "io_engine"), "pool");
    assert_int_equal(driver_integer(object, "tokens"), 7);
    assert_int_equal(driver_integer(object, "parallel"), 5);
    assert_int_equal(driver_integer(object, "ubatch"), 9);
    const json_t *cells = json_object_get(object, "cells");
    static const int64_t limits[] = {2 << 20, 4 << 20, 1 << 20};
    assert_int_equal(json_array_size(cells), 3);
    for (size_t i = 0; i < 3; i++) {
        const json_t *cell = json_array_get(cells, i);
        const json_t *hypura = json_object_get(cell, "hypura");
        const json_t *baseline = json_object_get(cell, "baseline");
        assert_int_equal(driver_integer(cell, "weights_bytes"), limits[i]);
        assert_string_equal(driver_string(cell, "cache_type_k"), "f16");
        assert_string_equal(driver_string(cell, "cache_type_v"), "q8_0");
        assert_true(driver_real(hypura, "decode_tok_s") > driver_real(json_object_get(hypura, "min"), "decode_tok_s"));
        assert_true(driver_real(hypura, "decode_tok_s") < driver_real(json_object_get(hypura, "max"), "decode_tok_s"));
        assert_true(driver_real(hypura, "bound_share") == 0.8);
        assert_string_equal(driver_string(hypura, "bound_by"), "storage");
        const json_t *rates = json_object_get(hypura, "layer_hit_rates");
        assert_int_equal(json_array_size(rates), 3);
        assert_true(json_is_null(json_array_get(rates, 0))); /* nothing of it is paged */
        assert_true(json_real_value(json_array_get(rates, 1)) == 0.75);
        assert_true(json_real_value(json_array_get(rates, 2)) == 0.5); /* in the GPU's memory */
        const json_t *each = json_object_get(cell, "baselines");
        assert_int_equal(json_array_size(each), 2);
        assert_true(driver_real(baseline, "decode_tok_s") == driver_real(json_array_get(each, 0), "decode_tok_s"));
        assert_true(driver_real(baseline, "prefill_tok_s") == 77.0); /* the other one has the faster prompts */
        assert_true(driver_real(json_object_get(baseline, "max"), "prefill_tok_s") == 77.0);
        assert_int_equal(driver_integer(baseline, "read_ahead_kb"), 128);
        assert_int_equal(driver_integer(baseline, "prefill_read_ahead_kb"), 4096);
        assert_true(json_is_true(json_object_get(hypura, "waits_longer")));
        assert_true(json_is_false(json_object_get(baseline, "waits_longer")));
        assert_null(json_object_get(baseline, "bound_tok_s")); /* what does not exist is left out */
        assert_true(driver_real(json_object_get(cell, "decode_ratio"), "median") == 2.0);
    }
    json_decref(object);
    driver_clear(&run);
}

static int count(const char *text, const char *word)
{
    int n = 0;
    for (; (text = strstr(text, word)); text++) {
        n++;
    }
    return n;
}

static void test_bench_report(void **state)
{
    (void)state;
    process run = RUN("bench", "moe.gguf", "--weights", "4M,1M", "--baseline", "--route=trace", "--report=page.html");
    driver_expect(&run, 0, "2.000x decode (1.500-2.500)", NULL);
    driver_clear(&run);
    run = driver_shell("cat page.html");
    assert_int_equal(run.code, 0);
    assert_int_equal(count(run.output, "<svg"), count(run.output, "</svg>"));
    assert_int_equal(count(run.output, "<svg"), 6);
    assert_non_null(strstr(run.output, "Hit rate by layer, in the GPU's memory"));
    assert_int_equal(count(run.output, "layer 1: 75.0 %"), 2); /* in each cell */
    assert_int_equal(count(run.output, "<tr>"), 1 + 6); /* titles, three series of two cells */
    assert_non_null(strstr(run.output, "Fake &lt;MoE&gt;"));
    assert_non_null(strstr(run.output, "recorded route"));
    assert_int_equal(count(run.output, "<b>2.00x decode</b> (1.50 to 2.50)"), 2);
    assert_null(strstr(run.output, "nan"));
    assert_null(strstr(run.output, "http")); /* nothing is fetched */
    driver_clear(&run);
    run = RUN("bench", "moe.gguf", "--weights", "4M,1M", "--gpu", "A", "--report=gpu.html");
    driver_expect(&run, 0, NULL, NULL);
    driver_clear(&run);
    run = driver_shell("cat gpu.html");
    assert_int_equal(count(run.output, "GPU 3 MiB, 4 MiB"), 4);                 /* a name in each picture, and the table */
    assert_non_null(strstr(run.output, ">GPU slots</text>"));                   /* explained, */
    assert_null(strstr(run.output, ">ring</text>"));                            /* but not what there is none of */
    assert_non_null(strstr(run.output, "in the GPU's memory: 25 (25 to 25)"));  /* hits there */
    driver_clear(&run);
    run = RUN("bench", "moe.gguf", "--weights", "1M", "--baseline", "--runs", "1", "--report=once.html");
    driver_expect(&run, 0, "2.000x decode against llama.cpp", NULL); /* one run has no spread */
    driver_clear(&run);
    run = driver_shell("cat once.html");
    assert_non_null(strstr(run.output, "<b>2.00x decode</b>, <b>2.00x prefill</b> against"));
    driver_clear(&run);
    /* of the same memory, as with --resident: side by side, and not above each other */
    run = RUN("bench", "moe.gguf", "--weights", "4M,4M", "--baseline", "--report=same.html");
    driver_expect(&run, 0, NULL, NULL);
    driver_clear(&run);
    run = driver_shell("cat same.html");
    assert_int_equal(count(run.output, "<svg"), 6);
    assert_int_equal(count(run.output, "polyline"), 0);
    assert_int_equal(count(run.output, "<title>llama.cpp: 2.5"), 2); /* decode of two cells */
    assert_int_equal(count(run.output, "<title>llama.cpp: 77"), 2);  /* the better prompts, of the other read-ahead */
    driver_clear(&run);
    run = RUN("bench", "moe.gguf", "--weights", "4M", "--report=one.html"); /* a point alone is a bar */
    driver_expect(&run, 0, NULL, NULL);
    driver_clear(&run);
    run = driver_shell("cat one.html");
    assert_int_equal(count(run.output, "polyline"), 0);
    assert_true(count(run.output, "<svg") >= 5);
    assert_non_null(strstr(run.output, "width=\"187.5\" height=\"22\"><title>Hypura: 75 (50")); /* of 250 for 100 % */
    driver_clear(&run);
    run = RUN("bench", "moe.gguf", "--weights", "1M", "--report", "no/such/folder/page.html");
    driver_expect(&run, 1, NULL, "no/such/folder/page.html");
    assert_null(strstr(run.output, "tok/s")); /* before anything is measured */
    driver_clear(&run);
    run = RUN("bench", "moe.gguf", "--weights", "1M", "--report", "/dev/full");
    driver_expect(&run, 1, "hits", "/dev/full: No space left"); /* the figures are not lost */
    driver_clear(&run);
    /* What does not fit leaves what was there, and nothing else. */
    driver_write("old.html", "old", 3);
    run = driver_shell("bash -c '(ulimit -f 1; \"$PROGRAM\" bench moe.gguf --weights 1M --report old.html); echo $?; "
                       "cat old.html; ls | grep -c new$' 2>&1");
    driver_expect(&run, 1, "hypura: cannot write old.html: File too large\n1\nold0\n", NULL);
    driver_clear(&run);
    run = RUN("bench", "stops.gguf", "--weights", "4M,1M", "--report", "half.html");
    driver_expect(&run, 1, "hits", "stopped after the first cell");
    driver_clear(&run);
    run = driver_shell("grep -c '<svg' half.html");
    assert_int_equal(run.code, 0);
    driver_clear(&run);
}

static void test_profile_json(void **state)
{
    (void)state;
    process run = RUN("profile", "--json", "--force");
    driver_expect(&run, 0, NULL, NULL);
    json_t *object = driver_object(
        run.output,
        "version cpu cpus ram_total_bytes ram_available_bytes ram_limit_bytes memory_bytes_per_s "
        "storage_path provisional io_engine direct_io io_align_offset_bytes io_align_memory_bytes io_block_bytes "
        "io_depth direct_bytes_per_s read_latency_us io_rates measured_unix_s disturbed devices");
    assert_true(driver_integer(object, "ram_total_bytes") == (int64_t)16 << 30);
    assert_true(driver_real(object, "read_latency_us") == 77.0); /* --force arrived */
    assert_true(json_is_true(json_object_get(object, "direct_io")));
    assert_int_equal(json_array_size(json_object_get(object, "devices")), 1);
    /* The cache folder is the one of the environment. */
    assert_string_equal(driver_string(object, "storage_path"), driver_folder);
    json_decref(object);
    driver_clear(&run);
}

static void test_inspect_json(void **state)
{
    (void)state;
    process run = RUN("inspect", "moe.gguf", "--tensors", "--json");
    driver_expect(&run, 0, NULL, NULL);
    json_t *object = driver_object(run.output, "path architecture name layers experts experts_used context_length "
                                               "embedding_length n_tensors tensor_bytes roles files bundles tensors");
    /* A name that is no UTF-8 is still JSON. */
    assert_string_equal(driver_string(object, "name"), "Fake \xef\xbf\xbd MoE");
    const json_t *experts = json_object_get(json_object_get(object, "roles"), "expert");
    assert_int_equal(driver_integer(experts, "tensors"), 2);
    assert_int_equal(driver_integer(experts, "bytes"), 2 * 9216);
    const json_t *tensor = json_array_get(json_object_get(object, "tensors"), 2);
    assert_string_equal(driver_string(tensor, "name"), "blk.0.ffn_up_exps.weight");
    assert_int_equal(driver_integer(tensor, "offset"), 12288);
    assert_int_equal(json_array_size(json_object_get(tensor, "shape")), 3);
    json_decref(object);
    driver_clear(&run);

    run = RUN("inspect", "moe.gguf", "--json");
    object = json_loads(run.output, 0, NULL);
    assert_non_null(object);
    assert_null(json_object_get(object, "tensors"));
    json_decref(object);
    driver_clear(&run);
}

static void test_inspect_json_with_a_plan(void **state)
{
    (void)state;
    process run = RUN("inspect", "moe.gguf", "--tensors", "--gpu", "A,B", "--vram", "1M+3M", "--json");
    json_t *object = json_loads(run.output, 0, NULL);
    assert_non_null(object);
    const json_t *plan = json_object_get(object, "plan");
    assert_string_equal(driver_string(plan, "gpu"), "A,B");
    const json_t *second = json_array_get(json_object_get(plan, "gpus"), 1);
    assert_string_equal(driver_string(second, "name"), "B");
    assert_int_equal(driver_integer(second, "vram_bytes"), 3 << 20);
    assert_string_equal(driver_string(json_array_get(json_object_get(object, "tensors"), 0), "place"), "memory");
    assert_string_equal(driver_string(json_array_get(json_object_get(object, "tensors"), 1), "place"), "A slots");
    json_decref(object);
    driver_clear(&run);
}

static void test_estimate_json(void **state)
{
    (void)state;
    process run = RUN("estimate", "moe.gguf", "--memory", "3G", "--context", "128", "--json");
    driver_expect(&run, 0, NULL, NULL);
    json_t *object = driver_object(
        run.output, "model mode memory_bytes weights_bytes kv_bytes cache_type_k cache_type_v compute_bytes ubatch threads "
                    "best_ubatch overhead_bytes draft_bytes adapter_bytes resident_bytes pinned_bytes pool_bytes ring_bytes "
                    "nvme_bytes floor_weights_bytes floor_memory_bytes "
                    "ring_slot_bytes ring_slots prefetch_depth io_block_bytes io_depth pools decode_tok_s "
                    "bound_tok_s bound_by hit_rate read_bytes_per_token compute_s learned");
    assert_string_equal(driver_string(object, "mode"), "experts");
    assert_true(driver_integer(object, "memory_bytes") == (int64_t)3 << 30);
    assert_int_equal(driver_integer(object, "threads"), 14);
    assert_int_equal(driver_integer(object, "kv_bytes"), 128 * 1024);
    assert_true(driver_real(object, "decode_tok_s") == 12.5);
    assert_string_equal(driver_string(object, "bound_by"), "storage");
    json_decref(object);
    driver_clear(&run);
}

static void test_types_of_the_cache(void **state)
{
    (void)state;
    process run = RUN("estimate", "moe.gguf", "--context", "128", "--cache-type-k", "q8_0");
    driver_expect(&run, 0, "KV cache in q8_0 and f16", NULL);
    driver_clear(&run);
    run = RUN("estimate", "moe.gguf", "--context", "128", "-ctk", "q4_0", "-ctv", "q4_0", "--memory", "3G");
    driver_expect(&run, 0, "KV cache in q4_0", NULL);
    assert_null(strstr(run.output, "q4_0 and"));
    driver_clear(&run);
    run = RUN("estimate", "moe.gguf", "--context", "128");
    assert_null(strstr(run.output, "f16"));
    driver_clear(&run);
    run = RUN("bench", "moe.gguf", "--memory", "2M", "-ctk", "q8_0");
    driver_expect(&run, 0, "the KV cache kept keys as q8_0 and values as f16, in all series", NULL);
    driver_clear(&run);
    run = RUN("serve", "--cache-type-v", "q9");
    driver_expect(&run, 2, NULL, "option --cache-type-v: 'q9' is not one of f16, q8_0");
    driver_clear(&run);
    run = RUN("run", "moe.gguf", "--prompt", "hi", "--server", "http://127.0.0.1:1", "-ctv", "q8_0");
    driver_expect(&run, 2, NULL, "--server and --cache-type-v exclude each other");
    driver_clear(&run);
}

static void test_verify_json(void **state)
{
    (void)state;
    process run = RUN("verify", "moe.gguf", "--weights", "25%,1G", "--prompt-tokens", "1,7", "--ubatch=32,512",
                      "--io-engine=pool,uring", "--tokens=3", "--json");
    driver_expect(&run, 0, NULL, NULL);
    json_t *object = driver_object(run.output, "identical cases");
    const json_t *cases = json_object_get(object, "cases");
    assert_true(json_is_true(json_object_get(object, "identical")));
    assert_int_equal(json_array_size(cases), 16);
    const json_t *first = json_array_get(cases, 0);
    assert_int_equal(driver_integer(first, "weights_bytes"), 1 << 28); /* of a file of 1 GiB */
    assert_int_equal(driver_integer(first, "prompt_tokens"), 1);
    assert_int_equal(driver_integer(first, "ubatch"), 32);
    assert_int_equal(driver_integer(first, "tokens"), 3);
    assert_string_equal(driver_string(first, "io_engine"), "pool");
    const json_t *last = json_array_get(cases, 15);
    assert_int_equal(driver_integer(last, "weights_bytes"), 1 << 30);
    assert_int_equal(driver_integer(last, "prompt_tokens"), 7);
    assert_int_equal(driver_integer(last, "ubatch"), 512);
    assert_string_equal(driver_string(last, "io_engine"), "uring");
    char *one = json_dumps(first, JSON_COMPACT);
    json_decref(driver_object(one, "weights_bytes vram_bytes gpus prompt_tokens tokens ubatch form io_engine differing "
                                   "most_differing cpu_rows bytes_read bytes_uploaded resizes ahead repeated"));
    free(one);
    json_decref(object);
    driver_clear(&run);

    run = RUN("verify", "differs.gguf", "--json");
    driver_expect(&run, 1, NULL, "differs from plain llama.cpp");
    object = driver_object(run.output, "identical cases");
    assert_true(json_is_false(json_object_get(object, "identical")));
    assert_int_equal(driver_integer(json_array_get(json_object_get(object, "cases"), 0), "differing"), 5);
    json_decref(object);
    driver_clear(&run);
}

static void test_replay_json(void **state)
{
    (void)state;
    process run = RUN("replay", "moe.gguf", "--slots", "6,50%", "--json");
    driver_expect(&run, 0, NULL, NULL);
    json_t *object = driver_object(run.output, "tokens layers experts uses distinct rows");
    const json_t *shown = json_object_get(object, "rows");
    assert_int_equal(json_array_size(shown), 2);
    assert_int_equal(driver_integer(json_array_get(shown, 0), "slots"), 6);
    assert_int_equal(driver_integer(json_array_get(shown, 1), "slots"), 8); /* of 16 */
    char *one = json_dumps(json_array_get(shown, 1), JSON_COMPACT);
    json_t *row = driver_object(one, "slots lru ours belady foreseen foreseen_right");
    assert_true(driver_real(row, "lru") == 0.25 && driver_real(row, "belady") == 0.5);
    assert_true(driver_real(row, "foreseen") == 0.125 && driver_real(row, "foreseen_right") > 0.16);
    json_decref(row);
    free(one);
    json_decref(object);
    driver_clear(&run);

    run = RUN("replay", "moe.gguf", "--slots", "8");
    driver_expect(&run, 0, " 8  50.0 %           2.00  25.0 %  33.3 %  50.0 %        33 %      12 %   17 %\n", NULL);
    driver_clear(&run);
    run = RUN("replay", "moe.gguf", "--slots", "101%");
    driver_expect(&run, 2, NULL, "--slots: 101% is out of range");
    driver_clear(&run);
    static const char *const none[] = {"0", "1G", "-1", "1e99", "4294967296"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        run = RUN("replay", "moe.gguf", "--slots", none[i]);
        driver_expect(&run, 2, NULL,
                      strspn(none[i], "0123456789") == strlen(none[i]) ? "(1 to 4294967295)" : "--slots: ");
        driver_clear(&run);
    }
    run = RUN("replay", "no.trace");
    driver_expect(&run, 1, NULL, "no.trace");
    driver_clear(&run);
}

static void test_iobench_json(void **state)
{
    (void)state;
    process run = RUN("iobench", "--read-gb", "2", "--json");
    driver_expect(&run, 0, NULL, NULL);
    json_t *object =
        driver_object(run.output, "path file_bytes direct_io memory_bytes_per_s ceiling_bytes_per_s ceiling best rows");
    assert_string_equal(driver_string(object, "path"), "."); /* where none is named */
    assert_int_equal(driver_integer(object, "file_bytes"), 2000000000);
    char *one = json_dumps(json_object_get(object, "best"), JSON_COMPACT);
    json_t *row = driver_object(one, "engine cache order block_bytes depth bytes_per_s refused");
    assert_int_equal(driver_integer(row, "depth"), 16);
    json_decref(row);
    free(one);
    const json_t *refused = json_array_get(json_object_get(object, "rows"), 2);
    assert_true(json_is_null(json_object_get(refused, "bytes_per_s")));
    assert_true(json_is_true(json_object_get(refused, "refused")));
    json_decref(object);
    driver_clear(&run);

    run = RUN("iobench", "moe.gguf");
    driver_expect(&run, 0, "past the page cache  uring   random      4 KiB  95.4 MiB/s        -  953.7 MiB/s\n",
                  "refused: 1 figures above the limit");
    driver_clear(&run);
    run = RUN("iobench", "nowhere");
    driver_expect(&run, 1, NULL, "nowhere");
    driver_clear(&run);
    run = RUN("iobench", ".", ".");
    driver_expect(&run, 2, NULL, "unexpected argument");
    driver_clear(&run);
}

static void test_optimize_json(void **state)
{
    (void)state;
    process run = RUN("optimize", "moe.gguf", "--json");
    driver_expect(&run, 0, NULL, NULL);
    json_t *object = driver_object(run.output, "path bytes records resumed existed matrix_bytes record_bytes "
                                               "matrix_bytes_per_s record_bytes_per_s gain");
    assert_string_equal(driver_string(object, "path"), "moe.gguf.records");
    assert_true(driver_real(object, "gain") == 1.25);
    json_decref(object);
    driver_clear(&run);
    run = RUN("optimize", "moe.gguf");
    driver_expect(&run, 0, "1.25 times as fast", NULL);
    driver_clear(&run);
    run = RUN("optimize", "moe.gguf", "--force");
    driver_expect(&run, 0, "resumed    3 of them were there\n", NULL);
    assert_null(strstr(run.output, "gain"));
    driver_clear(&run);
    run = RUN("optimize", "broken.gguf");
    driver_expect(&run, 1, NULL, "broken.gguf is not a GGUF file");
    driver_clear(&run);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bench_json),
        cmocka_unit_test(test_bench_report),
        cmocka_unit_test(test_profile_json),
        cmocka_unit_test(test_inspect_json),
        cmocka_unit_test(test_inspect_json_with_a_plan),
        cmocka_unit_test(test_estimate_json),
        cmocka_unit_test(test_types_of_the_cache),
        cmocka_unit_test(test_verify_json),
        cmocka_unit_test(test_replay_json),
        cmocka_unit_test(test_iobench_json),
        cmocka_unit_test(test_optimize_json),
    };
    return driver_main(argc, argv) ? cmocka_run_group_tests(tests, driver_setup, driver_teardown) : 2;
}
