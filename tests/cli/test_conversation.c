/*
 * test_conversation.c - conversations of `hypura run` from outside: out of a pipe,
 * on a terminal, kept in a file.
 */
#include "driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void test_conversation_from_a_pipe(void **state)
{
    (void)state;
    process run = RUN_INPUT("one\n\n  \ntoo long\nthree", "run", "moe.gguf", "--interactive", "--stats-json", "s.json");
    driver_expect(&run, 0, NULL, "hypura: the prompt has 9999 tokens");
    assert_string_equal(run.output, "[1] one\n[3] three\n");
    assert_null(strstr(run.error, "> "));
    driver_clear(&run);
    json_t *object = json_load_file("s.json", 0, NULL);
    assert_non_null(object);
    assert_string_equal(driver_string(object, "text"), "[1] one\n[3] three");
    assert_int_equal(driver_integer(object, "tokens"), 4);
    json_decref(object);

    assert_int_equal(unlink("s.json"), 0);
    run = RUN_INPUT("\n", "run", "moe.gguf", "--interactive", "--stats-json", "s.json");
    driver_expect(&run, 0, NULL, NULL);
    driver_clear(&run);
    object = json_load_file("s.json", 0, NULL); /* asked for, so written, without an answer too */
    assert_non_null(object);
    assert_string_equal(driver_string(object, "text"), "");
    json_decref(object);

    run = RUN_INPUT("one\nfail\nthree\n", "run", "moe.gguf", "--interactive");
    driver_expect(&run, 1, NULL, "hypura: reading expert 3 of layer 1 failed");
    assert_string_equal(run.output, "[1] one\nhalf an ans\n");
    driver_clear(&run);
}

static void test_conversation_on_a_terminal(void **state)
{
    (void)state;
    terminal on;
    terminal_open(&on, (const char *[]){driver_program, "run", "moe.gguf", "--max-tokens", "1000", NULL});
    assert_true(terminal_expect(&on, "> ", 0));
    terminal_type(&on, "hello\n");
    assert_true(terminal_expect(&on, "[1] hello\r\n> ", 0));

    terminal_type(&on, "long\n");
    assert_true(terminal_expect(&on, "word word", 0));
    size_t from = on.used;
    terminal_type(&on, "\003"); /* Ctrl-C ends the answer */
    assert_true(terminal_expect(&on, "\r\n> ", from));

    from = on.used;
    terminal_type(&on, "half a line\003"); /* and drops a line */
    assert_true(terminal_expect(&on, "(Ctrl-C again or Ctrl-D to leave)\r\n> ", from));
    from = on.used;
    terminal_type(&on, "again\n");
    assert_true(terminal_expect(&on, "[3] again\r\n> ", from));

    /* What a terminal does not hand over is not left out without a word. */
    char line[5002];
    memset(line, 'x', sizeof line - 2);
    strcpy(line + sizeof line - 2, "\n");
    from = on.used;
    terminal_type(&on, line);
    assert_true(terminal_expect(&on, "was cut: not sent", from));
    assert_null(strstr(on.screen + from, "[4]"));

    from = on.used;
    terminal_type(&on, "/?\n/clear\nanew\n");
    assert_true(terminal_expect(&on, "/bye or Ctrl-D ends", from));
    assert_true(terminal_expect(&on, "[1] anew\r\n> ", from));

    from = on.used;
    terminal_type(&on, "\003");
    assert_true(terminal_expect(&on, "to leave)\r\n> ", from));
    terminal_type(&on, "\003");
    assert_int_equal(terminal_wait(&on), 0);
    assert_non_null(strstr(on.screen + from, "prompt     12 tokens")); /* four answers of 3 */
    assert_null(strstr(on.screen, "guessed"));
    terminal_close(&on);

    terminal_open(&on, (const char *[]){driver_program, "run", "moe.gguf", "--interactive", NULL});
    assert_true(terminal_expect(&on, "> ", 0));
    terminal_type(&on, "\004"); /* Ctrl-D */
    assert_int_equal(terminal_wait(&on), 0);
    terminal_close(&on);

    terminal_open(&on, (const char *[]){driver_program, "run", "moe.gguf", NULL});
    assert_true(terminal_expect(&on, "> ", 0));
    terminal_type(&on, "/bye\n");
    assert_int_equal(terminal_wait(&on), 0);
    terminal_close(&on);
}

