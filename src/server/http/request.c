/*
 * request.c - a request as it comes in, and the thread that its handler runs on.
 *
 * libmicrohttpd calls on_request_line, then on_request several times for one request:
 *
 *     line ---> head ---> body, in pieces ---> whole: handler starts, connection set aside
 *                |                                |
 *                '--> refused                     '--> (taken up again) answer (answer.c)
 *
 *     line ---> head of an upload: handler starts ---> body, set aside while the handler is behind ---> whole --->
 * answer
 *
 * What always holds: libmicrohttpd's threads wait for nothing but sockets and short locks.
 */
#include "server/http/internal.h"

#include "base/clock.h"
#include "base/thread.h"
#include "server/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define MIN_BODY_BYTES_PER_S (64 * 1024)
#define MAX_TARGET_BYTES     8192 /* of the line that a request begins with */
#define MAX_ARGUMENTS        100
#define UPLOAD_BYTES         ((size_t)1 << 20) /* of one that its handler has not read: no more is taken then */

/* ---- links --------------------------------------------------------------------------- */

void http_on_connection(void *user, struct MHD_Connection *connection, void **socket_context,
                        enum MHD_ConnectionNotificationCode what)
{
    http_daemon *daemon = user;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        http_link *link = info ? http_link_add(daemon->links, info->connect_fd) : NULL;
        if (link) {
            http_link_deadline(daemon->links, link, daemon->options.idle_s);
        }
        *socket_context = link; /* NULL: requests on it are refused */
    } else if (*socket_context) {
        http_link_remove(daemon->links, *socket_context);
        *socket_context = NULL;
    }
}

static http_link *link_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

/* ---- exchanges ------------------------------------------------------------------- */

static http_exchange *exchange_open(http_daemon *daemon, struct MHD_Connection *connection)
{
    http_exchange *exchange = calloc(1, sizeof(*exchange));
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (!exchange || !info) {
        free(exchange);
        return NULL;
    }
    exchange->daemon = daemon;
    exchange->connection = connection;
    exchange->fd = info->connect_fd;
    exchange->begin_us = hypura_clock_us();
    exchange->n_holders = 1;
    pthread_mutex_init(&exchange->lock, NULL);
    hypura_cond_init(&exchange->room);
    pthread_mutex_lock(&daemon->lock);
    hypura_list_add(&daemon->exchanges, &exchange->link);
    pthread_mutex_unlock(&daemon->lock);
    return exchange;
}

static bool is_upload(const http_exchange *exchange)
{
    return exchange->route && (exchange->route->flags & ROUTE_UPLOAD) != 0;
}

static void exchange_free(http_exchange *exchange)
{
    http_daemon *daemon = exchange->daemon;
    if (!is_upload(exchange)) {
        atomic_fetch_sub(&daemon->n_body_bytes, exchange->n_body_bytes);
    }
    atomic_fetch_sub(&daemon->n_json_bytes, exchange->n_json_bytes);
    pthread_mutex_lock(&daemon->lock);
    hypura_list_remove(&daemon->exchanges, &exchange->link);
    pthread_cond_broadcast(&daemon->changed);
    pthread_mutex_unlock(&daemon->lock);
    http_pairs_clear(&exchange->arguments);
    http_pairs_clear(&exchange->headers);
    http_pairs_clear(&exchange->answer_headers);
    pthread_cond_destroy(&exchange->room);
    pthread_mutex_destroy(&exchange->lock);
    free(exchange->allowed_origin);
    free(exchange->method);
    free(exchange->path);
    free(exchange->query);
    hypura_buffer_clear(&exchange->body);
    hypura_buffer_clear(&exchange->out);
    free(exchange);
}

static void exchange_release(http_exchange *exchange)
{
    pthread_mutex_lock(&exchange->lock);
    const bool last = --exchange->n_holders == 0;
    pthread_mutex_unlock(&exchange->lock);
    if (last) {
        exchange_free(exchange);
    }
}

/* ---- running handlers -------------------------------------------------------------- */

static bool is_quick(const http_exchange *exchange)
{
    return (exchange->route->flags & ROUTE_QUICK) != 0;
}

static uint32_t *count_of(http_exchange *exchange)
{
    return exchange->route->flags & ROUTE_MODEL ? &exchange->daemon->n_active : &exchange->daemon->n_other;
}

static bool enter(http_exchange *exchange)
{
    http_daemon *daemon = exchange->daemon;
    const uint32_t limit = exchange->route->flags & ROUTE_MODEL ? daemon->options.max_active : HTTP_OTHER_REQUESTS;
    pthread_mutex_lock(&daemon->lock);
    uint32_t *count = count_of(exchange);
    const bool entered = *count < limit;
    *count += entered;
    pthread_mutex_unlock(&daemon->lock);
    return entered;
}

