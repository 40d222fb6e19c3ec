/* Ollama's API as llama.cpp's server speaks it: requests there, events back, cut anywhere. */
#include "server/ollama.h"
#include "server/sse.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static json_t *parse(const char *text)
{
    json_error_t reason;
    json_t *value = json_loads(text, JSON_DECODE_ANY, &reason);
    if (!value) {
        fail_msg("%s: %s", text, reason.text);
    }
    return value;
}

static void expect_json(const json_t *got, const char *wanted)
{
    json_t *value = parse(wanted);
    if (!json_equal(got, value)) {
        char *text = got ? json_dumps(got, JSON_ENCODE_ANY) : NULL;
        fail_msg("got    %s\nwanted %s", text ? text : "nothing", wanted);
    }
    json_decref(value);
}

/* ---- requests ------------------------------------------------------------------ */

static void durations_are_read_as_go_writes_them(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double seconds;
    } good[] = {{"5", 5},         {"-1", -1},       {"0", 0},      {"\"5m\"", 300},    {"\"1h30m\"", 5400},
                {"\"-1m\"", -60}, {"\"10\"", 10},   {"\"0\"", 0},  {"\"250ms\"", .25}, {"\"1.5h\"", 5400},
                {"2.5", 2.5},     {"\"1m1s\"", 61}, {"\"-1\"", -1}, {"\"1s500us\"", 1.0005}};
    static const char *const bad[] = {"\"\"", "\"m\"", "\"5x\"",   "\"5m3\"",  "true",
                                      "null", "{}",    "\"--5m\"", "\"5m-3s\""};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        json_t *value = parse(good[i].text);
        double seconds = -99;
        if (!ollama_parse_duration(value, &seconds) || fabs(seconds - good[i].seconds) > 1e-9) {
            fail_msg("%s became %f", good[i].text, seconds);
        }
        json_decref(value);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *value = parse(bad[i]);
        double seconds;
        if (ollama_parse_duration(value, &seconds)) {
            fail_msg("%s was taken", bad[i]);
        }
        json_decref(value);
    }
}

static json_t *translated(ollama_kind kind, const char *body, const char *settings, const char *path)
{
    ollama_request request;
    hypura_error error = {0};
    json_t *from = parse(body);
    json_t *own = settings ? parse(settings) : NULL;
    if (ollama_translate(kind, from, own, &request, &error) != HYPURA_OK) {
        fail_msg("%s: %s", body, error.message);
    }
    assert_non_null(request.body);
    assert_string_equal(request.path, path);
    json_decref(from);
    json_decref(own);
    json_t *to = json_incref(request.body);
    ollama_request_clear(&request);
    return to;
}

static ollama_request translated_whole(const char *body, const char *settings)
{
    ollama_request request;
    hypura_error error = {0};
    json_t *from = parse(body);
    json_t *own = settings ? parse(settings) : NULL;
    if (ollama_translate(OLLAMA_GENERATE, from, own, &request, &error) != HYPURA_OK) {
        fail_msg("%s: %s", body, error.message);
    }
    json_decref(from);
    json_decref(own);
    return request;
}

static void expect_refused(ollama_kind kind, const char *body)
{
    ollama_request request;
    hypura_error error = {0};
    json_t *from = parse(body);
    if (ollama_translate(kind, from, NULL, &request, &error) == HYPURA_OK) {
        fail_msg("%s was taken", body);
    }
    assert_null(request.body);
    assert_true(error.message[0] != '\0');
    json_decref(from);
}

static const char chat_path[] = "/v1/chat/completions";

