/*
 * ollama_request.c - see ollama.h: requests.
 */
#include "server/ollama.h"

#include "base/status.h"
#include "server/go_template.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- durations --------------------------------------------------------------- */

/* As Go writes them: numbers with units, one after the other. */
static bool parse_text_duration(const char *text, double *seconds)
{
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9}, {"h", 3600}, {"m", 60}, {"s", 1}};
    const double sign = *text == '-' ? -1 : 1;
    const char *at = text + (*text == '-' || *text == '+');
    double sum = 0;
    if (*at == '\0') {
        return false;
    }
    while (*at) {
        char *end;
        const double number = strtod(at, &end);
        if (end == at || !(number >= 0) || *at == '-' || *at == '+') {
            return false;
        }
        if (*end == '\0' && sum == 0) { /* a bare number: seconds */
            sum = number;
            break;
        }
        size_t unit = 0;
        while (unit < sizeof units / sizeof *units && strncmp(end, units[unit].unit, strlen(units[unit].unit)) != 0) {
            unit++;
        }
        if (unit == sizeof units / sizeof *units) {
            return false;
        }
        sum += number * units[unit].seconds;
        at = end + strlen(units[unit].unit);
    }
    *seconds = sign * sum;
    return true;
}

bool ollama_parse_duration(const json_t *value, double *seconds)
{
    if (json_is_number(value)) {
        *seconds = json_number_value(value);
        return true;
    }
    return json_is_string(value) && parse_text_duration(json_string_value(value), seconds);
}

/* ---- options ------------------------------------------------------------------- */

/* Of the request, over those of the model. Borrowed; NULL: neither says it. */
static const json_t *find_option(const json_t *body, const json_t *settings, const char *name)
{
    const json_t *value = json_object_get(json_object_get(body, "options"), name);
    if (!value || json_is_null(value)) {
        value = json_object_get(json_object_get(settings, "parameters"), name);
    }
    return value && !json_is_null(value) ? value : NULL;
}

static const struct {
    const char *ollama;
    const char *server;
} option_names[] = {
    {"temperature", "temperature"},
    {"top_k", "top_k"},
    {"top_p", "top_p"},
    {"min_p", "min_p"},
    {"typical_p", "typical_p"},
    {"seed", "seed"},
    {"num_predict", "n_predict"},
    {"num_keep", "n_keep"},
    {"stop", "stop"},
    {"repeat_penalty", "repeat_penalty"},
    {"repeat_last_n", "repeat_last_n"},
    {"presence_penalty", "presence_penalty"},
    {"frequency_penalty", "frequency_penalty"},
    {"mirostat", "mirostat"},
    {"mirostat_tau", "mirostat_tau"},
    {"mirostat_eta", "mirostat_eta"},
};

static hypura_status add_options(const json_t *body, const json_t *settings, json_t *to, hypura_error *error)
{
    const json_t *options = json_object_get(body, "options");
    if (options && !json_is_object(options) && !json_is_null(options)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "options is no object");
    }
    for (size_t i = 0; i < sizeof option_names / sizeof *option_names; i++) {
        const char *name = option_names[i].ollama;
        const json_t *value = find_option(body, settings, name);
        if (!value) {
            continue;
        }
        const bool is_stop = strcmp(name, "stop") == 0;
        if (is_stop ? !json_is_string(value) && !json_is_array(value) : !json_is_number(value)) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "option %s has a value of another type", name);
        }
        if (strcmp(name, "num_predict") == 0 && json_number_value(value) < 0) {
            continue; /* to the end of the answer or of the context: the default */
        }
        json_object_set_new(to, option_names[i].server, json_deep_copy(value));
    }
    return HYPURA_OK;
}

static hypura_status add_format(const json_t *body, json_t *to, hypura_error *error)
{
    const json_t *format = json_object_get(body, "format");
    if (!format || json_is_null(format) || (json_is_string(format) && json_string_length(format) == 0)) {
        return HYPURA_OK;
    }
    if (json_is_string(format) && strcmp(json_string_value(format), "json") == 0) {
        json_object_set_new(to, "response_format", json_pack("{s:s}", "type", "json_object"));
    } else if (json_is_object(format)) {
        json_object_set_new(
            to, "response_format",
            json_pack("{s:s, s:{s:s, s:O}}", "type", "json_schema", "json_schema", "name", "format", "schema", format));
    } else {
        return hypura_fail(error, HYPURA_ERR_USAGE, "format is neither \"json\" nor a JSON schema");
    }
    return HYPURA_OK;
}

