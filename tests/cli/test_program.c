/*
 * test_program.c - the program from outside: words in, exit code, text and JSON
 * out, for every command; broken outputs; folders.
 */
#include "driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- words in, exit code and text out --------------------------------------- */

static const struct {
    const char *words[8];
    int code;
    const char *output; /* parts of them; NULL: nothing may be there */
    const char *error;
} rows[] = {
    {{"--help"}, 0, "estimate    tell how", NULL},
    {{"help"}, 0, "usage: hypura COMMAND", NULL},
    {{"-h"}, 0, "HYPURA_MODELS", NULL},
    {{"--version"}, 0, "hypura 0.", NULL},
    {{"help", "run"}, 0, "usage: hypura run MODEL [PROMPT] [options]", NULL},
    {{"run", "--help"}, 0, "--stats-json FILE", NULL},
    {{"profile", "--help"}, 0, "usage: hypura profile [options]", NULL},
    {{"inspect", "--help"}, 0, "--tensors", NULL},
    {{"estimate", "--help"}, 0, "--memory SIZE", NULL},
    {{"verify", "--help"}, 0, "--prompt-tokens N,...", NULL},
    {{NULL}, 2, NULL, "usage: hypura COMMAND"},
    {{"rnu"}, 2, NULL, "hypura: unknown command 'rnu' (did you mean run?)\n"},
    {{"help", "inspet"}, 2, NULL, "(did you mean inspect?)"},
    {{"frobnicate"}, 2, NULL, "hypura: unknown command 'frobnicate' (see hypura --help)\n"},
    {{"--verbose"}, 2, NULL, "hypura: unknown option --verbose"},
    {{"run"}, 2, NULL, "hypura: MODEL is missing"},
    {{"run", "moe.gguf", "--temp", "-1"}, 2, NULL, "option --temp: -1 is out of range"},
    {{"run", "moe.gguf", "--treads", "2"}, 2, NULL, "unknown option --treads (did you mean --threads?)"},
    {{"run", "-m", "moe.gguf"}, 2, NULL, "unknown option -m (MODEL is given without an option)"},
    {{"run", "-hf", "user/repo"}, 2, NULL, "hypura pull hf.co/USER/REPOSITORY"},
    {{"run", "moe.gguf", "-ngl=99"}, 2, NULL, "unknown option -ngl (--memory, --vram and --gpu say"},
    {{"run", "moe.gguf", "-x"}, 2, NULL, "unknown option -x (see hypura run --help)"},
    {{"run", "moe.gguf", "-p"}, 2, NULL, "option --prompt needs a value"},
    {{"run", "moe.gguf", "--draft", "nowhere.gguf"}, 1, NULL, "option --draft: "},
    {{"run", "moe.gguf", "--draft-max", "4"}, 2, NULL, "--draft-max is of a --draft or a --spec-type"},
    {{"run", "moe.gguf", "--spec-type", "guess"}, 2, NULL, "'guess' is not one of ngram-simple"},
    {{"run", "moe.gguf", "--spec-type", "draft-simple"}, 2, NULL, "draft-simple needs a --draft"},
    {{"run", "moe.gguf", "--server", "http://x", "--draft", "moe.gguf"}, 2, NULL, "--server and --draft exclude"},
    {{"bench", "moe.gguf", "-md", "moe.gguf"}, 2, NULL, "(run and serve take --draft and --spec-type)"},
    {{"run", "moe", "--server", "http://x", "--lora", "a.gguf"}, 2, NULL, "--server and --lora exclude"},
    {{"run", "moe.gguf", "--lora", "a.gguf:half"}, 2, NULL, "option --lora: 'half' is not a number"},
    {{"run", "moe.gguf", "-p", "hello", "--lora", "a.gguf:0.5"}, 0, "[1] hello\n", "adapter    a.gguf, scale 0.5"},
    {{"run", "moe.gguf", "--raw", "--system", "x"}, 2, NULL, "--raw and --system exclude"},
    {{"run", "moe.gguf", "-j", "{}", "--grammar=x"}, 2, NULL, "--grammar and --json-schema exclude"},
    {{"run", "moe", "--server=http://x", "--chat-template-file=t"}, 2, NULL, "--server and --template"},
    {{"run", "moe.gguf", "--template=none", "-p", "x"}, 1, NULL, "cannot open none"},
    {{"run", "moe.gguf", "-p", "hello"}, 0, "[1] hello\n", "sampling"},
    {{"run", "moe.gguf", "hello"}, 0, "[1] hello\n", "sampling"}, /* as Ollama's users write it */
    {{"run", "moe.gguf", "hello", "-p", "you"}, 2, NULL, "a prompt is given twice: 'hello' and --prompt"},
    {{"run", "moe.gguf", "hello", "you"}, 2, NULL, "unexpected argument 'you'"},
    {{"run", "moe.gguf", "hello", "--interactive"}, 2, NULL, "exclude each other"},
    {{"run", "moe.gguf", "--memory", "lots"}, 2, NULL, "option --memory: 'lots' is not a size"},
    {{"run", "moe.gguf", "--prompt", "a", "--prompt-file", "b"}, 1, NULL, "cannot open b"},
    {{"run", "moe.gguf", "--memory=1G", "--weights=1G"}, 2, NULL, "--memory and --weights exclude"},
    {{"run", "moe.gguf", "--prompt=a", "--grammar="}, 2, NULL, "option --grammar: it is empty"},
    {{"run", "moe.gguf", "--prompt=a", "--template=/dev/null"}, 2, NULL, "option --template: /dev/null is empty"},
    {{"run", "moe.gguf", "--plain", "--weights=50%"}, 2, NULL, "--plain and --weights exclude"},
    {{"run", "moe", "--server=http://x", "--trace=t"}, 2, NULL, "--server and --trace exclude"},
    {{"run", "moe", "--server=http://x", "--gpu=none"}, 2, NULL, "--server and --gpu exclude"},
    {{"run", "moe", "--server=http://x", "--vram=1G"}, 2, NULL, "--server and --vram exclude"},
    {{"run", "moe", "--server=http://x", "--vram=1G+2G"}, 2, NULL, "--server and --vram exclude"},
    {{"run", "moe", "--server=http://x", "--threads=1"}, 2, NULL, "--server and --threads exclude"},
    {{"run", "moe", "--server=http://x", "--ubatch=1"}, 2, NULL, "--server and --ubatch exclude"},
    {{"run", "moe", "--server=http://x", "--io-engine=pool"}, 2, NULL, "--server and --io-engine exclude"},
    {{"run", "moe", "--server=http://x", "--no-repack"}, 2, NULL, "--server and --no-repack exclude"},
    {{"run", "moe", "--server=http://x", "--force-paging"}, 2, NULL, "--server and --force-paging exclude"},
    {{"run", "moe.gguf"}, 2, NULL, "hypura: no prompt: standard input is empty"},
    {{"run", "moe.gguf", "--prompt-file", "missing"}, 1, NULL, "hypura: cannot open missing: No such file"},
    {{"run", "absent", "--prompt", "a"}, 1, NULL, "no model 'absent'"},
    {{"run", "", "--prompt", "a"}, 2, NULL, "the name of the model is empty"},
    {{"run", "moe.gguf", "--stop", ""}, 2, NULL, "option --stop: it is empty"},
    {{"run", "./absent", "--prompt", "a"}, 1, NULL, "cannot open ./absent: No such file"},
    {{"run", "broken.gguf", "--prompt", "a"}, 1, NULL, "hypura: broken.gguf is not a GGUF file\n"},
    {{"run", "moe.gguf", "--prompt", "a", "--memory", "1K"}, 1, NULL, "below the floor of 1000000 bytes"},
    {{"run", "moe.gguf", "--prompt", "too long"}, 2, NULL, "hypura: the prompt has 9999 tokens"},
    {{"run", "moe.gguf", "--prompt", "fail"}, 1, "half an ans\n", "hypura: reading expert 3 of layer 1 failed\n"},
    {{"run", "two", "--prompt", "a"}, 2, NULL, "may mean several"},
    {{"run", "hf.co/user/repo", "--prompt", "a"}, 1, NULL, "hypura pull fetches one"},
    {{"inspect", "known:tag"}, 0, "architecture  fakemoe", NULL},
    {{"list"}, 0, "other:latest      1 KiB                    2025-01-02  /m/other.gguf\n", NULL},
    {{"list", "--json"}, 0, "\"quantization\": \"Q4_1\"", NULL},
    {{"list", "--models", "/empty"}, 0, NULL, "no models in /empty"},
    {{"list", "--models", "/empty", "--json"}, 0, "[]\n", NULL},
    {{"list", "--models", "/long"}, 0, "000/end.gguf\n", NULL},
    {{"list", "--models", "/long"}, 0, "l\xc3\xb6ng:latest   1 B ", NULL},
    {{"list", "--models", "/long"}, 0, "\nlong:latest   1 B ", NULL},
    {{"list", "x"}, 2, NULL, "unexpected argument 'x'"},
    {{"remove", "known:tag"}, 0, NULL, "removed known:tag"},
    {{"remove", "none"}, 2, NULL, "there is no model 'none'"},
    {{"rm", "known:tag"}, 2, NULL, "unknown command 'rm' (hypura remove NAME)"},
    {{"version"}, 0, "hypura 0.", NULL},
    {{"pull"}, 2, NULL, "NAME is missing"},
    {{"pull", "a/b", "--hub", "http://hub", "--models", "/m"}, 0, "/m/a/b.gguf\n", NULL},
    {{"pull", "a/b"}, 2, NULL, "a/b is not there"},
    {{"profile", "x"}, 2, NULL, "unexpected argument 'x'"},
    {{"profile"}, 0, "Fake CPU, 2 processors", NULL},
    {{"inspect", "moe.gguf"}, 0, "experts       8, 2 used for a token", NULL},
    {{"inspect", "moe"}, 0, "architecture  fakemoe", NULL},
    {{"inspect", "broken.gguf"}, 1, NULL, "is not a GGUF file"},
    {{"inspect", "moe.gguf", "--plan"}, 0, "drive alone", NULL},
    {{"inspect", "moe.gguf", "--gpu", "A,B", "--vram", "1M+3M"}, 0, "B            1 to 2                3 MiB", NULL},
    {{"estimate", "moe.gguf", "--gpu", "A,B", "--vram", "2M+1M"},
     0,
     "GPU        B, layers 1 to 2: 1 MiB weights",
     NULL},
    {{"estimate", "moe.gguf", "--gpu", "A,B", "--vram", "2M+1M"},
     0,
     "prompts    512 tokens together: there is no memory to compute 1024\n",
     NULL},
    {{"estimate", "moe.gguf", "--gpu", "A,B", "--vram", "2M+1M", "--ubatch", "1024"},
     0,
     "prompts    1024 tokens together\n",
     NULL},
    {{"inspect", "moe.gguf", "--ubatch", "8", "--json"}, 0, "\"ubatch\": 8,", NULL},
    {{"serve", "--engine", "/no/such"}, 1, NULL, "option --engine: /no/such cannot be run: No such file"},
    {{"serve", "--child-log", "/no/such/log"}, 1, NULL, "cannot write /no/such/log: No such file"},
    {{"serve", "--ubatch", "0"}, 2, NULL, "option --ubatch: 0 is out of range"},
    {{"estimate", "moe.gguf", "--weights", "17G"}, 0, "more than the 16 GiB that this machine", NULL},
    {{"estimate", "moe.gguf", "--vram", "2M"}, 0, "tokens/s", "none computes here: there is none, or"},
    {{"estimate", "--help=x"}, 0, "usage: hypura estimate", NULL},
    {{"estimate", "moe.gguf", "--gpu", "A,B", "--vram", "2M+"}, 2, NULL, "a size, or one for each GPU: 4G+8G"},
    {{"estimate", "moe.gguf", "--gpu", "A,B", "--vram", "2M+50%"}, 2, NULL, "option --vram: '50%' is not a size"},
    {{"verify", "moe.gguf", "--gpu", "A,B", "--vram", "1M,1M+"}, 2, NULL, "a size, or one for each GPU: 4G+8G"},
    {{"serve", "--vram", "50%"}, 2, NULL, "option --vram: a server takes a size"},
    {{"estimate", "moe.gguf", "--memory", "2G", "--weights", "50%"}, 2, NULL, "--memory and --weights exclude"},
    {{"estimate", "moe.gguf", "--weights", "50%"}, 0, "mode       experts", NULL},
    {{"estimate", "moe.gguf", "--weights", "0.00001%"}, 1, NULL, "the budget of 107 bytes is below the floor"},
    {{"verify", "moe.gguf"}, 0, "identical", NULL},
    {{"bench", "--help"}, 0, "--io-limit BYTES/S", NULL},
    {{"bench", "moe.gguf", "--weights", "1M", "--baseline"}, 0, "2.000x decode (1.500-2.500) against llama.cpp, 2.000x prefill", NULL},
    {{"bench", "moe.gguf", "--weights", "1M", "--gpu", "A"},
     0,
     "A holds 1 MiB of weights, 2 MiB of expert slots; 25.0 % of the experts needed were there, 3 MiB uploaded for each "
     "token, 48 selections read back, 100 us each; uploads take 25 % of what the link carries\n",
     NULL},
    {{"bench", "moe.gguf", "--weights", "1M"}, 0, "hypura  2.05 (1.55-2.55)  1.25  16.39 (14.34-18.44)", NULL},
    {{"bench", "moe.gguf", "--weights", "1M", "--io-limit", "5.09e9"}, 0, "slowed down to 4.7 GiB/s", NULL},
    {{"bench", "moe.gguf", "--weights", "1M", "--route", "x", "--route-recall", "0.75"},
     0,
     "of which 75 % come true",
     NULL},
    {{"bench", "moe.gguf", "--io-engine", "aio"}, 2, NULL, "option --io-engine"},
    {{"bench", "moe.gguf", "--io-limit", "fast"}, 2, NULL, "'fast' is no number of bytes per second"},
    {{"bench", "missing.gguf"}, 1, NULL, "missing.gguf"},
    {{"bench-worker", "x"}, 2, NULL, "started by hypura bench alone"},
    {{"bench-worker"}, 1, NULL, "a fake worker"},
    {{"verify", "differs.gguf"}, 1, "differing", "hypura: the output differs from plain llama.cpp in 1 of 1 cases\n"},
    {{"verify", "moe.gguf", "--ubatch", "0"}, 2, NULL, "option --ubatch: 0 is out of range"},
};

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        process run = driver_run(rows[i].words, NULL, NULL);
        driver_expect(&run, rows[i].code, rows[i].output, rows[i].error);
        if ((!rows[i].output && run.output[0]) || (!rows[i].error && run.error[0])) {
            fail_msg("row %zu (%s): nothing wanted on one stream\n--- output\n%s\n--- error\n%s", i, rows[i].words[0],
                     run.output, run.error);
        }
        driver_clear(&run);
    }
}

