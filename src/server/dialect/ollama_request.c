/*
 * ollama_request.c - see ollama.h: requests.
 */
#include "server/dialect/ollama.h"

#include "base/status.h"
#include "server/dialect/go_template.h"

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

#define WHOLE_CONTEXT (1 << 17) /* tokens; more than repetitions are looked for in */
#define NO_LIMIT      (10 * WHOLE_CONTEXT) /* tokens of an answer: contexts end before */

static bool are_texts(const json_t *values)
{
    bool all = true;
    size_t i;
    const json_t *value;
    json_array_foreach(values, i, value)
    {
        all = all && json_is_string(value);
    }
    return all;
}

/* Empty ones would stop every answer before it begins. */
static json_t *stop_texts(const json_t *value)
{
    json_t *texts = json_array();
    const size_t n = json_is_array(value) ? json_array_size(value) : 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *text = json_is_array(value) ? json_array_get(value, i) : value;
        if (json_string_length(text) > 0) {
            json_array_append_new(texts, json_deep_copy(text));
        }
    }
    return texts;
}

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
        if (is_stop ? !json_is_string(value) && !(json_is_array(value) && are_texts(value)) : !json_is_number(value)) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "option %s has a value of another type", name);
        }
        if (strcmp(name, "num_predict") == 0 && json_number_value(value) <= 0) {
            /* To the end of the answer or of the context: the default, unless the model was made with another. */
            if (json_number_value(json_object_get(json_object_get(settings, "parameters"), name)) > 0) {
                json_object_set_new(to, "n_predict", json_integer(NO_LIMIT));
            }
            continue;
        }
        if (json_is_real(value) && fabs(json_number_value(value)) > UINT32_MAX) { /* which no integer of llama.cpp's takes */
            return hypura_fail(error, HYPURA_ERR_USAGE, "option %s is out of range: %g", name, json_number_value(value));
        }
        if (strcmp(name, "repeat_last_n") == 0 && json_number_value(value) < 0) {
            json_object_set_new(to, "repeat_last_n", json_integer(WHOLE_CONTEXT)); /* the whole context */
            continue;
        }
        json_object_set_new(to, option_names[i].server, is_stop ? stop_texts(value) : json_deep_copy(value));
    }
    return HYPURA_OK;
}

hypura_status ollama_defaults(const json_t *settings, json_t **defaults, hypura_error *error)
{
    *defaults = json_object();
    hypura_status status = *defaults ? add_options(NULL, settings, *defaults, error)
                                     : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a model's parameters");
    if (status != HYPURA_OK || json_object_size(*defaults) == 0) {
        json_decref(*defaults);
        *defaults = NULL;
    }
    return status;
}

/* What the answer has to be: any JSON object ({}), or what a schema says; NULL: text. A new reference. */
static hypura_status read_format(const json_t *body, json_t **schema, hypura_error *error)
{
    json_t *format = json_object_get(body, "format");
    *schema = NULL;
    if (!format || json_is_null(format) || (json_is_string(format) && json_string_length(format) == 0)) {
        return HYPURA_OK;
    }
    if (json_is_string(format) && strcmp(json_string_value(format), "json") == 0) {
        *schema = json_object();
    } else if (json_is_object(format)) {
        *schema = json_incref(format);
    } else {
        return hypura_fail(error, HYPURA_ERR_USAGE, "format is neither \"json\" nor a JSON schema");
    }
    return HYPURA_OK;
}

