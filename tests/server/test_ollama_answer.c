/* Answers of llama.cpp's server as Ollama gives them: events in, cut anywhere, lines out. */
#include "server/dialect/ollama.h"
#include "server/dialect/sse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "quoted.h"

static const char stream_text[] =
    ": ping\n\n"
    "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null},\"finish_reason\":null}]}\n\n"
    "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"},\"finish_reason\":null}]}\n\n"
    "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"},\"finish_reason\":null}]}\r\n\r\n"
    "data: {\"choices\":[{\"delta\":{\"content\":\"lo\"},\"finish_reason\":null}]}\n\n"
    "data: "
    "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c1\",\"function\":{\"name\":\"f\",\"arguments\":"
    "\"{\\\"x\\\"\"}}]}}]}\n\n"
    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\":1}\"}}]}}]}\n\n"
    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}],\"timings\":{\"prompt_n\":3,\"cache_n\":4,"
    "\"predicted_n\":5,\"prompt_ms\":1.5,\"predicted_ms\":2.5}}\n\n"
    "data: {\"choices\":[],\"usage\":{\"completion_tokens\":5}}\n\n"
    "data: [DONE]\n\n";

typedef struct receiver {
    ollama_answer answer;
    json_t *lines;
} receiver;

static bool receive(void *user, const char *data, size_t bytes)
{
    receiver *to = user;
    json_t *line;
    ollama_answer_take(&to->answer, data, bytes, &line);
    if (line) {
        assert_non_null(json_object_get(line, "created_at"));
        json_object_del(line, "created_at");
        json_array_append_new(to->lines, line);
    }
    return true;
}

static void feed(receiver *to, const char *text, size_t piece)
{
    sse_reader reader = {0};
    for (size_t at = 0, n = strlen(text); at < n; at += piece) {
        assert_true(sse_feed(&reader, text + at, n - at < piece ? n - at : piece, receive, to));
    }
    sse_clear(&reader);
}

static void zero_characters_are_text(void **state)
{
    (void)state;
    receiver to = {.lines = json_array()};
    assert_true(ollama_answer_open(&to.answer, OLLAMA_GENERATE, "m", true));
    feed(&to, "data: {\"choices\":[{\"delta\":{\"content\":\"a\\u0000b\"}}]}\n\ndata: [DONE]\n\n", 1000);
    assert_int_equal(json_array_size(to.lines), 1);
    assert_int_equal(json_string_length(json_object_get(json_array_get(to.lines, 0), "response")), 3);
    json_t *text = ollama_answer_text(&to.answer);
    assert_int_equal(json_string_length(text), 3);
    json_decref(text);
    ollama_answer_clear(&to.answer);
    json_decref(to.lines);
}

static bool take_none(void *user, const char *data, size_t bytes)
{
    (void)user;
    (void)data;
    (void)bytes;
    return true;
}

static void comments_of_a_stream_are_counted(void **state)
{
    (void)state;
    sse_reader reader = {0};
    static const char text[] = ":\n\ndata: {\"a\":\":\"}\n\n: x\n\n";
    for (const char *at = text; *at; at++) {
        assert_true(sse_feed(&reader, at, 1, take_none, NULL));
    }
    assert_int_equal(reader.n_comments, 2);
    sse_clear(&reader);
}

static void a_line_may_say_nothing(void **state)
{
    (void)state;
    for (int kind = OLLAMA_CHAT; kind <= OLLAMA_GENERATE; kind++) {
        ollama_answer answer;
        assert_true(ollama_answer_open(&answer, (ollama_kind)kind, "m", true));
        json_t *line = ollama_answer_wait(&answer);
        const json_t *to = kind == OLLAMA_CHAT ? json_object_get(line, "message") : line;
        assert_string_equal(json_string_value(json_object_get(to, kind == OLLAMA_CHAT ? "content" : "response")), "");
        assert_true(json_is_false(json_object_get(line, "done")));
        assert_string_equal(json_string_value(json_object_get(line, "model")), "m");
        json_decref(line);
        ollama_answer_clear(&answer);
    }
}

