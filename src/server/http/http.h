/*
 * http.h - HTTP for the handlers: what a request said, and answering it.
 *
 * One thread owns all sockets (libmicrohttpd). A whole request is given to a handler:
 * those marked quick run on that thread, all others on a thread of their own while
 * the connection is set aside. So a handler is straight code that may block. An upload is
 * given to its handler once its head is there, and taken from the socket as the handler reads.
 *
 *     received --> checked (guard.h, route.c) --> handler --> answered
 *                     '--> refused
 *
 * A handler answers once: with http_reply, http_fail, or http_begin, http_write..., http_end.
 *
 * What always holds: an answer is never held back by more than one write; a client that
 * does not read stops the handler's writes, and after a time its connection; a client
 * that went away makes writes fail and http_gone true. A client that closed its sending
 * side has gone away, as for Go's and llama.cpp's servers.
 */
#ifndef HYPURA_SERVER_HTTP_HTTP_H
#define HYPURA_SERVER_HTTP_HTTP_H

#include "hypura.h"

#include "base/buffer.h"

#include <jansson.h>

typedef struct hypura_server hypura_server; /* whose handlers these are; nothing here looks into it */
typedef struct http_exchange http_exchange;
typedef struct http_daemon http_daemon;

/* How an API writes its errors. */
typedef enum http_style {
    HTTP_STYLE_OPENAI = 0, /* {"error":{"message":..,"type":..,"code":..}} */
    HTTP_STYLE_ANTHROPIC,  /* {"type":"error","error":{"type":..,"message":..}} */
    HTTP_STYLE_OLLAMA,     /* {"error":".."} */
} http_style;

/* ---- the request ------------------------------------------------------------- */

/* Whose exchange it is; what was asked for. Strings live as long as the exchange. */
hypura_server *http_server(const http_exchange *exchange);
const char *http_method(const http_exchange *exchange);
const char *http_path(const http_exchange *exchange); /* without the query */
/* What follows the path of a route that ends in "*"; "" for others. */
const char *http_rest(const http_exchange *exchange);
/* NULL when there is none. Lives as long as the exchange. */
const char *http_query(const http_exchange *exchange, const char *name);
const char *http_header(const http_exchange *exchange, const char *name);
/* The body as sent; terminated by a zero byte that does not count. */
const char *http_body(const http_exchange *exchange, size_t *bytes);
/* The body as a JSON object; answers 400 and returns NULL when it is none. Release with json_decref. */
json_t *http_json(http_exchange *exchange);
/* The same of any JSON. */
json_t *http_json_value(http_exchange *exchange);
/* The next bytes of the body, for handlers of uploads. Blocks until there are some; what piece held before is gone. */
typedef enum http_part {
    HTTP_PART_BYTES = 0,
    HTTP_PART_END,    /* the body is whole */
    HTTP_PART_BROKEN, /* it never will be: the client is gone */
} http_part;
http_part http_read(http_exchange *exchange, hypura_buffer *piece);
/* The query as it was sent, "a=b&c=d", "" when there is none. */
const char *http_query_text(const http_exchange *exchange);

/* ---- the answer -------------------------------------------------------------- */

/* A header of the answer; before it begins. Both strings are copied. */
void http_set_header(http_exchange *exchange, const char *name, const char *value);

/* The whole answer; body is copied. */
void http_reply(http_exchange *exchange, int code, const char *content_type, const char *body, size_t bytes);
/* Takes the reference over. NULL counts as out of memory. */
void http_reply_json(http_exchange *exchange, int code, json_t *value);
http_style http_error_style(const http_exchange *exchange);
/* An error in that style: an answer of its own, or, of an answer that streams, its last line or event. */
void http_fail(http_exchange *exchange, int code, const char *format, ...) HYPURA_PRINTF(3, 4);
/* The same for a failed call of the library, with the code that belongs to its status. */
void http_fail_error(http_exchange *exchange, const hypura_error *error);

/* An answer that comes in pieces: its head. Then writes, then end. */
void http_begin(http_exchange *exchange, int code, const char *content_type);
/* False when the client is gone: nothing more will be sent, the handler comes to its end. */
bool http_write(http_exchange *exchange, const char *data, size_t bytes);
/* One line of NDJSON; takes the reference over. Begins such an answer where none has. */
bool http_write_line(http_exchange *exchange, json_t *value);
/* whole: false breaks the connection off, so that nobody takes the answer for complete. */
void http_end(http_exchange *exchange, bool whole);

/* Whether the client has gone away. Any thread. */
bool http_gone(http_exchange *exchange);
bool http_begun(const http_exchange *exchange);

/* ---- routes ------------------------------------------------------------------ */

enum {
    ROUTE_QUICK = 1,  /* runs on the thread of the sockets: never blocks */
    ROUTE_PUBLIC = 2, /* needs no key */
    ROUTE_MODEL = 4,  /* computes: counts against the limit of requests */
    ROUTE_UPLOAD = 8, /* its handler takes the body as it comes (http_read), and that has no limit */
};

typedef struct http_route {
    const char *method;
    const char *path; /* a "*" at the end stands for the rest */
    void (*handle)(http_exchange *exchange);
    unsigned flags;
    http_style style;
} http_route;

typedef struct http_routes {
    const http_route *all;
    size_t n;
} http_routes;

/* ---- the daemon -------------------------------------------------------------- */

typedef struct http_options {
    const http_routes *routes;
    const char *hosts; /* addresses, by comma */
    uint16_t port;    /* 0: any */
    uint32_t max_connections;
    uint32_t max_active; /* requests that handlers work on; more are refused with 429 */
    size_t max_body_bytes;
    uint32_t idle_s;  /* a connection may rest for this long */
    uint32_t head_s;  /* a request's head has to arrive in this time, its body at 64 KiB/s */
    uint32_t write_s; /* a client may leave an answer unread for this long */
    const char *const *origins;  /* as in hypura_server_options */
    const char *const *api_keys;
    /* An answer has ended. route: the path of one of routes, NULL when there was none; code 0: cut off. Never blocks. */
    void (*answered)(hypura_server *server, const char *route, int code, double seconds);
} http_options;

hypura_status http_open(const http_options *options, hypura_server *server, http_daemon **daemon, hypura_error *error);
uint16_t http_port(const http_daemon *daemon);
/* Requests that handlers work on. */
uint32_t http_active(http_daemon *daemon);
/* Connections that are open, and how many may be; returns how many requests are worked on at most. */
uint32_t http_limits(http_daemon *daemon, uint32_t *n_connections, uint32_t *max_connections);
/* No new connection is taken and no new request on an old one; returns when all handlers have ended or after the time
 * given, whichever comes first. */
bool http_drain(http_daemon *daemon, uint64_t timeout_us);
/* Breaks off what is left, which is told to the clients, waits for the handlers and frees everything. */
void http_close(http_daemon *daemon);

#endif
