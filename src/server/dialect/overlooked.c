/*
 * overlooked.c - see overlooked.h.
 */
#include "server/dialect/overlooked_internal.h"

#include "base/status.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

json_t *overlooked_own(const json_t *body, json_t **made)
{
    *made = *made ? *made : json_copy((json_t *)(uintptr_t)body);
    return *made;
}

static bool says(const json_t *body, const char *key)
{
    const json_t *value = json_object_get(body, key);
    return value && !json_is_null(value) && !json_is_false(value);
}

/* ---- what is refused ----------------------------------------------------------- */

static bool is_empty_text(const json_t *value)
{
    return json_is_string(value) && json_string_length(value) == 0;
}

static bool wants_audio(const json_t *body)
{
    size_t i;
    const json_t *kind;
    json_array_foreach(json_object_get(body, "modalities"), i, kind)
    {
        if (json_is_string(kind) && strcmp(json_string_value(kind), "audio") == 0) {
            return true;
        }
    }
    return false;
}

/* Tools that Anthropic's own service runs, whatever their version: nobody here does. */
static bool has_hosted_tools(const json_t *body)
{
    static const char *const hosted[] = {"web_search", "web_fetch", "code_execution", "tool_search", "mcp_toolset"};
    size_t i;
    const json_t *tool;
    json_array_foreach(json_object_get(body, "tools"), i, tool)
    {
        const char *type = json_string_value(json_object_get(tool, "type"));
        for (size_t k = 0; type && k < sizeof hosted / sizeof *hosted; k++) {
            if (strncmp(type, hosted[k], strlen(hosted[k])) == 0) {
                return true;
            }
        }
    }
    return false;
}

/* ---- of a type that would be passed over ---------------------------------------- */

static bool is_given(const json_t *body, const char *key)
{
    const json_t *value = json_object_get(body, key);
    return value && !json_is_null(value);
}

static bool is_empty_array(const json_t *body, const char *key)
{
    const json_t *value = json_object_get(body, key);
    return json_is_array(value) && json_array_size(value) == 0;
}

static bool is_stop(const json_t *stop)
{
    bool is_text = json_is_string(stop) || json_is_array(stop);
    size_t i;
    const json_t *one;
    json_array_foreach(stop, i, one)
    {
        is_text = is_text && json_is_string(one);
    }
    return is_text;
}

/* Of Anthropic's, which no other field names. */
static bool has_unnamed_tools(const json_t *body)
{
    size_t i;
    const json_t *tool;
    bool found = false;
    json_array_foreach(json_object_get(body, "tools"), i, tool)
    {
        found = found || json_string_length(json_object_get(tool, "name")) == 0;
    }
    return found;
}

/* One text, or blocks of text. */
static bool is_system_text(const json_t *system)
{
    bool is_text = json_is_string(system) || json_is_array(system);
    size_t i;
    const json_t *block;
    json_array_foreach(system, i, block)
    {
        is_text = is_text && text_is(block, "type", "text") && json_is_string(json_object_get(block, "text"));
    }
    return is_text;
}

static bool is_known_thinking(const json_t *thinking)
{
    return text_is(thinking, "type", "enabled") || text_is(thinking, "type", "adaptive") ||
           text_is(thinking, "type", "disabled");
}

static bool lacks_schema(const json_t *body)
{
    const json_t *format = json_object_get(body, "response_format");
    return text_is(format, "type", "json_schema") && !json_is_object(json_object_get(format, "json_schema")) &&
           !json_is_object(json_object_get(format, "schema"));
}

static bool includes_probabilities(const json_t *body)
{
    size_t i;
    const json_t *what;
    bool found = json_integer_value(json_object_get(body, "top_logprobs")) > 0;
    json_array_foreach(json_object_get(body, "include"), i, what)
    {
        found = found || (json_is_string(what) && strcmp(json_string_value(what), "message.output_text.logprobs") == 0);
    }
    return found;
}

