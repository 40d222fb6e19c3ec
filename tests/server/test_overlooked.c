/*
 * test_overlooked.c - what llama.cpp's server passes over without a word is told it in other words, or refused.
 */
#include "server/dialect/overlooked.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "quoted.h"

#define CHAT_TOOLS                                                                                                     \
    "'tools':[{'type':'function','function':{'name':'a'}},{'type':'function','function':{'name':'b'}},"              \
    "{'type':'function','function':{'name':'c'}}]"
#define FLAT_TOOLS "'tools':[{'type':'function','name':'a'},{'type':'web_search'},{'type':'function','name':'b'}]"
#define OWN_TOOLS  "'tools':[{'name':'a','input_schema':{}},{'name':'b','input_schema':{}}]"

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
        {"/v1/messages", "{'max_tokens':9," OWN_TOOLS ",'tool_choice':{'type':'tool','name':'b'}}",
         "{'max_tokens':9,'tools':[{'name':'b','input_schema':{}}],'tool_choice':{'type':'any'}}"},
        {"/v1/messages", "{'max_tokens':9,'y':2," OWN_TOOLS ",'tool_choice':{'type':'none'}}", "{'max_tokens':9,'y':2}"},
        {"/v1/messages", "{'max_tokens':9," OWN_TOOLS ",'tool_choice':{'type':'any'}}", NULL},
        {"/v1/messages", "{'max_tokens':9," OWN_TOOLS ",'tool_choice':{'type':'auto'}}", NULL},
        {"/v1/chat/completions", "{'stop':['','a','']}", "{'stop':['a']}"},
        {"/v1/completions", "{'stop':''}", "{'stop':[]}"},
        {"/v1/completions", "{'stop':'a','prompt':'','n':1}", NULL},
        {"/v1/completions", "{'prompt':'p','n':2}", NULL},
        {"/v1/messages", "{'max_tokens':9,'stop_sequences':['']}", "{'max_tokens':9,'stop_sequences':[]}"},
        {"/v1/chat/completions", "{'logprobs':true,'top_logprobs':0}", "{'logprobs':true,'top_logprobs':1}"},
        {"/v1/chat/completions", "{'logprobs':true}", NULL},
        {"/v1/completions", "{'logprobs':0}", "{'logprobs':1}"},
        {"/v1/completions", "{'logprobs':null,'top_logprobs':0}", NULL},
        {"/v1/chat/completions", "{'logprobs':false,'top_logprobs':0,'modalities':['text'],'web_search_options':null}", NULL},
        {"/v1/chat/completions",
         "{'messages':[{'role':'user','content':'q'},{'role':'assistant','tool_calls':["
         "{'id':'1','function':{'name':'a','arguments':'{}'}},{'id':'2','function':{'name':'b','arguments':''}}]}]}",
         "{'messages':[{'role':'user','content':'q'},{'role':'assistant','tool_calls':["
         "{'id':'1','function':{'name':'a','arguments':'{}'}},{'id':'2','function':{'name':'b','arguments':'{}'}}]}]}"},
        {"/v1/responses", "{'input':[{'type':'function_call','call_id':'1','name':'a','arguments':''}]}",
         "{'input':[{'type':'function_call','call_id':'1','name':'a','arguments':'{}'}]}"},
        {"/v1/responses", "{'input':'text'}", NULL},
        {"/v1/responses", "{'include':['reasoning.encrypted_content'],'top_logprobs':0,'n':1}", NULL},
        {"/v1/chat/completions", "{'function_call':'none','logit_bias':{'5':-1},'response_format':{'type':'json_object'}}", NULL},
        {"/v1/chat/completions", "{'logit_bias':[[5,-1]],'response_format':{'type':'json_schema','json_schema':{}}}", NULL},
        {"/v1/messages", "{'max_tokens':9,'messages':[],'system':[{'type':'text','text':'a'}],'thinking':{'type':'adaptive'}}", NULL},
        {"/v1/responses", "{'input':'text','instructions':null,'tools':null}", "{'input':'text'}"},
        {"/v1/responses", "{'input':[{'role':'assistant','content':'b','type':null,'name':null}]}",
         "{'input':[{'role':'assistant','content':'b','type':'message'}]}"},
        {"/v1/chat/completions",
         "{'messages':[{'role':'user','content':'q','name':null},{'role':'assistant','content':null,'tool_call_id':null,"
         "'tool_calls':[{'function':{'name':'a','arguments':''}}]}]}",
         "{'messages':[{'role':'user','content':'q'},{'role':'assistant','content':null,"
         "'tool_calls':[{'function':{'name':'a','arguments':'{}'}}]}]}"},
        {"/v1/messages", "{'max_tokens':9,'system':null,'instructions':null}", "{'max_tokens':9,'instructions':null}"},
        {"/v1/responses",
         "{'input':[{'role':'user','content':'a'},{'role':'assistant','content':'b'},{'type':'reasoning','summary':[]},"
         "{'type':'reasoning','content':[{'text':'t'}]}]}",
         "{'input':[{'role':'user','content':'a'},{'role':'assistant','content':'b','type':'message'},"
         "{'type':'reasoning','content':[{'text':'t'}]}]}"},
        {"/v1/messages", "{'max_tokens':9,'thinking':{'type':'disabled'}}",
         "{'max_tokens':9,'thinking':{'type':'disabled'},'chat_template_kwargs':{'enable_thinking':false}}"},
        {"/v1/messages", "{'max_tokens':9,'thinking':{'type':'disabled'},'chat_template_kwargs':{'enable_thinking':true}}", NULL},
        {"/v1/messages", "{'max_tokens':9,'thinking':{'type':'enabled','budget_tokens':9},"
         "'output_config':{'effort':'low'},'mcp_servers':[]}",
         NULL},
        {"/v1/messages",
         "{'max_tokens':9,'messages':[{'role':'user','content':[{'type':'text','text':'q'},{'type':'document','title':'T','context':null,"
         "'source':{'type':'text','data':'D'}}]}]}",
         "{'max_tokens':9,'messages':[{'role':'user','content':[{'type':'text','text':'q'},{'type':'text','text':'T\\n\\nD'}]}]}"},
        {"/v1/messages",
         "{'max_tokens':9,'messages':[{'role':'user','content':[{'type':'tool_result','tool_use_id':'1','content':["
         "{'type':'search_result','source':'S','title':'T','content':[{'type':'text','text':'A'},{'type':'text','text':'B'}]},"
         "{'type':'document','source':{'type':'content','content':'C'}},{'type':'image','source':{'type':'base64'}}]}]}]}",
         "{'max_tokens':9,'messages':[{'role':'user','content':[{'type':'tool_result','tool_use_id':'1','content':["
         "{'type':'text','text':'T\\n\\nS\\n\\nA\\n\\nB'},{'type':'text','text':'C'},{'type':'image','source':{'type':'base64'}}]}]}]}"},
        {"/v1/messages", "{'max_tokens':9,'messages':[{'role':'user','content':[{'type':'tool_result','content':'x'}]},5]}", NULL},
        {"/tokenize", "{'content':'x','tool_choice':5}", NULL},
        {"/completion", "{'max_tokens':0,'reasoning_effort':5}", NULL},
        {"/v1/messages/count_tokens", "{'messages':[]}", NULL},
        {"/v1/messages", "{'max_tokens':0,'stream':false}", NULL},
        {"/v1/messages", "{'max_tokens':2.0}", NULL},
        {"/v1/chat/completions", "{'max_tokens':-1,'max_completion_tokens':null,'reasoning_effort':'minimal'}", NULL},
        {"/v1/completions", "{'max_tokens':1}", NULL},
        {"/v1/responses", "{'max_output_tokens':null,'reasoning':{'effort':'xhigh'}}", NULL},
        {"/v1/responses", "{'reasoning':{'effort':null}}", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *body = quoted_parse(cases[i].body);
        json_t *before = json_deep_copy(body);
        json_t *made;
        hypura_error error = {0};
        print_message("%s %s\n", cases[i].path, cases[i].body);
        assert_int_equal(overlooked_translate(cases[i].path, body, &made, &error), HYPURA_OK);
        assert_true(json_equal(body, before));
        if (cases[i].made) {
            json_t *wanted = quoted_parse(cases[i].made);
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
        {"/v1/messages", "{'max_tokens':9," OWN_TOOLS ",'tool_choice':{'type':'tool','name':'c'}}", "'c'"},
        {"/v1/messages", "{'max_tokens':9," OWN_TOOLS ",'tool_choice':'any'}", "not served"},
        {"/v1/messages", "{'max_tokens':9,'tool_choice':{'type':'any'}}", "no tools"},
        {"/v1/chat/completions", "{'modalities':['text','audio']}", "spoken"},
        {"/v1/chat/completions", "{'web_search_options':{}}", "searches"},
        {"/v1/messages", "{'max_tokens':9,'output_format':{'type':'json_schema'}}", "formats"},
        {"/v1/messages", "{'max_tokens':9,'output_config':{'format':{'type':'json_schema'}}}", "formats"},
        {"/v1/messages", "{'max_tokens':9,'mcp_servers':[{'url':'u'}]}", "servers of tools"},
        {"/v1/messages", "{'max_tokens':9,'container':'c'}", "containers"},
        {"/v1/messages", "{'max_tokens':9,'tools':[{'type':'web_search_20250305','name':'web_search'}]}", "Anthropic's service"},
        {"/v1/messages",
         "{'max_tokens':9,'messages':[{'role':'user','content':[{'type':'document','source':{'type':'base64','data':'D'}}]}]}",
         "documents other than text"},
        {"/v1/messages",
         "{'max_tokens':9,'messages':[{'role':'user','content':["
         "{'type':'document','source':{'type':'content','content':[{'type':'image'}]}}]}]}",
         "anything but text"},
        {"/v1/messages", "{'max_tokens':9,'messages':[{'role':'user','content':["
         "{'type':'image','source':{'type':'file','file_id':'f'}}]}]}",
         "no files are kept"},
        {"/v1/messages", "{'max_tokens':9,'messages':[{'role':'user','content':[{'type':'tool_result','content':[{'type':'image'}]}]}]}",
         "no files are kept"},
        {"/v1/messages", "{'max_tokens':9,'messages':[{'role':'assistant','content':["
         "{'type':'server_tool_use','id':'1','name':'web_search'}]}]}",
         "'server_tool_use' are not served"},
        {"/v1/chat/completions", "{'function_call':'auto'}", "tool_choice is"},
        {"/v1/chat/completions", "{'messages':[]}", "messages is empty"},
        {"/v1/chat/completions", "{'logit_bias':5}", "logit_bias"},
        {"/v1/completions", "{'logit_bias':'a'}", "logit_bias"},
        {"/v1/chat/completions", "{'response_format':{'type':'json_schema'}}", "no json_schema"},
        {"/v1/responses", "{'input':[]}", "input is empty"},
        {"/v1/responses", "{'instructions':['a']}", "instructions is no text"},
        {"/v1/responses", "{'top_logprobs':2}", "probabilities"},
        {"/v1/responses", "{'include':['reasoning.encrypted_content','message.output_text.logprobs']}", "probabilities"},
        {"/v1/responses", "{'n':2}", "n is 1"},
        {"/v1/messages", "{'max_tokens':9,'system':5}", "system is neither"},
        {"/v1/messages", "{'max_tokens':9,'system':[{'type':'text','text':'a'},{'type':'image'}]}", "system is neither"},
        {"/v1/messages", "{'max_tokens':9,'stop_sequences':'a'}", "stop_sequences"},
        {"/v1/messages/count_tokens", "{'thinking':{'type':'some'}}", "thinking is of the type"},
        {"/v1/completions", "{'prompt':'','n':2}", "n is 1"},
        {"/v1/messages", "{'max_tokens':9,'stop_sequences':[5]}", "stop_sequences"},
        {"/v1/messages", "{'max_tokens':9,'messages':'hi'}", "messages is no array"},
        {"/v1/messages", "{'max_tokens':9,'tools':[{'input_schema':{}}]}", "a tool has no name"},
        {"/v1/chat/completions", "{'stop':5}", "stop is neither"},
        {"/v1/completions", "{'stop':['a',5]}", "stop is neither"},
        {"/v1/responses", "{'previous_response_id':'resp_1'}", "conversations are not kept"},
        {"/v1/messages", "{'messages':[]}", "max_tokens is missing"},
        {"/v1/messages", "{'max_tokens':null}", "max_tokens is missing"},
        {"/v1/messages", "{'max_tokens':-1}", "from 0 to 2147483647"},
        {"/v1/messages", "{'max_tokens':1.5}", "from 0 to 2147483647"},
        {"/v1/messages", "{'max_tokens':'5'}", "from 0 to 2147483647"},
        {"/v1/messages", "{'max_tokens':0,'stream':true}", "to stream"},
        {"/v1/messages", "{'max_tokens':0," OWN_TOOLS ",'tool_choice':{'type':'any'}}", "no tool"},
        {"/v1/chat/completions", "{'max_tokens':0}", "max_tokens is a whole number from 1 to 2147483647"},
        {"/v1/chat/completions", "{'max_tokens':5,'max_completion_tokens':0}", "max_completion_tokens is a whole"},
        {"/v1/chat/completions", "{'max_tokens':-2}", "from 1 to"},
        {"/v1/completions", "{'max_tokens':0}", "from 1 to"},
        {"/v1/responses", "{'max_output_tokens':0.5}", "max_output_tokens is a whole"},
        {"/v1/responses", "{'max_output_tokens':1e300}", "max_output_tokens is a whole number from 1 to 2147483647"},
        {"/v1/chat/completions", "{'max_completion_tokens':2147483648}", "from 1 to 2147483647"},
        {"/v1/messages", "{'max_tokens':1e300}", "from 0 to 2147483647"},
        {"/v1/chat/completions", "{'reasoning_effort':'much'}", "none, minimal, low, medium, high, xhigh or max"},
        {"/v1/chat/completions", "{'reasoning_effort':5}", "none, minimal"},
        {"/v1/responses", "{'reasoning':{'effort':''}}", "effort of reasoning is none, minimal"},
        {"/v1/completions", "{'echo':true}", "echo"},
        {"/v1/embeddings", "{'dimensions':8}", "dimensions"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *body = quoted_parse(cases[i].body);
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
        json_t *body = quoted_parse(cases[i].body);
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