static void leave(http_exchange *exchange)
{
    http_daemon *daemon = exchange->daemon;
    pthread_mutex_lock(&daemon->lock);
    --*count_of(exchange);
    pthread_cond_broadcast(&daemon->changed);
    pthread_mutex_unlock(&daemon->lock);
}

static void run_handler(void *user)
{
    http_exchange *exchange = user;
    exchange->route->handle(exchange);
    pthread_mutex_lock(&exchange->lock);
    if (!exchange->begun) {
        exchange->give_up = true; /* the client is gone: there is nothing to say */
    }
    if (!exchange->ended) {
        exchange->ended = true;
        exchange->whole = false;
    }
    http_resume(exchange);
    pthread_mutex_unlock(&exchange->lock);
    leave(exchange);
    exchange_release(exchange);
}

/* To a handler on a thread of its own, and sets the connection aside until that answers, but for an upload, which goes
 * on. False when it was answered: there is no room. */
static bool hand_over(http_exchange *exchange)
{
    http_daemon *daemon = exchange->daemon;
    if (atomic_load(&daemon->draining)) {
        http_fail(exchange, 503, "the server is shutting down");
        return false;
    }
    if (!enter(exchange)) {
        http_fail(exchange, 429, "too many requests at the same time: try again in a moment");
        return false;
    }
    pthread_mutex_lock(&exchange->lock); /* so that it does not answer before the connection is set aside */
    exchange->n_holders++;
    const bool started = server_jobs_run(daemon->jobs, run_handler, exchange);
    if (!started) {
        exchange->n_holders--;
    } else if (!is_upload(exchange)) {
        exchange->suspended = true;
        MHD_suspend_connection(exchange->connection);
    }
    pthread_mutex_unlock(&exchange->lock);
    if (!started) {
        leave(exchange);
        http_fail(exchange, 503, "no thread can be started");
    }
    return started;
}

/* ---- checks ------------------------------------------------------------------------ */

static enum MHD_Result collect_pair(void *user, enum MHD_ValueKind kind, const char *name, const char *value)
{
    (void)kind;
    return http_pairs_add(user, name, value) ? MHD_YES : MHD_NO;
}

/* A proxy before this server may take another of two lengths, the length where this takes the pieces, or one whose name
 * has a space behind it, and what follows for the next request (RFC 9112, 5.1 and 6.3); or another of two hosts (3.2). */
static bool has_one_meaning(const http_exchange *exchange)
{
    size_t n_ends = 0, n_hosts = 0;
    for (size_t i = 0; i < exchange->headers.n; i++) {
        const char *name = exchange->headers.items[i].name;
        n_ends += strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0 ||
                  strcasecmp(name, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0;
        n_hosts += strcasecmp(name, MHD_HTTP_HEADER_HOST) == 0;
        if (strpbrk(name, " \t")) {
            return false;
        }
    }
    return n_ends <= 1 && n_hosts <= 1;
}

/* Of another coding than pieces nobody here knows where it ends. */
static bool has_known_end(const http_exchange *exchange)
{
    const char *coding = http_header(exchange, MHD_HTTP_HEADER_TRANSFER_ENCODING);
    return !coding || strcasecmp(coding, "chunked") == 0;
}

static bool is_as_it_is(const http_exchange *exchange)
{
    const char *coding = http_header(exchange, MHD_HTTP_HEADER_CONTENT_ENCODING);
    return !coding || coding[0] == '\0' || strcasecmp(coding, "identity") == 0;
}

static bool check_length(http_exchange *exchange, uint64_t *seconds)
{
    const http_options *options = &exchange->daemon->options;
    if (!has_one_meaning(exchange)) {
        http_set_header(exchange, MHD_HTTP_HEADER_CONNECTION, "close");
        http_fail(exchange, 400, "the request says more than once how long it is or which host it means, or a header's name has "
                                 "a space in it");
        return false;
    }
    if (!has_known_end(exchange)) {
        http_set_header(exchange, MHD_HTTP_HEADER_CONNECTION, "close");
        http_fail(exchange, 501, "the Transfer-Encoding of the request is not served here (chunked is)");
        return false;
    }
    if (!is_as_it_is(exchange)) {
        http_fail(exchange, 415, "the body of the request is compressed: send it as it is");
        return false;
    }
    const char *length = http_header(exchange, MHD_HTTP_HEADER_CONTENT_LENGTH);
    const unsigned long long bytes = length ? strtoull(length, NULL, 10) : options->max_body_bytes;
    if (is_upload(exchange)) {
        *seconds = options->head_s; /* more as it comes */
        return true;
    }
    if (length && bytes > options->max_body_bytes) {
        http_fail(exchange, 413, "a request of %s bytes is too large: %zu are taken", length, options->max_body_bytes);
        *seconds = options->head_s;
        return false;
    }
    *seconds = options->head_s + bytes / MIN_BODY_BYTES_PER_S;
    return true;
}

/* ---- libmicrohttpd's callbacks ------------------------------------------------------- */

static bool is_long(const char *uri)
{
    size_t n = 0;
    for (const char *at = strchr(uri, '&'); at; at = strchr(at + 1, '&')) {
        n++;
    }
    return n >= MAX_ARGUMENTS || strlen(uri) > MAX_TARGET_BYTES;
}

/* Where a connection's memory does not hold all arguments beside the line, libmicrohttpd (0.9.75) neither answers nor
 * closes. What came before on the connection has been answered. */
static void refuse_long(int fd)
{
    static const char body[] =
        "{\"error\":{\"code\":414,\"message\":\"the URL is too long\",\"type\":\"invalid_request_error\"}}";
    char answer[256];
    const int n = snprintf(answer, sizeof answer,
                           "HTTP/1.1 414 URI Too Long\r\nConnection: close\r\nContent-Type: application/json\r\n"
                           "Content-Length: %zu\r\n\r\n%s",
                           sizeof body - 1, body);
    (void)send(fd, answer, (size_t)n, MSG_DONTWAIT);
    (void)shutdown(fd, SHUT_RDWR);
}

/* What it returns becomes the context of http_on_request. */
void *http_on_request_line(void *user, const char *uri, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info && is_long(uri)) {
        refuse_long(info->connect_fd);
        return NULL;
    }
    http_exchange *exchange = link_of(connection) ? exchange_open(user, connection) : NULL;
    if (exchange) {
        const char *mark = strchr(uri, '?');
        const char *zero = strstr(uri, "%00");
        exchange->query = strdup(mark ? mark + 1 : "");
        exchange->path_is_cut = zero && (!mark || zero < mark);
    }
    return exchange;
}