/* How many tokens an answer may have. 0 is a prompt that is computed and kept for later in Anthropic's API alone; -1 is
 * llama.cpp's word for no limit. */
static bool is_whole_from(const json_t *value, double least)
{
    const double n = json_number_value(value);
    return json_is_number(value) && n >= least && n <= INT32_MAX && floor(n) >= n; /* llama.cpp counts up to there */
}

static bool is_limit(const json_t *body, const char *key)
{
    const json_t *value = json_object_get(body, key);
    return !value || json_is_null(value) || is_whole_from(value, 1.0) || json_number_value(value) == -1.0;
}

static const char *wrong_limit(const server_call *call, const json_t *body)
{
    const json_t *choice = json_object_get(body, "tool_choice");
    if (call->kind == CALL_MESSAGES) {
        const json_t *most = json_object_get(body, "max_tokens");
        return !is_given(body, "max_tokens")  ? "max_tokens is missing, how many tokens the answer may have"
               : !is_whole_from(most, 0.0)    ? "max_tokens is a whole number from 0 to 2147483647"
               : json_number_value(most) > 0  ? NULL
               : says(body, "stream")         ? "max_tokens is 0, for which there is no answer to stream"
               : text_is(choice, "type", "any") || text_is(choice, "type", "tool")
                   ? "max_tokens is 0, so that no tool can be called"
                   : NULL;
    }
    if (call->form == FORM_CHAT && !is_limit(body, "max_completion_tokens")) {
        return "max_completion_tokens is a whole number from 1 to 2147483647 (-1: no limit)";
    }
    if ((call->form == FORM_CHAT || call->kind == CALL_COMPLETIONS) && !is_limit(body, "max_tokens")) {
        return "max_tokens is a whole number from 1 to 2147483647 (-1: no limit)";
    }
    return call->form == FORM_RESPONSES && !is_limit(body, "max_output_tokens")
               ? "max_output_tokens is a whole number from 1 to 2147483647 (-1: no limit)"
               : NULL;
}

/* Of a word that no template knows nobody would hear. */
static bool is_effort(const json_t *effort)
{
    static const char *const known[] = {"none", "minimal", "low", "medium", "high", "xhigh", "max"};
    bool found = !effort || json_is_null(effort);
    for (size_t i = 0; i < sizeof known / sizeof *known && json_is_string(effort); i++) {
        found = found || strcmp(json_string_value(effort), known[i]) == 0;
    }
    return found;
}

static const char *wrong_type(const server_call *call, const json_t *body)
{
    const call_form api = call->form;
    const json_t *biases = json_object_get(body, "logit_bias");
    const char *limit = wrong_limit(call, body);
    if (limit) {
        return limit;
    }
    if (api == FORM_CHAT && !is_effort(json_object_get(body, "reasoning_effort"))) {
        return "reasoning_effort is none, minimal, low, medium, high, xhigh or max";
    }
    if (api == FORM_RESPONSES && !is_effort(json_object_get(json_object_get(body, "reasoning"), "effort"))) {
        return "effort of reasoning is none, minimal, low, medium, high, xhigh or max";
    }
    if ((api == FORM_CHAT || call->kind == CALL_COMPLETIONS) && is_given(body, "logit_bias") &&
        !json_is_object(biases) && !json_is_array(biases)) {
        return "logit_bias is no object of tokens";
    }
    if ((api == FORM_CHAT || call->kind == CALL_COMPLETIONS) && is_given(body, "stop") && !is_stop(json_object_get(body, "stop"))) {
        return "stop is neither a text nor an array of texts";
    }
    if (api == FORM_CHAT && is_empty_array(body, "messages")) { /* of Anthropic's llama.cpp's own tests want an answer */
        return "messages is empty";
    }
    if (api == FORM_CHAT) {
        return lacks_schema(body) ? "response_format is of the type json_schema, and there is no json_schema" : NULL;
    }
    if (api == FORM_RESPONSES) {
        return is_empty_array(body, "input") ? "input is empty"
               : is_given(body, "instructions") && !json_is_string(json_object_get(body, "instructions"))
                   ? "instructions is no text"
                   : NULL;
    }
    if (api == FORM_MESSAGES) {
        return is_given(body, "messages") && !json_is_array(json_object_get(body, "messages"))
                   ? "messages is no array"
               : has_unnamed_tools(body) ? "a tool has no name"
               : is_given(body, "system") && !is_system_text(json_object_get(body, "system"))
                   ? "system is neither a text nor an array of blocks of text"
               : is_given(body, "stop_sequences") &&
                       (json_is_string(json_object_get(body, "stop_sequences")) || !is_stop(json_object_get(body, "stop_sequences")))
                   ? "stop_sequences is no array of texts"
               : is_given(body, "thinking") && !is_known_thinking(json_object_get(body, "thinking"))
                   ? "thinking is of the type enabled, adaptive or disabled"
                   : NULL;
    }
    return NULL;
}