static bool is_level(const char *text)
{
    return strcmp(text, "high") == 0 || strcmp(text, "medium") == 0 || strcmp(text, "low") == 0;
}

static hypura_status add_think(const json_t *body, json_t *to, hypura_error *error)
{
    const json_t *think = json_object_get(body, "think");
    if (!think || json_is_null(think)) {
        return HYPURA_OK;
    }
    if (json_is_string(think) && is_level(json_string_value(think))) {
        json_object_set_new(to, "reasoning_effort", json_deep_copy(think));
    } else if (!json_is_boolean(think)) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "think is not one of \"high\", \"medium\", \"low\", true, or false");
    }
    json_object_set_new(to, "chat_template_kwargs", json_pack("{s:b}", "enable_thinking", !json_is_false(think)));
    return HYPURA_OK;
}

static void add_logprobs(const json_t *body, json_t *to)
{
    const json_t *top = json_object_get(body, "top_logprobs");
    if (json_is_true(json_object_get(body, "logprobs"))) {
        json_object_set_new(to, "logprobs", json_true());
        json_object_set_new(to, "top_logprobs", json_integer(json_integer_value(top)));
    }
}

/* 0, as the option's absence, leaves it to us. */
static hypura_status read_count(const json_t *body, const json_t *settings, const char *name, uint32_t *count,
                                hypura_error *error)
{
    const json_t *value = find_option(body, settings, name);
    const double number = value ? json_number_value(value) : 0;
    if (value && (!json_is_number(value) || number < 0 || number > INT32_MAX)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "option %s is no count", name);
    }
    *count = (uint32_t)number;
    return HYPURA_OK;
}

hypura_status ollama_read_common(const json_t *body, const json_t *settings, ollama_common *common, hypura_error *error)
{
    const json_t *keep_alive = json_object_get(body, "keep_alive");
    const json_t *stream = json_object_get(body, "stream");
    *common = (ollama_common){.stream = !json_is_false(stream), .keep_alive_s = (double)NAN};
    if (stream && !json_is_boolean(stream) && !json_is_null(stream)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "stream is neither true nor false");
    }
    if (keep_alive && !json_is_null(keep_alive) && !ollama_parse_duration(keep_alive, &common->keep_alive_s)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "keep_alive is no duration: write 300, \"5m\" or -1");
    }
    hypura_status status = read_count(body, settings, "num_ctx", &common->n_context, error);
    if (status == HYPURA_OK) {
        status = read_count(body, settings, "num_batch", &common->n_batch, error);
    }
    return status == HYPURA_OK ? read_count(body, settings, "num_thread", &common->n_threads, error) : status;
}

/* ---- messages -------------------------------------------------------------------- */

/* The first bytes of an image, in base64, tell what it is; llama.cpp's server looks again. */
static const char *image_type(const char *base64)
{
    return strncmp(base64, "/9j/", 4) == 0 ? "jpeg" : strncmp(base64, "UklGR", 5) == 0 ? "webp" : "png";
}

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
        const size_t bytes = json_string_length(image) + 32;
        char *url = base64 ? malloc(bytes) : NULL;
        if (!url) {
            json_decref(parts);
            return hypura_fail(error, HYPURA_ERR_USAGE, "an image is no text in base64");
        }
        snprintf(url, bytes, "data:image/%s;base64,%s", image_type(base64), base64);
        json_array_append_new(parts, json_pack("{s:s, s:{s:s}}", "type", "image_url", "image_url", "url", url));
        free(url);
    }
    if (text[0] != '\0') {
        json_array_append_new(parts, json_pack("{s:s, s:s}", "type", "text", "text", text));
    }
    *content = parts;
    return HYPURA_OK;
}

/* Ollama's calls of tools have no names of their own: they are numbered through the conversation. */
typedef struct call_numbers {
    int n;      /* calls so far */
    int n_told; /* of these, answered by a message of role tool */
} call_numbers;

