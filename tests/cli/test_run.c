/*
 * test_run.c - `hypura run` from outside: prompts in, text and statistics out,
 * signals, and what a terminal shows.
 */
#include "driver.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- run -------------------------------------------------------------------- */

static void test_run_hands_over_options(void **state)
{
    (void)state;
    static const struct {
        const char *words[10];
        const char *text;
    } cases[] = {
        {{NULL}, "temp 0.80 top_p 0.95 min_p 0.05 top_k 40 seed other max 0 raw 0\n"},
        {{"--temp", "0", "--top-p=1", "--min-p=0", "--top-k=0", "--seed=7", "--raw", "--max-tokens", "9"},
         "temp 0.00 top_p 1.00 min_p 0.00 top_k 0 seed 7 max 9 raw 1\n"},
        {{"-n", "9", "-s=7", "--temperature", "0"},
         "temp 0.00 top_p 0.95 min_p 0.05 top_k 40 seed 7 max 9 raw 0\n"},
        {{"-sys", "Be brief.", "-j", "{}", "--chat-template-file", "template"},
         "system Be brief. grammar (null) schema {} template {{ messages }} temp 0.80 top_p 0.95 min_p 0.05 top_k 40 seed "
         "other max 0 raw 0\n"},
        {{"--frequency-penalty", "-0.5", "--presence-penalty=1.5"},
         "frequency -0.50 presence 1.50 temp 0.80 top_p 0.95 min_p 0.05 top_k 40 seed other max 0 raw 0\n"},
        {{"--stop", "a, b", "-r", "\n"},
         "stop 'a, b' stop '\n' temp 0.80 top_p 0.95 min_p 0.05 top_k 40 seed other max 0 raw 0\n"},
        {{"-md", "moe.gguf", "--spec-type", "ngram-simple,draft-simple", "--spec-draft-n-max=5", "--draft-p-min=0.5"},
         "guesses moe.gguf ngram-simple 5 0.50 temp 0.80 top_p 0.95 min_p 0.05 top_k 40 seed other max 0 raw 0\n"},
    };
    driver_write("template", "{{ messages }}\n", 15);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *words[DRIVER_MAX_WORDS] = {"run", "moe.gguf", "--prompt", "options"};
        memcpy(words + 4, cases[i].words, sizeof cases[i].words);
        process run = driver_run(words, NULL, NULL);
        driver_expect(&run, 0, cases[i].text, "sampling");
        driver_clear(&run);
    }
}

static void test_run_seed_is_random_and_told(void **state)
{
    (void)state;
    process first = RUN("run", "moe.gguf", "--prompt", "seed");
    process second = RUN("run", "moe.gguf", "--prompt", "seed");
    assert_string_not_equal(first.output, second.output);
    char told[64];
    snprintf(told, sizeof told, "seed %s", first.output); /* with the newline */
    driver_expect(&first, 0, NULL, told);
    driver_clear(&first);
    driver_clear(&second);
}

/* The program starts itself again where threads are to wait longer, before it reads what to answer. */
static void test_waiting_is_chosen_before_the_prompt(void **state)
{
    (void)state;
    char *policy = getenv("OMP_WAIT_POLICY") ? strdup(getenv("OMP_WAIT_POLICY")) : NULL;
    unsetenv("OMP_WAIT_POLICY"); /* as a user says it, of all tests */
    process run = RUN_INPUT("kept", "run", "alone.gguf");
    driver_expect(&run, 0, "[1] kept\n", NULL);
    driver_clear(&run);
    run = RUN_INPUT("limited", "run", "alone.gguf", "--memory=3G");
    driver_expect(&run, 0, "[1] limited\n", NULL);
    driver_clear(&run);
    run = RUN_INPUT("other", "run", "moe.gguf");
    driver_expect(&run, 0, "[1] other\n", NULL);
    driver_clear(&run);
    if (policy) {
        setenv("OMP_WAIT_POLICY", policy, 1);
    }
    free(policy);
}

