/*
 * pass.c - requests that the model's own server answers: passed on as they are, and its answer passed back as
 * it comes, byte for byte. Of the request the model's name is looked at; where that model was made with a system text or
 * messages of its own, these are put before the request's. What that server passes over without a word is told it in
 * other words, or refused (overlooked.h). Where its answer is not what the API's own would be, it is amended (amend.h):
 * event by event, or whole.
 *
 * An engine that dies is an error: of the status line while there is none yet, else the last event of a stream. An
 * error that is the request's fault is told as one (refusal.h), and one for Anthropic's clients in their form; therefore
 * errors are held until they are whole.
 */
#include "base/host.h"
#include "server/dialect/amend.h"
#include "server/dialect/call.h"
#include "server/dialect/form.h"
#include "server/dialect/ollama.h"
#include "server/dialect/overlooked.h"
#include "server/dialect/pictures.h"
#include "server/dialect/refusal.h"
#include "server/dialect/sse.h"
#include "server/endpoint/constraint.h"
#include "server/endpoint/pictures_fetch.h"
#include "server/endpoint/routes.h"
#include "server/endpoint/server.h"
#include "server/endpoint/target.h"
#include "server/process/upstream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct passing {
    http_exchange *exchange;
    server_amendment *amendment; /* NULL: the answer goes as it comes */
    bool events;                 /* it is a stream of events */
    bool gathers;                /* of which one answer is made: the client asked for no stream */
    int held;                    /* the status of an answer that is kept here until it is whole; 0: it is not */
    char type[96];               /* of that */
    hypura_buffer kept;
    sse_reader reader;
} passing;

static bool pass_head(void *user, int code, const char *content_type)
{
    passing *pass = user;
    pass->events = strncmp(content_type, "text/event-stream", 17) == 0;
    if (pass->events && pass->gathers && code == 200) {
        return true;
    }
    if (code >= 400 || (pass->amendment && !pass->events)) {
        pass->held = code;
        snprintf(pass->type, sizeof pass->type, "%s", content_type);
        return true;
    }
    if (pass->events) {
        http_set_header(pass->exchange, "Cache-Control", "no-cache");
        http_set_header(pass->exchange, "X-Accel-Buffering", "no"); /* proxies in front of us shall not hold it back */
    }
    http_begin(pass->exchange, code, content_type);
    return true;
}

/* The name of an event is its type. */
static bool write_event(passing *pass, const json_t *event)
{
    const char *type = json_string_value(json_object_get(event, "type"));
    char *data = json_dumps(event, JSON_COMPACT);
    hypura_buffer text = {0};
    const bool made =
        data && (!type || (hypura_buffer_add(&text, "event: ", 7) && hypura_buffer_add(&text, type, strlen(type)) &&
                           hypura_buffer_add(&text, "\n", 1))) &&
        hypura_buffer_add(&text, "data: ", 6) && hypura_buffer_add(&text, data, strlen(data)) &&
        hypura_buffer_add(&text, "\n\n", 2);
    const bool written = made && http_write(pass->exchange, text.data, text.bytes);
    hypura_buffer_clear(&text);
    free(data);
    return written;
}

static bool amend_data(void *user, const char *data, size_t bytes)
{
    passing *pass = user;
    json_t *event = json_loadb(data, bytes, JSON_ALLOW_NUL, NULL);
    if (pass->gathers) {
        if (json_is_object(event)) {
            amend_gather(pass->amendment, event);
        }
        json_decref(event);
        return true;
    }
    if (!json_is_object(event)) { /* [DONE] */
        json_decref(event);
        return http_write(pass->exchange, "data: ", 6) && http_write(pass->exchange, data, bytes) &&
               http_write(pass->exchange, "\n\n", 2);
    }
    json_t *events = amend_event(pass->amendment, event);
    bool written = events != NULL;
    size_t i;
    const json_t *amended;
    json_array_foreach(events, i, amended)
    {
        written = written && write_event(pass, amended);
    }
    json_decref(events);
    json_decref(event);
    return written;
}

