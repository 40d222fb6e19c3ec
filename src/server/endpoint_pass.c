/*
 * endpoint_pass.c - requests that the model's own server answers: passed on as they are, and its answer passed back as
 * it comes, byte for byte. Of the request the model's name is looked at; where that model was made with a system text or
 * messages of its own, these are put before the request's. What that server passes over without a word is told it in
 * other words (the format of /v1/responses), or refused.
 *
 * An engine that dies is an error: of the status line while there is none yet, else the last event of a stream. An
 * error that is the request's fault is told as one (refusal.h), and one for Anthropic's clients in their form; therefore
 * errors are held until they are whole.
 */
#include "server/ollama.h"
#include "server/refusal.h"
#include "server/routes.h"
#include "server/server.h"
#include "server/target.h"
#include "server/upstream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct passing {
    http_exchange *exchange;
    bool events;   /* the answer is a stream of events */
    int held;      /* the status of an answer that is an error, kept here; 0: it is none */
    char type[96]; /* of an error */
    hypura_buffer refusal;
} passing;

static bool pass_head(void *user, int code, const char *content_type)
{
    passing *pass = user;
    if (code >= 400) {
        pass->held = code;
        snprintf(pass->type, sizeof pass->type, "%s", content_type);
        return true;
    }
    pass->events = strncmp(content_type, "text/event-stream", 17) == 0;
    if (pass->events) {
        http_set_header(pass->exchange, "Cache-Control", "no-cache");
        http_set_header(pass->exchange, "X-Accel-Buffering", "no"); /* proxies in front of us shall not hold it back */
    }
    http_begin(pass->exchange, code, content_type);
    return true;
}

static bool pass_data(void *user, const char *data, size_t bytes)
{
    passing *pass = user;
    if (!pass->held) {
        return http_write(pass->exchange, data, bytes);
    }
    refusal_add(&pass->refusal, data, bytes);
    return true;
}

static void finish(passing *pass)
{
    char message[768];
    if (pass->held == 0) {
        http_end(pass->exchange, true);
        return;
    }
    const int code = refusal_read(pass->held, &pass->refusal, message, sizeof message);
    if (pass->refusal.bytes == 0) {
        http_fail(pass->exchange, code, "the model's own server takes no such request, and does not say why");
    } else if (message[0] != '\0' && (code != pass->held || http_error_style(pass->exchange) != HTTP_STYLE_OPENAI)) {
        http_fail(pass->exchange, code, "%s", message);
    } else {
        http_reply(pass->exchange, code, pass->type, hypura_buffer_text(&pass->refusal), pass->refusal.bytes);
    }
}

static bool client_gone(void *user)
{
    return http_gone(((passing *)user)->exchange);
}

/* The "model" of a JSON body; a copy, "" when it names none. NULL when it was answered: it is no JSON. */
static char *named_model(http_exchange *exchange, json_t **body)
{
    size_t bytes;
    *body = NULL;
    (void)http_body(exchange, &bytes);
    const char *type = http_header(exchange, "Content-Type");
    const char *asked = http_query(exchange, "model");
    if (bytes > 0 && !(type && strncmp(type, "multipart/", 10) == 0)) {
        *body = http_json(exchange);
        if (!*body) {
            return NULL;
        }
        const char *named = json_string_value(json_object_get(*body, "model"));
        asked = named ? named : asked;
    }
    return strdup(asked ? asked : "");
}

static fleet_settings settings_for(const char *path)
{
    return (fleet_settings){.embeddings = strstr(path, "embedding") != NULL, .reranking = strstr(path, "rerank") != NULL};
}

