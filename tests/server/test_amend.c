/*
 * test_amend.c - answers of llama.cpp's server, as the APIs whose form they have would give them.
 */
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

static server_amendment *open_for(const char *path, const char *request, const amend_about *of)
{
    json_t *body = quoted_parse(request);
    server_amendment *amendment = amend_open(path, body, body, of);
    json_decref(body);
    return amendment;
}

static void assert_json(json_t *value, const char *wanted)
{
    quoted_expect(value, wanted);
    json_decref(value);
}

/* All events in place of these. */
static json_t *amend_all(server_amendment *amendment, const char *const *events)
{
    json_t *all = json_array();
    for (size_t i = 0; events[i]; i++) {
        json_t *event = quoted_parse(events[i]);
        json_t *amended = amend_event(amendment, event);
        json_array_extend(all, amended);
        json_decref(amended);
        json_decref(event);
    }
    return all;
}

/* ---- what was given --------------------------------------------------------------------- */

#define GIVEN "{'messages':[{'role':'user','content':'q'},{'role':'assistant','content':'One, two'}]}"

static void other_answers_go_as_they_come(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        const char *request;
    } cases[] = {{"/v1/chat/completions", "{'messages':[{'role':'assistant','content':'a'},{'role':'user','content':'q'}]}"},
                 {"/v1/chat/completions", "{'messages':[{'role':'assistant','content':'a'}],'echo':true}"},
                 {"/v1/chat/completions/input_tokens", GIVEN},
                 {"/v1/messages/count_tokens", GIVEN},
                 {"/apply-template", GIVEN},
                 {"/v1/completions", "{'prompt':'a'}"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_null(open_for(cases[i].path, cases[i].request, &about));
    }
    assert_null(amend_open("/v1/messages", NULL, NULL, &about));
}

static void a_chat_is_gone_on_with(void **state)
{
    (void)state;
    server_amendment *amendment = open_for("/v1/chat/completions", GIVEN, &about);
    json_t *answer = quoted_parse("{'choices':[{'index':0,'message':{'content':'One, two, three'}},"
                           "{'index':1,'message':{'content':'Three','reasoning_content':'so'}}]}");
    amend_whole(amendment, answer);
    assert_json(answer, "{'choices':[{'index':0,'message':{'content':', three'}},"
                        "{'index':1,'message':{'content':'Three','reasoning_content':'so'}}]}");
    amend_close(amendment);

    /* The space before it, and parts. The second choice has its own beginning, and later pieces are left alone. */
    amendment = open_for("/chat/completions",
                         "{'stream':true,'messages':[{'role':'assistant','reasoning_content':'hm','content':["
                         "{'type':'text','text':' One'},{'type':'text','text':'two'}]}]}",
                         &about);
    static const char *const events[] = {
        "{'choices':[{'index':0,'delta':{'role':'assistant','content':null}}]}",
        "{'choices':[{'index':0,'delta':{'reasoning_content':'hm'}}]}",
        "{'choices':[{'index':0,'delta':{'content':'One\\n\\ntwo three'}}]}",
        "{'choices':[{'index':1,'delta':{'content':'One\\n\\ntwo'}}]}",
        "{'choices':[{'index':0,'delta':{'content':' One\\n\\ntwo'}}]}",
        "{'choices':[],'usage':{}}",
        NULL};
    assert_json(amend_all(amendment, events),
                "[{'choices':[{'index':0,'delta':{'role':'assistant','content':null}}]},"
                "{'choices':[{'index':0,'delta':{'reasoning_content':''}}]},"
                "{'choices':[{'index':0,'delta':{'content':' three'}}]},"
                "{'choices':[{'index':1,'delta':{'content':''}}]},"
                "{'choices':[{'index':0,'delta':{'content':' One\\n\\ntwo'}}]},"
                "{'choices':[],'usage':{}}]");
    amend_close(amendment);
}

#define TOKEN(text, p)                                                                              \
    "{'id':5,'token':'" text "','logprob':" p ",'top_logprobs':[{'token':'" text "','logprob':" p "}," \
    "{'token':'o','logprob':-9}]}"

