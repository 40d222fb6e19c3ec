/*
 * test_chat.c - what a conversation on a terminal understands beside messages: /set, /show, /save, /load. The fake model
 * tells what it was given.
 */
#include "driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Types each line once the one before has been answered; the screen, to be freed. */
static char *talk(const char *model, const char *const *lines)
{
    terminal on;
    terminal_open(&on, (const char *[]){driver_program, "run", model, "--seed", "7", NULL});
    assert_true(terminal_expect(&on, "> ", 0));
    for (; *lines; lines++) {
        const size_t from = on.used;
        terminal_type(&on, *lines);
        terminal_type(&on, "\n");
        if (!terminal_expect(&on, "\r\n> ", from)) {
            fail_msg("%s: %s", *lines, on.screen + from);
        }
    }
    terminal_type(&on, "/bye\n");
    assert_int_equal(terminal_wait(&on), 0);
    char *screen = strdup(on.screen);
    terminal_close(&on);
    return screen;
}

static void check(const char *model, const char *const *lines, const char *const *wanted)
{
    char *screen = talk(model, lines);
    for (const char *at = screen; *wanted; wanted++) {
        const char *found = strstr(at, *wanted);
        if (!found) {
            fail_msg("'%s' is not told here: %s", *wanted, at);
        }
        at = found;
    }
    free(screen);
}

#define LINES(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_parameters(void **state)
{
    (void)state;
    check("moe.gguf",
          LINES("/set parameter temperature 0", "/set parameter top_k 5", "/set parameter num_predict 9",
                "/set parameter stop END \"a b\"", "/set parameter presence_penalty 0.5", "options", "/set parameter stop FIN",
                "options", "/show parameters"),
          LINES("(temperature is set)", "(top_k is set)",
                "presence 0.50 stop 'END' stop 'a b' temp 0.00 top_p 0.95 min_p 0.05 top_k 5 seed 7 max 9", "stop 'FIN' temp",
                "temperature 0, top_p 0.95, top_k 5", "repeat_penalty 1, frequency_penalty 0, presence_penalty 0.5",
                "num_predict 9", "stop \"FIN\""));
    check("moe.gguf",
          LINES("/set parameter top_k many", "/set parameter temperature 1 2", "/set parameter mirostat 1",
                "/set parameter num_ctx 8", "/set parameter top_k", "/set parameter top_k 1.5", "/set parameter stop \xff", "/set",
                "/set verbose", "options"),
          LINES("parameter top_k: 'many' is nothing", "parameter temperature: '1' is nothing",
                "there is no parameter mirostat: temperature,", "num_ctx is of the model as it was loaded: --context N",
                "/set parameter NAME VALUE", "parameter top_k: '1.5'", "parameter stop: a text is no UTF-8",
                "there is no command /set: options of the command line", "but for system, parameter, think",
                "temp 0.80 top_p 0.95 min_p 0.05 top_k 40"));
}

/* -1, as llama.cpp and Ollama have it. Below 100 a random one is once in forty million runs. */
static void test_a_seed_below_none_is_random(void **state)
{
    (void)state;
    char *screen = talk("moe.gguf", LINES("seed", "/set parameter seed -1", "seed"));
    const char *set = strstr(screen, "(seed is set)");
    assert_non_null(set);
    assert_non_null(strstr(screen, "seed\r\n7\r\n"));
    const char *told = strstr(set, "seed\r\n");
    assert_non_null(told);
    assert_true(strtoul(told + strlen("seed\r\n"), NULL, 10) >= 100);
    free(screen);
}

static void test_system(void **state)
{
    (void)state;
    /* Of a conversation that begins, and of one that goes on: it is told all of that anew. */
    check("moe.gguf",
          LINES("/set system Be brief.", "options", "/set system \"Be long.\"", "options", "/show system", "/set system", "options",
                "/show system"),
          LINES("(the system text is set)", "system Be brief. grammar", "(the system text is set)",
                "system: Be long.; user: options; assistant: system Be brief.", "system      Be long.", "(no system text)",
                "options\r\nuser: options; assistant: system Be brief.", "system      (none)"));
    /* Several lines, until the quotes. */
    terminal on;
    terminal_open(&on, (const char *[]){driver_program, "run", "moe.gguf", NULL});
    assert_true(terminal_expect(&on, "> ", 0));
    terminal_type(&on, "/set system \"\"\"Be\nbrief.\"\"\"\n");
    assert_true(terminal_expect(&on, "(the system text is set)\r\n> ", 0));
    terminal_type(&on, "options\n");
    assert_true(terminal_expect(&on, "system Be\r\nbrief. grammar", 0));
    terminal_type(&on, "\004");
    (void)terminal_wait(&on);
    terminal_close(&on);
}

static void test_thinking_and_format(void **state)
{
    (void)state;
    check("moe.gguf",
          LINES("/set think", "think", "/set think high", "think", "/set nothink", "think", "/set think much", "/set format json",
                "options", "/set noformat", "/set format xml", "options"),
          LINES("(it thinks, if it can)", "thinking 1", "thinking 5", "(it does not think)", "thinking 2",
                "'much' is not on, off, low", "(answers are JSON)", "schema {}", "(answers are text)",
                "/set format json is the only one", "options\r\ntemp 0.80"));
}

static void test_a_conversation_is_saved_and_loaded(void **state)
{
    (void)state;
    check("known:tag",
          LINES("/set system Be brief.", "/set parameter temperature 0.5", "one", "/save talk.json", "/save mine", "/show info"),
          LINES("[1] one", "(saved: talk.json)", "(saved: mine)", "model       known:tag", "file        moe.gguf",
                "said        3 messages"));
    json_t *messages = json_loads(driver_read("talk.json"), 0, NULL);
    json_t *wanted = json_pack("[{ssss}, {ssss}, {ssss}]", "role", "system", "content", "Be brief.", "role", "user",
                               "content", "one", "role", "assistant", "content", "[1] one");
    assert_true(json_equal(messages, wanted));
    json_decref(wanted);
    json_decref(messages);
    assert_string_equal(driver_read("saved.json"),
                        "mine {\"parameters\":{\"temperature\":0.5},\"system\":\"Be brief.\",\"messages\":[{\"role\":\"user\",\"content\":"
                        "\"one\"},{\"role\":\"assistant\",\"content\":\"[1] one\"}]}\n");
    check("moe.gguf",
          LINES("before", "/load talk.json", "options", "/clear", "options", "/load other.json", "/load mine", "/load", "/save",
                "/save mine", "/save /no/such/talk.json", "after"),
          LINES("[1] before", "(3 messages)", "system: Be brief.; user: one; assistant: [1] one; temp", "(a new conversation)",
                "options\r\ntemp", "cannot open other.json: No such file", "hypura run mine", "hypura run NAME",
                "/save NAME makes a model", "moe.gguf is not known by a name", "/no/such/talk.json", "[2] after"));
}

static void test_help_names_all_of_them(void **state)
{
    (void)state;
    check("moe.gguf", LINES("/?", "/help", "/images"),
          LINES("/set system", "/set parameter", "/show", "/save", "/load", "/clear", "/bye", "/set system",
                "there is no command /images"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_a_seed_below_none_is_random),
        cmocka_unit_test(test_system),
        cmocka_unit_test(test_thinking_and_format),
        cmocka_unit_test(test_a_conversation_is_saved_and_loaded),
        cmocka_unit_test(test_help_names_all_of_them),
    };
    if (!driver_main(argc, argv)) {
        return 2;
    }
    return cmocka_run_group_tests(tests, driver_setup, driver_teardown);
}
