/*
 * endpoint_pass.c - requests that the model's own server answers: passed on as they are, and its answer passed back as
 * it comes, byte for byte. Of the request the model's name is looked at; where that model was made with a system text or
 * messages of its own, these are put before the request's. What that server passes over without a word is told it in
 * other words, or refused (overlooked.h).
 *
 * An engine that dies is an error: of the status line while there is none yet, else the last event of a stream. An
 * error that is the request's fault is told as one (refusal.h), and one for Anthropic's clients in their form; therefore
 * errors are held until they are whole.
 */
#include "server/ollama.h"
#include "server/overlooked.h"
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

/* The "model" of a JSON body; a copy, "" when it names none. NULL when it was answered. */
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
        const json_t *named = json_object_get(*body, "model");
        if (named && !json_is_null(named) && !json_is_string(named)) {
            http_fail(exchange, 400, "model is no text");
            return NULL;
        }
        asked = json_is_string(named) ? json_string_value(named) : asked;
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

/* *told: what goes in place of the body, a new reference; NULL: it goes as it is. False when it was answered. */
static bool translate(http_exchange *exchange, const json_t *body, json_t **told)
{
    hypura_error error = {0};
    if (overlooked_translate(http_path(exchange), body, told, &error) != HYPURA_OK) {
        http_fail_error(exchange, &error);
        return false;
    }
    return true;
}

/* The model that is named; NULL when it was answered: there is none, or its template has no place for tools, which
 * llama.cpp's server leaves out then. */
static const hypura_model_entry *find_able(http_exchange *exchange, const char *name, const json_t *body)
{
    const hypura_model_entry *entry = target_find_or_default(exchange, name);
    if (entry && overlooked_calls_tools(http_path(exchange), body) && !target_can(exchange, entry, entry->name, "tools")) {
        hypura_model_entry_release(entry);
        return NULL;
    }
    return entry;
}

void endpoint_pass(http_exchange *exchange)
{
    json_t *body;
    json_t *told = NULL;
    char *name = named_model(exchange, &body);
    const hypura_model_entry *entry =
        name && translate(exchange, body, &told) ? find_able(exchange, name, told ? told : body) : NULL;
    const fleet_settings settings = settings_for(http_path(exchange));
    server_target target;
    json_t *made = entry ? ollama_add_own(http_path(exchange), told ? told : body, entry->settings) : NULL;
    made = made ? made : json_incref(told);
    char *text = made ? json_dumps(made, JSON_COMPACT) : NULL;
    if (entry && target_open(exchange, entry, &settings, &target)) {
        pass(exchange, &target, text ? made : body, text);
        target_close(exchange, &target);
    }
    free(text);
    json_decref(made);
    json_decref(told);
    json_decref(body);
    free(name);
}