static void probabilities_of_completions_have_their_form(void **state)
{
    (void)state;
    server_amendment *amendment = open_for("/v1/completions", "{'prompt':'p','logprobs':2}", &about);
    json_t *answer = quoted_parse("{'choices':[{'index':0,'text':'\xc3\xa9t\xc3\xa9 ok','logprobs':{'content':["
                                  TOKEN("\xc3\xa9t\xc3\xa9", "-1.5") ","
                           TOKEN(" ok", "-2.5") "]}},{'index':1,'logprobs':null}]}");
    amend_whole(amendment, answer);
    assert_json(answer, "{'choices':[{'index':0,'text':'\xc3\xa9t\xc3\xa9 ok','logprobs':{'tokens':['\xc3\xa9t\xc3\xa9',' ok'],"
                        "'token_logprobs':[-1.5,-2.5],'text_offset':[0,3],"
                        "'top_logprobs':[{'\xc3\xa9t\xc3\xa9':-1.5,'o':-9},{' ok':-2.5,'o':-9}]}},{'index':1,'logprobs':null}]}");
    static const char *const events[] = {"{'choices':[{'index':0,'logprobs':{'content':[" TOKEN("ab", "-1") "]}}]}",
                                         "{'choices':[{'index':1,'logprobs':{'content':[" TOKEN("x", "-1") "]}}]}",
                                         "{'choices':[{'index':0,'logprobs':{'content':[" TOKEN("c", "-2") "]}}]}",
                                         "{'choices':[{'index':0,'logprobs':null,'finish_reason':'stop'}]}", NULL};
    json_t *all = amend_all(amendment, events);
    static const int offsets[] = {0, 0, 2};
    for (size_t i = 0; i < 3; i++) {
        const json_t *choice = json_array_get(json_object_get(json_array_get(all, i), "choices"), 0);
        const json_t *told = json_object_get(json_object_get(choice, "logprobs"), "text_offset");
        assert_int_equal(json_integer_value(json_array_get(told, 0)), offsets[i]);
    }
    json_decref(all);
    amend_close(amendment);
    assert_null(open_for("/v1/completions", "{'prompt':'p','logprobs':null}", &about));
}

/* A stream whose request says that the last message is gone on with: its pieces are without that, its end is not. */
static void pieces_may_be_bare(void **state)
{
    (void)state;
    server_amendment *amendment = open_for(
        "/v1/chat/completions",
        "{'messages':[{'role':'assistant','content':'ha'}],'stream':true,'continue_final_message':true}", &about);
    static const char *const chat[] = {"{'choices':[{'index':0,'delta':{'content':'ha ha'}}]}", NULL};
    assert_json(amend_all(amendment, chat), "[{'choices':[{'index':0,'delta':{'content':'ha ha'}}]}]");
    amend_close(amendment);
    amendment = open_for("/v1/responses",
                         "{'input':[{'type':'message','role':'assistant','content':'ha'}],'stream':true,"
                         "'continue_final_message':true}",
                         &about);
    static const char *const response[] = {
        "{'type':'response.created','response':{'id':'x'}}",
        "{'type':'response.output_item.added','item':{'id':'a','type':'message','content':[]}}",
        "{'type':'response.output_text.delta','item_id':'a','delta':' ha'}",
        "{'type':'response.output_text.done','item_id':'a','text':'ha ha'}",
        "{'type':'response.completed','response':{'output':[],'usage':{'input_tokens':1,'output_tokens':1}}}", NULL};
    json_t *all = amend_all(amendment, response);
    assert_int_equal(json_array_size(all), 5);
    assert_string_equal(json_string_value(json_object_get(json_array_get(all, 2), "delta")), " ha");
    assert_string_equal(json_string_value(json_object_get(json_array_get(all, 3), "text")), " ha");
    json_decref(all);
    amend_close(amendment);
}

/* ---- Anthropic's ------------------------------------------------------------------------ */

static void a_message_is_gone_on_with(void **state)
{
    (void)state;
    server_amendment *amendment = open_for("/v1/messages", GIVEN, &about);
    json_t *answer = quoted_parse("{'content':[{'type':'text','text':'One, two, three'}],'stop_reason':'end_turn','stop_sequence':null}");
    amend_whole(amendment, answer);
    assert_json(answer, "{'content':[{'type':'text','text':', three'}],'stop_reason':'end_turn','stop_sequence':null}");
    answer = quoted_parse("{'content':[{'type':'text','text':'One, two'}],'stop_reason':'end_turn','stop_sequence':null}");
    amend_whole(amendment, answer);
    assert_json(answer, "{'content':[],'stop_reason':'end_turn','stop_sequence':null}");
    amend_close(amendment);
}

