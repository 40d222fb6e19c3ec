/*
 * overlooked_tools.c - see overlooked.h: which tools may, or have to, be called.
 */
#include "server/dialect/overlooked_internal.h"

#include "base/status.h"
#include "server/dialect/text.h"

#include <string.h>

/* Of a tool, or of what names one; "" where it is none that a model calls. */
static const char *name_of(call_form api, const json_t *tool)
{
    const json_t *holder = api == FORM_CHAT ? json_object_get(tool, "function") : tool;
    const char *name = json_string_value(json_object_get(holder, "name"));
    const bool untyped = !json_is_string(json_object_get(tool, "type"));
    return name && (api == FORM_MESSAGES || untyped || text_is(tool, "type", "function")) ? name : "";
}

static const json_t *find_tool(call_form api, const json_t *tools, const char *name)
{
    size_t i;
    const json_t *tool;
    json_array_foreach(tools, i, tool)
    {
        if (name[0] != '\0' && strcmp(name_of(api, tool), name) == 0) {
            return tool;
        }
    }
    return NULL;
}

/* What a choice comes to. */
typedef struct choice {
    bool none;
    bool required;
    const json_t *one;     /* of the tools, what names the one to call */
    const json_t *several; /* an array of such */
} choice;

static hypura_status refuse_choice(hypura_error *error)
{
    return hypura_fail(error, HYPURA_ERR_USAGE, "such a tool_choice is not served here");
}

static hypura_status read_choice(call_form api, const json_t *given, choice *read, hypura_error *error)
{
    const char *word = json_string_value(given);
    *read = (choice){.none = false};
    if (!given || json_is_null(given)) {
        return HYPURA_OK;
    }
    if (api == FORM_MESSAGES) {
        read->none = text_is(given, "type", "none");
        read->one = text_is(given, "type", "tool") ? given : NULL;
        read->required = read->one || text_is(given, "type", "any");
        return read->none || read->required || text_is(given, "type", "auto") ? HYPURA_OK : refuse_choice(error);
    }
    if (word) { /* others are refused by the model's server */
        read->none = strcmp(word, "none") == 0;
        read->required = strcmp(word, "required") == 0;
        return HYPURA_OK;
    }
    if (text_is(given, "type", "function")) {
        read->one = given;
        read->required = true;
        return HYPURA_OK;
    }
    if (text_is(given, "type", "allowed_tools")) {
        const json_t *allowed = api == FORM_CHAT ? json_object_get(given, "allowed_tools") : given;
        read->several = json_object_get(allowed, "tools");
        read->required = text_is(allowed, "mode", "required");
        return json_array_size(read->several) > 0 ? HYPURA_OK : refuse_choice(error);
    }
    return refuse_choice(error);
}

/* Appends to `kept` the tool that this names. */
static hypura_status keep_tool(call_form api, const json_t *tools, const json_t *named, json_t *kept, hypura_error *error)
{
    const char *name = name_of(api, named);
    const json_t *tool = find_tool(api, tools, name);
    if (!tool) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "tool_choice names '%.100s', which is not among the tools", name);
    }
    return json_array_append(kept, (json_t *)(uintptr_t)tool) == 0
               ? HYPURA_OK
               : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a request");
}

/* To the tools that the choice allows. */
static hypura_status choose_tools(call_form api, const json_t *tools, const choice *read, json_t *made, hypura_error *error)
{
    json_t *kept = json_array();
    hypura_status status = read->one ? keep_tool(api, tools, read->one, kept, error) : HYPURA_OK;
    size_t i;
    const json_t *named;
    json_array_foreach(read->several, i, named)
    {
        if (status == HYPURA_OK) {
            status = keep_tool(api, tools, named, kept, error);
        }
    }
    json_object_set_new(made, "tools", kept);
    const char *word = read->required ? "required" : "auto";
    json_object_set_new(made, "tool_choice",
                        api == FORM_MESSAGES ? json_pack("{s:s}", "type", "any") : json_string(word));
    return status;
}

hypura_status overlooked_tools(call_form api, const json_t *body, json_t **made, hypura_error *error)
{
    const json_t *tools = json_object_get(body, "tools");
    choice read;
    hypura_status status = read_choice(api, json_object_get(body, "tool_choice"), &read, error);
    if (status != HYPURA_OK) {
        return status;
    }
    if (read.required && json_array_size(tools) == 0) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "tool_choice wants a tool to be called, and there are no tools");
    }
    const bool drops = api == FORM_MESSAGES && read.none;
    if (!read.one && !read.several && !drops) {
        return HYPURA_OK;
    }
    json_t *own = overlooked_own(body, made);
    if (drops) {
        json_object_del(own, "tools");
        json_object_del(own, "tool_choice");
        return HYPURA_OK;
    }
    return choose_tools(api, tools, &read, own, error);
}

bool overlooked_calls_tools(const char *path, const json_t *body)
{
    const call_form api = call_of(path)->form;
    const bool shows = call_of(path)->kind == CALL_TEMPLATE; /* what the model would be given: tools are seen there, or not */
    if (api == FORM_NONE || shows || text_is(body, "tool_choice", "none")) {
        return false;
    }
    size_t i;
    const json_t *tool;
    json_array_foreach(json_object_get(body, "tools"), i, tool)
    {
        if (name_of(api, tool)[0] != '\0') {
            return true;
        }
    }
    return false;
}