/* ---- all that is refused -------------------------------------------------------- */

static const char *refusal_of_message(const json_t *body)
{
    return says(body, "output_format") || says(json_object_get(body, "output_config"), "format")
               ? "formats are not served here (/v1/chat/completions takes response_format)"
           : json_array_size(json_object_get(body, "mcp_servers")) > 0 ? "servers of tools are not asked from here"
           : says(body, "container")                                   ? "containers are not served here"
           : has_hosted_tools(body) ? "tools that Anthropic's service runs are not served here"
                                    : NULL;
}

static const char *refusal_of(const char *path, const json_t *body)
{
    const server_call *call = call_of(path);
    const call_form api = call->form;
    const char *wrong = wrong_type(call, body);
    if (wrong) {
        return wrong;
    }
    if (call->kind == CALL_EMBEDDINGS) {
        return says(body, "dimensions") ? "dimensions are not served here (/api/embed takes them)" : NULL;
    }
    if (call->kind == CALL_COMPLETIONS) {
        return says(body, "echo") ? "echo is not served here"
               : json_string_length(json_object_get(body, "suffix")) > 0
                   ? "suffix is not served here (/infill puts text in between)"
               : json_integer_value(json_object_get(body, "n")) > 1 && is_empty_text(json_object_get(body, "prompt"))
                   ? "an empty prompt has one answer: n is 1" /* of others the model's server never hears */
               : json_integer_value(json_object_get(body, "best_of")) > 1 ? "more than one best_of is not served here"
                                                                          : NULL;
    }
    if (api == FORM_CHAT) {
        return says(body, "functions") ? "functions are not served here (tools are)"
               : says(body, "function_call") && !text_is(body, "function_call", "none")
                   ? "function_call is not served here (tool_choice is)"
               : says(body, "web_search_options") ? "searches are not served here"
               : wants_audio(body)                ? "spoken answers are not served here"
                                                  : NULL;
    }
    if (api == FORM_MESSAGES) {
        return refusal_of_message(body);
    }
    if (api == FORM_RESPONSES) {
        return says(body, "conversation") || says(body, "previous_response_id")
                   ? "conversations are not kept here: send what was said as input"
               : says(body, "prompt") ? "prompts are not kept here: send input and instructions"
               : says(body, "background") ? "answers in the background are not served here"
               : includes_probabilities(body) ? "probabilities are not told here (/v1/chat/completions tells them)"
               : json_integer_value(json_object_get(body, "n")) > 1 ? "a request has one answer here: n is 1"
                                          : NULL;
    }
    return NULL;
}

/* ---- formats -------------------------------------------------------------------- */

/* The format of an answer of /v1/responses ("text": {"format": ..}) as /v1/chat/completions has it, which llama.cpp's
 * server makes of such a request. NULL: it says none. */