static void test_run_prompt_sources(void **state)
{
    (void)state;
    process run = RUN_INPUT("two\nlines\n", "run", "moe.gguf");
    assert_string_equal(run.output, "[1] two\nlines\n");
    driver_clear(&run);

    driver_write("prompt.txt", "from a file\n\n", 13);
    run = RUN_INPUT("not this", "run", "moe.gguf", "--prompt-file", "prompt.txt");
    assert_string_equal(run.output, "[1] from a file\n\n");
    driver_clear(&run);

    run = RUN_INPUT("dash", "run", "moe.gguf", "--prompt-file", "-");
    assert_string_equal(run.output, "[1] dash\n");
    driver_clear(&run);

    run = RUN_INPUT("all of it\n", "run", "moe.gguf", "sum it up", "--prompt-file", "-");
    assert_string_equal(run.output, "[1] all of it\n\nsum it up\n");
    driver_clear(&run);
    driver_write("prompt.txt", "", 0);
    run = RUN("run", "moe.gguf", "sum it up", "--prompt-file", "prompt.txt");
    assert_string_equal(run.output, "[1] sum it up\n");
    driver_clear(&run);
    run = RUN_INPUT("not this", "run", "moe.gguf", "sum it up");
    driver_expect(&run, 0, "[1] sum it up\n", NULL);
    assert_null(strstr(run.error, "not read")); /* nobody looks on */
    driver_clear(&run);

    driver_write("prompt.txt", "a\0b", 3);
    run = RUN("run", "moe.gguf", "--prompt-file", "prompt.txt");
    driver_expect(&run, 1, NULL, "prompt.txt is no text: it has a NUL byte in it");
    driver_clear(&run);

    size_t bytes = 300000;
    char *text = malloc(bytes + 1);
    assert_non_null(text);
    memset(text, 'x', bytes);
    text[bytes] = '\0';
    run = RUN_INPUT(text, "run", "moe.gguf");
    assert_int_equal(run.output_bytes, strlen("[1] ") + bytes + 1);
    driver_clear(&run);
    free(text);
}

static void test_run_keeps_bytes(void **state)
{
    (void)state;
    process run = RUN("run", "moe.gguf", "--prompt", "bytes", "--stats-json", "stats.json");
    driver_expect(&run, 0, NULL, NULL);
    assert_string_equal(run.output, "caf\xc3\xa9 \xff\xed\xa0\x80.\n\n");
    driver_clear(&run);
    json_t *object = json_load_file("stats.json", 0, NULL);
    assert_non_null(object);
    assert_string_equal(driver_string(object, "text"),
                        "caf\xc3\xa9 \xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd.\n");
    json_decref(object);
}

static void test_misses_without_a_gpu(void **state)
{
    (void)state;
    process run = RUN("run", "moe.gguf", "--prompt", "hi", "--weights", "50%", "--gpu-misses", "cpu");
    driver_expect(&run, 0, "[1] hi\n", "--gpu-misses is of no use here");
    driver_clear(&run);
    run = RUN("run", "moe.gguf", "--prompt", "hi", "--gpu-misses", "gpu");
    driver_expect(&run, 2, NULL, "upload");
    driver_clear(&run);
}

