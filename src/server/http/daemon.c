/*
 * daemon.c - libmicrohttpd's threads, one for each address, from their beginning to their end.
 */
#include "server/http/internal.h"

#include "base/clock.h"
#include "base/host.h"
#include "base/status.h"
#include "base/thread.h"
#include "server/base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTION_MEMORY_BYTES (32 * 1024)          /* a request's head has to fit */
#define LAST_WORDS_US           (HTTP_SECOND_US / 2) /* that a client may take for what it is told at the end */

bool http_is_draining(const http_daemon *daemon)
{
    return atomic_load(&daemon->draining);
}

uint64_t http_write_timeout_us(const http_exchange *exchange)
{
    return exchange->daemon->options.write_s * HTTP_SECOND_US;
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
    if (daemon->n_listeners == HTTP_MAX_ADDRESSES) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "more than %d addresses to listen on", HTTP_MAX_ADDRESSES);
    }
    if (!hypura_host_address(host, daemon->port, &address, &v6)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s is no address to listen on: give 127.0.0.1, ::1 or 0.0.0.0",
                           host);
    }
    const unsigned flags = MHD_USE_AUTO | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_ITC | MHD_ALLOW_SUSPEND_RESUME |
                           MHD_USE_ERROR_LOG | (v6 ? MHD_USE_IPv6 : 0);
    errno = 0;
    struct MHD_Daemon *mhd = MHD_start_daemon(
        flags, daemon->port, has_room, daemon, http_on_request, daemon, MHD_OPTION_EXTERNAL_LOGGER, log_mhd, NULL,
        MHD_OPTION_SOCK_ADDR, &address, MHD_OPTION_CONNECTION_LIMIT, options->max_connections,
        MHD_OPTION_CONNECTION_TIMEOUT, options->write_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_MEMORY_BYTES, MHD_OPTION_NOTIFY_CONNECTION, http_on_connection, daemon,
        MHD_OPTION_NOTIFY_COMPLETED, http_on_completed, daemon, MHD_OPTION_URI_LOG_CALLBACK, http_on_request_line,
        daemon, MHD_OPTION_END); /* not LISTENING_ADDRESS_REUSE: two servers would share an address, and its requests */
    if (!mhd) {
        return hypura_fail_errno(error, errno ? errno : EIO, "cannot listen on %s port %u", host, daemon->port);
    }
    daemon->listeners[daemon->n_listeners++] = (http_listener){.mhd = mhd, .quiesced_fd = -1};
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(mhd, MHD_DAEMON_INFO_BIND_PORT);
    daemon->port = info && info->port ? info->port : daemon->port;
    return HYPURA_OK;
}

/* On every address, all with the port of the first. */
static hypura_status listen_all(http_daemon *daemon, hypura_error *error)
{
    const char *hosts = daemon->options.hosts;
    char host[HYPURA_HOST_BYTES];
    hypura_status status = HYPURA_OK;
    while (status == HYPURA_OK && hypura_host_next(&hosts, host)) {
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
    hypura_status status = server_jobs_open(options->max_active + HTTP_OTHER_REQUESTS, &daemon->jobs, error);
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
        http_listener *l = &daemon->listeners[i];
        if (l->quiesced_fd < 0) {
            l->quiesced_fd = MHD_quiesce_daemon(l->mhd);
            (void)shutdown(l->quiesced_fd, SHUT_RDWR); /* who comes now is refused, and does not wait in vain */
        }
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
