/*
 * ollama_message.c - see ollama.h: the messages of a conversation, as llama.cpp's server takes them, in a template of
 * one turn, and fewer of them.
 */
#include "server/dialect/ollama.h"

#include "base/buffer.h"
#include "base/status.h"
#include "server/dialect/go_template.h"
#include "server/dialect/pictures.h"
#include "server/dialect/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Text with images: parts, as OpenAI writes them. */
static hypura_status make_content(const char *text, const json_t *images, json_t **content, hypura_error *error)
{
    *content = NULL;
    if (!images || json_is_null(images) || json_array_size(images) == 0) {
        *content = json_string(text);
        return HYPURA_OK;
    }
    json_t *parts = json_array();
    size_t i;
    const json_t *image;
    json_array_foreach(images, i, image)
    {
        const char *base64 = json_string_value(image);
        json_t *url = base64 ? pictures_address(base64) : NULL;
        if (!url) {
            json_decref(parts);
            return hypura_fail(error, HYPURA_ERR_USAGE, "an image is no text in base64");
        }
        json_array_append_new(parts, json_pack("{s:s, s:{s:o}}", "type", "image_url", "image_url", "url", url));
    }
    if (text[0] != '\0') {
        json_array_append_new(parts, json_pack("{s:s, s:s}", "type", "text", "text", text));
    }
    *content = parts;
    return HYPURA_OK;
}

/* A call that comes without an id, as Ollama's older clients send them, is numbered through the conversation; an answer
 * of a tool without one is to the next call of the message before it. */
typedef struct call_numbers {
    int n;              /* calls so far */
    const json_t *last; /* those made of the last message that has any; borrowed */
    size_t n_told;      /* of these, answered by a message of role tool */
} call_numbers;

static json_t *make_id(const json_t *given, int number)
{
    char id[24];
    snprintf(id, sizeof id, "call_%d", number);
    return json_string_length(given) > 0 ? json_deep_copy(given) : json_string(id);
}

static hypura_status make_calls(const json_t *calls, call_numbers *numbers, json_t **made, hypura_error *error)
{
    *made = json_array();
    numbers->last = *made;
    numbers->n_told = 0;
    size_t i;
    const json_t *call;
    json_array_foreach(calls, i, call)
    {
        const json_t *function = json_object_get(call, "function");
        const char *name = json_string_value(json_object_get(function, "name"));
        const json_t *arguments = json_object_get(function, "arguments");
        char *text = json_is_string(arguments) ? strdup(json_string_value(arguments))
                     : arguments               ? json_dumps(arguments, JSON_COMPACT)
                                               : strdup("{}");
        json_t *packed = name && text ? json_pack("{s:o, s:s, s:{s:s, s:s}}", "id",
                                                  make_id(json_object_get(call, "id"), numbers->n++), "type",
                                                  "function", "function", "name", name, "arguments", text)
                                      : NULL;
        free(text);
        if (!packed) {
            json_decref(*made);
            *made = NULL;
            return hypura_fail(error, HYPURA_ERR_USAGE, "a tool call has no function with a name and arguments");
        }
        json_array_append_new(*made, packed);
    }
    return HYPURA_OK;
}

/* What a tool said: for the call that it names, or the next one. */
static void add_call_told(const json_t *message, call_numbers *numbers, json_t *to)
{
    const json_t *name = json_object_get(message, "tool_name");
    const json_t *given = json_object_get(message, "tool_call_id");
    const json_t *next = json_object_get(json_array_get(numbers->last, numbers->n_told++), "id");
    json_object_set_new(to, "tool_call_id", make_id(json_string_length(given) > 0 ? given : next, numbers->n));
    if (json_is_string(name)) {
        json_object_set_new(to, "name", json_deep_copy(name));
    }
}

static bool is_array_or_none(const json_t *value)
{
    return !value || json_is_null(value) || json_is_array(value);
}

static hypura_status make_message(const json_t *message, call_numbers *numbers, json_t **made, hypura_error *error)
{
    const char *role = json_string_value(json_object_get(message, "role"));
    const json_t *content = json_object_get(message, "content");
    const json_t *thinking = json_object_get(message, "thinking");
    const json_t *calls = json_object_get(message, "tool_calls");
    const char *text = json_string_value(content);
    json_t *parts = NULL;
    *made = NULL;
    if (!role || (content && !json_is_string(content) && !json_is_null(content))) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a message needs a role and a content that is text");
    }
    if (!is_array_or_none(calls) || !is_array_or_none(json_object_get(message, "images"))) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "images and tool_calls of a message are arrays");
    }
    hypura_status status = make_content(text ? text : "", json_object_get(message, "images"), &parts, error);
    if (status != HYPURA_OK) {
        return status;
    }
    json_t *to = json_pack("{s:s, s:o}", "role", role, "content", parts);
    if (json_is_string(thinking)) {
        json_object_set_new(to, "reasoning_content", json_deep_copy(thinking));
    }
    if (json_array_size(calls) > 0) {
        json_t *packed = NULL;
        status = make_calls(calls, numbers, &packed, error);
        if (status != HYPURA_OK) {
            json_decref(to);
            return status;
        }
        json_object_set_new(to, "tool_calls", packed);
    }
    if (strcmp(role, "tool") == 0) {
        add_call_told(message, numbers, to);
    }
    *made = to;
    return HYPURA_OK;
}