static void options_and_formats_are_translated(void **state)
{
    (void)state;
    json_t *to =
        translated(OLLAMA_CHAT,
                   "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"think\":false,"
                   "\"options\":{\"temperature\":0,\"num_predict\":7,\"stop\":[\"x\"],\"num_ctx\":99,\"seed\":null},"
                   "\"format\":{\"type\":\"object\"}}",
                   "{\"parameters\":{\"temperature\":1,\"top_k\":3,\"seed\":5}}", chat_path);
    expect_json(json_object_get(to, "messages"), "[{\"role\":\"user\",\"content\":\"hi\"}]");
    expect_json(json_object_get(to, "temperature"), "0");
    expect_json(json_object_get(to, "n_predict"), "7");
    expect_json(json_object_get(to, "stop"), "[\"x\"]");
    expect_json(json_object_get(to, "top_k"), "3"); /* the model's own */
    expect_json(json_object_get(to, "seed"), "5");
    expect_json(json_object_get(to, "stream"), "true");
    assert_null(json_object_get(to, "num_ctx"));
    expect_json(json_object_get(to, "chat_template_kwargs"), "{\"enable_thinking\":false}");
    expect_json(json_object_get(to, "response_format"),
                "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"format\",\"schema\":{\"type\":\"object\"}}}");
    json_decref(to);
    to = translated(OLLAMA_CHAT,
                    "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"format\":\"json\",\"think\":\"low\","
                    "\"options\":{\"num_predict\":-1}}",
                    NULL, chat_path);
    expect_json(json_object_get(to, "response_format"), "{\"type\":\"json_object\"}");
    expect_json(json_object_get(to, "reasoning_effort"), "\"low\"");
    assert_null(json_object_get(to, "n_predict"));
    json_decref(to);
}

static void system_and_messages_of_the_model_come_first(void **state)
{
    (void)state;
    static const char settings[] = "{\"system\":\"own\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}";
    json_t *to = translated(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"b\"}]}", settings, chat_path);
    expect_json(json_object_get(to, "messages"),
                "[{\"role\":\"system\",\"content\":\"own\"},{\"role\":\"user\",\"content\":\"a\"},"
                "{\"role\":\"user\",\"content\":\"b\"}]");
    json_decref(to);
    to = translated(OLLAMA_GENERATE, "{\"prompt\":\"b\",\"system\":\"mine\"}", "{\"system\":\"own\"}", chat_path);
    expect_json(json_object_get(to, "messages"),
                "[{\"role\":\"system\",\"content\":\"mine\"},{\"role\":\"user\",\"content\":\"b\"}]");
    json_decref(to);
}

static void calls_of_tools_get_numbers(void **state)
{
    (void)state;
    json_t *to =
        translated(OLLAMA_CHAT,
                   "{\"messages\":[{\"role\":\"user\",\"content\":\"w\"},"
                   "{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"x\":1}}},"
                   "{\"function\":{\"name\":\"g\",\"arguments\":{}}}]},"
                   "{\"role\":\"tool\",\"content\":\"1\",\"tool_name\":\"f\"},{\"role\":\"tool\",\"content\":\"2\","
                   "\"tool_name\":\"g\"}],"
                   "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{}}}]}",
                   NULL, chat_path);
    expect_json(
        json_object_get(to, "messages"),
        "[{\"role\":\"user\",\"content\":\"w\"},{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":["
        "{\"id\":\"call_0\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"}},"
        "{\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]},"
        "{\"role\":\"tool\",\"content\":\"1\",\"tool_call_id\":\"call_0\",\"name\":\"f\"},"
        "{\"role\":\"tool\",\"content\":\"2\",\"tool_call_id\":\"call_1\",\"name\":\"g\"}]");
    assert_int_equal(json_array_size(json_object_get(to, "tools")), 1);
    json_decref(to);
}

