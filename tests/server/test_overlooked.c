/*
 * test_overlooked.c - what llama.cpp's server passes over without a word is told it in other words, or refused.
 */
#include "server/overlooked.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define CHAT_TOOLS                                                                                                     \
    "'tools':[{'type':'function','function':{'name':'a'}},{'type':'function','function':{'name':'b'}},"              \
    "{'type':'function','function':{'name':'c'}}]"
#define FLAT_TOOLS "'tools':[{'type':'function','name':'a'},{'type':'web_search'},{'type':'function','name':'b'}]"
#define OWN_TOOLS  "'tools':[{'name':'a','input_schema':{}},{'name':'b','input_schema':{}}]"

/* With ' for ". */
static json_t *parse(const char *text)
{
    char json[1024];
    size_t n = strlen(text);
    assert_true(n < sizeof json);
    for (size_t i = 0; i <= n; i++) {
        json[i] = text[i] == '\'' ? '"' : text[i];
    }
    json_t *value = json_loads(json, 0, NULL);
    assert_non_null(value);
    return value;
}

static void what_is_told_in_other_words(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        const char *body;
        const char *made; /* NULL: as it is */
    } cases[] = {
        {"/v1/chat/completions", "{'x':1," CHAT_TOOLS ",'tool_choice':{'type':'function','function':{'name':'b'}}}",
         "{'x':1,'tools':[{'type':'function','function':{'name':'b'}}],'tool_choice':'required'}"},
        {"/v1/chat/completions",
         "{" CHAT_TOOLS ",'tool_choice':{'type':'allowed_tools','allowed_tools':{'mode':'auto','tools':["
         "{'type':'function','function':{'name':'c'}},{'type':'function','function':{'name':'a'}}]}}}",
         "{'tools':[{'type':'function','function':{'name':'c'}},{'type':'function','function':{'name':'a'}}],"
         "'tool_choice':'auto'}"},
        {"/v1/chat/completions", "{" CHAT_TOOLS ",'tool_choice':'required'}", NULL},
        {"/v1/chat/completions", "{" CHAT_TOOLS ",'tool_choice':'none'}", NULL},
        {"/v1/chat/completions", "{" CHAT_TOOLS ",'tool_choice':null}", NULL},
        {"/v1/chat/completions", "{'tool_choice':'auto','text':{'format':{'type':'json_object'}}}", NULL},
        {"/v1/responses", "{" FLAT_TOOLS ",'tool_choice':{'type':'function','name':'b'}}",
         "{'tools':[{'type':'function','name':'b'}],'tool_choice':'required'}"},
        {"/v1/responses", "{" FLAT_TOOLS ",'tool_choice':{'type':'allowed_tools','mode':'required','tools':["
                          "{'type':'function','name':'a'}]}}",
         "{'tools':[{'type':'function','name':'a'}],'tool_choice':'required'}"},
        {"/responses", "{'text':{'format':{'type':'json_object'}}}",
         "{'text':{'format':{'type':'json_object'}},'response_format':{'type':'json_object'}}"},
        {"/v1/responses", "{'text':{'format':{'type':'text'}},'background':false,'conversation':null}", NULL},
        {"/v1/messages", "{" OWN_TOOLS ",'tool_choice':{'type':'tool','name':'b'}}",
         "{'tools':[{'name':'b','input_schema':{}}],'tool_choice':{'type':'any'}}"},
        {"/v1/messages", "{'y':2," OWN_TOOLS ",'tool_choice':{'type':'none'}}", "{'y':2}"},
        {"/v1/messages", "{" OWN_TOOLS ",'tool_choice':{'type':'any'}}", NULL},
        {"/v1/messages", "{" OWN_TOOLS ",'tool_choice':{'type':'auto'}}", NULL},
        {"/tokenize", "{'content':'x','tool_choice':5}", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *body = parse(cases[i].body);
        json_t *before = json_deep_copy(body);
        json_t *made;
        hypura_error error = {0};
        print_message("%s %s\n", cases[i].path, cases[i].body);
        assert_int_equal(overlooked_translate(cases[i].path, body, &made, &error), HYPURA_OK);
        assert_true(json_equal(body, before));
        if (cases[i].made) {
            json_t *wanted = parse(cases[i].made);
            assert_true(json_equal(made, wanted));
            json_decref(wanted);
        } else {
            assert_null(made);
        }
        json_decref(made);
        json_decref(before);
        json_decref(body);
    }
}

static void what_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        const char *body;
        const char *why;
    } cases[] = {
        {"/v1/chat/completions", "{" CHAT_TOOLS ",'tool_choice':{'type':'function','function':{'name':'d'}}}", "'d'"},
        {"/v1/chat/completions", "{" CHAT_TOOLS ",'tool_choice':{'type':'function','name':'a'}}", "''"},
        {"/v1/chat/completions", "{" CHAT_TOOLS ",'tool_choice':{'type':'custom','custom':{'name':'a'}}}", "not served"},
        {"/v1/chat/completions", "{" CHAT_TOOLS ",'tool_choice':5}", "not served"},
        {"/v1/chat/completions", "{'tool_choice':'required'}", "no tools"},
        {"/v1/chat/completions", "{'functions':[{'name':'a'}]}", "functions"},
        {"/v1/responses", "{" FLAT_TOOLS ",'tool_choice':{'type':'web_search'}}", "not served"},
        {"/v1/responses", "{" FLAT_TOOLS ",'tool_choice':{'type':'allowed_tools','mode':'auto','tools':[]}}", "not served"},
        {"/v1/responses", "{'conversation':'c'}", "conversations"},
        {"/v1/responses", "{'prompt':{'id':'p'}}", "prompts"},
        {"/v1/responses", "{'background':true}", "background"},
        {"/v1/messages", "{" OWN_TOOLS ",'tool_choice':{'type':'tool','name':'c'}}", "'c'"},
        {"/v1/messages", "{" OWN_TOOLS ",'tool_choice':'any'}", "not served"},
        {"/v1/messages", "{'tool_choice':{'type':'any'}}", "no tools"},
        {"/v1/completions", "{'echo':true}", "echo"},
        {"/v1/embeddings", "{'dimensions':8}", "dimensions"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *body = parse(cases[i].body);
        json_t *made;
        hypura_error error = {0};
        print_message("%s %s\n", cases[i].path, cases[i].body);
        assert_int_equal(overlooked_translate(cases[i].path, body, &made, &error), HYPURA_ERR_USAGE);
        assert_null(made);
        assert_non_null(strstr(error.message, cases[i].why));
        json_decref(body);
    }
}

static void who_calls_tools(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        const char *body;
        bool calls;
    } cases[] = {
        {"/v1/chat/completions", "{" CHAT_TOOLS "}", true},
        {"/v1/chat/completions", "{" CHAT_TOOLS ",'tool_choice':'none'}", false},
        {"/v1/chat/completions", "{'tools':[]}", false},
        {"/v1/messages", "{" OWN_TOOLS "}", true},
        {"/v1/messages/count_tokens", "{" OWN_TOOLS "}", true},
        {"/v1/responses", "{" FLAT_TOOLS "}", true},
        {"/v1/responses", "{'tools':[{'type':'web_search'}]}", false}, /* which llama.cpp's server leaves out */
        {"/apply-template", "{" CHAT_TOOLS "}", false},
        {"/tokenize", "{" CHAT_TOOLS "}", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *body = parse(cases[i].body);
        assert_int_equal(overlooked_calls_tools(cases[i].path, body), cases[i].calls);
        json_decref(body);
    }
    assert_false(overlooked_calls_tools("/props", NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_told_in_other_words),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(who_calls_tools),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