/* Standard output is the answer alone. */
static void test_thoughts(void **state)
{
    (void)state;
    static const char *const hows[] = {"on", "off", "low", "medium", "high"};
    process run = RUN("run", "moe.gguf", "--prompt", "think", "--history", "thought.json");
    assert_string_equal(run.output, "thinking 0\n");
    assert_non_null(strstr(run.error, "(it thinks)\nHm, so.\n(it has thought)\n"));
    driver_clear(&run);
    run = RUN("run", "moe.gguf", "--prompt", "options", "--history", "thought.json");
    driver_expect(&run, 0, "user: think; assistant: Hm, so.-> thinking 0; ", NULL);
    driver_clear(&run);
    for (int i = 0; i < 5; i++) {
        char text[32];
        snprintf(text, sizeof text, "thinking %d\n", i + 1);
        run = RUN("run", "moe.gguf", "--prompt", "think", "--think", hows[i], "--hide-thoughts");
        assert_string_equal(run.output, text);
        assert_non_null(strstr(run.error, "(it thinks)\n(it has thought)\n"));
        driver_clear(&run);
    }
    run = RUN("run", "moe.gguf", "--prompt", "think", "--think", "much");
    driver_expect(&run, 2, NULL, "'much' is not one of on, off, low");
    driver_clear(&run);
    run = RUN("run", "moe.gguf", "--prompt", "think", "--think", "on", "--raw");
    driver_expect(&run, 2, NULL, "--raw and --think exclude each other");
    driver_clear(&run);
    run = RUN("run", "moe.gguf", "--prompt", "think", "--reasoning-budget", "0");
    driver_expect(&run, 2, NULL, "run --think on, off");
    driver_clear(&run);
}

static void test_run_statistics(void **state)
{
    (void)state;
    process run = RUN("run", "moe.gguf", "--prompt", "hi", "--weights", "50%", "--stats-json", "stats.json");
    driver_expect(&run, 0, "[1] hi\n", "hits       25.0 % of the bytes needed");
    assert_non_null(strstr(run.error, "mode       experts"));
    assert_true(strstr(run.error, "mode ") < strstr(run.error, "answer ")); /* before, and after */
    driver_clear(&run);
    run = RUN("run", "moe.gguf", "--prompt", "hi", "--weights", "50%", "--quiet");
    driver_expect(&run, 0, "[1] hi\n", "");
    assert_string_equal(run.error, "");
    driver_clear(&run);
    json_t *object =
        driver_object(driver_read("stats.json"),
                      "model mode memory_bytes weights_bytes pool_bytes form form_by held_bytes resizes budget peak_rss_bytes "
                      "ubatch threads compute_s read_wait_s overhead_s placed_s prompt_tokens prompt_tok_s "
                      "tokens decode_tok_s passes tokens_per_pass drafted_tokens accepted_tokens draft_s "
                      "cache_type_k cache_type_v draft_bytes adapter_bytes "
                      "answer_bytes_read_per_token bytes_read bytes_read_per_token hit_rate_bytes read_bytes_per_s cache_policy "
                      "foresight foresight_by foresight_gain ahead_bytes_read ahead_bytes_useful io_engine direct_io records reads text");
    assert_string_equal(driver_string(object, "model"), "moe.gguf");
    assert_int_equal(driver_integer(object, "weights_bytes"), 1 << 29);
    assert_int_equal(driver_integer(object, "pool_bytes"), 4608);
    assert_true(driver_integer(object, "peak_rss_bytes") > 100000);
    assert_int_equal(driver_integer(object, "prompt_tokens"), 3);
    assert_true(driver_real(object, "prompt_tok_s") == 6.0);
    assert_int_equal(driver_integer(object, "tokens"), 2);
    assert_true(driver_real(object, "decode_tok_s") == 1.0);
    assert_int_equal(driver_integer(object, "bytes_read"), 8000);
    assert_true(driver_real(object, "bytes_read_per_token") == 4000.0);
    assert_true(driver_real(object, "hit_rate_bytes") == 0.25);
    assert_true(driver_real(object, "read_bytes_per_s") == 16000.0);
    assert_string_equal(driver_string(object, "text"), "[1] hi");
    json_decref(object);

    run = RUN("run", "moe.gguf", "--prompt", "hi", "--plain", "--stats-json", "stats.json");
    driver_expect(&run, 0, NULL, "mode       plain");
    driver_clear(&run);
    object = json_load_file("stats.json", 0, NULL);
    assert_string_equal(driver_string(object, "mode"), "plain");
    json_decref(object);
}

