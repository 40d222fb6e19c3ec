/*
 * chat.c - Ollama's /api/chat and /api/generate.
 *
 *     request --> ollama_translate --> the model's server --> events --> ollama_answer_take --> lines
 *
 * An answer that is streamed begins with its first line, so that what fails before has a status of its own; where the
 * prompt takes half a minute, that line is an empty one. A
 * conversation that is longer than the model's context goes without its oldest messages, as Ollama's clients expect it
 * ("truncate": false: it is refused); the engine tells how long it is.
 */
#include "server/dialect/given.h"
#include "server/dialect/ollama.h"
#include "server/dialect/refusal.h"
#include "server/dialect/sse.h"
#include "server/endpoint/constraint.h"
#include "server/endpoint/library.h"
#include "server/endpoint/routes.h"
#include "server/endpoint/server.h"
#include "server/endpoint/target.h"
#include "server/process/upstream.h"

#include "base/clock.h"
#include "base/status.h"

#include <stdlib.h>
#include <string.h>

typedef struct talk {
    http_exchange *exchange;
    server_target *target;
    ollama_answer answer;
    sse_reader events;
    uint32_t n_context;    /* the answer ends where this is full, though others would go on; 0: as the server does */
    bool full;             /* it did */
    int code;              /* of the server's answer */
    hypura_buffer refusal; /* its body, where the code is not 200 */
} talk;

static bool on_event(void *user, const char *data, size_t bytes)
{
    talk *t = user;
    json_t *line;
    ollama_answer_take(&t->answer, data, bytes, &line);
    t->full = t->n_context > 0 && !t->answer.done && t->answer.n_prompt + t->answer.n_tokens >= (int64_t)t->n_context;
    if (!line) {
        return !t->full;
    }
    return http_write_line(t->exchange, line) && !t->full;
}

static bool on_head(void *user, int code, const char *content_type)
{
    (void)content_type;
    ((talk *)user)->code = code;
    return true;
}

/* While a prompt takes long, the engine sends comments: what reads lines gets one that says nothing, or it gives up. */
static bool feed(talk *t, const char *data, size_t bytes)
{
    const unsigned n_before = t->events.n_comments;
    if (!sse_feed(&t->events, data, bytes, on_event, t)) {
        return false;
    }
    if (t->events.n_comments == n_before || !t->answer.stream) {
        return true;
    }
    return http_write_line(t->exchange, ollama_answer_wait(&t->answer));
}

static bool on_data(void *user, const char *data, size_t bytes)
{
    talk *t = user;
    if (t->code == 200) {
        return feed(t, data, bytes);
    }
    refusal_add(&t->refusal, data, bytes);
    return true;
}

static bool client_gone(void *user)
{
    return http_gone(((talk *)user)->exchange);
}

static void tell_refusal(talk *t)
{
    char message[512];
    const int code = refusal_read(t->code, &t->refusal, message, sizeof message);
    http_fail(t->exchange, code, "%s", message[0] ? message : "the engine refused the request");
}

/* ---- the conversation as tokens --------------------------------------------------- */

/* What the model's template makes of the conversation, where that is not known yet. */
static hypura_status find_text(talk *t, ollama_request *request, hypura_error *error)
{
    int code = 0;
    json_t *answer = NULL;
    if (request->text || !request->chat) {
        return HYPURA_OK;
    }
    hypura_status status = target_json(t->exchange, t->target, "/apply-template", request->chat, &code, &answer, error);
    json_t *text = json_object_get(answer, "prompt");
    if (status == HYPURA_OK && (code != 200 || !json_is_string(text))) {
        status = hypura_fail(error, HYPURA_ERR_BACKEND, "the model's template cannot be applied");
    }
    request->text = status == HYPURA_OK ? json_incref(text) : NULL;
    json_decref(answer);
    return status;
}