static void test_help_fits_a_terminal(void **state)
{
    (void)state;
    static const char *const commands[] = {"run",    "estimate", "inspect", "profile", "bench",
                                           "verify", "replay",   "iobench", "optimize"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        process run = RUN("help", commands[i]);
        for (const char *line = strtok(run.output, "\n"); line; line = strtok(NULL, "\n")) {
            if (strlen(line) > 100) {
                fail_msg("%s: %zu columns: %s", commands[i], strlen(line), line);
            }
        }
        driver_clear(&run);
    }
}

/* ---- JSON ------------------------------------------------------------------- */

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
    run = RUN("bench", "moe.gguf", "--weights", "1M", "--report", "no/such/folder/page.html");
    driver_expect(&run, 1, NULL, "no/such/folder/page.html");
    assert_null(strstr(run.output, "tok/s")); /* before anything is measured */
    driver_clear(&run);
    run = RUN("bench", "moe.gguf", "--weights", "1M", "--report", "/dev/full");
    driver_expect(&run, 1, "hits", "/dev/full: No space left"); /* the figures are not lost */
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
        run.output, "model mode memory_bytes weights_bytes kv_bytes cache_type_k cache_type_v compute_bytes ubatch threads best_ubatch overhead_bytes draft_bytes adapter_bytes resident_bytes "
                    "pinned_bytes pool_bytes ring_bytes nvme_bytes floor_weights_bytes floor_memory_bytes "
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

