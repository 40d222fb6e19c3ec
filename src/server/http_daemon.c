/*
 * http_daemon.c - libmicrohttpd's threads, one for each address, and what handlers run on.
 *
 * libmicrohttpd calls on_request_line, then on_request several times for one request:
 *
 *     line ---> head ---> body, in pieces ---> whole: handler starts, connection set aside
 *                |                                |
 *                '--> refused                     '--> (taken up again) answer (http_answer.c)
 *
 *     line ---> head of an upload: handler starts ---> body, set aside while the handler is behind ---> whole --->
 * answer
 *
 * What always holds: these threads wait for nothing but sockets and short locks.
 */
#include "server/http_address.h"
#include "server/http_internal.h"
#include "server/http_links.h"

#include "base/clock.h"
#include "base/status.h"
#include "base/thread.h"
#include "server/guard.h"
#include "server/jobs.h"
#include "server/log.h"
#include "server/meter.h"
#include "server/server.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTION_MEMORY_BYTES (32 * 1024) /* a request's head has to fit */
#define MIN_BODY_BYTES_PER_S    (64 * 1024)
#define SECOND_US               UINT64_C(1000000)
#define OTHER_REQUESTS          64                /* that compute nothing: these at the same time at most */
#define UPLOAD_BYTES            ((size_t)1 << 20) /* of one that its handler has not read: no more is taken then */
#define LAST_WORDS_US           (SECOND_US / 2)   /* that a client may take for what it is told at the end */

#define MAX_ADDRESSES           8

/* A thread of libmicrohttpd for each address to listen on. */
typedef struct listener {
    struct MHD_Daemon *mhd;
    int quiesced_fd; /* the listening socket after draining began; -1 before */
} listener;

struct http_daemon {
    http_options options;
    hypura_server *server;
    listener listeners[MAX_ADDRESSES];
    size_t n_listeners;
    uint16_t port;
    server_jobs *jobs;
    http_links *links;
    atomic_bool draining;

    pthread_mutex_t lock; /* of the list and the counts */
    pthread_cond_t changed;
    hypura_list exchanges;
    uint32_t n_active; /* handlers of routes that compute */
    uint32_t n_other;  /* of others */
};

hypura_server *http_daemon_server(const http_daemon *daemon)
{
    return daemon->server;
}

bool http_is_draining(const http_daemon *daemon)
{
    return atomic_load(&daemon->draining);
}

uint64_t http_write_timeout_us(const http_exchange *exchange)
{
    return exchange->daemon->options.write_s * SECOND_US;
}

/* ---- links --------------------------------------------------------------------------- */