static json_t *chat_format(call_form api, const json_t *body)
{
    const json_t *format = json_object_get(json_object_get(body, "text"), "format");
    const char *type = json_string_value(json_object_get(format, "type"));
    if (api != FORM_RESPONSES || !type || json_object_get(body, "response_format")) {
        return NULL;
    }
    if (strcmp(type, "json_schema") == 0) {
        return json_pack("{s:s, s:O}", "type", type, "json_schema", format);
    }
    return strcmp(type, "json_object") == 0 ? json_pack("{s:s}", "type", type) : NULL;
}

/* ---- small things ----------------------------------------------------------------- */

/* An empty one would stop the answer before it begins. */
static void drop_empty_stops(const json_t *body, const char *key, json_t **made)
{
    const json_t *stops = json_object_get(body, key);
    const json_t *stop;
    size_t i;
    json_t *kept = json_array();
    json_array_foreach(stops, i, stop)
    {
        if (!json_is_string(stop) || json_string_length(stop) > 0) {
            json_array_append(kept, (json_t *)(uintptr_t)stop);
        }
    }
    if ((json_is_array(stops) && json_array_size(kept) < json_array_size(stops)) ||
        (json_is_string(stops) && json_string_length(stops) == 0)) {
        json_object_set(overlooked_own(body, made), key, kept);
    }
    json_decref(kept);
}

/* Probabilities without others than the token's own, of which llama.cpp's server tells none at all. */
static void tell_probabilities(const char *path, const json_t *body, json_t **made)
{
    const server_call *call = call_of(path);
    const bool is_chat = call->form == FORM_CHAT;
    const char *key = is_chat ? "top_logprobs" : "logprobs";
    const json_t *others = json_object_get(body, key);
    const bool asked = is_chat ? json_is_true(json_object_get(body, "logprobs")) : call->kind == CALL_COMPLETIONS;
    if (asked && json_is_integer(others) && json_integer_value(others) == 0) {
        json_object_set_new(overlooked_own(body, made), key, json_integer(1));
    }
}

/* None at all would be an empty system text, in place of the model's own, or no array of tools. */
static void drop_nulls(call_form api, const json_t *body, json_t **made)
{
    static const struct {
        call_form api;
        const char *key;
    } known[] = {{FORM_RESPONSES, "instructions"}, {FORM_RESPONSES, "tools"}, {FORM_MESSAGES, "system"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (api == known[i].api && json_is_null(json_object_get(body, known[i].key))) {
            json_object_del(overlooked_own(body, made), known[i].key);
        }
    }
}

static void forbid_thoughts(call_form api, const json_t *body, json_t **made)
{
    json_t *said = json_object_get(body, "chat_template_kwargs");
    if (api != FORM_MESSAGES || !text_is(json_object_get(body, "thinking"), "type", "disabled") ||
        json_object_get(said, "enable_thinking")) {
        return;
    }
    json_t *words = json_is_object(said) ? json_copy(said) : json_object();
    json_object_set_new(words, "enable_thinking", json_false());
    json_object_set_new(overlooked_own(body, made), "chat_template_kwargs", words);
}

/* ---- all of it ---------------------------------------------------------------------- */

hypura_status overlooked_translate(const char *path, const json_t *body, json_t **made, hypura_error *error)
{
    const call_form api = call_of(path)->form;
    const char *refusal = refusal_of(path, body);
    *made = NULL;
    if (refusal) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s", refusal);
    }
    json_t *format = chat_format(api, body);
    if (format) {
        json_object_set_new(overlooked_own(body, made), "response_format", format);
    }
    drop_empty_stops(body, api == FORM_MESSAGES ? "stop_sequences" : "stop", made);
    tell_probabilities(path, body, made);
    drop_nulls(api, body, made);
    forbid_thoughts(api, body, made);
    hypura_status status = api != FORM_NONE ? overlooked_tools(api, body, made, error) : HYPURA_OK;
    if (status == HYPURA_OK && api != FORM_NONE) {
        status = overlooked_conversation(api, body, made, error);
    }
    if (status != HYPURA_OK) {
        json_decref(*made);
        *made = NULL;
    }
    return status;
}
