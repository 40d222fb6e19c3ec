/*
 * http.c - see http.h: what handlers see of a request, and the answer as it grows.
 */
#include "server/http/internal.h"

#include "base/clock.h"
#include "base/thread.h"
#include "base/utf8.h"
#include "server/base/log.h"
#include "server/http/json_weight.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

/* What the connection has not taken yet; a handler that is further ahead waits. */
#define OUT_LIMIT_BYTES (256 * 1024)

/* Of what requests say, as values: one may take twice the largest body, or this; all at the same time four times that. */
#define LEAST_JSON_BYTES (UINT64_C(32) << 20)
#define MAX_JSONS        4

/* ---- the request ------------------------------------------------------------- */

bool http_pairs_add(http_pairs *pairs, const char *name, const char *value)
{
    http_pair *items = realloc(pairs->items, (pairs->n + 1) * sizeof(*items));
    if (!items) {
        return false;
    }
    pairs->items = items;
    http_pair pair = {strdup(name), strdup(value ? value : "")};
    if (!pair.name || !pair.value) {
        free(pair.name);
        free(pair.value);
        return false;
    }
    items[pairs->n++] = pair;
    return true;
}

void http_pairs_clear(http_pairs *pairs)
{
    for (size_t i = 0; i < pairs->n; i++) {
        free(pairs->items[i].name);
        free(pairs->items[i].value);
    }
    free(pairs->items);
    *pairs = (http_pairs){0};
}

hypura_server *http_server(const http_exchange *exchange)
{
    return exchange->daemon->server;
}

const char *http_method(const http_exchange *exchange)
{
    return exchange->method;
}

const char *http_path(const http_exchange *exchange)
{
    return exchange->path;
}

const char *http_query_text(const http_exchange *exchange)
{
    return exchange->query;
}

const char *http_rest(const http_exchange *exchange)
{
    const char *pattern = exchange->route->path;
    const size_t length = strlen(pattern);
    return pattern[length - 1] == '*' ? exchange->path + length - 1 : "";
}

const char *http_query(const http_exchange *exchange, const char *name)
{
    for (size_t i = 0; i < exchange->arguments.n; i++) {
        if (strcmp(exchange->arguments.items[i].name, name) == 0) {
            return exchange->arguments.items[i].value;
        }
    }
    return NULL;
}

const char *http_header(const http_exchange *exchange, const char *name)
{
    for (size_t i = 0; i < exchange->headers.n; i++) {
        if (strcasecmp(exchange->headers.items[i].name, name) == 0) {
            return exchange->headers.items[i].value;
        }
    }
    return NULL;
}

const char *http_body(const http_exchange *exchange, size_t *bytes)
{
    *bytes = exchange->body.bytes;
    return hypura_buffer_text(&exchange->body);
}

/* Nothing that the handler has yet to say goes out. With the lock held. */
static bool is_over(const http_exchange *exchange)
{
    return exchange->gone || exchange->give_up || exchange->cancelled;
}

http_part http_read(http_exchange *exchange, hypura_buffer *piece)
{
    piece->bytes = 0;
    pthread_mutex_lock(&exchange->lock);
    while (!is_over(exchange) && !exchange->body_ended && exchange->body.bytes == 0) {
        (void)hypura_cond_wait(&exchange->room, &exchange->lock, UINT64_MAX);
    }
    http_part part = HTTP_PART_END;
    if (is_over(exchange)) {
        part = HTTP_PART_BROKEN;
    } else if (exchange->body.bytes > 0) {
        const hypura_buffer empty = *piece;
        *piece = exchange->body;
        exchange->body = empty;
        part = HTTP_PART_BYTES;
        if (!exchange->body_ended) {
            http_resume(exchange);
        }
    }
    pthread_mutex_unlock(&exchange->lock);
    return part;
}

/* A few bytes may be many values. False when it was answered. */
static bool has_room(http_exchange *exchange, const char *body, size_t bytes)
{
    http_daemon *daemon = exchange->daemon;
    const uint64_t weight = json_weight(body, bytes);
    const uint64_t twice = 2 * (uint64_t)daemon->options.max_body_bytes;
    const uint64_t limit = twice > LEAST_JSON_BYTES ? twice : LEAST_JSON_BYTES;
    if (weight > limit) {
        http_fail(exchange, 413, "the request has too many values in it: they would take %llu bytes of memory, %llu may be taken",
                  (unsigned long long)weight, (unsigned long long)limit);
        return false;
    }
    exchange->n_json_bytes += weight;
    if (atomic_fetch_add(&daemon->n_json_bytes, weight) + weight > limit * MAX_JSONS) {
        http_fail(exchange, 429, "too much is sent at the same time: try again in a moment");
        return false;
    }
    return true;
}