static void on_connection(void *user, struct MHD_Connection *connection, void **socket_context,
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

static void exchange_free(http_exchange *exchange)
{
    http_daemon *daemon = exchange->daemon;
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

static bool is_upload(const http_exchange *exchange)
{
    return exchange->route && (exchange->route->flags & ROUTE_UPLOAD) != 0;
}

static uint32_t *count_of(http_exchange *exchange)
{
    return exchange->route->flags & ROUTE_MODEL ? &exchange->daemon->n_active : &exchange->daemon->n_other;
}

static bool enter(http_exchange *exchange)
{
    http_daemon *daemon = exchange->daemon;
    const uint32_t limit = exchange->route->flags & ROUTE_MODEL ? daemon->options.max_active : OTHER_REQUESTS;
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

static bool check_length(http_exchange *exchange, uint64_t *seconds)
{
    const http_options *options = &exchange->daemon->options;
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

/* What it returns becomes the context of on_request. */
static void *on_request_line(void *user, const char *uri, struct MHD_Connection *connection)
{
    http_exchange *exchange = link_of(connection) ? exchange_open(user, connection) : NULL;
    if (exchange) {
        const char *mark = strchr(uri, '?');
        exchange->query = strdup(mark ? mark + 1 : "");
    }
    return exchange;
}

static enum MHD_Result take_head(http_exchange *exchange, const char *path, const char *method)
{
    http_daemon *daemon = exchange->daemon;
    http_link *link = link_of(exchange->connection);
    exchange->method = strdup(method);
    exchange->path = strdup(path);
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
     * sender takes the answer with it. Who asks before sending is told at once. */
    return good || !http_header(exchange, MHD_HTTP_HEADER_EXPECT) ? MHD_YES : http_answer(exchange);
}

static void take_body(http_exchange *exchange, const char *data, size_t bytes)
{
    if (exchange->begun || exchange->body_too_large ||
        exchange->body.bytes + bytes > exchange->daemon->options.max_body_bytes ||
        !hypura_buffer_add(&exchange->body, data, bytes)) {
        exchange->body_too_large = true; /* the rest is dropped as it comes */
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
    const uint64_t took_s = (hypura_clock_us() - exchange->begin_us) / SECOND_US;
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
    } else if (is_quick(exchange) && !atomic_load(&daemon->draining)) {
        exchange->route->handle(exchange);
    } else if (hand_over(exchange)) {
        return MHD_YES;
    }
    return http_answer(exchange);
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *path, const char *method,
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

static void on_completed(void *user, struct MHD_Connection *connection, void **context,
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
    meter_answered(daemon->server->meter, exchange->route ? exchange->route->path : NULL, complete ? exchange->code : 0,
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

static void log_mhd(void *user, const char *format, va_list arguments)
{
    (void)user;
    char text[256];
    vsnprintf(text, sizeof text, format, arguments);
    server_log(LOG_DEBUG, "http: %s", text);
}

/* ---- opening and closing --------------------------------------------------------------- */

/* Of one listener libmicrohttpd keeps to the limit itself, and lets more wait; this is for several together. */
static enum MHD_Result has_room(void *user, const struct sockaddr *address, socklen_t bytes)
{
    const http_daemon *daemon = user;
    (void)address;
    (void)bytes;
    return http_links_count(daemon->links) < daemon->options.max_connections ? MHD_YES : MHD_NO;
}

static hypura_status start_mhd(http_daemon *daemon, const char *host, hypura_error *error)
{
    const http_options *options = &daemon->options;
    struct sockaddr_storage address;
    bool v6;
    if (daemon->n_listeners == MAX_ADDRESSES) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "more than %d addresses to listen on", MAX_ADDRESSES);
    }
    if (!http_address_read(host, daemon->port, &address, &v6)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s is no address to listen on: give 127.0.0.1, ::1 or 0.0.0.0",
                           host);
    }
    const unsigned flags = MHD_USE_AUTO | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_ITC | MHD_ALLOW_SUSPEND_RESUME |
                           MHD_USE_ERROR_LOG | (v6 ? MHD_USE_IPv6 : 0);
    errno = 0;
    struct MHD_Daemon *mhd =
        MHD_start_daemon(flags, daemon->port, has_room, daemon, on_request, daemon, MHD_OPTION_EXTERNAL_LOGGER, log_mhd,
                         NULL, MHD_OPTION_SOCK_ADDR, &address, MHD_OPTION_CONNECTION_LIMIT, options->max_connections,
                         MHD_OPTION_CONNECTION_TIMEOUT, options->write_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                         (size_t)CONNECTION_MEMORY_BYTES, MHD_OPTION_NOTIFY_CONNECTION, on_connection, daemon,
                         MHD_OPTION_NOTIFY_COMPLETED, on_completed, daemon, MHD_OPTION_URI_LOG_CALLBACK,
                         on_request_line, daemon, MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_END);
    if (!mhd) {
        return hypura_fail_errno(error, errno ? errno : EIO, "cannot listen on %s port %u", host, daemon->port);
    }
    daemon->listeners[daemon->n_listeners++] = (listener){.mhd = mhd, .quiesced_fd = -1};
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(mhd, MHD_DAEMON_INFO_BIND_PORT);
    daemon->port = info && info->port ? info->port : daemon->port;
    return HYPURA_OK;
}

/* On every address, all with the port of the first. */
static hypura_status listen_all(http_daemon *daemon, hypura_error *error)
{
    const char *hosts = daemon->options.hosts;
    char host[GUARD_HOST_BYTES];
    hypura_status status = HYPURA_OK;
    while (status == HYPURA_OK && guard_next_host(&hosts, host)) {
        status = start_mhd(daemon, host, error);
    }
    if (status == HYPURA_OK && daemon->n_listeners == 0) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "there is no address to listen on");
    }
    return status;
}

hypura_status http_open(const http_options *options, hypura_server *server, http_daemon **out, hypura_error *error)
{
    http_daemon *daemon = calloc(1, sizeof(*daemon));
    *out = NULL;
    if (!daemon) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a server");
    }
    daemon->options = *options;
    daemon->server = server;
    daemon->port = options->port;
    pthread_mutex_init(&daemon->lock, NULL);
    hypura_cond_init(&daemon->changed);
    hypura_status status = server_jobs_open(options->max_active + OTHER_REQUESTS, &daemon->jobs, error);
    if (status == HYPURA_OK) {
        status = http_links_open(&daemon->links, error);
    }
    if (status == HYPURA_OK) {
        *out = daemon; /* the first request may come before listen_all returns, and its handler finds us there */
        status = listen_all(daemon, error);
    }
    if (status != HYPURA_OK) {
        *out = NULL;
        http_close(daemon);
    }
    return status;
}

uint16_t http_port(const http_daemon *daemon)
{
    return daemon->port;
}

uint32_t http_active(http_daemon *daemon)
{
    pthread_mutex_lock(&daemon->lock);
    const uint32_t n = daemon->n_active;
    pthread_mutex_unlock(&daemon->lock);
    return n;
}

uint32_t http_limits(http_daemon *daemon, uint32_t *n_connections, uint32_t *max_connections)
{
    *n_connections = http_links_count(daemon->links);
    *max_connections = daemon->options.max_connections;
    return daemon->options.max_active;
}

bool http_drain(http_daemon *daemon, uint64_t timeout_us)
{
    const uint64_t begin_us = hypura_clock_us();
    atomic_store(&daemon->draining, true);
    for (size_t i = 0; i < daemon->n_listeners; i++) {
        listener *l = &daemon->listeners[i];
        l->quiesced_fd = l->quiesced_fd < 0 ? MHD_quiesce_daemon(l->mhd) : l->quiesced_fd;
    }
    pthread_mutex_lock(&daemon->lock);
    for (;;) {
        const uint64_t waited_us = hypura_clock_us() - begin_us;
        if (daemon->exchanges.n == 0 || waited_us >= timeout_us) {
            break;
        }
        (void)hypura_cond_wait(&daemon->changed, &daemon->lock, timeout_us - waited_us);
    }
    const bool drained = daemon->exchanges.n == 0;
    pthread_mutex_unlock(&daemon->lock);
    return drained;
}

/* Whose handler is at work. */
static bool is_handed(http_exchange *exchange)
{
    pthread_mutex_lock(&exchange->lock);
    const bool handed = exchange->n_holders > 1 && !exchange->gone;
    pthread_mutex_unlock(&exchange->lock);
    return handed;
}

static void cancel_all(http_daemon *daemon)
{
    pthread_mutex_lock(&daemon->lock);
    for (hypura_link *link = daemon->exchanges.first; link; link = link->next) {
        http_exchange *exchange = (http_exchange *)link;
        if (is_handed(exchange)) {
            http_fail(exchange, 503, "the server is shutting down");
        }
        pthread_mutex_lock(&exchange->lock);
        exchange->cancelled = true;
        pthread_cond_broadcast(&exchange->room);
        pthread_mutex_unlock(&exchange->lock);
    }
    pthread_mutex_unlock(&daemon->lock);
}

/* Those that have an answer may still take it, if that is soon. */
static void break_off_all(http_daemon *daemon)
{
    const uint64_t begin_us = hypura_clock_us();
    pthread_mutex_lock(&daemon->lock);
    for (uint64_t waited_us = 0; daemon->exchanges.n > 0 && waited_us < LAST_WORDS_US;
         waited_us = hypura_clock_us() - begin_us) {
        (void)hypura_cond_wait(&daemon->changed, &daemon->lock, LAST_WORDS_US - waited_us);
    }
    for (hypura_link *link = daemon->exchanges.first; link; link = link->next) {
        http_exchange *exchange = (http_exchange *)link;
        pthread_mutex_lock(&exchange->lock);
        exchange->give_up = true;
        http_resume(exchange);
        pthread_cond_broadcast(&exchange->room);
        pthread_mutex_unlock(&exchange->lock);
    }
    pthread_mutex_unlock(&daemon->lock);
}

void http_close(http_daemon *daemon)
{
    if (!daemon) {
        return;
    }
    cancel_all(daemon);
    server_jobs_close(daemon->jobs);
    break_off_all(daemon);
    for (size_t i = 0; i < daemon->n_listeners; i++) {
        MHD_stop_daemon(daemon->listeners[i].mhd);
        if (daemon->listeners[i].quiesced_fd >= 0) {
            close(daemon->listeners[i].quiesced_fd);
        }
    }
    http_links_close(daemon->links);
    pthread_cond_destroy(&daemon->changed);
    pthread_mutex_destroy(&daemon->lock);
    free(daemon);
}