/* ---- output that cannot be written -------------------------------------------- */

static void test_full_disk(void **state)
{
    (void)state;
    static const char *const commands[][4] = {
        {"--help", NULL},
        {"--version", NULL},
        {"help", "run", NULL},
        {"inspect", "moe.gguf", NULL},
        {"inspect", "moe.gguf", "--json", NULL},
        {"profile", "--json", NULL},
        {"verify", "moe.gguf", NULL},
        {"run", "moe.gguf", "--prompt=hi", NULL},
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        process run = driver_run(commands[i], NULL, "/dev/full");
        driver_expect(&run, 1, NULL, "hypura: cannot write to standard output: No space left on device\n");
        driver_clear(&run);
    }
}

static void test_closed_streams(void **state)
{
    (void)state;
    process run;
    run =
        driver_shell("{ \"$PROGRAM\" run moe.gguf --prompt long --max-tokens 100000; echo code $? >&2; } | true");
    driver_expect(&run, 0, NULL, "hypura: cannot write to standard output: Broken pipe\ncode 1\n");
    driver_clear(&run);
    run = driver_shell("\"$PROGRAM\" run moe.gguf --prompt hi >&-");
    driver_expect(&run, 1, NULL, "hypura: cannot write to standard output: Bad file descriptor");
    driver_clear(&run);
    run = driver_shell("\"$PROGRAM\" run moe.gguf <&-");
    driver_expect(&run, 1, NULL, "hypura: cannot read standard input");
    driver_clear(&run);
}