json_t *http_json_value(http_exchange *exchange)
{
    json_error_t reason;
    size_t bytes;
    const char *body = http_body(exchange, &bytes);
    if (!has_room(exchange, body, bytes)) {
        return NULL;
    }
    json_t *value = json_loadb(body, bytes, JSON_REJECT_DUPLICATES, &reason);
    if (!value && json_error_code(&reason) == json_error_null_character) {
        http_fail(exchange, 400, "the request has a zero character (\\u0000) in it, which is not served (byte %d)",
                  reason.position);
    } else if (!value) {
        http_fail(exchange, 400, "the request body is no JSON: %s (byte %d)", reason.text, reason.position);
    }
    return value;
}

json_t *http_json(http_exchange *exchange)
{
    json_t *value = http_json_value(exchange);
    if (value && !json_is_object(value)) {
        json_decref(value);
        value = NULL;
        http_fail(exchange, 400, "the request body is no JSON object");
    }
    return value;
}

/* ---- the answer: with the lock held -------------------------------------------- */

static void begin(http_exchange *exchange, int code, const char *content_type, bool streamed)
{
    exchange->begun = true;
    exchange->streamed = streamed;
    exchange->code = code;
    snprintf(exchange->content_type, sizeof(exchange->content_type), "%s", content_type);
}

void http_resume(http_exchange *exchange)
{
    if (exchange->suspended) {
        exchange->suspended = false;
        MHD_resume_connection(exchange->connection);
    }
}

/* ---- the answer, for handlers -------------------------------------------------- */

void http_set_header(http_exchange *exchange, const char *name, const char *value)
{
    pthread_mutex_lock(&exchange->lock);
    (void)http_pairs_add(&exchange->answer_headers, name, value);
    pthread_mutex_unlock(&exchange->lock);
}

void http_reply(http_exchange *exchange, int code, const char *content_type, const char *body, size_t bytes)
{
    pthread_mutex_lock(&exchange->lock);
    if (!exchange->begun) {
        begin(exchange, code, content_type, false);
        exchange->whole = hypura_buffer_add(&exchange->out, body, bytes);
        exchange->ended = true;
        http_resume(exchange);
    }
    pthread_mutex_unlock(&exchange->lock);
}

void http_reply_json(http_exchange *exchange, int code, json_t *value)
{
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    json_decref(value);
    if (text) {
        http_reply(exchange, code, "application/json; charset=utf-8", text, strlen(text));
    } else {
        static const char none[] = "{\"error\":\"out of memory\"}";
        http_reply(exchange, 500, "application/json; charset=utf-8", none, sizeof(none) - 1);
    }
    free(text);
}

static const char *error_type(int code)
{
    switch (code) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 404:
        return "not_found_error";
    case 413:
        return "request_too_large";
    case 429:
        return "rate_limit_error";
    case 503:
        return "unavailable_error";
    default:
        return code < 500 ? "invalid_request_error" : "server_error";
    }
}

http_style http_error_style(const http_exchange *exchange)
{
    const http_style other = strncmp(exchange->path, "/api/", 5) == 0 ? HTTP_STYLE_OLLAMA : HTTP_STYLE_OPENAI;
    const http_style style = exchange->route ? exchange->route->style : other;
    return style == HTTP_STYLE_OPENAI && http_header(exchange, "anthropic-version") ? HTTP_STYLE_ANTHROPIC : style;
}

/* The error's own JSON; takes text over. */
static json_t *error_json(const http_exchange *exchange, int code, json_t *text)
{
    switch (http_error_style(exchange)) {
    case HTTP_STYLE_OLLAMA:
        return json_pack("{s:o}", "error", text);
    case HTTP_STYLE_ANTHROPIC:
        return json_pack("{s:s, s:{s:s, s:o}}", "type", "error", "error", "type",
                         code < 500 ? error_type(code) : "api_error", "message", text);
    case HTTP_STYLE_OPENAI:
        break;
    }
    return json_pack("{s:{s:i, s:o, s:s}}", "error", "code", code, "message", text, "type", error_type(code));
}

/* The end of an answer that streams: its last line or event, as the API has it. Takes value over. */
static void end_stream(http_exchange *exchange, json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT);
    const bool lines = strncmp(exchange->content_type, "application/x-ndjson", 20) == 0;
    const bool events = strncmp(exchange->content_type, "text/event-stream", 17) == 0;
    const char *before = lines                                                ? ""
                         : http_error_style(exchange) == HTTP_STYLE_ANTHROPIC ? "event: error\ndata: "
                                                                              : "data: ";
    json_decref(value);
    pthread_mutex_lock(&exchange->lock);
    bool told = false;
    if (text && (lines || events) && !exchange->ended && !is_over(exchange)) {
        told = hypura_buffer_add(&exchange->out, before, strlen(before)) &&
               hypura_buffer_add(&exchange->out, text, strlen(text)) &&
               hypura_buffer_add(&exchange->out, "\n\n", lines ? 1 : 2);
    }
    pthread_mutex_unlock(&exchange->lock);
    free(text);
    http_end(exchange, told && lines); /* Ollama's clients look for the line; others shall not take it for complete */
}