static void what_was_given_is_no_part_of_the_answer(void **state)
{
    (void)state;
    static const struct {
        const char *given;
        const char *wanted;
    } cases[] = {{"The capital", " is Paris. The capital"}, {"Another", "The capital is Paris. The capital"},
                 {"The capital is Paris, and", "The capital is Paris. The capital"}, {"", "The capital is Paris. The capital"},
                 {NULL, "The capital is Paris. The capital"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        receiver to = {.lines = json_array()};
        assert_true(ollama_answer_open(&to.answer, OLLAMA_CHAT, "m", false));
        json_t *given = json_string(cases[i].given);
        to.answer.given = given;
        feed(&to, "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n"
                  "data: {\"choices\":[{\"delta\":{\"content\":\"The capital is Paris.\"}}]}\n\n"
                  "data: {\"choices\":[{\"delta\":{\"content\":\" The capital\"}}]}\n\n", 1000);
        json_t *whole = ollama_answer_end(&to.answer, 0, 0);
        assert_string_equal(json_string_value(json_object_get(json_object_get(whole, "message"), "content")), cases[i].wanted);
        json_decref(whole);
        json_decref(given);
        ollama_answer_clear(&to.answer);
        json_decref(to.lines);
    }
    /* A thought as well. */
    receiver to = {.lines = json_array()};
    json_t *thought = json_string("Hm");
    assert_true(ollama_answer_open(&to.answer, OLLAMA_CHAT, "m", false));
    to.answer.given_thought = thought;
    feed(&to, "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"Hm, so\"}}]}\n\n"
              "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\" Hm\"}}]}\n\n", 1000);
    json_t *whole = ollama_answer_end(&to.answer, 0, 0);
    assert_string_equal(json_string_value(json_object_get(json_object_get(whole, "message"), "thinking")), ", so Hm");
    json_decref(whole);
    json_decref(thought);
    ollama_answer_clear(&to.answer);
    json_decref(to.lines);
}

static void calls_come_with_an_answer_in_one_piece(void **state)
{
    (void)state;
    receiver to = {.lines = json_array()};
    assert_true(ollama_answer_open(&to.answer, OLLAMA_CHAT, "m", false));
    feed(&to, stream_text, 1000);
    assert_int_equal(json_array_size(to.lines), 0);
    json_t *whole = ollama_answer_end(&to.answer, 0, 0);
    quoted_expect(json_object_get(json_object_get(whole, "message"), "tool_calls"),
                "[{\"id\":\"c1\",\"function\":{\"index\":0,\"name\":\"f\",\"arguments\":{\"x\":1}}}]");
    json_decref(whole);
    json_decref(to.lines);
    ollama_answer_clear(&to.answer);
}

static void a_stream_becomes_lines_wherever_it_is_cut(void **state)
{
    (void)state;
    for (size_t piece = 1; piece < 40; piece++) {
        receiver to = {.lines = json_array()};
        assert_true(ollama_answer_open(&to.answer, OLLAMA_CHAT, "m", true));
        feed(&to, stream_text, piece);
        quoted_expect(to.lines,
                    "[{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\",\"thinking\":\"hm\"},"
                    "\"done\":false},"
                    "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"Hel\"},\"done\":false},"
                    "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"lo\"},\"done\":false},"
                    "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":["
                    "{\"id\":\"c1\",\"function\":{\"index\":0,\"name\":\"f\",\"arguments\":{\"x\":1}}}]},"
                    "\"done\":false}]");
        assert_true(to.answer.done);
        json_t *last = ollama_answer_end(&to.answer, 7, 2);
        json_object_del(last, "created_at");
        quoted_expect(
            last,
            "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":"
            "\"stop\","
            "\"total_duration\":7000,\"load_duration\":2000,\"prompt_eval_count\":7,\"prompt_eval_duration\":1500000,"
            "\"eval_count\":5,\"eval_duration\":2500000}");
        json_decref(last);
        json_decref(to.lines);
        ollama_answer_clear(&to.answer);
    }
}

static void an_answer_in_one_piece_holds_all_of_it(void **state)
{
    (void)state;
    receiver to = {.lines = json_array()};
    assert_true(ollama_answer_open(&to.answer, OLLAMA_GENERATE, "m", false));
    feed(&to, stream_text, 1000);
    assert_int_equal(json_array_size(to.lines), 0);
    json_t *whole = ollama_answer_end(&to.answer, 0, 0);
    quoted_expect(json_object_get(whole, "response"), "\"Hello\"");
    quoted_expect(json_object_get(whole, "thinking"), "\"hm\"");
    assert_null(json_object_get(whole, "message"));
    json_decref(whole);
    json_decref(to.lines);
    ollama_answer_clear(&to.answer);
}

static void completions_are_understood_as_well(void **state)
{
    (void)state;
    receiver to = {.lines = json_array()};
    assert_true(ollama_answer_open(&to.answer, OLLAMA_GENERATE, "m", true));
    feed(&to,
         "data: "
         "{\"content\":\"a\",\"stop\":false,\"completion_probabilities\":[{\"token\":\"a\",\"logprob\":-1}]}\n\ndata: "
         "{\"content\":\"\",\"stop\":true,\"stop_type\":\"limit\"}\n\n",
         9);
    quoted_expect(to.lines, "[{\"model\":\"m\",\"response\":\"a\",\"logprobs\":[{\"token\":\"a\",\"logprob\":-1}],"
                          "\"done\":false}]");
    assert_string_equal(to.answer.done_reason, "length");
    json_decref(to.lines);
    ollama_answer_clear(&to.answer);
}

static void an_error_in_the_middle_is_kept(void **state)
{
    (void)state;
    receiver to = {.lines = json_array()};
    assert_true(ollama_answer_open(&to.answer, OLLAMA_CHAT, "m", true));
    feed(&to, "data: {\"error\":{\"code\":500,\"message\":\"broken\"}}\n\ndata: not json\n\n", 1000);
    assert_string_equal(to.answer.error, "broken");
    assert_false(to.answer.done);
    json_decref(to.lines);
    ollama_answer_clear(&to.answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zero_characters_are_text),
        cmocka_unit_test(comments_of_a_stream_are_counted),
        cmocka_unit_test(a_line_may_say_nothing),
        cmocka_unit_test(what_was_given_is_no_part_of_the_answer),
        cmocka_unit_test(calls_come_with_an_answer_in_one_piece),
        cmocka_unit_test(a_stream_becomes_lines_wherever_it_is_cut),
        cmocka_unit_test(an_answer_in_one_piece_holds_all_of_it),
        cmocka_unit_test(completions_are_understood_as_well),
        cmocka_unit_test(an_error_in_the_middle_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