static void a_message_tells_what_stopped_it(void **state)
{
    (void)state;
    server_amendment *amendment = open_for("/v1/messages", "{'messages':[],'stop_sequences':['END','x']}", &about);
    static const struct {
        const char *answer;
        const char *wanted;
    } cases[] = {{"{'content':[],'stop_reason':'end_turn','stop_sequence':'END'}",
                  "{'content':[],'stop_reason':'stop_sequence','stop_sequence':'END'}"},
                 {"{'content':[],'stop_reason':'end_turn','stop_sequence':'<|end|>'}", /* the template's */
                  "{'content':[],'stop_reason':'end_turn','stop_sequence':null}"},
                 {"{'content':[],'stop_reason':'tool_use','stop_sequence':null}",
                  "{'content':[],'stop_reason':'tool_use','stop_sequence':null}"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *answer = quoted_parse(cases[i].answer);
        amend_whole(amendment, answer);
        assert_json(answer, cases[i].wanted);
    }
    amend_close(amendment);
}

static void a_prompt_alone_has_no_answer(void **state)
{
    (void)state;
    server_amendment *amendment = open_for("/v1/messages", "{'messages':[],'max_tokens':0,'stop_sequences':['a']}", &about);
    json_t *answer = quoted_parse("{'content':[{'type':'text','text':'a'}],'stop_reason':'end_turn','stop_sequence':'a',"
                                  "'usage':{'input_tokens':5,'output_tokens':1}}");
    amend_whole(amendment, answer);
    assert_json(answer, "{'content':[],'stop_reason':'max_tokens','stop_sequence':null,"
                        "'usage':{'input_tokens':5,'output_tokens':0}}");
    amend_close(amendment);
}

static void blocks_come_one_after_the_other(void **state)
{
    (void)state;
    server_amendment *amendment = open_for("/v1/messages", "{'messages':[],'stop_sequences':['.']}", &about);
    static const char *const events[] = {
        "{'type':'message_start','message':{}}",
        "{'type':'content_block_start','index':0,'content_block':{'type':'thinking','thinking':''}}",
        "{'type':'content_block_delta','index':0,'delta':{'type':'thinking_delta','thinking':'hm'}}",
        "{'type':'content_block_start','index':1,'content_block':{'type':'text','text':''}}",
        "{'type':'content_block_delta','index':1,'delta':{'type':'text_delta','text':'a'}}",
        "{'type':'content_block_start','index':1,'content_block':{'type':'text','text':''}}",
        "{'type':'content_block_delta','index':1,'delta':{'type':'text_delta','text':'b'}}",
        "{'type':'content_block_start','index':2,'content_block':{'type':'tool_use','id':'i','name':'n'}}",
        "{'type':'content_block_delta','index':0,'delta':{'type':'signature_delta','signature':''}}",
        "{'type':'content_block_stop','index':0}",
        "{'type':'content_block_stop','index':1}",
        "{'type':'content_block_stop','index':2}",
        "{'type':'message_delta','delta':{'stop_reason':'end_turn','stop_sequence':'.'}}",
        "{'type':'message_stop'}",
        NULL};
    assert_json(amend_all(amendment, events),
                "[{'type':'message_start','message':{}},"
                "{'type':'content_block_start','index':0,'content_block':{'type':'thinking','thinking':'','signature':''}},"
                "{'type':'content_block_delta','index':0,'delta':{'type':'thinking_delta','thinking':'hm'}},"
                "{'type':'content_block_delta','index':0,'delta':{'type':'signature_delta','signature':''}},"
                "{'type':'content_block_stop','index':0},"
                "{'type':'content_block_start','index':1,'content_block':{'type':'text','text':''}},"
                "{'type':'content_block_delta','index':1,'delta':{'type':'text_delta','text':'a'}},"
                "{'type':'content_block_delta','index':1,'delta':{'type':'text_delta','text':'b'}},"
                "{'type':'content_block_stop','index':1},"
                "{'type':'content_block_start','index':2,'content_block':{'type':'tool_use','id':'i','name':'n','input':{}}},"
                "{'type':'content_block_stop','index':2},"
                "{'type':'message_delta','delta':{'stop_reason':'stop_sequence','stop_sequence':'.'}},"
                "{'type':'message_stop'}]");
    amend_close(amendment);
}

static void a_message_has_a_beginning(void **state)
{
    (void)state;
    server_amendment *amendment = open_for("/v1/messages", "{'messages':[]}", &about);
    static const char *const events[] = {
        "{'type':'content_block_start','index':0,'content_block':{'type':'text','text':''}}", NULL};
    json_t *all = amend_all(amendment, events);
    assert_int_equal(json_array_size(all), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(all, 0), "type")), "message_start");
    const json_t *message = json_object_get(json_array_get(all, 0), "message");
    assert_string_equal(json_string_value(json_object_get(message, "model")), "m:latest");
    json_decref(all);
    amend_close(amendment);
    /* An error is all there is. */
    amendment = open_for("/v1/messages", "{'messages':[]}", &about);
    static const char *const failed[] = {"{'type':'error','error':{'message':'x'}}", NULL};
    assert_json(amend_all(amendment, failed), "[{'type':'error','error':{'message':'x'}}]");
    amend_close(amendment);
}

