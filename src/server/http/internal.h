/*
 * internal.h - an exchange, as http.c (what handlers see of it), request.c (as it comes in), answer.c
 * (as it goes out) and daemon.c (sockets) share it.
 *
 * Two hold an exchange: the connection, until libmicrohttpd says that the request has ended, and the handler, until it
 * returns. The connection is set aside ("suspended") while it waits for the handler, and taken up again by whoever adds
 * to the answer; `lock` guards that and everything below it.
 */
#ifndef HYPURA_SERVER_HTTP_INTERNAL_H
#define HYPURA_SERVER_HTTP_INTERNAL_H

#include "base/buffer.h"
#include "base/list.h"
#include "server/http/http.h"
#include "server/http/jobs.h"
#include "server/http/links.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#define HTTP_SECOND_US      UINT64_C(1000000)
#define HTTP_OTHER_REQUESTS 64 /* that compute nothing: these at the same time at most */
#define HTTP_MAX_ADDRESSES  8
#define HTTP_MAX_BODIES     8 /* of the largest size, that are kept at the same time */

typedef struct http_pair {
    char *name;
    char *value;
} http_pair;

typedef struct http_pairs {
    size_t n;
    http_pair *items;
} http_pairs;

struct http_exchange {
    hypura_link link; /* in the daemon's list */
    http_daemon *daemon;
    struct MHD_Connection *connection;
    int fd;
    uint64_t begin_us;

    /* the request: unchanged once the handler has it */
    const http_route *route;
    char *method;
    char *path;
    bool path_is_cut; /* at a zero byte in it */
    char *query;
    http_pairs arguments;
    http_pairs headers;
    hypura_buffer body; /* of an upload, what its handler has not read yet */
    bool body_too_large;
    bool no_room;          /* for the body, beside those of others */
    bool body_ended;       /* of an upload */
    uint64_t n_body_bytes; /* that have come and were taken */
    uint64_t n_json_bytes; /* that its values take */
    char *allowed_origin;  /* for the answer; NULL: no web page's request */

    pthread_mutex_t lock;
    pthread_cond_t room; /* out has room, an upload goes on, or the client is gone */
    int n_holders;
    bool suspended;
    bool gone;      /* the connection has ended */
    bool give_up;   /* the connection is to be broken off */
    bool cancelled; /* the server ends: the handler shall too, and what the client was told still goes out */

    /* the answer */
    bool begun;  /* code, type and headers are set */
    bool queued; /* libmicrohttpd has it */
    bool ended;
    bool whole;
    bool streamed; /* its length is not known at the beginning */
    int code;
    char content_type[96];
    http_pairs answer_headers;
    hypura_buffer out; /* not yet taken by the connection */
    uint64_t n_sent;
};

/* A thread of libmicrohttpd for each address to listen on. */
typedef struct http_listener {
    struct MHD_Daemon *mhd;
    int quiesced_fd; /* the listening socket after draining began; -1 before */
} http_listener;

struct http_daemon {
    http_options options;
    hypura_server *server;
    http_listener listeners[HTTP_MAX_ADDRESSES];
    size_t n_listeners;
    uint16_t port;
    server_jobs *jobs;
    http_links *links;
    atomic_bool draining;
    _Atomic uint64_t n_body_bytes; /* of all requests that are not answered */
    _Atomic uint64_t n_json_bytes; /* the same */

    pthread_mutex_t lock; /* of the list and the counts */
    pthread_cond_t changed;
    hypura_list exchanges;
    uint32_t n_active; /* handlers of routes that compute */
    uint32_t n_other;  /* of others */
};

/* libmicrohttpd's callbacks; user is the daemon. */
void http_on_connection(void *user, struct MHD_Connection *connection, void **socket_context,
                        enum MHD_ConnectionNotificationCode what);
/* What it returns becomes the context of the next two. */
void *http_on_request_line(void *user, const char *uri, struct MHD_Connection *connection);
enum MHD_Result http_on_request(void *user, struct MHD_Connection *connection, const char *path, const char *method,
                                const char *version, const char *upload, size_t *upload_bytes, void **context);
void http_on_completed(void *user, struct MHD_Connection *connection, void **context,
                       enum MHD_RequestTerminationCode why);

/* False when memory ran out. */
bool http_pairs_add(http_pairs *pairs, const char *name, const char *value);
void http_pairs_clear(http_pairs *pairs);

/* The route of a request. NULL when there is none; *known_path tells whether the path has another method (405). */
const http_route *http_find_route(const http_routes *routes, const char *method, const char *path, bool *known_path);
/* The methods that a path has, as the header Allow lists them; cut to capacity. */
void http_list_methods(const http_routes *routes, const char *path, char *text, size_t capacity);

/* Decides on the head alone, and finds the route. True when the request may go on; else it was answered. */
bool http_check_head(http_exchange *exchange);

/* Hands libmicrohttpd the answer, once, when it has begun. MHD_NO closes the connection. On libmicrohttpd's thread. */
enum MHD_Result http_answer(http_exchange *exchange);
bool http_is_draining(const http_daemon *daemon);

/* Lets the connection go on, with the lock held. */
void http_resume(http_exchange *exchange);
/* How long a client may leave the answer unread. */
uint64_t http_write_timeout_us(const http_exchange *exchange);

#endif