static void calls_of_tools_keep_their_ids(void **state)
{
    (void)state;
    json_t *to = translated(
        OLLAMA_CHAT,
        "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"f\"}},"
        "{\"id\":\"b\",\"function\":{\"name\":\"g\"}},{\"function\":{\"name\":\"h\"}}]},"
        "{\"role\":\"tool\",\"content\":\"1\"},{\"role\":\"tool\",\"content\":\"2\",\"tool_call_id\":\"b\"},"
        "{\"role\":\"tool\",\"content\":\"3\"},{\"role\":\"tool\",\"content\":\"4\"},"
        "{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\"}}]},{\"role\":\"tool\",\"content\":\"5\"}]}",
        NULL, chat_path);
    static const char *const told[] = {"a", "b", "call_2", "call_3", NULL, "call_3"};
    const json_t *messages = json_object_get(to, "messages");
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
        const char *id = json_string_value(json_object_get(json_array_get(messages, i + 1), "tool_call_id"));
        assert_true(told[i] ? id && strcmp(id, told[i]) == 0 : !id);
    }
    expect_json(json_object_get(json_array_get(json_object_get(json_array_get(messages, 0), "tool_calls"), 0), "id"),
                "\"a\"");
    json_decref(to);
}

static void what_stops_and_what_does_not_is_told_apart(void **state)
{
    (void)state;
    json_t *to =
        translated(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"raw\":true,\"options\":{\"stop\":\"x\",\"num_predict\":0}}",
                   NULL, "/completion");
    expect_json(json_object_get(to, "stop"), "[\"x\"]");
    assert_null(json_object_get(to, "n_predict")); /* 0 is no limit either */
    json_decref(to);
    to = translated(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"raw\":true,\"options\":{\"num_predict\":-1}}",
                    "{\"parameters\":{\"num_predict\":5}}", "/completion");
    assert_true(json_integer_value(json_object_get(to, "n_predict")) > 1000000); /* the model's own is its engine's default */
    json_decref(to);
    to = translated(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"raw\":true}", "{\"parameters\":{\"num_predict\":-1}}", "/completion");
    assert_null(json_object_get(to, "n_predict"));
    json_decref(to);
    to = translated(OLLAMA_CHAT,
                    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"options\":{\"stop\":[\"\",\"y\"]}}", NULL,
                    chat_path);
    expect_json(json_object_get(to, "stop"), "[\"y\"]");
    json_decref(to);
}

static void probabilities_are_asked_for_either_way(void **state)
{
    (void)state;
    json_t *to = translated(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"logprobs\":true}", NULL, chat_path);
    expect_json(json_object_get(to, "top_logprobs"), "1"); /* with 0 the server tells none at all */
    json_decref(to);
    to = translated(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"raw\":true,\"logprobs\":true,\"top_logprobs\":3}", NULL,
                    "/completion");
    expect_json(json_object_get(to, "n_probs"), "3");
    json_decref(to);
    expect_refused(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"raw\":true,\"format\":\"yaml\"}");
    expect_refused(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"logprobs\":true,\"top_logprobs\":21}");
    expect_refused(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"raw\":true,\"top_logprobs\":\"many\"}");
}

static void a_template_of_the_model_makes_turns(void **state)
{
    (void)state;
    static const char settings[] =
        "{\"system\":\"own\",\"template\":\"{{ if .System }}<{{ .System }}>{{ end }}[{{ .Prompt }}]{{ .Response }}|\"}";
    json_t *to =
        translated(OLLAMA_CHAT,
                   "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"b\"},"
                   "{\"role\":\"assistant\",\"content\":\"c\"},{\"role\":\"user\",\"content\":\"d\"}]}",
                   settings, "/completion");
    expect_json(json_object_get(to, "prompt"), "\"<own>[a\\n\\nb]c|[d]\"");
    json_decref(to);
    /* An answer that was begun is gone on with. */
    to = translated(OLLAMA_CHAT,
                    "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"a\"},"
                    "{\"role\":\"assistant\",\"content\":\"c\"}]}",
                    settings, "/completion");
    expect_json(json_object_get(to, "prompt"), "\"<s>[a]c\"");
    json_decref(to);
    to = translated(OLLAMA_GENERATE, "{\"prompt\":\"a\"}", settings, "/completion");
    expect_json(json_object_get(to, "prompt"), "\"<own>[a]\"");
    json_decref(to);
    /* What has no place in such a template, and a template that is no such one: the file's own. */
    to = translated(OLLAMA_CHAT,
                    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tools\":[{\"type\":\"function\"}]}",
                    settings, chat_path);
    json_decref(to);
    to = translated(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
                    "{\"template\":\"{{ range .Messages }}{{ .Content }}{{ end }}\"}", chat_path);
    json_decref(to);
}

