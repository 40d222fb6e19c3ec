/* Several answers to one request: the whole of them made of a stream, and what they took, added up. */
#include "server/dialect/amend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "quoted.h"

static const amend_about about = {.model = "m:latest"};

static server_amendment *open_for(const char *path, const char *request)
{
    json_t *body = quoted_parse(request);
    server_amendment *amendment = amend_open(path, body, body, &about);
    json_decref(body);
    return amendment;
}

static void check(json_t *value, const char *wanted)
{
    json_t *other = quoted_parse(wanted);
    if (!json_equal(value, other)) {
        char *text = json_dumps(value, JSON_COMPACT);
        print_error("%s\nis not\n%s\n", text, wanted);
        free(text);
        fail();
    }
    json_decref(other);
    json_decref(value);
}

static void requests_for_several_become_streams(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        const char *request;
        const char *made; /* NULL: it goes as it is */
    } cases[] = {
        {"/v1/chat/completions", "{'n':2}", "{'n':2,'stream':true,'stream_options':{'include_usage':true}}"},
        {"/chat/completions", "{'n':2,'stream':false}", "{'n':2,'stream':true,'stream_options':{'include_usage':true}}"},
        {"/v1/completions", "{'prompt':['a','b']}", "{'prompt':['a','b'],'stream':true,'stream_options':{'include_usage':true}}"},
        {"/v1/completions", "{'prompt':[[1],[2]]}", "{'prompt':[[1],[2]],'stream':true,'stream_options':{'include_usage':true}}"},
        /* together 1 in 64 bits */
        {"/v1/completions", "{'n':7905747460161236407,'prompt':['','','','','','','']}",
         "{'n':7905747460161236407,'prompt':['','','','','','',''],'stream':true,'stream_options':{'include_usage':true}}"},
        {"/v1/completions", "{'prompt':[1,2,3]}", NULL}, /* one, in tokens */
        {"/v1/completions", "{'prompt':['a',2]}", NULL},
        {"/v1/completions", "{'prompt':['a']}", NULL},
        {"/v1/chat/completions", "{'n':1}", NULL},
        {"/v1/chat/completions", "{'n':'2'}", NULL},
        {"/v1/chat/completions", "{'n':2,'stream':true}", NULL},
        {"/v1/messages", "{'n':2}", NULL},
        {"/completion", "{'prompt':['a','b']}", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *sent = quoted_parse(cases[i].request);
        json_t *made = amend_asks_for_stream(cases[i].path, sent);
        if (cases[i].made) {
            check(made, cases[i].made);
        } else {
            assert_null(made);
        }
        json_decref(sent);
    }
}

static json_t *gather(server_amendment *amendment, const char *const *events)
{
    for (; *events; events++) {
        json_t *event = quoted_parse(*events);
        amend_gather(amendment, event);
        json_decref(event);
    }
    json_t *answer = amend_gathered(amendment);
    amend_close(amendment);
    return answer;
}

#define USAGE(tokens, prompt, cached) \
    "'usage':{'completion_tokens':" #tokens ",'prompt_tokens':" #prompt ",'total_tokens':0," \
    "'prompt_tokens_details':{'cached_tokens':" #cached "}}"

static void a_chat_of_two_answers(void **state)
{
    (void)state;
    check(gather(open_for("/v1/chat/completions", "{'n':2,'stream':true,'messages':[]}"),
                 (const char *const[]){
                     "{'id':'i','created':7,'model':'m','object':'chat.completion.chunk',"
                     "'choices':[{'index':1,'finish_reason':null,'delta':{'role':'assistant','content':null}}]}",
                     "{'choices':[{'index':0,'finish_reason':null,'delta':{'reasoning_content':'Hm'}}]}",
                     "{'choices':[{'index':0,'delta':{'reasoning_content':', so'}}]}",
                     "{'choices':[{'index':1,'delta':{'content':'One'},'logprobs':{'content':[{'token':'One'}]}}]}",
                     "{'choices':[{'index':0,'delta':{'tool_calls':["
                     "{'index':0,'id':'c','type':'function','function':{'name':'f','arguments':''}}]}}]}",
                     "{'choices':[{'index':0,'delta':{'tool_calls':[{'index':0,'function':{'arguments':'{'}}]}}]}",
                     "{'choices':[{'index':1,'delta':{'content':' two'},'logprobs':{'content':[{'token':' two'}]}}]}",
                     "{'choices':[{'index':0,'delta':{'tool_calls':[{'index':0,'function':{'arguments':'}'}}]}}]}",
                     "{'choices':[{'index':1,'finish_reason':'length','delta':{}}]}",
                     "{'choices':[]," USAGE(2, 10, 9) ",'timings':{'a':0}}",
                     "{'choices':[{'index':0,'finish_reason':'tool_calls','delta':{}}]}",
                     "{'choices':[]," USAGE(9, 10, 4) ",'timings':{'a':1}}", NULL}),
          "{'object':'chat.completion','id':'i','created':7,'model':'m','timings':{'a':1},'choices':["
          "{'index':0,'finish_reason':'tool_calls','message':{'role':'assistant','content':null,'reasoning_content':'Hm, so','tool_calls':"
          "[{'id':'c','type':'function','function':{'name':'f','arguments':'{}'}}]}},"
          "{'index':1,'finish_reason':'length','message':{'role':'assistant','content':'One two'},"
          "'logprobs':{'content':[{'token':'One'},{'token':' two'}]}}],"
          "'usage':{'completion_tokens':11,'prompt_tokens':10,'total_tokens':21,'prompt_tokens_details':{'cached_tokens':4}}}");
}