static void test_run_statistics_file(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *error;
        const char *output; /* what cannot be known before costs the statistics alone */
    } bad[] = {{"none/stats.json", "hypura: cannot write none/stats.json: No such file", NULL},
               {".", "hypura: cannot write .: Is a directory", NULL},
               {"/dev/full", "hypura: cannot write /dev/full: No space left", "[1] hi\n"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        process run = RUN("run", "moe.gguf", "--prompt", "hi", "--stats-json", bad[i].name);
        driver_expect(&run, 1, bad[i].output, bad[i].error);
        driver_clear(&run);
    }
    /* A limit on the size of files is told as well, and ends nothing. */
    process limited = driver_shell("bash -c 'set -o pipefail; (ulimit -f 0; \"$PROGRAM\" run moe.gguf --prompt hi --stats-json "
                                   "limited.json) 2>&1 | cat'");
    driver_expect(&limited, 1, "hypura: cannot write limited.json: File too large", NULL);
    driver_clear(&limited);
    struct stat kind;
    assert_int_equal(stat("/dev/full", &kind), 0);
    assert_true(S_ISCHR(kind.st_mode)); /* written to, not replaced */

    /* A pipe is opened once: its reader takes a writer that goes for the end. */
    process piped = driver_shell("bash -c '\"$PROGRAM\" run moe.gguf --prompt hi --stats-json >(cat >piped.json) && sleep 0.3 && "
                                 "grep -c bytes_read piped.json'");
    driver_expect(&piped, 0, "[1] hi\n", NULL);
    driver_clear(&piped);

    /* Standard output is continued, whatever it is. */
    process both = driver_shell("\"$PROGRAM\" run moe.gguf --prompt hi --stats-json /dev/stdout >both.txt && cat both.txt && "
                                "\"$PROGRAM\" run moe.gguf --prompt hi --stats-json /dev/stdout | cat");
    driver_expect(&both, 0, "[1] hi\n{\n", NULL);
    driver_expect(&both, 0, "}\n[1] hi\n{\n", NULL);
    driver_clear(&both);

    /* A link to nothing stays one, too: what it names is made. */
    assert_int_equal(symlink("made.json", "dangling.json"), 0);
    process made = RUN("run", "moe.gguf", "--prompt", "hi", "--stats-json", "dangling.json");
    driver_expect(&made, 0, NULL, NULL);
    driver_clear(&made);
    assert_true(lstat("dangling.json", &kind) == 0 && S_ISLNK(kind.st_mode));
    assert_true(stat("made.json", &kind) == 0 && kind.st_size > 0);
    assert_int_equal(symlink("none/made.json", "lost.json"), 0);
    made = RUN("run", "moe.gguf", "--prompt", "hi", "--stats-json", "lost.json");
    driver_expect(&made, 1, NULL, "hypura: cannot write lost.json: No such file");
    driver_clear(&made);

    /* A link stays a link, and its file gets the text. */
    driver_write("target.json", "old", 3);
    assert_int_equal(symlink("target.json", "link.json"), 0);
    process run = RUN("run", "moe.gguf", "--prompt", "hi", "--stats-json", "link.json");
    driver_expect(&run, 0, NULL, NULL);
    driver_clear(&run);
    assert_true(lstat("link.json", &kind) == 0 && S_ISLNK(kind.st_mode));
    json_t *object = json_load_file("target.json", 0, NULL);
    assert_non_null(object);
    json_decref(object);
}

/* ---- signals and terminals ------------------------------------------------------ */

/* Until something is in the file; a program that never writes is ended by the
 * time limit of the test. */
static void wait_for_text(const char *name)
{
    struct stat file;
    do {
        poll(NULL, 0, 10);
        assert_int_equal(stat(name, &file), 0);
    } while (file.st_size == 0);
}

static void test_signal_ends_a_pull(void **state)
{
    (void)state;
    process run = driver_start((const char *[]){"pull", "hf.co/user/endless", NULL}, NULL, NULL);
    usleep(200000);
    assert_int_equal(kill(run.child, SIGINT), 0);
    driver_finish(&run);
    driver_expect(&run, 1, NULL, "pulling hf.co/user/endless was stopped");
    driver_clear(&run);
}