/* Text from a request may be cut in the middle of a character: what is none is left out. */
static void leave_characters(char *text)
{
    size_t used = 0;
    size_t left = strlen(text);
    for (char *at = text; left > 0;) {
        const int n = hypura_utf8_character(at, left);
        const size_t bytes = n > 0 ? (size_t)n : 1;
        memmove(text + used, at, bytes);
        used += n > 0 ? bytes : 0;
        at += bytes;
        left -= bytes;
    }
    text[used] = '\0';
}

void http_fail(http_exchange *exchange, int code, const char *format, ...)
{
    char message[768];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    leave_characters(message);
    server_log(code >= 500 ? LOG_WARN : LOG_DEBUG, "%s %s: %d: %s", exchange->method, exchange->path, code, message);
    json_t *value = error_json(exchange, code, json_string(message));
    if (http_begun(exchange)) {
        end_stream(exchange, value);
        return;
    }
    if (code == 429 || code == 503) {
        http_set_header(exchange, "Retry-After", "2");
    }
    http_reply_json(exchange, code, value);
}

static int code_of(hypura_status status)
{
    switch (status) {
    case HYPURA_OK:
        return 200;
    case HYPURA_ERR_USAGE:
    case HYPURA_ERR_UNSUPPORTED:
        return 400;
    case HYPURA_ERR_CANCELLED: /* and the client is still there: the server ends */
        return 503;
    default:
        return 500;
    }
}

void http_fail_error(http_exchange *exchange, const hypura_error *error)
{
    if (error->status == HYPURA_ERR_CANCELLED && http_gone(exchange)) {
        return; /* nobody hears it */
    }
    http_fail(exchange, code_of(error->status), "%s", error->message);
}

void http_begin(http_exchange *exchange, int code, const char *content_type)
{
    pthread_mutex_lock(&exchange->lock);
    if (!exchange->begun) {
        begin(exchange, code, content_type, true);
        http_resume(exchange);
    }
    pthread_mutex_unlock(&exchange->lock);
}

bool http_write(http_exchange *exchange, const char *data, size_t bytes)
{
    pthread_mutex_lock(&exchange->lock);
    const uint64_t begin_us = hypura_clock_us();
    const uint64_t timeout_us = http_write_timeout_us(exchange);
    while (!is_over(exchange) && exchange->out.bytes > OUT_LIMIT_BYTES) {
        const uint64_t waited_us = hypura_clock_us() - begin_us;
        if (waited_us >= timeout_us) {
            exchange->give_up = true;
            http_resume(exchange);
            break;
        }
        (void)hypura_cond_wait(&exchange->room, &exchange->lock, timeout_us - waited_us);
    }
    const bool written = !is_over(exchange) && hypura_buffer_add(&exchange->out, data, bytes);
    if (written) {
        http_resume(exchange);
    }
    pthread_mutex_unlock(&exchange->lock);
    return written;
}

bool http_write_line(http_exchange *exchange, json_t *value)
{
    http_begin(exchange, 200, "application/x-ndjson");
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    json_decref(value);
    bool written = false;
    if (text) {
        const size_t n = strlen(text);
        text[n] = '\n'; /* in place of the zero byte */
        written = http_write(exchange, text, n + 1);
        free(text);
    }
    return written;
}

void http_end(http_exchange *exchange, bool whole)
{
    pthread_mutex_lock(&exchange->lock);
    if (!exchange->ended) {
        exchange->ended = true;
        exchange->whole = whole;
        http_resume(exchange);
    }
    pthread_mutex_unlock(&exchange->lock);
}

bool http_begun(const http_exchange *exchange)
{
    http_exchange *locked = (http_exchange *)(uintptr_t)exchange;
    pthread_mutex_lock(&locked->lock);
    const bool begun = exchange->begun;
    pthread_mutex_unlock(&locked->lock);
    return begun;
}

bool http_gone(http_exchange *exchange)
{
    pthread_mutex_lock(&exchange->lock);
    bool gone = is_over(exchange);
    if (!gone) {
        char byte;
        const ssize_t n = recv(exchange->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        gone = n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
    }
    pthread_mutex_unlock(&exchange->lock);
    return gone;
}
