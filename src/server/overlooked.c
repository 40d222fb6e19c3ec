/*
 * overlooked.c - see overlooked.h.
 */
#include "server/overlooked.h"

#include "base/status.h"

#include <string.h>

typedef enum api_form {
    API_NONE = 0,
    API_CHAT,
    API_RESPONSES,
    API_MESSAGES,
} api_form;

static const struct {
    const char *path; /* begins so */
    api_form api;
} paths[] = {{"/v1/chat/completions", API_CHAT}, {"/chat/completions", API_CHAT}, {"/apply-template", API_CHAT},
             {"/v1/responses", API_RESPONSES},   {"/responses", API_RESPONSES},   {"/v1/messages", API_MESSAGES}};

static api_form api_of(const char *path)
{
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        if (strncmp(path, paths[i].path, strlen(paths[i].path)) == 0) {
            return paths[i].api;
        }
    }
    return API_NONE;
}

static bool says(const json_t *body, const char *key)
{
    const json_t *value = json_object_get(body, key);
    return value && !json_is_null(value) && !json_is_false(value);
}

/* ---- what is refused ----------------------------------------------------------- */

static const char *refusal_of(const char *path, const json_t *body)
{
    const api_form api = api_of(path);
    if (strcmp(path, "/v1/embeddings") == 0) {
        return says(body, "dimensions") ? "dimensions are not served here (/api/embed takes them)" : NULL;
    }
    if (strcmp(path, "/v1/completions") == 0) {
        return says(body, "echo") ? "echo is not served here"
               : json_string_length(json_object_get(body, "suffix")) > 0
                   ? "suffix is not served here (/infill puts text in between)"
               : json_integer_value(json_object_get(body, "best_of")) > 1 ? "more than one best_of is not served here"
                                                                          : NULL;
    }
    if (api == API_CHAT && says(body, "functions")) {
        return "functions are not served here (tools are)";
    }
    if (api == API_RESPONSES) {
        return says(body, "conversation") ? "conversations are not kept here: send what was said as input"
               : says(body, "prompt")     ? "prompts are not kept here: send input and instructions"
               : says(body, "background") ? "answers in the background are not served here"
                                          : NULL;
    }
    return NULL;
}

/* ---- formats -------------------------------------------------------------------- */

/* The format of an answer of /v1/responses ("text": {"format": ..}) as /v1/chat/completions has it, which llama.cpp's
 * server makes of such a request. NULL: it says none. */
static json_t *chat_format(api_form api, const json_t *body)
{
    const json_t *format = json_object_get(json_object_get(body, "text"), "format");
    const char *type = json_string_value(json_object_get(format, "type"));
    if (api != API_RESPONSES || !type || json_object_get(body, "response_format")) {
        return NULL;
    }
    if (strcmp(type, "json_schema") == 0) {
        return json_pack("{s:s, s:O}", "type", type, "json_schema", format);
    }
    return strcmp(type, "json_object") == 0 ? json_pack("{s:s}", "type", type) : NULL;
}

/* ---- tools ----------------------------------------------------------------------- */

/* Of a tool, or of what names one; "" where it is none that a model calls. */
static const char *name_of(api_form api, const json_t *tool)
{
    const json_t *holder = api == API_CHAT ? json_object_get(tool, "function") : tool;
    const char *type = json_string_value(json_object_get(tool, "type"));
    const char *name = json_string_value(json_object_get(holder, "name"));
    return name && (api == API_MESSAGES || !type || strcmp(type, "function") == 0) ? name : "";
}

static const json_t *find_tool(api_form api, const json_t *tools, const char *name)
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

static hypura_status read_choice(api_form api, const json_t *given, choice *read, hypura_error *error)
{
    const char *word = json_string_value(given);
    const char *type = json_string_value(json_object_get(given, "type"));
    *read = (choice){.none = false};
    if (!given || json_is_null(given)) {
        return HYPURA_OK;
    }
    if (api == API_MESSAGES) {
        read->none = type && strcmp(type, "none") == 0;
        read->one = type && strcmp(type, "tool") == 0 ? given : NULL;
        read->required = read->one || (type && strcmp(type, "any") == 0);
        return read->none || read->required || (type && strcmp(type, "auto") == 0) ? HYPURA_OK : refuse_choice(error);
    }
    if (word) { /* others are refused by the model's server */
        read->none = strcmp(word, "none") == 0;
        read->required = strcmp(word, "required") == 0;
        return HYPURA_OK;
    }
    if (type && strcmp(type, "function") == 0) {
        read->one = given;
        read->required = true;
        return HYPURA_OK;
    }
    if (type && strcmp(type, "allowed_tools") == 0) {
        const json_t *allowed = api == API_CHAT ? json_object_get(given, type) : given;
        const char *mode = json_string_value(json_object_get(allowed, "mode"));
        read->several = json_object_get(allowed, "tools");
        read->required = mode && strcmp(mode, "required") == 0;
        return json_array_size(read->several) > 0 ? HYPURA_OK : refuse_choice(error);
    }
    return refuse_choice(error);
}

/* Appends to `kept` the tool that this names. */
static hypura_status keep_tool(api_form api, const json_t *tools, const json_t *named, json_t *kept, hypura_error *error)
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
static hypura_status choose_tools(api_form api, const json_t *tools, const choice *read, json_t *made, hypura_error *error)
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
                        api == API_MESSAGES ? json_pack("{s:s}", "type", "any") : json_string(word));
    return status;
}

/* *made: a copy of body, made here where there is none yet. */
static hypura_status translate_tools(api_form api, const json_t *body, json_t **made, hypura_error *error)
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
    const bool drops = api == API_MESSAGES && read.none;
    if (!read.one && !read.several && !drops) {
        return HYPURA_OK;
    }
    *made = *made ? *made : json_copy((json_t *)(uintptr_t)body);
    if (drops) {
        json_object_del(*made, "tools");
        json_object_del(*made, "tool_choice");
        return HYPURA_OK;
    }
    return choose_tools(api, tools, &read, *made, error);
}

bool overlooked_calls_tools(const char *path, const json_t *body)
{
    const api_form api = api_of(path);
    const char *word = json_string_value(json_object_get(body, "tool_choice"));
    const bool shows = strcmp(path, "/apply-template") == 0; /* what the model would be given: tools are seen there, or not */
    if (api == API_NONE || shows || (word && strcmp(word, "none") == 0)) {
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

/* ---- all of it ---------------------------------------------------------------------- */

hypura_status overlooked_translate(const char *path, const json_t *body, json_t **made, hypura_error *error)
{
    const api_form api = api_of(path);
    const char *refusal = refusal_of(path, body);
    *made = NULL;
    if (refusal) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s", refusal);
    }
    json_t *format = chat_format(api, body);
    if (format) {
        *made = json_copy((json_t *)(uintptr_t)body);
        json_object_set_new(*made, "response_format", format);
    }
    const hypura_status status = api != API_NONE ? translate_tools(api, body, made, error) : HYPURA_OK;
    if (status != HYPURA_OK) {
        json_decref(*made);
        *made = NULL;
    }
    return status;
}
