/* Ollama's requests as llama.cpp's server takes them, with what a model was made with. */
#include "server/dialect/ollama.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "quoted.h"

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
        json_t *value = quoted_parse(good[i].text);
        double seconds = -99;
        if (!ollama_parse_duration(value, &seconds) || fabs(seconds - good[i].seconds) > 1e-9) {
            fail_msg("%s became %f", good[i].text, seconds);
        }
        json_decref(value);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *value = quoted_parse(bad[i]);
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
    json_t *from = quoted_parse(body);
    json_t *own = settings ? quoted_parse(settings) : NULL;
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
    json_t *from = quoted_parse(body);
    json_t *own = settings ? quoted_parse(settings) : NULL;
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
    json_t *from = quoted_parse(body);
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
    quoted_expect(json_object_get(to, "messages"), "[{\"role\":\"user\",\"content\":\"hi\"}]");
    quoted_expect(json_object_get(to, "temperature"), "0");
    quoted_expect(json_object_get(to, "n_predict"), "7");
    quoted_expect(json_object_get(to, "stop"), "[\"x\"]");
    quoted_expect(json_object_get(to, "top_k"), "3"); /* the model's own */
    quoted_expect(json_object_get(to, "seed"), "5");
    quoted_expect(json_object_get(to, "stream"), "true");
    assert_null(json_object_get(to, "num_ctx"));
    quoted_expect(json_object_get(to, "chat_template_kwargs"), "{\"enable_thinking\":false}");
    quoted_expect(json_object_get(to, "response_format"),
                "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"format\",\"schema\":{\"type\":\"object\"}}}");
    json_decref(to);
    to = translated(OLLAMA_CHAT,
                    "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"format\":\"json\",\"think\":\"low\","
                    "\"options\":{\"num_predict\":-1}}",
                    NULL, chat_path);
    quoted_expect(json_object_get(to, "response_format"), "{\"type\":\"json_object\"}");
    quoted_expect(json_object_get(to, "reasoning_effort"), "\"low\"");
    assert_null(json_object_get(to, "n_predict"));
    json_decref(to);
}