/* While a prompt takes long, comments keep the connection. */
static bool amend_stream(passing *pass, const char *data, size_t bytes)
{
    const unsigned n_before = pass->reader.n_comments;
    return sse_feed(&pass->reader, data, bytes, amend_data, pass) &&
           (pass->gathers || pass->reader.n_comments == n_before || http_write(pass->exchange, ":\n\n", 3));
}

static bool pass_data(void *user, const char *data, size_t bytes)
{
    passing *pass = user;
    if (pass->held >= 400) {
        refusal_add(&pass->kept, data, bytes);
        return true;
    }
    if (pass->held) {
        return hypura_buffer_add(&pass->kept, data, bytes);
    }
    return pass->amendment ? amend_stream(pass, data, bytes)
                           : http_write(pass->exchange, data, bytes);
}

static void finish_whole(passing *pass)
{
    json_t *answer = json_loadb(hypura_buffer_text(&pass->kept), pass->kept.bytes, JSON_ALLOW_NUL, NULL);
    if (json_is_object(answer)) {
        amend_whole(pass->amendment, answer);
        http_reply_json(pass->exchange, pass->held, answer);
    } else {
        json_decref(answer);
        http_reply(pass->exchange, pass->held, pass->type, hypura_buffer_text(&pass->kept), pass->kept.bytes);
    }
}

/* An error that came in the middle of the stream has its status with it. */
static void finish_gathered(passing *pass)
{
    json_t *answer = amend_gathered(pass->amendment);
    const json_t *error = json_object_get(answer, "error");
    const json_int_t code = json_integer_value(json_object_get(error, "code"));
    if (!answer || error) {
        const char *message = json_string_value(json_object_get(error, "message"));
        http_fail(pass->exchange, code >= 400 && code < 600 ? (int)code : 502, "%s",
                  message ? message : "the model's own server broke off its answer");
        json_decref(answer);
    } else {
        http_reply_json(pass->exchange, 200, answer);
    }
}

static void finish(passing *pass)
{
    char message[768];
    if (pass->gathers && pass->held == 0) {
        finish_gathered(pass);
        return;
    }
    if (pass->held == 0) {
        http_end(pass->exchange, true);
        return;
    }
    if (pass->held < 400) {
        finish_whole(pass);
        return;
    }
    int64_t n_prompt;
    int64_t n_context;
    const int code = refusal_read(pass->held, &pass->kept, message, sizeof message);
    const bool too_long = refusal_is_too_long(&pass->kept, &n_prompt, &n_context);
    const bool wants_code = too_long && call_of(http_path(pass->exchange))->openai;
    json_t *coded = wants_code ? refusal_too_long(&pass->kept) : NULL;
    /* In the words by which clients know that they have to shorten a conversation. */
    if (coded) {
        http_reply_json(pass->exchange, code, coded);
    } else if (too_long && http_error_style(pass->exchange) == HTTP_STYLE_ANTHROPIC) {
        http_fail(pass->exchange, 400, "prompt is too long: %lld tokens > %lld maximum", (long long)n_prompt,
                  (long long)n_context);
    } else if (pass->kept.bytes == 0) {
        http_fail(pass->exchange, code, "the model's own server takes no such request, and does not say why");
    } else if (message[0] != '\0' && (code != pass->held || http_error_style(pass->exchange) != HTTP_STYLE_OPENAI)) {
        http_fail(pass->exchange, code, "%s", message);
    } else {
        http_reply(pass->exchange, code, pass->type, hypura_buffer_text(&pass->kept), pass->kept.bytes);
    }
}

static bool client_gone(void *user)
{
    return http_gone(((passing *)user)->exchange);
}