/* NULL where an answer has none, or the engine cannot tell: the answer is whole without it. */
static json_t *find_context(talk *t, ollama_request *request)
{
    hypura_error error = {0};
    if (find_text(t, request, &error) != HYPURA_OK || !request->text) {
        return NULL;
    }
    json_t *said = ollama_answer_text(&t->answer);
    json_t *text = ollama_request_conversation(request, json_string_value(said));
    json_t *tokens = target_tokens(t->exchange, t->target, text);
    json_decref(said);
    json_decref(text);
    return tokens;
}

/* The share of the conversation that is too much for the context, below 0 when that is not why it was refused. */
static double excess(const talk *t)
{
    int64_t tokens;
    int64_t context;
    return refusal_is_too_long(&t->refusal, &tokens, &context) ? 1 - (double)context / (double)tokens : -1;
}

static void finish(talk *t, ollama_request *request, uint64_t begin_us)
{
    if (t->code != 200) {
        tell_refusal(t);
    } else if (t->answer.error[0] != '\0' || !t->answer.done) {
        http_fail(t->exchange, 500, "%s",
                  t->answer.error[0] ? t->answer.error : "the model's engine broke off its answer");
    } else {
        json_t *context = find_context(t, request);
        json_t *last = ollama_answer_end(&t->answer, hypura_clock_us() - begin_us, t->target->lease.load_us);
        if (context) {
            json_object_set_new(last, "context", context);
        }
        if (t->answer.stream) {
            (void)http_write_line(t->exchange, last);
            http_end(t->exchange, true);
        } else {
            http_reply_json(t->exchange, 200, last);
        }
    }
}

/* One attempt. messages: those that may go; NULL: none may. True when some went, and nothing is answered yet. */
static bool hold_talk(talk *t, ollama_request *request, json_t *messages, uint64_t begin_us)
{
    hypura_error error = {0};
    bool shortened = false;
    if (request->before && find_text(t, request, &error) != HYPURA_OK) {
        http_fail_error(t->exchange, &error);
        return false;
    }
    if (request->before) {
        ollama_request_continue(request);
    }
    if (t->n_context > 0) {
        json_object_set_new(request->body, "timings_per_token", json_true());
    }
    char *body = json_dumps(request->body, JSON_COMPACT);
    if (!body) {
        http_fail(t->exchange, 500, "out of memory");
        return false;
    }
    upstream_call call = {.method = "POST",
                          .path = request->path,
                          .body = body,
                          .body_bytes = strlen(body),
                          .on_head = on_head,
                          .on_data = on_data,
                          .gone = client_gone,
                          .user = t};
    const hypura_status status = target_run(t->exchange, t->target, &call, request->body, &error);
    if (status != HYPURA_OK && t->full && !http_gone(t->exchange)) {
        ollama_answer_cut(&t->answer);
        finish(t, request, begin_us);
    } else if (status == HYPURA_OK) {
        const double share = t->code == 400 && messages ? excess(t) : -1;
        shortened = share >= 0 && ollama_shorten(messages, share);
        if (!shortened) {
            finish(t, request, begin_us);
        }
    } else {
        target_tell(t->exchange, &error);
    }
    free(body);
    return shortened;
}

/* An empty request loads the model, or unloads it where it is not to be kept. */
static void load_only(http_exchange *exchange, ollama_kind kind, const char *model, const hypura_model_entry *entry,
                      const ollama_common *common)
{
    server_target target;
    const fleet_settings settings = target_settings(common);
    if (common->keep_alive_s == 0) {
        fleet_unload(http_server(exchange)->fleet, entry);
        hypura_model_entry_release(entry);
        http_reply_json(exchange, 200, ollama_answer_nothing(kind, model, "unload"));
    } else if (target_open(exchange, entry, &settings, &target)) {
        target.keep_alive_s = common->keep_alive_s;
        target_close(exchange, &target);
        http_reply_json(exchange, 200, ollama_answer_nothing(kind, model, "load"));
    }
}

/* "shift": false, where the server lets long answers go on without what is oldest. */
static uint32_t end_of_context(http_exchange *exchange, const json_t *body, const server_target *target)
{
    hypura_live_record record;
    return http_server(exchange)->options.context_shift && json_is_false(json_object_get(body, "shift")) &&
                   engine_live(target->lease.engine, &record)
               ? record.n_context
               : 0;
}