/* text: of made, where that takes the place of the request's own body. */
static void pass(http_exchange *exchange, server_target *target, const json_t *body, const char *text)
{
    passing state = {.exchange = exchange};
    hypura_error error = {0};
    const char *query = http_query_text(exchange);
    const size_t room = strlen(http_path(exchange)) + strlen(query) + 2;
    char *path = malloc(room);
    upstream_call call = {.method = http_method(exchange),
                          .content_type = http_header(exchange, "Content-Type"),
                          .on_head = pass_head,
                          .on_data = pass_data,
                          .gone = client_gone,
                          .user = &state};
    if (!path) {
        http_fail(exchange, 500, "out of memory");
        return;
    }
    snprintf(path, room, "%s%s%s", http_path(exchange), query[0] ? "?" : "", query);
    call.path = path;
    call.body = http_body(exchange, &call.body_bytes);
    if (text) {
        call.body = text;
        call.body_bytes = strlen(text);
    }
    if (target_run(exchange, target, &call, body, &error) == HYPURA_OK) {
        finish(&state);
    } else if (error.status != HYPURA_ERR_CANCELLED) {
        http_fail(exchange, 502, "%s", error.message);
    }
    hypura_buffer_clear(&state.refusal);
    free(path);
}

/* What OpenAI's routes have, and llama.cpp's server takes no notice of. False when it was answered. */
static bool is_served(http_exchange *exchange, const json_t *body)
{
    const char *what = NULL;
    if (strcmp(http_path(exchange), "/v1/embeddings") == 0) {
        const json_t *dimensions = json_object_get(body, "dimensions");
        what = dimensions && !json_is_null(dimensions) ? "dimensions are not served here (/api/embed takes them)" : NULL;
    } else if (strcmp(http_path(exchange), "/v1/completions") == 0) {
        what = json_is_true(json_object_get(body, "echo"))                ? "echo is not served here"
               : json_string_length(json_object_get(body, "suffix")) > 0   ? "suffix is not served here (/infill puts text in between)"
               : json_integer_value(json_object_get(body, "best_of")) > 1  ? "more than one best_of is not served here"
                                                                           : NULL;
    }
    if (what) {
        http_fail(exchange, 400, "%s", what);
    }
    return what == NULL;
}

/* The format of an answer of /v1/responses ("text": {"format": ..}) as /v1/chat/completions has it, which the model's
 * server makes of such a request. NULL: it says none. */
static json_t *chat_format(const char *path, const json_t *body)
{
    const json_t *format = json_object_get(json_object_get(body, "text"), "format");
    const char *type = json_string_value(json_object_get(format, "type"));
    const bool responses = strcmp(path, "/v1/responses") == 0 || strcmp(path, "/responses") == 0;
    if (!responses || !type || json_object_get(body, "response_format")) {
        return NULL;
    }
    if (strcmp(type, "json_schema") == 0) {
        return json_pack("{s:s, s:O}", "type", type, "json_schema", format);
    }
    return strcmp(type, "json_object") == 0 ? json_pack("{s:s}", "type", type) : NULL;
}

/* The body in place of the request's own; a new reference, NULL: that one goes as it is. */
static json_t *make_body(const char *path, const json_t *body, const json_t *settings)
{
    json_t *made = ollama_add_own(path, body, settings);
    json_t *format = chat_format(path, body);
    if (format) {
        made = made ? made : json_copy((json_t *)(uintptr_t)body);
        json_object_set_new(made, "response_format", format);
    }
    return made;
}

void endpoint_pass(http_exchange *exchange)
{
    json_t *body;
    char *name = named_model(exchange, &body);
    const hypura_model_entry *entry = name && is_served(exchange, body) ? target_find_or_default(exchange, name) : NULL;
    const fleet_settings settings = settings_for(http_path(exchange));
    server_target target;
    json_t *made = entry ? make_body(http_path(exchange), body, entry->settings) : NULL;
    char *text = made ? json_dumps(made, JSON_COMPACT) : NULL;
    if (entry && target_open(exchange, entry, &settings, &target)) {
        pass(exchange, &target, text ? made : body, text);
        target_close(exchange, &target);
    }
    free(text);
    json_decref(made);
    json_decref(body);
    free(name);
}
