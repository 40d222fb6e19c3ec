/*
 * amend_several.c - see amend.h: several answers to one request (n, or several prompts of /v1/completions).
 *
 * llama.cpp's server tells how many tokens each of them took in a stream alone; of a whole answer it tells those of the
 * first. So it is asked for a stream, and the answer is put together here. OpenAI's usage counts a prompt once, and the
 * tokens of all its answers.
 */
#include "server/dialect/amend_internal.h"

#include <stdint.h>
#include <string.h>

json_int_t amend_count_prompts(const json_t *sent)
{
    const json_t *prompt = json_object_get(sent, "prompt");
    size_t i;
    const json_t *one;
    json_array_foreach(prompt, i, one)
    {
        if (json_is_integer(one)) { /* tokens of one, with text between them perhaps */
            return 1;
        }
    }
    return json_array_size(prompt) > 1 ? (json_int_t)json_array_size(prompt) : 1;
}

/* The model's server refuses far fewer than the most that is told here, of which no product overflows. */
json_int_t amend_count_each(const json_t *sent)
{
    const json_int_t n = json_integer_value(json_object_get(sent, "n"));
    return n > INT32_MAX ? INT32_MAX : n > 1 ? n : 1;
}

static json_int_t integer(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

/* ---- usage --------------------------------------------------------------------------- */

/* The least that was found cached is what the first answer to a prompt found: the others begin with its prompt. */
static void add_usage(server_amendment *amendment, const json_t *usage)
{
    const json_int_t cached = integer(json_object_get(usage, "prompt_tokens_details"), "cached_tokens");
    amendment->completion_tokens += integer(usage, "completion_tokens");
    amendment->prompt_tokens += integer(usage, "prompt_tokens");
    if (amendment->n_each == 1) {
        amendment->cached_tokens += cached;
    } else if (amendment->n_usages == 0 || cached < amendment->cached_tokens) {
        amendment->cached_tokens = cached;
    }
    amendment->n_usages++;
}

static json_t *usage_of(const server_amendment *amendment)
{
    const json_int_t prompt = amendment->prompt_tokens / amendment->n_each;
    json_t *usage = json_pack("{s:I, s:I, s:I}", "completion_tokens", amendment->completion_tokens, "prompt_tokens", prompt,
                              "total_tokens", amendment->completion_tokens + prompt);
    if (amendment->n_each == 1 || amendment->n_results == amendment->n_each) {
        json_object_set_new(usage, "prompt_tokens_details", json_pack("{s:I}", "cached_tokens", amendment->cached_tokens));
    }
    return usage;
}

bool amend_several_event(server_amendment *amendment, json_t *event)
{
    const json_t *usage = json_object_get(event, "usage");
    if (!json_is_object(usage)) {
        return true;
    }
    add_usage(amendment, usage);
    if (amendment->n_usages >= amendment->n_results) {
        json_object_set_new(event, "usage", usage_of(amendment));
        return true;
    }
    json_object_del(event, "usage");
    return json_array_size(json_object_get(event, "choices")) > 0;
}

/* ---- a whole answer --------------------------------------------------------------------- */

static void append_text(json_t *object, const char *key, const json_t *piece)
{
    json_t *before = json_object_get(object, key);
    if (!json_is_string(piece)) {
        return;
    }
    if (!json_is_string(before)) {
        json_object_set(object, key, (json_t *)(uintptr_t)piece);
        return;
    }
    json_object_set_new(object, key, json_pack("s%+%", json_string_value(before), json_string_length(before),
                                               json_string_value(piece), json_string_length(piece)));
}

/* Their lists of the same names, one after the other. */
static void append_logprobs(json_t *object, const json_t *lists)
{
    const char *name;
    const json_t *list;
    json_t *all = json_object_get(object, "logprobs");
    if (!json_is_object(lists)) {
        return;
    }
    if (!json_is_object(all)) {
        json_object_set_new(object, "logprobs", json_deep_copy(lists));
        return;
    }
    json_object_foreach((json_t *)(uintptr_t)lists, name, list)
    {
        json_array_extend(json_object_get(all, name), (json_t *)(uintptr_t)list);
    }
}

static void append_calls(json_t *message, const json_t *calls)
{
    size_t i;
    const json_t *piece;
    if (json_array_size(calls) > 0 && !json_object_get(message, "tool_calls")) {
        json_object_set_new(message, "tool_calls", json_array());
    }
    json_t *all = json_object_get(message, "tool_calls");
    json_array_foreach(calls, i, piece)
    {
        const size_t index = (size_t)integer(piece, "index");
        while (index < 1024 && json_array_size(all) <= index) {
            json_array_append_new(all, json_pack("{s:s, s:{s:s}}", "type", "function", "function", "arguments", ""));
        }
        json_t *call = json_array_get(all, index);
        json_t *function = json_object_get(call, "function");
        const json_t *told = json_object_get(piece, "function");
        if (json_object_get(piece, "id")) {
            json_object_set(call, "id", json_object_get(piece, "id"));
        }
        append_text(function, "name", json_object_get(told, "name"));
        append_text(function, "arguments", json_object_get(told, "arguments"));
    }
}

static json_t *choice_of(json_t *choices, json_int_t index, bool is_chat)
{
    size_t i;
    json_t *choice;
    json_array_foreach(choices, i, choice)
    {
        if (integer(choice, "index") == index) {
            return choice;
        }
    }
    for (i = 0; i < json_array_size(choices) && integer(json_array_get(choices, i), "index") < index; i++) {
    }
    choice = is_chat ? json_pack("{s:I, s:{s:s, s:n}, s:n}", "index", index, "message", "role", "assistant", "content", "finish_reason")
                     : json_pack("{s:I, s:s, s:n, s:n}", "index", index, "text", "", "logprobs", "finish_reason");
    json_array_insert_new(choices, i, choice);
    return choice;
}

static void gather_choice(const server_amendment *amendment, const json_t *piece)
{
    const bool is_chat = amendment->form->messages != NULL;
    json_t *choice = choice_of(json_object_get(amendment->whole, "choices"), integer(piece, "index"), is_chat);
    const json_t *delta = json_object_get(piece, "delta");
    json_t *message = json_object_get(choice, "message");
    if (is_chat) {
        append_text(message, "content", json_object_get(delta, "content"));
        append_text(message, "reasoning_content", json_object_get(delta, "reasoning_content"));
        append_calls(message, json_object_get(delta, "tool_calls"));
    } else {
        append_text(choice, "text", json_object_get(piece, "text"));
    }
    append_logprobs(choice, json_object_get(piece, "logprobs"));
    if (json_is_string(json_object_get(piece, "finish_reason"))) {
        json_object_set(choice, "finish_reason", json_object_get(piece, "finish_reason"));
    }
}

void amend_gather(server_amendment *amendment, json_t *event)
{
    static const char *const kept[] = {"id", "created", "model", "system_fingerprint", "usage", "timings", "error"};
    json_t *events = amend_event(amendment, event);
    size_t i;
    const json_t *piece;
    if (!amendment->whole) {
        amendment->whole = json_pack("{s:[], s:s}", "choices", "object", amendment->form->messages ? "chat.completion" : "text_completion");
    }
    json_array_foreach(events, i, event)
    {
        size_t k;
        json_array_foreach(json_object_get(event, "choices"), k, piece)
        {
            gather_choice(amendment, piece);
        }
        for (k = 0; k < sizeof kept / sizeof *kept; k++) {
            if (json_object_get(event, kept[k])) {
                json_object_set(amendment->whole, kept[k], json_object_get(event, kept[k]));
            }
        }
    }
    json_decref(events);
}

json_t *amend_gathered(server_amendment *amendment)
{
    size_t i;
    const json_t *choice;
    json_array_foreach(json_object_get(amendment->whole, "choices"), i, choice)
    {
        json_t *message = json_object_get(choice, "message");
        if (message && json_is_null(json_object_get(message, "content")) && !json_object_get(message, "tool_calls")) {
            json_object_set_new(message, "content", json_string(""));
        }
    }
    return json_incref(amendment->whole);
}

/* ---- which requests --------------------------------------------------------------------- */

json_t *amend_asks_for_stream(const char *path, const json_t *sent)
{
    const amend_form *form = amend_form_of(path);
    if (!form || !form->counts || json_is_true(json_object_get(sent, "stream")) ||
        amend_count_each(sent) * amend_count_prompts(sent) == 1) {
        return NULL;
    }
    json_t *made = json_copy((json_t *)(uintptr_t)sent);
    json_object_set_new(made, "stream", json_true());
    json_object_set_new(made, "stream_options", json_pack("{s:b}", "include_usage", 1));
    return made;
}