/* ---- /v1/responses ------------------------------------------------------------------------ */

static const char *text_at(const json_t *value, const char *key)
{
    const char *text = json_string_value(json_object_get(value, key));
    return text ? text : "";
}

#define ANSWER(input, output)                                                                                          \
    "{'status':'completed','output':[{'id':'r','type':'reasoning','content':[{'type':'reasoning_text','text':'abcd'}]},"  \
    "{'id':'a','type':'message','status':'completed','content':[{'type':'output_text','text':'efghijklmnop'}]}],"     \
    "'usage':{'input_tokens':" input ",'output_tokens':" output "}}"

static void what_was_cut_is_incomplete(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        const char *answer;
        amend_about about;
        bool cut;
    } cases[] = {
        {"{'input':'q','max_output_tokens':8}", ANSWER("3", "8"), {.model = "m"}, true},
        {"{'input':'q','max_output_tokens':8.0}", ANSWER("3", "8"), {.model = "m"}, true},
        {"{'input':'q','n_predict':1e300}", ANSWER("3", "8"), {.model = "m"}, false},
        {"{'input':'q','n_predict':-1e300}", ANSWER("3", "8"), {.model = "m"}, false},
        {"{'input':'q','max_output_tokens':9}", ANSWER("3", "8"), {.model = "m", .n_predict = 4}, false},
        {"{'input':'q','max_output_tokens':null}", ANSWER("3", "8"), {.model = "m"}, false},
        {"{'input':'q'}", ANSWER("3", "8"), {.model = "m", .n_predict = 8}, true},
        {"{'input':'q'}", ANSWER("3", "8"), {.model = "m", .n_context = 12}, false},
        {"{'input':'q'}", ANSWER("4", "8"), {.model = "m", .n_context = 12}, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        server_amendment *amendment = open_for("/v1/responses", cases[i].request, &cases[i].about);
        json_t *answer = quoted_parse(cases[i].answer);
        amend_whole(amendment, answer);
        const json_t *output = json_object_get(answer, "output");
        const char *wanted = cases[i].cut ? "incomplete" : "completed";
        assert_string_equal(text_at(answer, "status"), wanted);
        assert_string_equal(text_at(json_array_get(output, 0), "status"), "completed");
        assert_string_equal(text_at(json_array_get(output, 1), "status"), wanted);
        assert_string_equal(text_at(json_object_get(answer, "incomplete_details"), "reason"),
                            cases[i].cut ? "max_output_tokens" : "");
        const json_t *details = json_object_get(json_object_get(answer, "usage"), "output_tokens_details");
        assert_int_equal(json_integer_value(json_object_get(details, "reasoning_tokens")), 2); /* a quarter of 8 */
        json_decref(answer);
        amend_close(amendment);
    }
}

/* Types and places of all events, and the numbers that they have to have. */
static void assert_events(const json_t *events, const char *wanted)
{
    char text[2048] = "";
    size_t i;
    const json_t *event;
    json_array_foreach(events, i, event)
    {
        char one[128];
        const json_t *place = json_object_get(event, "output_index");
        assert_int_equal(json_integer_value(json_object_get(event, "sequence_number")), i);
        snprintf(one, sizeof one, place ? "%s:%d " : "%s ", text_at(event, "type") + strlen("response."),
                 (int)json_integer_value(place));
        strncat(text, one, sizeof text - strlen(text) - 1);
    }
    assert_string_equal(text, wanted);
}