static void test_signal_ends_the_answer(void **state)
{
    (void)state;
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        process run = driver_start(
            (const char *[]){"run", "moe.gguf", "--prompt=long", "--max-tokens=100000", "--stats-json=s.json", NULL},
            NULL, "out.txt");
        wait_for_text("out.txt");
        assert_int_equal(kill(run.child, signals[i]), 0);
        driver_finish(&run);
        driver_expect(&run, 1, NULL, "answer     ");
        assert_non_null(strstr(run.error, "hypura: interrupted\n"));
        driver_clear(&run);
        json_t *object = json_load_file("s.json", 0, NULL);
        assert_non_null(object);
        assert_in_range(driver_integer(object, "tokens"), 1, 99999);
        char text[8192];
        snprintf(text, sizeof text, "%s\n", driver_string(object, "text"));
        assert_string_equal(driver_read("out.txt"), text);
        json_decref(object);
        assert_int_equal(unlink("s.json"), 0);
        assert_int_equal(unlink("out.txt"), 0);
    }
}

static void test_progress(void **state)
{
    (void)state;
    terminal on;
    terminal_open(&on, (const char *[]){driver_program, "run", "slow.gguf", "--prompt", "hi", NULL});
    assert_int_equal(terminal_wait(&on), 0);
    const char *bar = strstr(on.screen, "reading weights  [==");
    assert_non_null(bar);
    assert_non_null(strstr(bar, "\r\033[K")); /* cleared */
    terminal_close(&on);

    terminal_open(&on, (const char *[]){driver_program, "run", "moe.gguf", "--prompt", "hi", NULL});
    assert_int_equal(terminal_wait(&on), 0);
    assert_null(strstr(on.screen, "[=")); /* over within a second */
    terminal_close(&on);

    process run = RUN("run", "slow.gguf", "--prompt", "hi");
    driver_expect(&run, 0, "[1] hi\n", NULL);
    assert_null(strstr(run.error, "reading weights")); /* no terminal */
    driver_clear(&run);

    terminal_open(&on, (const char *[]){driver_program, "run", "endless.gguf", "--prompt", "hi", NULL});
    assert_true(terminal_expect(&on, "reading weights", 0));
    terminal_type(&on, "\003");
    assert_int_equal(terminal_wait(&on), 1);
    assert_non_null(strstr(on.screen, "hypura: interrupted"));
    terminal_close(&on);
}

static void test_color(void **state)
{
    (void)state;
    static const struct {
        const char *variable;
        const char *value;
        bool colored;
    } cases[] = {{"NO_COLOR", "1", false}, {"NO_COLOR", "", true}, {"TERM", "dumb", false}, {"TERM", "xterm", true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        terminal on;
        setenv("TERM", "xterm", 1);
        setenv(cases[i].variable, cases[i].value, 1);
        terminal_open(&on, (const char *[]){driver_program, "run", "moe.gguf", "--prompt", "hi", NULL});
        assert_int_equal(terminal_wait(&on), 0);
        unsetenv("NO_COLOR");
        if ((strstr(on.screen, "\033[2m") != NULL) != cases[i].colored) {
            fail_msg("%s=%s: %s", cases[i].variable, cases[i].value, on.screen);
        }
        terminal_close(&on);
    }
    setenv("TERM", "dumb", 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_hands_over_options),
        cmocka_unit_test(test_run_seed_is_random_and_told),
        cmocka_unit_test(test_run_prompt_sources),
        cmocka_unit_test(test_waiting_is_chosen_before_the_prompt),
        cmocka_unit_test(test_run_keeps_bytes),
        cmocka_unit_test(test_misses_without_a_gpu),
        cmocka_unit_test(test_thoughts), cmocka_unit_test(test_run_statistics),
        cmocka_unit_test(test_run_statistics_file),
        cmocka_unit_test(test_signal_ends_a_pull),
        cmocka_unit_test(test_signal_ends_the_answer),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_color),
    };
    return driver_main(argc, argv) ? cmocka_run_group_tests(tests, driver_setup, driver_teardown) : 2;
}