static hypura_status make_calls(const json_t *calls, call_numbers *numbers, json_t **made, hypura_error *error)
{
    *made = json_array();
    numbers->n_told = numbers->n;
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
        char id[24];
        snprintf(id, sizeof id, "call_%d", numbers->n++);
        json_t *packed = name && text ? json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", id, "type", "function", "function",
                                                  "name", name, "arguments", text)
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
        json_object_set_new(to, "tool_calls", packed);
    }
    if (strcmp(role, "tool") == 0) {
        const json_t *name = json_object_get(message, "tool_name");
        const json_t *given = json_object_get(message, "tool_call_id");
        char id[24];
        snprintf(id, sizeof id, "call_%d", numbers->n_told < numbers->n ? numbers->n_told++ : numbers->n);
        json_object_set_new(to, "tool_call_id", json_is_string(given) ? json_deep_copy(given) : json_string(id));
        if (json_is_string(name)) {
            json_object_set_new(to, "name", json_deep_copy(name));
        }
    }
    if (status != HYPURA_OK) {
        json_decref(to);
        return status;
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

static bool begins_with_system(const json_t *messages)
{
    const char *role = json_string_value(json_object_get(json_array_get(messages, 0), "role"));
    return role && strcmp(role, "system") == 0;
}

/* The model's own system text, unless the conversation begins with one, then its own messages, then these. */
static hypura_status make_messages(const json_t *messages, const json_t *settings, json_t **made, hypura_error *error)
{
    const json_t *own_system = json_object_get(settings, "system");
    call_numbers numbers = {0};
    *made = json_array();
    if (json_is_string(own_system) && !begins_with_system(messages)) {
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

/* ---- requests ----------------------------------------------------------------------- */

static json_t *begin_body(void)
{
    return json_pack("{s:b, s:b, s:{s:b}}", "stream", 1, "cache_prompt", 1, "stream_options", "include_usage", 1);
}

static hypura_status translate_messages(const json_t *body, const json_t *messages, const json_t *settings,
                                        ollama_request *request, hypura_error *error)
{
    json_t *made = NULL;
    hypura_status status = make_messages(messages, settings, &made, error);
    if (status != HYPURA_OK) {
        return status;
    }
    request->path = "/v1/chat/completions";
    request->body = begin_body();
    json_object_set_new(request->body, "messages", made);
    const json_t *tools = json_object_get(body, "tools");
    if (json_array_size(tools) > 0) {
        json_object_set_new(request->body, "tools", json_deep_copy(tools));
        json_object_set_new(request->body, "parallel_tool_calls", json_true());
    }
    add_logprobs(body, request->body);
    status = add_options(body, settings, request->body, error);
    if (status == HYPURA_OK) {
        status = add_format(body, request->body, error);
    }
    return status == HYPURA_OK ? add_think(body, request->body, error) : status;
}

static hypura_status translate_chat(const json_t *body, const json_t *settings, ollama_request *request,
                                    hypura_error *error)
{
    const json_t *messages = json_object_get(body, "messages");
    if (messages && !json_is_array(messages) && !json_is_null(messages)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "messages is no array");
    }
    return json_array_size(messages) > 0 ? translate_messages(body, messages, settings, request, error) : HYPURA_OK;
}

static hypura_status translate_text(const json_t *body, const json_t *settings, const char *prompt, const char *suffix,
                                    ollama_request *request, hypura_error *error)
{
    request->body = begin_body();
    if (suffix) {
        request->path = "/infill";
        json_object_set_new(request->body, "input_prefix", json_string(prompt));
        json_object_set_new(request->body, "input_suffix", json_string(suffix));
    } else {
        request->path = "/completion";
        json_object_set_new(request->body, "prompt", json_string(prompt));
    }
    hypura_status status = add_options(body, settings, request->body, error);
    const json_t *format = json_object_get(body, "format");
    if (status == HYPURA_OK && json_is_object(format)) {
        json_object_set_new(request->body, "json_schema", json_deep_copy(format));
    } else if (status == HYPURA_OK && json_is_string(format) && json_string_length(format) > 0) {
        json_object_set_new(request->body, "json_schema", json_object());
    }
    return status;
}

/* Tokens of an earlier answer, or NULL. */
static hypura_status read_context(const json_t *body, json_t **before, hypura_error *error)
{
    json_t *context = json_object_get(body, "context");
    size_t i;
    const json_t *token;
    *before = NULL;
    if (context && !json_is_null(context) && !json_is_array(context)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "context is no array of tokens");
    }
    json_array_foreach(context, i, token)
    {
        if (!json_is_integer(token) || json_integer_value(token) < 0 || json_integer_value(token) > INT32_MAX) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "context is no array of tokens");
        }
    }
    *before = json_array_size(context) > 0 ? json_incref(context) : NULL;
    return HYPURA_OK;
}

