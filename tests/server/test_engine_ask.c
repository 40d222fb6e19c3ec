/*
 * test_engine_ask.c - what a program that is asked says, and that it may fail or never end. Scripts stand for hypura-engine.
 */
#include "server/process/program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64];
static char program[96];

/* A program of these lines of the shell. */
static const char *script(const char *lines)
{
    FILE *file = fopen(program, "we");
    assert_non_null(file);
    fprintf(file, "#!/bin/sh\n%s\n", lines);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(program, 0700), 0);
    return program;
}

static int begin(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/hypura-ask-XXXXXX");
    if (!mkdtemp(folder)) {
        return -1;
    }
    snprintf(program, sizeof program, "%s/program", folder);
    return 0;
}

static int end(void **state)
{
    (void)state;
    unlink(program);
    return rmdir(folder);
}

static void the_last_line_is_the_answer(void **state)
{
    (void)state;
    engine_words line = {.n = 2, .items = {script("echo first; cat; echo \"hypura-engine: $1\" >&2; exit 3"), "word"}};
    engine_answer answer;
    hypura_error error = {0};
    assert_int_equal(engine_ask(&line, fileno(tmpfile()), -1, 0, &answer, &error), HYPURA_OK);
    assert_string_equal(answer.message, "word");
    assert_int_equal(WEXITSTATUS(answer.wait_status), 3);
    assert_false(answer.late);
}

static void one_that_never_ends_is_ended(void **state)
{
    (void)state;
    engine_words line = {.n = 1, .items = {script("echo begun; exec sleep 600")}};
    engine_answer answer;
    hypura_error error = {0};
    assert_int_equal(engine_ask(&line, fileno(tmpfile()), -1, 200 * 1000, &answer, &error), HYPURA_OK);
    assert_true(answer.late);
    assert_true(WIFSIGNALED(answer.wait_status));
}

static void threads_look_for_longer_where_they_may(void **state)
{
    (void)state;
    unsetenv("GOMP_SPINCOUNT");
    unsetenv("OMP_WAIT_POLICY");
    engine_words line = {.n = 1, .items = {script("echo $GOMP_SPINCOUNT")}};
    engine_answer answer;
    hypura_error error = {0};
    assert_int_equal(engine_ask(&line, fileno(tmpfile()), -1, 0, &answer, &error), HYPURA_OK);
    assert_string_equal(answer.message, "1021");
    line.waits = HYPURA_WAITING_LONG;
    assert_int_equal(engine_ask(&line, fileno(tmpfile()), -1, 0, &answer, &error), HYPURA_OK);
    assert_string_equal(answer.message, "40009");
}

static void an_estimate_says_who_computes_alone(void **state)
{
    (void)state;
    for (int alone = 0; alone < 2; alone++) {
        char lines[320];
        snprintf(lines, sizeof lines,
                 "echo '{\"memory_bytes\":9,\"floor_memory_bytes\":3,\"n_sequences\":2,\"computes_alone\":%s,"
                 "\"gpus\":[{\"name\":\"A0\",\"bytes\":8,\"floor_bytes\":2,\"free_bytes\":12}],\"draft_unfit\":\"\"}'",
                 alone ? "true" : "false");
        const engine_options options = {.program = script(lines), .name = "a", .path = "b"};
        engine_estimate estimate;
        hypura_error error = {0};
        assert_int_equal(engine_estimate_get(&options, &estimate, &error), HYPURA_OK);
        assert_int_equal(estimate.memory_bytes, 9);
        assert_int_equal(estimate.computes_alone, alone);
        assert_int_equal(estimate.n_gpus, 1);
        assert_string_equal(estimate.gpus[0].name, "A0");
        assert_int_equal(estimate.gpus[0].bytes, 8);
        assert_int_equal(estimate.gpus[0].floor_bytes, 2);
        assert_int_equal(estimate.gpus[0].free_bytes, 12);
    }
}

static void a_template_has_a_verdict(void **state)
{
    (void)state;
    static const struct {
        const char *script;
        hypura_status status;
        const char *why;
    } cases[] = {
        {"[ \"$1\" = --check-template ] && [ \"$(cat)\" = text ] && echo '{\"status\":0,\"message\":\"\"}'", HYPURA_OK, ""},
        {"echo noise; echo '{\"status\":1,\"message\":\"no good\"}'; echo later >&2; exit 1", HYPURA_ERR_USAGE, "no good"},
        {"echo '{\"status\":1,\"message\":\"no good\"}'; echo 'E common_chat_templates_init: error: at line 3' >&2",
         HYPURA_ERR_USAGE, "no good (at line 3)"},
        {"kill -SEGV $$", HYPURA_ERR_USAGE, "signal 11"},
        {"echo nothing; exit 1", HYPURA_ERR_BACKEND, "nothing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hypura_error error = {0};
        assert_int_equal(engine_check_template(script(cases[i].script), "text", &error), cases[i].status);
        assert_non_null(strstr(error.message, cases[i].why));
    }
    hypura_error error = {0};
    assert_int_not_equal(engine_check_template("/nowhere", "text", &error), HYPURA_OK);
}

static void a_grammar_has_a_verdict(void **state)
{
    (void)state;
    hypura_error error = {0};
    json_t *told = json_pack("{s:s}", "grammar", "root");
    assert_int_equal(engine_check_grammar(script("[ \"$1\" = --check-grammar ] && [ \"$(cat)\" = '{\"grammar\":\"root\"}' ] && "
                                                 "echo '{\"status\":0,\"message\":\"\"}'"), told, &error),
                     HYPURA_OK);
    assert_int_equal(engine_check_grammar(script("echo 'parse: error parsing grammar: expecting ::=' >&2; "
                                                 "echo '{\"status\":1,\"message\":\"no good\"}'"), told, &error),
                     HYPURA_ERR_USAGE);
    assert_non_null(strstr(error.message, "no good (expecting ::=)"));
    assert_int_equal(engine_check_grammar(script("kill -SEGV $$"), told, &error), HYPURA_ERR_USAGE);
    assert_non_null(strstr(error.message, "the grammar cannot be used"));
    json_decref(told);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_line_is_the_answer),
        cmocka_unit_test(one_that_never_ends_is_ended),
        cmocka_unit_test(threads_look_for_longer_where_they_may),
        cmocka_unit_test(an_estimate_says_who_computes_alone),
        cmocka_unit_test(a_template_has_a_verdict),
        cmocka_unit_test(a_grammar_has_a_verdict),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