/* What follows the host in "http://host/path", which every server has to take (RFC 9112, 3.2.2). */
static const char *path_of(const char *target)
{
    const char *scheme_end = strncasecmp(target, "http", 4) == 0 ? strstr(target, "://") : NULL;
    const char *path = scheme_end ? strchr(scheme_end + 3, '/') : NULL;
    return path ? path : scheme_end ? "/" : target;
}

static enum MHD_Result take_head(http_exchange *exchange, const char *path, const char *method)
{
    http_daemon *daemon = exchange->daemon;
    http_link *link = link_of(exchange->connection);
    exchange->method = strdup(method);
    exchange->path = strdup(path_of(path));
    if (!exchange->method || !exchange->path || !exchange->query) {
        return MHD_NO;
    }
    MHD_get_connection_values(exchange->connection, MHD_GET_ARGUMENT_KIND, collect_pair, &exchange->arguments);
    MHD_get_connection_values(exchange->connection, MHD_HEADER_KIND, collect_pair, &exchange->headers);
    uint64_t seconds = daemon->options.head_s;
    const bool good =
        http_check_head(exchange) && check_length(exchange, &seconds) && (!is_upload(exchange) || hand_over(exchange));
    http_link_deadline(daemon->links, link, seconds);
    /* A refusal waits for the rest of the request, which is dropped as it comes: a connection that is closed on a
     * sender takes the answer with it. Who asks before sending is told at once, and who sends without an end. */
    const bool waits = !http_header(exchange, MHD_HTTP_HEADER_EXPECT) && has_known_end(exchange);
    return good || waits ? MHD_YES : http_answer(exchange);
}

static void take_body(http_exchange *exchange, const char *data, size_t bytes)
{
    http_daemon *daemon = exchange->daemon;
    const size_t limit = daemon->options.max_body_bytes;
    if (exchange->begun || exchange->body_too_large || exchange->no_room) {
        return; /* the rest is dropped as it comes */
    }
    exchange->body_too_large = exchange->body.bytes + bytes > limit;
    if (exchange->body_too_large) {
        return;
    }
    exchange->n_body_bytes += bytes;
    exchange->no_room = atomic_fetch_add(&daemon->n_body_bytes, bytes) + bytes > (uint64_t)limit * HTTP_MAX_BODIES ||
                        !hypura_buffer_add(&exchange->body, data, bytes);
    if (exchange->no_room) {
        hypura_buffer_clear(&exchange->body);
        atomic_fetch_sub(&daemon->n_body_bytes, exchange->n_body_bytes);
        exchange->n_body_bytes = 0;
    }
}

/* A piece of an upload. What is left in *bytes comes again when the handler has read: until then the connection is set
 * aside, for as long as that takes. */