static void several_prompts(void **state)
{
    (void)state;
    /* Each has a prompt of its own, which counts. */
    check(gather(open_for("/v1/completions", "{'stream':true,'prompt':['a','b'],'logprobs':1}"),
                 (const char *const[]){
                     "{'choices':[{'index':1,'text':' c','finish_reason':null,"
                     "'logprobs':{'content':[{'token':' c','logprob':-1,'top_logprobs':[]}]}}]}",
                     "{'choices':[{'index':0,'text':' b','finish_reason':null,'logprobs':null}]}",
                     "{'choices':[{'index':1,'text':' d','finish_reason':null,"
                     "'logprobs':{'content':[{'token':' d','logprob':-2,'top_logprobs':[]}]}}]}",
                     "{'choices':[{'index':1,'text':'','finish_reason':'length','logprobs':null}]," USAGE(2, 3, 1) "}",
                     "{'choices':[{'index':0,'text':'','finish_reason':'stop','logprobs':null}]," USAGE(1, 4, 2) "}", NULL}),
          "{'object':'text_completion','choices':[{'index':0,'text':' b','finish_reason':'stop','logprobs':null},"
          "{'index':1,'text':' c d','finish_reason':'length','logprobs':{'tokens':[' c',' d'],'token_logprobs':[-1,-2],"
          "'top_logprobs':[{},{}],'text_offset':[0,2]}}],"
          "'usage':{'completion_tokens':3,'prompt_tokens':7,'total_tokens':10,'prompt_tokens_details':{'cached_tokens':3}}}");
    /* Several answers to each: once a prompt. Which of them found what cached is not told. */
    check(gather(open_for("/v1/completions", "{'stream':true,'prompt':['a','b'],'n':2}"),
                 (const char *const[]){
                     "{'choices':[]," USAGE(1, 3, 0) "}", "{'choices':[]," USAGE(1, 3, 2) "}", "{'choices':[]," USAGE(1, 5, 0) "}",
                     "{'choices':[{'index':3,'text':'x','finish_reason':'stop','logprobs':null}]," USAGE(1, 5, 4) "}", NULL}),
          "{'object':'text_completion','choices':[{'index':3,'text':'x','finish_reason':'stop','logprobs':null}],"
          "'usage':{'completion_tokens':4,'prompt_tokens':8,'total_tokens':12}}");
}

static void an_error_in_the_middle_is_told(void **state)
{
    (void)state;
    json_t *answer = gather(open_for("/v1/chat/completions", "{'n':2,'stream':true,'messages':[]}"),
                            (const char *const[]){"{'choices':[{'index':1,'delta':{'content':'One'}}]}",
                                                  "{'error':{'code':500,'message':'broken'}}", NULL});
    assert_string_equal(json_string_value(json_object_get(json_object_get(answer, "error"), "message")), "broken");
    json_decref(answer);
    assert_null(gather(open_for("/v1/chat/completions", "{'n':2,'stream':true,'messages':[]}"), (const char *const[]){NULL}));
}

/* A client's own stream: one sum, in the last event that tells any. */
static void streams_tell_one_sum(void **state)
{
    (void)state;
    server_amendment *amendment = open_for("/v1/chat/completions", "{'n':2,'stream':true,'messages':[]}");
    static const char *const events[] = {
        "{'choices':[{'index':1,'delta':{'content':'One'}}]}", "{'choices':[]," USAGE(2, 10, 0) "}",
        "{'choices':[{'index':0,'finish_reason':'stop','delta':{}}]}", "{'choices':[]," USAGE(3, 10, 9) "}"};
    json_t *all = json_array();
    for (size_t i = 0; i < 4; i++) {
        json_t *event = quoted_parse(events[i]);
        json_t *amended = amend_event(amendment, event);
        json_array_extend(all, amended);
        json_decref(amended);
        json_decref(event);
    }
    amend_close(amendment);
    check(all, "[{'choices':[{'index':1,'delta':{'content':'One'}}]},{'choices':[{'index':0,'finish_reason':'stop','delta':{}}]},"
               "{'choices':[],'usage':{'completion_tokens':5,'prompt_tokens':10,'total_tokens':15,"
               "'prompt_tokens_details':{'cached_tokens':0}}}]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_for_several_become_streams), cmocka_unit_test(a_chat_of_two_answers),
        cmocka_unit_test(several_prompts), cmocka_unit_test(an_error_in_the_middle_is_told),
        cmocka_unit_test(streams_tell_one_sum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
