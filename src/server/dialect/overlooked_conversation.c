/*
 * overlooked_conversation.c - see overlooked.h: parts of messages that llama.cpp's server leaves out or does not read.
 *
 *     a document that is text, what a search found    text
 *     a call whose arguments are "", as a call without any is written by some    "{}"
 *     a field of a message that is null, but its content                         nothing
 *     a message of the assistant's in /v1/responses that does not say its type   "message"
 *     a thought there that is not told, as OpenAI's own are                      nothing
 */
#include "server/dialect/overlooked_internal.h"

#include "base/status.h"

#include <string.h>

/* ---- texts that have a form of their own --------------------------------------------- */

/* *text: with more after it, as a paragraph of its own. */
static void add_paragraph(json_t **text, const json_t *more)
{
    text_join(text, "\n\n", more);
}

/* Blocks of text, or one string. */
static hypura_status add_blocks(json_t **text, const json_t *content, hypura_error *error)
{
    size_t i;
    const json_t *block;
    add_paragraph(text, content);
    json_array_foreach(content, i, block)
    {
        if (!text_is(block, "type", "text")) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "a document with anything but text in it is not served here");
        }
        add_paragraph(text, json_object_get(block, "text"));
    }
    return HYPURA_OK;
}

static hypura_status add_source(json_t **text, const json_t *source, hypura_error *error)
{
    if (text_is(source, "type", "content")) {
        return add_blocks(text, json_object_get(source, "content"), error);
    }
    if (!text_is(source, "type", "text")) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "documents other than text are not served here");
    }
    add_paragraph(text, json_object_get(source, "data"));
    return HYPURA_OK;
}

/* *made: what a block is in other words, a new reference; NULL: it goes as it is. */
static hypura_status change_block(const json_t *block, json_t **made, hypura_error *error);

/* The same of all in an array. */
static hypura_status change_blocks(const json_t *blocks, json_t **made, hypura_error *error)
{
    hypura_status status = HYPURA_OK;
    json_t *all = json_array();
    bool changed = false;
    size_t i;
    json_t *block;
    json_array_foreach(blocks, i, block)
    {
        json_t *other = NULL;
        status = status == HYPURA_OK ? change_block(block, &other, error) : status;
        changed = changed || other;
        json_array_append_new(all, other ? other : json_incref(block));
    }
    *made = changed && status == HYPURA_OK ? json_incref(all) : NULL;
    json_decref(all);
    return status;
}

/* Those that llama.cpp's server knows, or that say nothing to a model. */
static hypura_status check_block(const json_t *block, hypura_error *error)
{
    static const char *const known[] = {"text",     "image",    "document",          "search_result",
                                        "tool_use", "thinking", "redacted_thinking", "tool_result"};
    const char *type = json_string_value(json_object_get(block, "type"));
    const json_t *source = json_object_get(block, "source");
    bool found = type == NULL; /* it says itself what is wrong */
    for (size_t i = 0; i < sizeof known / sizeof *known && !found; i++) {
        found = strcmp(type, known[i]) == 0;
    }
    if (!found) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "blocks of the type '%.60s' are not served here", type);
    }
    if (text_is(block, "type", "image") && !text_is(source, "type", "base64") && !text_is(source, "type", "url")) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "an image is taken in base64 or by its url: no files are kept here");
    }
    return HYPURA_OK;
}

static hypura_status change_block(const json_t *block, json_t **made, hypura_error *error)
{
    hypura_status status = check_block(block, error);
    json_t *text = NULL;
    json_t *inside = NULL;
    *made = NULL;
    if (status != HYPURA_OK) {
        return status;
    }
    if (text_is(block, "type", "document")) {
        add_paragraph(&text, json_object_get(block, "title"));
        add_paragraph(&text, json_object_get(block, "context"));
        status = add_source(&text, json_object_get(block, "source"), error);
    } else if (text_is(block, "type", "search_result")) {
        add_paragraph(&text, json_object_get(block, "title"));
        add_paragraph(&text, json_object_get(block, "source"));
        status = add_blocks(&text, json_object_get(block, "content"), error);
    } else if (text_is(block, "type", "tool_result")) {
        status = change_blocks(json_object_get(block, "content"), &inside, error);
    }
    if (status == HYPURA_OK && text) {
        *made = json_pack("{s:s, s:O}", "type", "text", "text", text);
    } else if (inside) {
        *made = json_copy((json_t *)(uintptr_t)block);
        json_object_set(*made, "content", inside);
    }
    json_decref(text);
    json_decref(inside);
    return status;
}