static void take_upload(http_exchange *exchange, const char *data, size_t *bytes)
{
    const http_daemon *daemon = exchange->daemon;
    pthread_mutex_lock(&exchange->lock);
    const bool answered = exchange->begun || exchange->give_up; /* the rest is dropped as it comes */
    const bool behind = !answered && exchange->body.bytes >= UPLOAD_BYTES;
    if (behind) {
        exchange->suspended = true;
        MHD_suspend_connection(exchange->connection);
    } else if (answered || hypura_buffer_add(&exchange->body, data, *bytes)) {
        exchange->n_body_bytes += *bytes;
        *bytes = 0;
        pthread_cond_signal(&exchange->room);
    } else {
        exchange->give_up = true; /* no memory */
        pthread_cond_signal(&exchange->room);
    }
    pthread_mutex_unlock(&exchange->lock);
    const uint64_t took_s = (hypura_clock_us() - exchange->begin_us) / HTTP_SECOND_US;
    const uint64_t may_take_s = daemon->options.head_s + exchange->n_body_bytes / MIN_BODY_BYTES_PER_S;
    const uint64_t left_s = may_take_s > took_s ? may_take_s - took_s : 1;
    http_link_deadline(daemon->links, link_of(exchange->connection), behind ? 0 : left_s);
}

/* Its end; also when the connection is taken up again after that. */
static enum MHD_Result end_upload(http_exchange *exchange)
{
    pthread_mutex_lock(&exchange->lock);
    const bool answered = exchange->begun || exchange->give_up;
    exchange->body_ended = true;
    if (!answered) {
        exchange->suspended = true;
        MHD_suspend_connection(exchange->connection);
    }
    pthread_cond_signal(&exchange->room);
    pthread_mutex_unlock(&exchange->lock);
    http_link_deadline(exchange->daemon->links, link_of(exchange->connection), 0);
    return answered ? http_answer(exchange) : MHD_YES;
}

static enum MHD_Result take_whole(http_exchange *exchange)
{
    http_daemon *daemon = exchange->daemon;
    http_link_deadline(daemon->links, link_of(exchange->connection), 0);
    if (exchange->body_too_large) {
        http_fail(exchange, 413, "the request is too large: %zu bytes are taken", daemon->options.max_body_bytes);
    } else if (exchange->no_room) {
        http_fail(exchange, 429, "too much is sent at the same time: try again in a moment");
    } else if (is_quick(exchange) && !atomic_load(&daemon->draining)) {
        exchange->route->handle(exchange);
    } else if (hand_over(exchange)) {
        return MHD_YES;
    }
    return http_answer(exchange);
}

enum MHD_Result http_on_request(void *user, struct MHD_Connection *connection, const char *path, const char *method,
                                const char *version, const char *upload, size_t *upload_bytes, void **context)
{
    (void)user;
    (void)connection;
    (void)version;
    http_exchange *exchange = *context;
    if (!exchange) {
        return MHD_NO; /* out of memory */
    }
    if (!exchange->method) {
        return take_head(exchange, path, method);
    }
    if (is_upload(exchange) && *upload_bytes > 0) {
        take_upload(exchange, upload, upload_bytes);
        return MHD_YES;
    }
    if (*upload_bytes > 0) {
        take_body(exchange, upload, *upload_bytes);
        *upload_bytes = 0;
        return MHD_YES;
    }
    if (is_upload(exchange)) {
        return end_upload(exchange);
    }
    pthread_mutex_lock(&exchange->lock);
    const bool handed = exchange->n_holders > 1 || exchange->begun || exchange->give_up;
    pthread_mutex_unlock(&exchange->lock);
    return handed ? http_answer(exchange) : take_whole(exchange);
}

void http_on_completed(void *user, struct MHD_Connection *connection, void **context,
                       enum MHD_RequestTerminationCode why)
{
    http_daemon *daemon = user;
    http_exchange *exchange = *context;
    *context = NULL;
    if (!exchange) {
        return;
    }
    http_link *link = link_of(connection);
    if (link) {
        http_link_deadline(daemon->links, link, daemon->options.idle_s);
    }
    /* What did not end as it began was cut off. */
    const bool complete = why == MHD_REQUEST_TERMINATED_COMPLETED_OK;
    daemon->options.answered(daemon->server, exchange->route ? exchange->route->path : NULL, complete ? exchange->code : 0,
                             (double)(hypura_clock_us() - exchange->begin_us) / 1e6);
    server_log(LOG_DEBUG, "%s %s: %d, %llu bytes, %.1f ms", exchange->method ? exchange->method : "-",
               exchange->path ? exchange->path : "-", exchange->code, (unsigned long long)exchange->n_sent,
               (double)(hypura_clock_us() - exchange->begin_us) / 1e3);
    pthread_mutex_lock(&exchange->lock);
    exchange->gone = true;
    pthread_cond_broadcast(&exchange->room);
    pthread_mutex_unlock(&exchange->lock);
    exchange_release(exchange);
}