static void the_oldest_messages_go_first(void **state)
{
    (void)state;
    static const char conversation[] =
        "[{\"role\":\"user\",\"content\":\"aaaa\"},{\"role\":\"system\",\"content\":\"s\"},"
        "{\"role\":\"assistant\",\"content\":\"bbbb\"},{\"role\":\"user\",\"content\":\"cccc\"},"
        "{\"role\":\"assistant\",\"content\":\"dddd\"},{\"role\":\"user\",\"content\":\"e\"}]";
    json_t *messages = parse(conversation);
    /* The answer to what went goes as well. */
    assert_true(ollama_shorten(messages, 0));
    expect_json(messages, "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"cccc\"},"
                          "{\"role\":\"assistant\",\"content\":\"dddd\"},{\"role\":\"user\",\"content\":\"e\"}]");
    json_decref(messages);
    messages = parse(conversation);
    assert_true(ollama_shorten(messages, 0.9));
    expect_json(messages, "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"e\"}]");
    assert_false(ollama_shorten(messages, 0.9));
    assert_int_equal(json_array_size(messages), 2);
    json_decref(messages);
}

static void images_become_parts(void **state)
{
    (void)state;
    json_t *to = translated(OLLAMA_GENERATE, "{\"prompt\":\"what\",\"images\":[\"/9j/AA\"]}", NULL, chat_path);
    expect_json(json_object_get(json_array_get(json_object_get(to, "messages"), 0), "content"),
                "[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/jpeg;base64,/9j/AA\"}},"
                "{\"type\":\"text\",\"text\":\"what\"}]");
    json_decref(to);
}

static void raw_and_suffix_go_around_the_template(void **state)
{
    (void)state;
    json_t *to =
        translated(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"raw\":true,\"format\":\"json\"}", NULL, "/completion");
    expect_json(json_object_get(to, "prompt"), "\"a\"");
    expect_json(json_object_get(to, "json_schema"), "{}");
    json_decref(to);
    to = translated(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"suffix\":\"b\"}", NULL, "/infill");
    expect_json(json_object_get(to, "input_suffix"), "\"b\"");
    json_decref(to);
    expect_refused(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"raw\":true,\"images\":[\"AAAA\"]}");
    expect_refused(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"suffix\":\"b\",\"images\":[\"AAAA\"]}");
}

static void a_template_of_the_request_makes_the_prompt(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        const char *settings;
        const char *prompt;
    } cases[] = {
        {"{\"prompt\":\"a\",\"template\":\"{{ .Prompt }}\"}", NULL, "a"},
        {"{\"prompt\":\"a\",\"template\":\"[{{.System}}]  {{- .Prompt -}}\\n x {{ .Response }}<end>\"}", NULL, "[]ax "},
        {"{\"prompt\":\"a\",\"template\":\"{{ if .System }}S{{ .System }}{{ else }}none{{ end }}:{{ .Prompt }}\"}",
         NULL, "none:a"},
        {"{\"prompt\":\"a\",\"template\":\"{{ if .System }}S{{ .System }}{{ else }}none{{ end }}:{{ .Prompt }}\"}",
         "{\"system\":\"own\"}", "Sown:a"},
        {"{\"prompt\":\"a\",\"system\":\"mine\",\"template\":\"{{ if .Suffix }}{{ if .System }}x{{ else }}y{{ end }}{{ "
         "else }}"
         "{{ .System }}{{ end }}\"}",
         "{\"system\":\"own\"}", "mine"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ollama_request request = translated_whole(cases[i].body, cases[i].settings);
        assert_string_equal(request.path, "/completion");
        assert_string_equal(json_string_value(json_object_get(request.body, "prompt")), cases[i].prompt);
        ollama_request_clear(&request);
    }
}