static hypura_status add_format(const json_t *body, json_t *to, hypura_error *error)
{
    json_t *schema;
    const hypura_status status = read_format(body, &schema, error);
    if (schema && json_object_size(schema) == 0) {
        json_object_set_new(to, "response_format", json_pack("{s:s}", "type", "json_object"));
    } else if (schema) {
        json_object_set_new(
            to, "response_format",
            json_pack("{s:s, s:{s:s, s:O}}", "type", "json_schema", "json_schema", "name", "format", "schema", schema));
    }
    json_decref(schema);
    return status;
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

#define MAX_TOP_LOGPROBS 20

/* How many probabilities are told for each token; 0: none. The token's own comes with at least one. */
static hypura_status read_logprobs(const json_t *body, json_int_t *n, hypura_error *error)
{
    const json_t *top = json_object_get(body, "top_logprobs");
    const json_int_t n_top = json_integer_value(top);
    *n = 0;
    if (top && !json_is_null(top) && (!json_is_integer(top) || n_top < 0 || n_top > MAX_TOP_LOGPROBS)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "top_logprobs must be between 0 and %d", MAX_TOP_LOGPROBS);
    }
    if (json_is_true(json_object_get(body, "logprobs"))) {
        *n = n_top > 0 ? n_top : 1;
    }
    return HYPURA_OK;
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
    const json_t *shift = json_object_get(body, "shift");
    if (shift && !json_is_boolean(shift) && !json_is_null(shift)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "shift is neither true nor false");
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

/* ---- requests ----------------------------------------------------------------------- */

static json_t *begin_body(void)
{
    return json_pack("{s:b, s:b, s:{s:b}}", "stream", 1, "cache_prompt", 1, "stream_options", "include_usage", 1);
}

static hypura_status translate_messages(const json_t *body, const json_t *messages, const json_t *settings,
                                        ollama_request *request, hypura_error *error)
{
    json_t *made = NULL;
    hypura_status status = ollama_make_messages(messages, settings, &made, error);
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
    json_int_t n_logprobs;
    status = read_logprobs(body, &n_logprobs, error);
    if (n_logprobs > 0) {
        json_object_set_new(request->body, "logprobs", json_true());
        json_object_set_new(request->body, "top_logprobs", json_integer(n_logprobs));
    }
    if (status == HYPURA_OK) {
        status = add_options(body, settings, request->body, error);
    }
    if (status == HYPURA_OK) {
        status = add_format(body, request->body, error);
    }
    return status == HYPURA_OK ? add_think(body, request->body, error) : status;
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
    json_int_t n_logprobs;
    hypura_status status = read_logprobs(body, &n_logprobs, error);
    if (n_logprobs > 0) {
        json_object_set_new(request->body, "n_probs", json_integer(n_logprobs));
    }
    if (status == HYPURA_OK) {
        status = add_options(body, settings, request->body, error);
    }
    json_t *schema = NULL;
    if (status == HYPURA_OK) {
        status = read_format(body, &schema, error);
    }
    if (schema) {
        json_object_set_new(request->body, "json_schema", schema);
    }
    return status;
}

bool ollama_has_images(const json_t *body)
{
    size_t i;
    const json_t *message;
    bool found = json_array_size(json_object_get(body, "images")) > 0;
    json_array_foreach(json_object_get(body, "messages"), i, message)
    {
        found = found || json_array_size(json_object_get(message, "images")) > 0;
    }
    return found;
}

/* The template of one turn that the model was made with. Tools, thoughts and pictures have no place in it, and one for
 * whole conversations, as in Ollama's store, cannot be read: the template in the model's file is used then. NULL: that
 * one. */
static const char *turn_template(const json_t *body, const json_t *settings)
{
    const char *source = json_string_value(json_object_get(settings, "template"));
    const json_t *think = json_object_get(body, "think");
    const bool is_plain = json_array_size(json_object_get(body, "tools")) == 0 && !ollama_has_images(body) &&
                          !json_is_true(think) && json_string_length(think) == 0;
    const bool fits = source && source[0] != '\0' && is_plain && !go_template_is_jinja(source) &&
                      go_template_check(source, NULL) == HYPURA_OK;
    return fits ? source : NULL;
}

static hypura_status translate_turns(const json_t *body, const json_t *messages, const json_t *settings,
                                     const char *source, ollama_request *request, hypura_error *error)
{
    char *text = NULL;
    json_t *made = NULL;
    hypura_status status = ollama_make_messages(messages, settings, &made, error);
    if (status == HYPURA_OK) {
        status = ollama_render_turns(source, made, &text, error);
    }
    if (status == HYPURA_OK) {
        status = translate_text(body, settings, text, NULL, request, error);
    }
    free(text);
    json_decref(made);
    return status;
}

static hypura_status translate_chat(const json_t *body, const json_t *settings, ollama_request *request,
                                    hypura_error *error)
{
    const json_t *messages = json_object_get(body, "messages");
    const char *source = turn_template(body, settings);
    if (messages && !json_is_array(messages) && !json_is_null(messages)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "messages is no array");
    }
    if (json_array_size(messages) == 0) {
        return HYPURA_OK;
    }
    return source ? translate_turns(body, messages, settings, source, request, error)
                  : translate_messages(body, messages, settings, request, error);
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
    const bool has_images = ollama_has_images(body);
    hypura_status status = read_context(body, &request->before, error);
    if (status != HYPURA_OK || (values.prompt[0] == '\0' && values.suffix[0] == '\0' && !has_images)) {
        return status;
    }
    const bool is_raw = json_is_true(json_object_get(body, "raw"));
    if ((has_images && (is_raw || template[0] != '\0' || values.suffix[0] != '\0')) ||
        (request->before && (has_images || values.suffix[0] != '\0'))) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "images go with neither raw, a template, a suffix nor a context, and a suffix with no context: "
                           "send the conversation to /api/chat");
    }
    if (is_raw) {
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
    const char *own =
        json_array_size(json_object_get(settings, "messages")) == 0 ? turn_template(body, settings) : NULL;
    if (own) {
        return translate_template(body, settings, &values, own, request, error);
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

static hypura_status check_types(const json_t *body, hypura_error *error)
{
    static const char *const texts[] = {"prompt", "suffix", "system", "template"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const json_t *value = json_object_get(body, texts[i]);
        if (value && !json_is_string(value) && !json_is_null(value)) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "%s is no text", texts[i]);
        }
    }
    static const char *const flags[] = {"raw", "logprobs", "truncate"};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        const json_t *value = json_object_get(body, flags[i]);
        if (value && !json_is_boolean(value) && !json_is_null(value)) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "%s is neither true nor false", flags[i]);
        }
    }
    static const char *const arrays[] = {"tools", "images"};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        const json_t *value = json_object_get(body, arrays[i]);
        if (value && !json_is_array(value) && !json_is_null(value)) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "%s is no array", arrays[i]);
        }
    }
    return HYPURA_OK;
}

hypura_status ollama_translate(ollama_kind kind, const json_t *body, const json_t *settings, ollama_request *request,
                               hypura_error *error)
{
    *request = (ollama_request){0};
    hypura_status status = check_types(body, error);
    if (status == HYPURA_OK) {
        status = kind == OLLAMA_CHAT ? translate_chat(body, settings, request, error)
                                     : translate_generate(body, settings, request, error);
    }
    if (status != HYPURA_OK) {
        ollama_request_clear(request);
    }
    return status;
}