static void events_have_numbers_and_places(void **state)
{
    (void)state;
    server_amendment *amendment =
        open_for("/responses",
                 "{'max_output_tokens':8,'temperature':0.5,'input':[{'type':'message','role':'assistant','content':'One'}]}",
                 &about);
    static const char *const events[] = {
        "{'type':'response.created','response':{'id':'x','status':'in_progress'}}",
        "{'type':'response.in_progress','response':{'id':'x','status':'in_progress'}}",
        "{'type':'response.output_item.added','item':{'id':'a','type':'message','content':[]}}",
        "{'type':'response.content_part.added','item_id':'a','part':{'type':'output_text','text':''}}",
        "{'type':'response.created','response':{'id':'x','status':'in_progress'}}", /* until its second token, perhaps */
        "{'type':'response.in_progress','response':{'id':'x','status':'in_progress'}}",
        "{'type':'response.output_text.delta','item_id':'a','delta':'One two'}",
        "{'type':'response.output_item.added','item':{'id':'c','type':'function_call','name':'f','arguments':''}}",
        "{'type':'response.function_call_arguments.delta','item_id':'c','delta':'{}'}",
        "{'type':'response.output_text.done','item_id':'a','text':'One two three'}",
        "{'type':'response.content_part.done','item_id':'a','part':{'type':'output_text','text':'One two three'}}",
        "{'type':'response.output_item.done','item':{'id':'a','type':'message','status':'completed',"
        "'content':[{'type':'output_text','text':'One two three'}]}}",
        "{'type':'response.output_item.done','item':{'id':'c','type':'function_call','status':'completed','name':'f',"
        "'arguments':'{}'}}",
        "{'type':'response.completed','response':{'id':'x','status':'completed','output':[{'id':'a','type':'message',"
        "'content':[{'type':'output_text','text':'One two three'}]},{'id':'c','type':'function_call','arguments':'{}'}],"
        "'usage':{'input_tokens':1,'output_tokens':8}}}",
        NULL};
    json_t *all = amend_all(amendment, events);
    assert_events(all, "created in_progress output_item.added:0 content_part.added:0 output_text.delta:0 "
                       "output_item.added:1 function_call_arguments.delta:1 output_text.delta:0 output_text.done:0 "
                       "content_part.done:0 output_item.done:0 function_call_arguments.done:1 output_item.done:1 "
                       "incomplete ");
    assert_string_equal(text_at(json_array_get(all, 4), "delta"), " two");
    assert_string_equal(text_at(json_array_get(all, 7), "delta"), " three"); /* its pieces ended before */
    assert_string_equal(text_at(json_array_get(all, 8), "text"), " two three");
    const json_t *created = json_object_get(json_array_get(all, 0), "response");
    assert_true(json_real_value(json_object_get(created, "temperature")) == 0.5);
    assert_string_equal(text_at(created, "model"), "m:latest");
    const json_t *message = json_object_get(json_array_get(all, 10), "item");
    assert_string_equal(text_at(message, "status"), "completed");
    assert_string_equal(text_at(json_array_get(json_object_get(message, "content"), 0), "text"), " two three");
    assert_string_equal(text_at(json_object_get(json_array_get(all, 12), "item"), "status"), "incomplete");
    assert_string_equal(text_at(json_object_get(json_array_get(all, 13), "response"), "status"), "incomplete");
    json_decref(all);
    amend_close(amendment);
}

static void what_comes_at_the_end_alone_has_a_beginning(void **state)
{
    (void)state;
    server_amendment *amendment = open_for("/v1/responses", "{'input':'q'}", &about);
    static const char *const events[] = {
        "{'type':'response.created','response':{'id':'x'}}",
        "{'type':'response.in_progress','response':{'id':'x'}}",
        "{'type':'response.output_text.done','item_id':'a','text':'hi'}",
        "{'type':'response.content_part.done','item_id':'a','part':{'type':'output_text','text':'hi'}}",
        "{'type':'response.output_item.done','item':{'id':'a','type':'message','content':[{'type':'output_text','text':'hi'}]}}",
        "{'type':'response.completed','response':{'output':[],'usage':{'input_tokens':1,'output_tokens':1}}}",
        NULL};
    json_t *all = amend_all(amendment, events);
    assert_events(all, "created in_progress output_item.added:0 content_part.added:0 output_text.delta:0 "
                       "output_text.done:0 content_part.done:0 output_item.done:0 completed ");
    json_decref(all);
    amend_close(amendment);
    /* One that breaks off. */
    amendment = open_for("/v1/responses", "{'input':'q'}", &about);
    static const char *const broken[] = {"{'type':'response.created','response':{'id':'x'}}", "{'error':{'message':'x'}}",
                                         NULL};
    all = amend_all(amendment, broken);
    assert_int_equal(json_array_size(all), 2);
    json_decref(all);
    amend_close(amendment);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_answers_go_as_they_come),
        cmocka_unit_test(a_chat_is_gone_on_with),
        cmocka_unit_test(probabilities_of_completions_have_their_form),
        cmocka_unit_test(pieces_may_be_bare),
        cmocka_unit_test(a_message_is_gone_on_with),
        cmocka_unit_test(a_message_tells_what_stopped_it),
        cmocka_unit_test(a_prompt_alone_has_no_answer),
        cmocka_unit_test(blocks_come_one_after_the_other),
        cmocka_unit_test(a_message_has_a_beginning),
        cmocka_unit_test(what_was_cut_is_incomplete),
        cmocka_unit_test(events_have_numbers_and_places),
        cmocka_unit_test(what_comes_at_the_end_alone_has_a_beginning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