static void a_context_comes_before_the_prompt(void **state)
{
    (void)state;
    ollama_request request = translated_whole("{\"prompt\":\"b\",\"context\":[1,2],\"options\":{\"top_k\":3}}", NULL);
    assert_string_equal(request.path, "/completion");
    assert_null(request.text);
    expect_json(json_object_get(request.chat, "messages"), "[{\"role\":\"user\",\"content\":\"b\"}]");
    request.text = json_string("<b>");
    ollama_request_continue(&request);
    expect_json(json_object_get(request.body, "prompt"), "[1,2,\"<b>\"]");
    expect_json(json_object_get(request.body, "top_k"), "3");
    json_t *all = ollama_request_conversation(&request, "c");
    expect_json(all, "[1,2,\"<b>c\"]");
    json_decref(all);
    ollama_request_clear(&request);
    /* Without one, the answer still ends with one. */
    request = translated_whole("{\"prompt\":\"b\"}", NULL);
    assert_string_equal(request.path, chat_path);
    assert_non_null(request.chat);
    ollama_request_clear(&request);
    request = translated_whole("{\"prompt\":\"b\",\"raw\":true}", NULL);
    assert_null(request.chat);
    assert_null(request.text);
    ollama_request_clear(&request);
}

static void what_cannot_be_meant_is_refused(void **state)
{
    (void)state;
    expect_refused(OLLAMA_CHAT, "{\"messages\":\"hi\"}");
    expect_refused(OLLAMA_CHAT, "{\"messages\":[1]}");
    expect_refused(OLLAMA_CHAT, "{\"messages\":[{\"content\":\"hi\"}]}");
    expect_refused(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":{}}]}");
    expect_refused(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"images\":[5]}]}");
    expect_refused(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"tool_calls\":[{}]}]}");
    expect_refused(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"format\":\"xml\"}");
    expect_refused(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"options\":{\"top_k\":\"x\"}}");
    expect_refused(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"think\":5}");
    expect_refused(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"template\":\"{{ range .Messages }}\"}");
    expect_refused(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"template\":\"{{ if .Prompt }}\"}");
    expect_refused(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"template\":\"{{ end }}\"}");
    expect_refused(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"template\":\"{{ .Prompt\"}");
    expect_refused(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"context\":[\"x\"]}");
    expect_refused(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"context\":[1],\"raw\":true}");
    expect_refused(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"context\":[1],\"suffix\":\"b\"}");
    expect_refused(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"context\":[1],\"images\":[\"x\"]}");
}