/* Attempts until an answer is given. request: of body, translated; a shorter one in its place afterwards. */
static void converse(http_exchange *exchange, ollama_kind kind, const json_t *body, const char *model,
                     const ollama_common *common, ollama_request *request, server_target *target, uint64_t begin_us)
{
    hypura_error error = {0};
    json_t *messages = json_is_false(json_object_get(body, "truncate")) ? NULL : json_object_get(body, "messages");
    given_parts given = given_of_messages(json_object_get(body, "messages"));
    bool again = true;
    while (again) {
        talk t = {.exchange = exchange, .target = target, .n_context = end_of_context(exchange, body, target)};
        again = false;
        const bool opened = ollama_answer_open(&t.answer, kind, model, common->stream);
        t.answer.given = given.text;
        t.answer.given_thought = given.thought;
        if (!opened) {
            http_fail(exchange, 500, "out of memory");
        } else if (hold_talk(&t, request, messages, begin_us)) {
            ollama_request_clear(request);
            again = ollama_translate(kind, body, target->entry->settings, request, &error) == HYPURA_OK;
            if (!again) {
                http_fail_error(exchange, &error);
            }
        }
        sse_clear(&t.events);
        ollama_answer_clear(&t.answer);
        hypura_buffer_clear(&t.refusal);
    }
    given_clear(&given);
}

static void serve(http_exchange *exchange, ollama_kind kind, const json_t *body, const char *model,
                  const hypura_model_entry *entry)
{
    const uint64_t begin_us = hypura_clock_us();
    ollama_common common;
    ollama_request request = {0};
    hypura_error error = {0};
    hypura_status status = ollama_read_common(body, entry->settings, &common, &error);
    if (status == HYPURA_OK) {
        status = ollama_translate(kind, body, entry->settings, &request, &error);
    }
    if (status != HYPURA_OK) {
        hypura_model_entry_release(entry);
        http_fail_error(exchange, &error);
        return;
    }
    server_target target;
    const fleet_settings settings = target_settings(&common);
    if (!request.body) {
        load_only(exchange, kind, model, entry, &common);
    } else if (!constraint_check(exchange, entry, request.body)) {
        hypura_model_entry_release(entry);
    } else if (target_open(exchange, entry, &settings, &target)) {
        target.keep_alive_s = common.keep_alive_s;
        converse(exchange, kind, body, model, &common, &request, &target, begin_us);
        target_close(exchange, &target);
    }
    ollama_request_clear(&request);
}

/* Before anything is loaded. False when it was answered: the request wants what this model cannot do. */
static bool can_all(http_exchange *exchange, const json_t *body, const char *model, const hypura_model_entry *entry)
{
    const json_t *think = json_object_get(body, "think");
    const bool thinks = json_is_true(think) || json_string_length(think) > 0;
    const bool inserts = json_string_length(json_object_get(body, "suffix")) > 0;
    const bool calls = json_array_size(json_object_get(body, "tools")) > 0;
    return target_sees(exchange, entry, ollama_has_images(body), body) &&
           (!thinks || target_can(exchange, entry, model, "thinking")) &&
           (!inserts || target_can(exchange, entry, model, "insert")) &&
           (!calls || target_can(exchange, entry, model, "tools"));
}

static void handle(http_exchange *exchange, ollama_kind kind)
{
    json_t *body = http_json(exchange);
    if (!body) {
        return;
    }
    const char *model = library_need_name(exchange, body, "model", "model");
    const hypura_model_entry *entry = model ? target_find(exchange, model) : NULL;
    if (entry && !can_all(exchange, body, model, entry)) {
        hypura_model_entry_release(entry);
    } else if (entry) {
        serve(exchange, kind, body, model, entry);
    }
    json_decref(body);
}

void endpoint_ollama_chat(http_exchange *exchange)
{
    handle(exchange, OLLAMA_CHAT);
}

void endpoint_ollama_generate(http_exchange *exchange)
{
    handle(exchange, OLLAMA_GENERATE);
}