/* ---- calls ------------------------------------------------------------------------------- */

static bool lacks_arguments(const json_t *call)
{
    const json_t *arguments = json_object_get(call, "arguments");
    return json_is_string(arguments) && json_string_length(arguments) == 0;
}

/* holder: of "arguments". A new reference. */
static json_t *with_arguments(const json_t *holder)
{
    json_t *made = json_copy((json_t *)(uintptr_t)holder);
    json_object_set_new(made, "arguments", json_string("{}"));
    return made;
}

/* NULL: it goes as it is. */
static json_t *change_calls(const json_t *message)
{
    const json_t *calls = json_object_get(message, "tool_calls");
    json_t *made = NULL;
    size_t i;
    json_t *call;
    json_array_foreach(calls, i, call)
    {
        json_t *function = json_object_get(call, "function");
        if (lacks_arguments(function)) {
            if (!made) {
                made = json_copy((json_t *)(uintptr_t)message);
                json_object_set_new(made, "tool_calls", json_copy((json_t *)(uintptr_t)calls));
            }
            json_t *other = json_copy(call);
            json_object_set_new(other, "function", with_arguments(function));
            json_array_set_new(json_object_get(made, "tool_calls"), i, other);
        }
    }
    return made;
}

/* ---- conversations -------------------------------------------------------------------------- */

static bool is_untold(const json_t *item)
{
    return text_is(item, "type", "reasoning") && json_array_size(json_object_get(item, "content")) == 0;
}

/* Of /v1/responses. NULL: it goes as it is. */
static json_t *change_item(const json_t *item)
{
    if (text_is(item, "type", "function_call") && lacks_arguments(item)) {
        return with_arguments(item);
    }
    if (text_is(item, "role", "assistant") && !json_object_get(item, "type")) {
        json_t *made = json_copy((json_t *)(uintptr_t)item);
        json_object_set_new(made, "type", json_string("message"));
        return made;
    }
    return NULL;
}

/* Of /v1/messages. */
static hypura_status change_content(const json_t *message, json_t **made, hypura_error *error)
{
    json_t *content = NULL;
    const hypura_status status = change_blocks(json_object_get(message, "content"), &content, error);
    if (content) {
        *made = json_copy((json_t *)(uintptr_t)message);
        json_object_set_new(*made, "content", content);
    }
    return status;
}

/* Fields that say nothing, as clients write them that have a place for each. NULL: it goes as it is. */
static json_t *without_nulls(const json_t *message)
{
    json_t *made = NULL;
    const char *key;
    const json_t *value;
    json_object_foreach((json_t *)(uintptr_t)message, key, value)
    {
        if (json_is_null(value) && strcmp(key, "content") != 0) {
            made = made ? made : json_copy((json_t *)(uintptr_t)message);
            json_object_del(made, key);
        }
    }
    return made;
}

static hypura_status change_message(call_form api, const json_t *message, json_t **made, hypura_error *error)
{
    if (api == FORM_MESSAGES) {
        return change_content(message, made, error);
    }
    json_t *plain = without_nulls(message);
    *made = api == FORM_CHAT ? change_calls(plain ? plain : message) : change_item(plain ? plain : message);
    if (*made) {
        json_decref(plain);
    } else {
        *made = plain;
    }
    return HYPURA_OK;
}

hypura_status overlooked_conversation(call_form api, const json_t *body, json_t **made, hypura_error *error)
{
    const char *key = api == FORM_RESPONSES ? "input" : "messages";
    hypura_status status = HYPURA_OK;
    json_t *all = json_array();
    bool changed = false;
    size_t i;
    json_t *message;
    json_array_foreach(json_object_get(body, key), i, message)
    {
        json_t *other = NULL;
        const bool left_out = api == FORM_RESPONSES && is_untold(message);
        status = status == HYPURA_OK ? change_message(api, message, &other, error) : status;
        changed = changed || other || left_out;
        if (!left_out) {
            json_array_append_new(all, other ? other : json_incref(message));
        }
    }
    if (status == HYPURA_OK && changed) {
        json_object_set(overlooked_own(body, made), key, all);
    }
    json_decref(all);
    return status;
}
