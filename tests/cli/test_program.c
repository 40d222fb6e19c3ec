/*
 * test_program.c - the program from outside: words in, exit code and text out,
 * for every command; broken outputs; folders.
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
    {{"run", "moe", "--server=http://x", "--rpc=h:1"}, 2, NULL, "--server and --rpc exclude"},
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
    {{"run", "hf.co/user/repo", "--prompt", "a", "--offline"}, 1, NULL, "hypura pull fetches one"},
    {{"run", "hf.co/user/repo", "--prompt", "a"}, 1, NULL, "no model 'hf.co/user/repo' is here, and it cannot be pulled: hf.co"},
    {{"run", "hf.co/user/new", "--prompt", "a"}, 0, "[1] a\n", "pulling hf.co/user/new, 3 GiB in 2 files (1 GiB are there already), into "},
    {{"run", "hf.co/user/new", "--prompt", "a"}, 0, "[1] a\n", "pulling hf.co/user/new: 2 GiB of 3 GiB\n"},
    {{"run", "user/absent.gguf", "--prompt", "a"}, 1, NULL, "hypura pull fetches one"}, /* the path of a file */
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
    {{"serve", "qwen3:30b"}, 1, NULL,
     "qwen3:30b (models of the folder and Ollama's are there by name without being named here): No such file"},
    {{"ps", "--server", "http://fake"}, 0,
     "moe:latest   ready         experts   4 KiB    -        4 KiB  62.5 %   1/4  2030-01-02T03:04:05Z\n",
     "1 GiB of 2 GiB that models may use, 2 loaded"},
    {{"ps", "--server", "http://fake"}, 0, "next:latest  loading 25 %  -             -    -            -       -   0/0  -\n", "2 loaded"},
    {{"ps", "--server", "http://fake", "--json"}, 0, "\"budget_bytes\": 2147483648", NULL},
    {{"ps"}, 1, NULL, "nobody at http://127.0.0.1:8080"},
    {{"stop", "known:tag", "--server", "http://fake"}, 0, NULL, NULL},
    {{"stop", "other", "--server", "http://fake"}, 2, NULL, "there is no such model"},
    {{"stop"}, 2, NULL, "NAME is missing"},
    {{"rpc-server"}, 1, NULL, "hypura: cannot listen on 127.0.0.1:50052"},
    {{"rpc-server", "--host", "0.0.0.0", "--port", "7"}, 1, NULL, "whoever reaches 0.0.0.0 can use this machine"},
    {{"rpc-server", "-H", "127.0.0.1", "-p", "7", "--memory", "1G"}, 1, NULL, "cannot listen on 127.0.0.1:7"},
    {{"rpc-server", "--port", "70000"}, 2, NULL, "option --port"},
    {{"rpc-server", "moe.gguf"}, 2, NULL, "unexpected argument 'moe.gguf'"},
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
    {{"inspect", "moe.gguf", "--plan"}, 0, "memory       0 to 1, output ", NULL},
    {{"estimate", "moe.gguf", "--memory", "3G", "-c", "4096"}, 0, "memory     4 MiB of 3 GiB: 4 MiB KV cache\n", NULL},
    {{"run", "moe.gguf", "--mem", "2G"}, 2, NULL, "did you mean --memory?"},
    {{"inspect", "moe.gguf", "--gpu", "A,B", "--vram", "1M+3M"}, 0, "B            1, output             3 MiB", NULL},
    {{"estimate", "moe.gguf", "--gpu", "A,B", "--vram", "2M+1M"},
     0,
     "GPU        B, layers 1, output: 1 MiB weights",
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
    {{"remove"}, 2, NULL, "NAME is missing"},
    {{"remove", "--unused", "--models", "/left"}, 0, NULL, "removed 2 files that no model uses, 3 GiB\n"},
    {{"remove", "--unused", "known:tag"}, 0, NULL, "removed 0 files"},
    {{"list", "--models", "/left", "--json"}, 0, "[\n", "3 GiB of downloads that were broken off, or files"},
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
    run = driver_shell("HF_HUB_OFFLINE=1 \"$PROGRAM\" run hf.co/user/new hi");
    driver_expect(&run, 1, NULL, "no model 'hf.co/user/new'");
    driver_clear(&run);
    run = driver_shell("HF_HUB_OFFLINE=True \"$PROGRAM\" pull hf.co/user/new");
    driver_expect(&run, 2, NULL, "HF_HUB_OFFLINE is set: nothing is fetched");
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
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_closed_streams),
        cmocka_unit_test(test_folders),
    };
    return driver_main(argc, argv) ? cmocka_run_group_tests(tests, driver_setup, driver_teardown) : 2;
}