static const char *text_of(const json_t *body, const char *name)
{
    const char *text = json_string_value(json_object_get(body, name));
    return text ? text : "";
}

/* In the request's own template. */
static hypura_status translate_template(const json_t *body, const json_t *settings, const go_template_values *values,
                                        const char *template, ollama_request *request, hypura_error *error)
{
    char *text;
    go_template_values all = *values;
    if (all.system[0] == '\0') {
        all.system = text_of(settings, "system");
    }
    hypura_status status = go_template_render(template, &all, &text, error);
    if (status == HYPURA_OK) {
        request->text = json_string(text);
        status = translate_text(body, settings, text, NULL, request, error);
        free(text);
    }
    return status;
}

/* As the one turn of a conversation, in the model's own template. */
static hypura_status translate_turn(const json_t *body, const json_t *settings, const go_template_values *values,
                                    ollama_request *request, hypura_error *error)
{
    json_t *images = json_object_get(body, "images");
    json_t *messages = json_array();
    if (values->system[0] != '\0') {
        json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "system", "content", values->system));
    }
    json_t *message = json_pack("{s:s, s:s}", "role", "user", "content", values->prompt);
    if (json_array_size(images) > 0) {
        json_object_set(message, "images", images);
    }
    json_array_append_new(messages, message);
    hypura_status status = translate_messages(body, messages, settings, request, error);
    json_decref(messages);
    if (status == HYPURA_OK && json_array_size(images) == 0) {
        request->chat = json_incref(request->body);
    }
    if (status == HYPURA_OK && request->before) {
        json_decref(request->body);
        request->body = NULL;
        status = translate_text(body, settings, "", NULL, request, error);
    }
    return status;
}

static hypura_status translate_generate(const json_t *body, const json_t *settings, ollama_request *request,
                                        hypura_error *error)
{
    const go_template_values values = {
        .prompt = text_of(body, "prompt"), .suffix = text_of(body, "suffix"), .system = text_of(body, "system")};
    const char *template = text_of(body, "template");
    const bool has_images = json_array_size(json_object_get(body, "images")) > 0;
    hypura_status status = read_context(body, &request->before, error);
    if (status != HYPURA_OK || (values.prompt[0] == '\0' && values.suffix[0] == '\0' && !has_images)) {
        return status;
    }
    if ((has_images && template[0] != '\0') || (request->before && (has_images || values.suffix[0] != '\0'))) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "images go with neither a template nor a context, and a suffix with no context: send the "
                           "conversation to /api/chat");
    }
    if (json_is_true(json_object_get(body, "raw"))) {
        if (template[0] != '\0' || values.system[0] != '\0' || request->before) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "raw mode does not support template, system, or context");
        }
        return translate_text(body, settings, values.prompt, values.suffix[0] ? values.suffix : NULL, request, error);
    }
    if (template[0] != '\0') {
        return translate_template(body, settings, &values, template, request, error);
    }
    if (values.suffix[0] != '\0') {
        return translate_text(body, settings, values.prompt, values.suffix, request, error);
    }
    return translate_turn(body, settings, &values, request, error);
}

void ollama_request_clear(ollama_request *request)
{
    json_decref(request->body);
    json_decref(request->before);
    json_decref(request->text);
    json_decref(request->chat);
    *request = (ollama_request){0};
}

/* Tokens and text in one array, as the server takes prompts. */
static json_t *after_tokens(const json_t *before, json_t *text)
{
    json_t *parts = json_copy((json_t *)(uintptr_t)before);
    json_array_append(parts, text);
    return parts;
}

void ollama_request_continue(ollama_request *request)
{
    json_object_set_new(request->body, "prompt", after_tokens(request->before, request->text));
}

json_t *ollama_request_conversation(const ollama_request *request, const char *answer)
{
    json_t *text = json_sprintf("%s%s", json_string_value(request->text), answer);
    if (!request->before || !text) {
        return text;
    }
    json_t *parts = after_tokens(request->before, text);
    json_decref(text);
    return parts;
}

hypura_status ollama_translate(ollama_kind kind, const json_t *body, const json_t *settings, ollama_request *request,
                               hypura_error *error)
{
    *request = (ollama_request){0};
    const hypura_status status = kind == OLLAMA_CHAT ? translate_chat(body, settings, request, error)
                                                     : translate_generate(body, settings, request, error);
    if (status != HYPURA_OK) {
        ollama_request_clear(request);
    }
    return status;
}