/* The "model" of a JSON body, or of a form; a copy, "" when it names none. NULL when it was answered. */
static char *named_model(http_exchange *exchange, json_t **body)
{
    size_t bytes;
    *body = NULL;
    const char *form = http_body(exchange, &bytes);
    const char *type = http_header(exchange, "Content-Type");
    const char *asked = http_query(exchange, "model");
    if (form_is_one(type)) {
        char *named = form_field(type, form, bytes, "model");
        return named ? named : strdup(asked ? asked : "");
    }
    if (bytes > 0 || call_of(http_path(exchange))->path[0] != '\0') {
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

static server_amendment *open_amendment(http_exchange *exchange, const server_target *target, const json_t *asked,
                                        const json_t *sent)
{
    hypura_live_record record;
    const json_t *parameters = json_object_get(target->entry->settings, "parameters");
    const json_int_t n_predict = json_integer_value(json_object_get(parameters, "num_predict"));
    const bool goes_on = http_server(exchange)->options.context_shift;
    const amend_about about = {
        .model = target->entry->name,
        .n_predict = n_predict > 0 ? n_predict : 0,
        .n_context = !goes_on && engine_live(target->lease.engine, &record) ? (int64_t)record.n_context : 0};
    return amend_open(http_path(exchange), asked, sent, &about);
}

/* sent: asked, or what goes in its place; then text is it. */
static void pass(http_exchange *exchange, server_target *target, const json_t *asked, const json_t *sent,
                 const char *text)
{
    passing state = {.exchange = exchange, .amendment = open_amendment(exchange, target, asked, sent)};
    hypura_error error = {0};
    state.gathers = state.amendment && !json_is_true(json_object_get(asked, "stream")) &&
                    json_is_true(json_object_get(sent, "stream"));
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
        amend_close(state.amendment);
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
    if (target_run(exchange, target, &call, sent, &error) == HYPURA_OK) {
        finish(&state);
    } else {
        target_tell(exchange, &error);
    }
    amend_close(state.amendment);
    sse_clear(&state.reader);
    hypura_buffer_clear(&state.kept);
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

/* *told: with the pictures that it names by address, for a model that takes any. False when it was answered: it takes none. */
static bool put_pictures(http_exchange *exchange, const hypura_model_entry *entry, const json_t *body, json_t **told)
{
    hypura_error error = {0};
    json_t *made = NULL;
    if (!entry->projector_path) { /* told before the model is loaded */
        return target_sees(exchange, entry, pictures_are_shown(*told ? *told : body), NULL);
    }
    const bool outside = !hypura_hosts_are_loopback(http_server(exchange)->options.host);
    if (pictures_fetch(*told ? *told : body, outside, target_client_gone, exchange, &made, &error) != HYPURA_OK) {
        http_fail_error(exchange, &error);
        return false;
    }
    if (made) {
        json_decref(*told);
        *told = made;
    }
    return target_sees(exchange, entry, true, *told ? *told : body);
}

void endpoint_pass(http_exchange *exchange)
{
    json_t *body;
    json_t *told = NULL;
    char *name = named_model(exchange, &body);
    const hypura_model_entry *entry =
        name && translate(exchange, body, &told) ? find_able(exchange, name, told ? told : body) : NULL;
    const server_call *call = call_of(http_path(exchange));
    const fleet_settings settings = {.embeddings = call->embeds, .reranking = call->reranks};
    server_target target;
    if (entry && !put_pictures(exchange, entry, body, &told)) {
        hypura_model_entry_release(entry);
        entry = NULL;
    }
    json_t *made = entry ? ollama_add_own(http_path(exchange), told ? told : body, entry->settings) : NULL;
    made = made ? made : json_incref(told);
    json_t *several = entry ? amend_asks_for_stream(http_path(exchange), made ? made : body) : NULL;
    if (several) {
        json_decref(made);
        made = several;
    }
    char *text = made ? json_dumps(made, JSON_COMPACT) : NULL;
    if (entry && !constraint_check(exchange, entry, made ? made : body)) {
        hypura_model_entry_release(entry);
        entry = NULL;
    }
    if (entry && target_open(exchange, entry, &settings, &target)) {
        pass(exchange, &target, body, text ? made : body, text);
        target_close(exchange, &target);
    }
    free(text);
    json_decref(made);
    json_decref(told);
    json_decref(body);
    free(name);
}
