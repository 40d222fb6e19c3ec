/*
 * ollama_own.c - see ollama.h: what a model was made with, for clients of other APIs.
 *
 *     /v1/chat/completions   "messages"                   the system text is the first message
 *     /v1/messages           "messages" and "system"
 *     /v1/responses          "input" and "instructions"
 *
 * A request that says its own system text keeps it. Parameters need no place here: the model's server was started with
 * them (ollama_defaults).
 */
#include "server/dialect/ollama.h"

#include "server/dialect/call.h"
#include "server/dialect/text.h"

#include <string.h>

typedef struct form {
    const char *messages;
    const char *system; /* NULL: it is the first message */
} form;

static const form forms[] = {
    [FORM_CHAT] = {"messages", NULL}, [FORM_MESSAGES] = {"messages", "system"}, [FORM_RESPONSES] = {"input", "instructions"}};

static bool begins_with_system(const json_t *messages)
{
    const json_t *first = json_array_get(messages, 0);
    return text_is(first, "role", "system") || text_is(first, "role", "developer");
}

/* Text alone: what was made with calls of tools or pictures has no form that all these APIs share. */
static bool is_plain(const json_t *message)
{
    return json_is_string(json_object_get(message, "role")) && json_is_string(json_object_get(message, "content")) &&
           json_array_size(json_object_get(message, "tool_calls")) == 0 &&
           json_array_size(json_object_get(message, "images")) == 0;
}

static void add_plain(const json_t *messages, bool as_items, json_t *to)
{
    size_t i;
    const json_t *message;
    json_array_foreach(messages, i, message)
    {
        if (is_plain(message)) {
            json_array_append_new(to, json_pack("{s:s*, s:O, s:O}", "type", as_items ? "message" : NULL, "role",
                                                json_object_get(message, "role"), "content",
                                                json_object_get(message, "content")));
        }
    }
}

json_t *ollama_add_own(const char *path, const json_t *body, const json_t *settings)
{
    const form *f = &forms[call_of(path)->form];
    json_t *system = json_object_get(settings, "system");
    const json_t *own = json_object_get(settings, "messages");
    json_t *given = f->messages ? json_object_get(body, f->messages) : NULL;
    const bool as_items = f == &forms[FORM_RESPONSES];
    const bool is_text = as_items && json_is_string(given);
    if ((!json_is_array(given) && !is_text) || (json_string_length(system) == 0 && json_array_size(own) == 0)) {
        return NULL;
    }
    json_t *made = json_copy((json_t *)(uintptr_t)body);
    json_t *messages = json_array();
    const bool says_system = begins_with_system(given) || (f->system && json_object_get(body, f->system));
    if (json_string_length(system) > 0 && !says_system && f->system) {
        json_object_set(made, f->system, system);
    } else if (json_string_length(system) > 0 && !says_system) {
        json_array_append_new(messages, json_pack("{s:s, s:O}", "role", "system", "content", system));
    }
    add_plain(own, as_items, messages);
    if (is_text) {
        json_array_append_new(messages, json_pack("{s:s, s:O}", "role", "user", "content", given));
    } else {
        json_array_extend(messages, given);
    }
    json_object_set_new(made, f->messages, messages);
    return made;
}