static void test_messages_of_several_lines(void **state)
{
    (void)state;
    static const struct {
        const char *typed;
        const char *answer; /* of the fake model: the message */
    } cases[] = {
        {"\"\"\"one\ntwo\n\"\"\"\n", "[1] one\r\ntwo\r\n"},
        {"\"\"\"\none\n\n  two\"\"\" \n", "[1] one\r\n\r\n  two\r\n"},
        {"\"\"\"one line\"\"\"\n", "[1] one line\r\n"},
        {"\"\"\"/bye\"\"\"\n", "[1] /bye\r\n"}, /* no command */
        {"\"\"\"\n\"\"\"\n\"\"\"\"\"\"\nafter nothing\n", "[1] after nothing\r\n"},
        {"a \"\"\" within\n", "[1] a \"\"\" within\r\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        terminal on;
        terminal_open(&on, (const char *[]){driver_program, "run", "moe.gguf", NULL});
        assert_true(terminal_expect(&on, "> ", 0));
        const size_t from = on.used;
        terminal_type(&on, cases[i].typed);
        if (!terminal_expect(&on, cases[i].answer, from)) {
            fail_msg("%zu: %s", i, on.screen + from);
        }
        terminal_type(&on, "/quit\n");
        assert_int_equal(terminal_wait(&on), 0);
        terminal_close(&on);
    }
    terminal on;
    terminal_open(&on, (const char *[]){driver_program, "run", "moe.gguf", NULL});
    assert_true(terminal_expect(&on, "> ", 0));
    terminal_type(&on, "\"\"\"dropped\n");
    assert_true(terminal_expect(&on, "... ", 0));
    terminal_type(&on, "\003");
    assert_true(terminal_expect(&on, "to leave)\r\n> ", 0));
    terminal_type(&on, "anew\n");
    assert_true(terminal_expect(&on, "[1] anew\r\n> ", 0));
    terminal_type(&on, "\"\"\"never\n\004");
    assert_int_equal(terminal_wait(&on), 0);
    assert_non_null(strstr(on.screen, "no \"\"\" at its end: not sent"));
    assert_null(strstr(on.screen, "[2]"));
    terminal_close(&on);
}

static void test_a_conversation_is_kept(void **state)
{
    (void)state;
#define KEPT "run", "moe.gguf", "--history", "kept.json"
    process run = RUN(KEPT, "--system", "Be brief.", "--prompt", "one");
    driver_expect(&run, 0, "[1] one\n", NULL);
    driver_clear(&run);
    json_t *messages = json_loads(driver_read("kept.json"), 0, NULL);
    json_t *wanted = json_pack("[{ssss}, {ssss}, {ssss}]", "role", "system", "content", "Be brief.", "role", "user",
                               "content", "one", "role", "assistant", "content", "[1] one");
    assert_true(json_equal(messages, wanted));
    json_decref(wanted);
    json_decref(messages);

    run = RUN(KEPT, "--prompt", "options"); /* the fake model tells what it was given */
    driver_expect(&run, 0, "system: Be brief.; user: one; assistant: [1] one; temp", NULL);
    driver_clear(&run);
    run = RUN(KEPT, "--system", "Be long.", "--prompt", "two");
    driver_expect(&run, 2, NULL, "--system is of a conversation that begins, and kept.json holds one");
    driver_clear(&run);
    run = RUN(KEPT, "--prompt", "fail"); /* no answer: nothing to keep */
    driver_expect(&run, 1, NULL, NULL);
    driver_clear(&run);
    messages = json_loads(driver_read("kept.json"), 0, NULL);
    assert_int_equal(json_array_size(messages), 5);
    json_decref(messages);

    run = RUN_INPUT("options\nthree\n", KEPT, "--interactive");
    driver_expect(&run, 0, "assistant: [1] one; user: options; assistant: system", NULL);
    driver_clear(&run);
    messages = json_loads(driver_read("kept.json"), 0, NULL);
    assert_int_equal(json_array_size(messages), 9);
    json_decref(messages);

    terminal on;
    terminal_open(&on, (const char *[]){driver_program, KEPT, NULL});
    assert_true(terminal_expect(&on, "> ", 0));
    terminal_type(&on, "/clear\noptions\n");
    assert_true(terminal_expect(&on, "options\r\n", 0));
    assert_true(terminal_expect(&on, "temp 0.80", 0));
    assert_true(terminal_expect(&on, "> ", on.used > 2 ? on.used - 2 : 0));
    terminal_type(&on, "/bye\n");
    assert_int_equal(terminal_wait(&on), 0);
    assert_null(strstr(on.screen, "user: one"));
    terminal_close(&on);
    messages = json_loads(driver_read("kept.json"), 0, NULL);
    assert_int_equal(json_array_size(messages), 2);
    json_decref(messages);

    driver_write("kept.json", "", 0); /* as mktemp makes one */
    run = RUN(KEPT, "--prompt", "caf\xe9");
    driver_expect(&run, 0, NULL, NULL);
    driver_clear(&run);
    assert_non_null(strstr(driver_read("kept.json"), "\"content\": \"caf\xef\xbf\xbd\""));
}

/* Two at once with one file: what the first has written stays. */
static void test_what_others_kept_is_not_replaced(void **state)
{
    (void)state;
    terminal on;
    (void)unlink("kept.json");
    terminal_open(&on, (const char *[]){driver_program, KEPT, NULL});
    assert_true(terminal_expect(&on, "> ", 0));
    terminal_type(&on, "one\n");
    assert_true(terminal_expect(&on, "[1] one\r\n> ", 0));
    process run = RUN(KEPT, "--prompt", "two");
    driver_expect(&run, 0, NULL, NULL);
    driver_clear(&run);
    const size_t from = on.used;
    terminal_type(&on, "three\n");
    assert_true(terminal_expect(&on, "[2] three\r\n", from));
    assert_true(terminal_expect(&on, "kept.json was changed by somebody else", from));
    terminal_close(&on);
    json_t *messages = json_loads(driver_read("kept.json"), 0, NULL);
    assert_int_equal(json_array_size(messages), 4);
    assert_string_equal(json_string_value(json_object_get(json_array_get(messages, 2), "content")), "two");
    json_decref(messages);
}

static void test_what_is_no_conversation_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *error;
    } files[] = {
        {"nonsense", "bad.json is no conversation: line 1:"},
        {"{}", "bad.json is no conversation: an array of messages is wanted"},
        {"[1]", "bad.json: message 1 needs"},
        {"[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"tool\",\"content\":\"a\"}]", "bad.json: message 2 needs"},
        {"[{\"role\":\"user\",\"content\":[]}]", "bad.json: message 1 needs"},
        {"[{\"role\":\"user\",\"content\":\"a\\u0000\"}]", "bad.json is no conversation: line 1:"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        driver_write("bad.json", files[i].text, strlen(files[i].text));
        process run = RUN("run", "moe.gguf", "--history", "bad.json", "--prompt", "one");
        driver_expect(&run, 1, NULL, files[i].error);
        assert_string_equal(run.output, "");
        driver_clear(&run);
        assert_string_equal(driver_read("bad.json"), files[i].text);
    }
    process run = RUN("run", "moe.gguf", "--history", ".", "--prompt", "one");
    driver_expect(&run, 1, NULL, "cannot write .: Is a directory");
    driver_clear(&run);
    run = RUN("run", "moe.gguf", "--history", "no/such.json", "--prompt", "one");
    driver_expect(&run, 1, NULL, "cannot write no/such.json: No such file");
    driver_clear(&run);
    run = RUN("run", "moe.gguf", "--history", "bad.json", "--raw", "--prompt", "one");
    driver_expect(&run, 2, NULL, "--raw and --history exclude");
    driver_clear(&run);
}