static hypura_status add_messages(const json_t *messages, call_numbers *numbers, json_t *to, hypura_error *error)
{
    size_t i;
    const json_t *message;
    json_array_foreach(messages, i, message)
    {
        json_t *made;
        hypura_status status = make_message(message, numbers, &made, error);
        if (status != HYPURA_OK) {
            return status;
        }
        json_array_append_new(to, made);
    }
    return HYPURA_OK;
}

hypura_status ollama_make_messages(const json_t *messages, const json_t *settings, json_t **made, hypura_error *error)
{
    const json_t *own_system = json_object_get(settings, "system");
    call_numbers numbers = {0};
    *made = json_array();
    if (json_is_string(own_system) && !text_is(json_array_get(messages, 0), "role", "system")) {
        json_array_append_new(*made, json_pack("{s:s, s:O}", "role", "system", "content", own_system));
    }
    hypura_status status = add_messages(json_object_get(settings, "messages"), &numbers, *made, error);
    if (status == HYPURA_OK) {
        status = add_messages(messages, &numbers, *made, error);
    }
    if (status != HYPURA_OK) {
        json_decref(*made);
        *made = NULL;
    }
    return status;
}

/* ---- a conversation that is too long ------------------------------------------------ */

static size_t text_bytes(const json_t *message)
{
    return json_string_length(json_object_get(message, "content")) + 1;
}

/* The oldest message that may go: no system message, and not the last one. */
static bool find_oldest(const json_t *messages, size_t *at)
{
    const size_t n = json_array_size(messages);
    for (*at = 0; *at + 1 < n; ++*at) {
        if (!text_is(json_array_get(messages, *at), "role", "system")) {
            return true;
        }
    }
    return false;
}

bool ollama_shorten(json_t *messages, double share)
{
    size_t i;
    size_t at;
    size_t bytes = 0;
    size_t gone = 0;
    const json_t *message;
    bool shortened = false;
    json_array_foreach(messages, i, message)
    {
        bytes += text_bytes(message);
    }
    /* What is left begins with what a user says: templates want it so. */
    while (find_oldest(messages, &at) &&
           ((double)gone <= share * (double)bytes || !text_is(json_array_get(messages, at), "role", "user"))) {
        gone += text_bytes(json_array_get(messages, at));
        json_array_remove(messages, at);
        shortened = true;
    }
    return shortened;
}

/* ---- a conversation in a template of one turn ---------------------------------------- */

typedef struct turn {
    const char *system;
    hypura_buffer prompt; /* of the user's messages that follow each other */
    const char *response;
} turn;

static bool add_prompt(turn *now, const char *text)
{
    return (now->prompt.bytes == 0 || hypura_buffer_add(&now->prompt, "\n\n", 2)) &&
           hypura_buffer_add(&now->prompt, text, strlen(text));
}

static hypura_status put_turn(FILE *to, const char *source, turn *now, bool last, hypura_error *error)
{
    char *text;
    const go_template_values values = {.system = now->system ? now->system : "",
                                       .prompt = hypura_buffer_text(&now->prompt),
                                       .suffix = "",
                                       .response = last            ? NULL
                                                   : now->response ? now->response
                                                                   : ""};
    const hypura_status status = go_template_render(source, &values, &text, error);
    if (status == HYPURA_OK) {
        /* A last answer is one to go on with. */
        fprintf(to, "%s%s", text, last && now->response ? now->response : "");
        free(text);
    }
    hypura_buffer_clear(&now->prompt);
    *now = (turn){0};
    return status;
}

static hypura_status put_turns(FILE *to, const char *source, const json_t *messages, hypura_error *error)
{
    turn now = {0};
    hypura_status status = HYPURA_OK;
    size_t i;
    const json_t *message;
    json_array_foreach(messages, i, message)
    {
        const char *content = json_string_value(json_object_get(message, "content"));
        const char *text = content ? content : "";
        const bool system = text_is(message, "role", "system");
        const bool user = !system && !text_is(message, "role", "assistant");
        if (status == HYPURA_OK && ((system && (now.prompt.data || now.response)) || (user && now.response))) {
            status = put_turn(to, source, &now, false, error);
        }
        if (system) {
            now.system = text;
        } else if (!user) {
            now.response = text;
        } else if (!add_prompt(&now, text)) {
            status = hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a prompt");
        }
    }
    const hypura_status last = put_turn(to, source, &now, true, error);
    return status == HYPURA_OK ? last : status;
}

hypura_status ollama_render_turns(const char *source, const json_t *messages, char **text, hypura_error *error)
{
    size_t bytes = 0;
    *text = NULL;
    FILE *to = open_memstream(text, &bytes);
    if (!to) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a prompt");
    }
    hypura_status status = put_turns(to, source, messages, error);
    if (fclose(to) != 0 && status == HYPURA_OK) {
        status = hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a prompt");
    }
    if (status != HYPURA_OK) {
        free(*text);
        *text = NULL;
    }
    return status;
}