/* ---- answers ---------------------------------------------------------------------- */

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
    expect_json(json_object_get(json_object_get(whole, "message"), "tool_calls"),
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
        expect_json(to.lines,
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
        expect_json(
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
    expect_json(json_object_get(whole, "response"), "\"Hello\"");
    expect_json(json_object_get(whole, "thinking"), "\"hm\"");
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
    expect_json(to.lines, "[{\"model\":\"m\",\"response\":\"a\",\"logprobs\":[{\"token\":\"a\",\"logprob\":-1}],"
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

static void other_apis_get_what_the_model_was_made_with(void **state)
{
    (void)state;
    json_t *settings = parse("{\"system\":\"own\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
                             "{\"role\":\"user\",\"content\":\"b\",\"images\":[\"x\"]}]}");
    static const char chat[] = "/v1/chat/completions", own_messages[] = "\"role\":\"user\",\"content\":\"a\"},";
    const struct {
        const char *path;
        const char *body;
        const char *begin; /* of what is wanted; NULL: it goes as it is */
        const char *end;
    } cases[] = {
        {chat, "{\"messages\":[1]}", "{\"messages\":[{\"role\":\"system\",\"content\":\"own\"},{", "1]}"},
        {chat, "{\"messages\":[{\"role\":\"developer\"}],\"n\":2}", "{\"n\":2,\"messages\":[{",
         "{\"role\":\"developer\"}]}"},
        {"/v1/messages/count_tokens", "{\"messages\":[1]}", "{\"system\":\"own\",\"messages\":[{", "1]}"},
        {"/v1/messages", "{\"messages\":[1],\"system\":[]}", "{\"system\":[],\"messages\":[{", "1]}"},
        {"/v1/responses", "{\"input\":\"t\"}", "{\"instructions\":\"own\",\"input\":[{\"type\":\"message\",",
         "{\"role\":\"user\",\"content\":\"t\"}]}"},
        {chat, "{\"messages\":\"text\"}", NULL, NULL},
        {"/v1/completions", "{\"prompt\":\"t\"}", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *body = parse(cases[i].body);
        json_t *made = ollama_add_own(cases[i].path, body, settings);
        if (cases[i].begin) {
            char wanted[512];
            snprintf(wanted, sizeof wanted, "%s%s%s", cases[i].begin, own_messages, cases[i].end);
            expect_json(made, wanted);
        } else {
            assert_null(made);
        }
        expect_json(body, cases[i].body);
        assert_null(ollama_add_own(cases[i].path, body, NULL));
        json_decref(made);
        json_decref(body);
    }
    json_decref(settings);
}

static void parameters_are_defaults_of_the_models_server(void **state)
{
    (void)state;
    json_t *defaults;
    hypura_error error;
    json_t *settings = parse("{\"parameters\":{\"seed\":7,\"num_predict\":-1,\"stop\":\"a\",\"num_ctx\":512,"
                             "\"repeat_last_n\":-1}}");
    assert_int_equal(ollama_defaults(settings, &defaults, &error), HYPURA_OK);
    expect_json(defaults, "{\"seed\":7,\"stop\":[\"a\"],\"repeat_last_n\":131072}");
    json_decref(defaults);
    json_decref(settings);
    settings = parse("{\"parameters\":{\"seed\":\"seven\"}}");
    assert_int_equal(ollama_defaults(settings, &defaults, &error), HYPURA_ERR_USAGE);
    assert_null(defaults);
    json_decref(settings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_are_read_as_go_writes_them),
        cmocka_unit_test(options_and_formats_are_translated),
        cmocka_unit_test(system_and_messages_of_the_model_come_first),
        cmocka_unit_test(calls_of_tools_get_numbers),
        cmocka_unit_test(calls_of_tools_keep_their_ids),
        cmocka_unit_test(what_stops_and_what_does_not_is_told_apart),
        cmocka_unit_test(probabilities_are_asked_for_either_way),
        cmocka_unit_test(a_template_of_the_model_makes_turns),
        cmocka_unit_test(the_oldest_messages_go_first),
        cmocka_unit_test(images_become_parts),
        cmocka_unit_test(raw_and_suffix_go_around_the_template),
        cmocka_unit_test(a_template_of_the_request_makes_the_prompt),
        cmocka_unit_test(a_context_comes_before_the_prompt),
        cmocka_unit_test(what_cannot_be_meant_is_refused),
        cmocka_unit_test(a_stream_becomes_lines_wherever_it_is_cut),
        cmocka_unit_test(an_answer_in_one_piece_holds_all_of_it),
        cmocka_unit_test(zero_characters_are_text),
        cmocka_unit_test(comments_of_a_stream_are_counted),
        cmocka_unit_test(a_line_may_say_nothing),
        cmocka_unit_test(what_was_given_is_no_part_of_the_answer),
        cmocka_unit_test(calls_come_with_an_answer_in_one_piece),
        cmocka_unit_test(completions_are_understood_as_well),
        cmocka_unit_test(an_error_in_the_middle_is_kept),
        cmocka_unit_test(other_apis_get_what_the_model_was_made_with),
        cmocka_unit_test(parameters_are_defaults_of_the_models_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