/* ---- folders of the environment --------------------------------------------------- */

static void test_folders(void **state)
{
    (void)state;
    process run;
    run = driver_shell("env -u HYPURA_CACHE_DIR XDG_CACHE_HOME=/xdg \"$PROGRAM\" profile --json");
    driver_expect(&run, 0, "\"storage_path\": \"/xdg/hypura\"", NULL);
    driver_clear(&run);
    run =
        driver_shell("env -u HYPURA_CACHE_DIR XDG_CACHE_HOME=relative HOME=/home/me \"$PROGRAM\" profile --json");
    driver_expect(&run, 0, "\"storage_path\": \"/home/me/.cache/hypura\"", NULL);
    driver_clear(&run);
    run = driver_shell("env -u HYPURA_CACHE_DIR -u XDG_CACHE_HOME -u HOME \"$PROGRAM\" profile --json");
    driver_expect(&run, 2, NULL, "set HOME, XDG_CACHE_HOME or HYPURA_CACHE_DIR");
    assert_string_equal(run.output, "");
    driver_clear(&run);
    run = driver_shell("mkdir -p data/hypura/models && touch data/hypura/models/other.gguf && "
                       "env -u HYPURA_MODELS XDG_DATA_HOME=$PWD/data \"$PROGRAM\" inspect other --json");
    driver_expect(&run, 0, "data/hypura/models/other.gguf", NULL);
    driver_clear(&run);
    run = driver_shell("mkdir -p data/hypura/models/hf.co/a && touch data/hypura/models/hf.co/a/b@Q4_0.gguf && "
                       "env -u HYPURA_MODELS XDG_DATA_HOME=$PWD/data \"$PROGRAM\" inspect hf.co/a/b@Q4_0 --json");
    driver_expect(&run, 0, "data/hypura/models/hf.co/a/b@Q4_0.gguf", NULL);
    driver_clear(&run);
    run = driver_shell("HYPURA_MODELS=/no/such \"$PROGRAM\" inspect other");
    driver_expect(&run, 1, NULL, "no model of that name in /no/such or ");
    driver_clear(&run);
}

int main(int argc, char **argv)
{
    /* What tests say how to wait, users do not: the fake library looks whether the program does. */
    (void)unsetenv("OMP_WAIT_POLICY");
    (void)unsetenv("GOMP_SPINCOUNT");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_help_fits_a_terminal),
        cmocka_unit_test(test_profile_json),
        cmocka_unit_test(test_inspect_json),
        cmocka_unit_test(test_inspect_json_with_a_plan),
        cmocka_unit_test(test_estimate_json), cmocka_unit_test(test_types_of_the_cache),
        cmocka_unit_test(test_verify_json),
        cmocka_unit_test(test_replay_json),
        cmocka_unit_test(test_iobench_json),
        cmocka_unit_test(test_optimize_json),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_closed_streams),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_bench_json),
        cmocka_unit_test(test_bench_report),
    };
    return driver_main(argc, argv) ? cmocka_run_group_tests(tests, driver_setup, driver_teardown) : 2;
}