static void system_and_messages_of_the_model_come_first(void **state)
{
    (void)state;
    static const char settings[] = "{\"system\":\"own\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}";
    json_t *to = translated(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"b\"}]}", settings, chat_path);
    quoted_expect(json_object_get(to, "messages"),
                "[{\"role\":\"system\",\"content\":\"own\"},{\"role\":\"user\",\"content\":\"a\"},"
                "{\"role\":\"user\",\"content\":\"b\"}]");
    json_decref(to);
    to = translated(OLLAMA_GENERATE, "{\"prompt\":\"b\",\"system\":\"mine\"}", "{\"system\":\"own\"}", chat_path);
    quoted_expect(json_object_get(to, "messages"),
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
    quoted_expect(
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
    quoted_expect(json_object_get(json_array_get(json_object_get(json_array_get(messages, 0), "tool_calls"), 0), "id"),
                "\"a\"");
    json_decref(to);
}

static void what_stops_and_what_does_not_is_told_apart(void **state)
{
    (void)state;
    json_t *to =
        translated(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"raw\":true,\"options\":{\"stop\":\"x\",\"num_predict\":0}}",
                   NULL, "/completion");
    quoted_expect(json_object_get(to, "stop"), "[\"x\"]");
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
    quoted_expect(json_object_get(to, "stop"), "[\"y\"]");
    json_decref(to);
}

static void probabilities_are_asked_for_either_way(void **state)
{
    (void)state;
    json_t *to = translated(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"logprobs\":true}", NULL, chat_path);
    quoted_expect(json_object_get(to, "top_logprobs"), "1"); /* with 0 the server tells none at all */
    json_decref(to);
    to = translated(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"raw\":true,\"logprobs\":true,\"top_logprobs\":3}", NULL,
                    "/completion");
    quoted_expect(json_object_get(to, "n_probs"), "3");
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
    quoted_expect(json_object_get(to, "prompt"), "\"<own>[a\\n\\nb]c|[d]\"");
    json_decref(to);
    /* An answer that was begun is gone on with. */
    to = translated(OLLAMA_CHAT,
                    "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"a\"},"
                    "{\"role\":\"assistant\",\"content\":\"c\"}]}",
                    settings, "/completion");
    quoted_expect(json_object_get(to, "prompt"), "\"<s>[a]c\"");
    json_decref(to);
    to = translated(OLLAMA_GENERATE, "{\"prompt\":\"a\"}", settings, "/completion");
    quoted_expect(json_object_get(to, "prompt"), "\"<own>[a]\"");
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
    json_t *messages = quoted_parse(conversation);
    /* The answer to what went goes as well. */
    assert_true(ollama_shorten(messages, 0));
    quoted_expect(messages, "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"cccc\"},"
                          "{\"role\":\"assistant\",\"content\":\"dddd\"},{\"role\":\"user\",\"content\":\"e\"}]");
    json_decref(messages);
    messages = quoted_parse(conversation);
    assert_true(ollama_shorten(messages, 0.9));
    quoted_expect(messages, "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"e\"}]");
    assert_false(ollama_shorten(messages, 0.9));
    assert_int_equal(json_array_size(messages), 2);
    json_decref(messages);
}

static void images_become_parts(void **state)
{
    (void)state;
    json_t *to = translated(OLLAMA_GENERATE, "{\"prompt\":\"what\",\"images\":[\"/9j/AA\"]}", NULL, chat_path);
    quoted_expect(json_object_get(json_array_get(json_object_get(to, "messages"), 0), "content"),
                "[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/jpeg;base64,/9j/AA\"}},"
                "{\"type\":\"text\",\"text\":\"what\"}]");
    json_decref(to);
}

static void raw_and_suffix_go_around_the_template(void **state)
{
    (void)state;
    json_t *to =
        translated(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"raw\":true,\"format\":\"json\"}", NULL, "/completion");
    quoted_expect(json_object_get(to, "prompt"), "\"a\"");
    quoted_expect(json_object_get(to, "json_schema"), "{}");
    json_decref(to);
    to = translated(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"suffix\":\"b\"}", NULL, "/infill");
    quoted_expect(json_object_get(to, "input_suffix"), "\"b\"");
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
    quoted_expect(json_object_get(request.chat, "messages"), "[{\"role\":\"user\",\"content\":\"b\"}]");
    request.text = json_string("<b>");
    ollama_request_continue(&request);
    quoted_expect(json_object_get(request.body, "prompt"), "[1,2,\"<b>\"]");
    quoted_expect(json_object_get(request.body, "top_k"), "3");
    json_t *all = ollama_request_conversation(&request, "c");
    quoted_expect(all, "[1,2,\"<b>c\"]");
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
    expect_refused(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\",\"images\":\"AAAA\"}]}");
    expect_refused(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\",\"tool_calls\":{}}]}");
    expect_refused(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"truncate\":\"no\"}");
    expect_refused(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"images\":\"AAAA\"}");
    expect_refused(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"raw\":\"yes\"}");
    expect_refused(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"logprobs\":1}");
    expect_refused(OLLAMA_GENERATE, "{\"prompt\":\"a\",\"options\":{\"stop\":[\"b\",5]}}");
    expect_refused(OLLAMA_CHAT, "{\"messages\":[{\"content\":\"hi\"}]}");
    expect_refused(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":{}}]}");
    expect_refused(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"images\":[5]}]}");
    expect_refused(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"tool_calls\":[{}]}]}");
    expect_refused(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"tool\",\"tool_calls\":[{\"function\":{\"name\":\"f\"}},{}]}]}");
    expect_refused(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"format\":\"xml\"}");
    expect_refused(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"options\":{\"top_k\":\"x\"}}");
    expect_refused(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"options\":{\"seed\":1e300}}");
    expect_refused(OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"options\":{\"num_predict\":1e10}}");
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

/* ---- what the model was made with ----------------------------------------------- */

static void other_apis_get_what_the_model_was_made_with(void **state)
{
    (void)state;
    json_t *settings = quoted_parse("{\"system\":\"own\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
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
        json_t *body = quoted_parse(cases[i].body);
        json_t *made = ollama_add_own(cases[i].path, body, settings);
        if (cases[i].begin) {
            char wanted[512];
            snprintf(wanted, sizeof wanted, "%s%s%s", cases[i].begin, own_messages, cases[i].end);
            quoted_expect(made, wanted);
        } else {
            assert_null(made);
        }
        quoted_expect(body, cases[i].body);
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
    json_t *settings = quoted_parse("{\"parameters\":{\"seed\":7,\"num_predict\":-1,\"stop\":\"a\",\"num_ctx\":512,"
                             "\"repeat_last_n\":-1}}");
    assert_int_equal(ollama_defaults(settings, &defaults, &error), HYPURA_OK);
    quoted_expect(defaults, "{\"seed\":7,\"stop\":[\"a\"],\"repeat_last_n\":131072}");
    json_decref(defaults);
    json_decref(settings);
    settings = quoted_parse("{\"parameters\":{\"seed\":\"seven\"}}");
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
        cmocka_unit_test(other_apis_get_what_the_model_was_made_with),
        cmocka_unit_test(parameters_are_defaults_of_the_models_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