static void test_what_is_no_command_is_not_sent(void **state)
{
    (void)state;
    terminal on;
    terminal_open(&on, (const char *[]){driver_program, "run", "moe.gguf", NULL});
    assert_true(terminal_expect(&on, "> ", 0));
    terminal_type(&on, "/set temperature 0\n");
    assert_true(terminal_expect(&on, "there is no command /set: options of the command line", 0));
    terminal_type(&on, "/frob\n");
    assert_true(terminal_expect(&on, "there is no command /frob: /? tells", 0));
    size_t from = on.used;
    terminal_type(&on, " /frob\n/usr/bin is what?\n");
    assert_true(terminal_expect(&on, "[1]  /frob\r\n", from));
    assert_true(terminal_expect(&on, "[2] /usr/bin is what?\r\n", from));
    terminal_type(&on, "/bye\n");
    assert_int_equal(terminal_wait(&on), 0);
    terminal_close(&on);

    /* In a pipe everything is said to the model. */
    process run = RUN_INPUT("/frob\n\"\"\"a\nb\"\"\"\n", "run", "moe.gguf", "--interactive");
    driver_expect(&run, 0, "[1] /frob\n[2] \"\"\"a\n[3] b\"\"\"\n", NULL);
    driver_clear(&run);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conversation_from_a_pipe),
        cmocka_unit_test(test_conversation_on_a_terminal),
        cmocka_unit_test(test_messages_of_several_lines),
        cmocka_unit_test(test_a_conversation_is_kept),
        cmocka_unit_test(test_what_others_kept_is_not_replaced),
        cmocka_unit_test(test_what_is_no_conversation_is_refused),
        cmocka_unit_test(test_what_is_no_command_is_not_sent),
    };
    return driver_main(argc, argv) ? cmocka_run_group_tests(tests, driver_setup, driver_teardown) : 2;
}
