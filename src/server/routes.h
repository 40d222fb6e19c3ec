/*
 * routes.h - the table of endpoints. A new endpoint is one file with its handler and
 * one line of the table in routes.c.
 */
#ifndef HYPURA_SERVER_ROUTES_H
#define HYPURA_SERVER_ROUTES_H

#include "server/http.h"

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

/* The route of a request. NULL when there is none; *known_path tells whether the path has another method (405). */
const http_route *route_find(const char *method, const char *path, bool *known_path);
/* The methods that a path has, as the header Allow lists them; cut to capacity. */
void route_methods(const char *path, char *text, size_t capacity);

/* ---- handlers, each in the file named after it --------------------------------- */

void endpoint_root(http_exchange *exchange);   /* endpoint_page.c */
void endpoint_adapters(http_exchange *exchange); /* endpoint_adapters.c */
void endpoint_adapters_set(http_exchange *exchange);
void endpoint_health(http_exchange *exchange); /* endpoint_basic.c */
void endpoint_ready(http_exchange *exchange);
void endpoint_version(http_exchange *exchange);
void endpoint_models(http_exchange *exchange);      /* endpoint_models.c */
void endpoint_pass(http_exchange *exchange);        /* endpoint_pass.c */
void endpoint_ollama_chat(http_exchange *exchange); /* endpoint_chat.c */
void endpoint_ollama_generate(http_exchange *exchange);
void endpoint_ollama_embed(http_exchange *exchange); /* endpoint_embed.c */
void endpoint_ollama_embeddings(http_exchange *exchange);
void endpoint_ollama_tags(http_exchange *exchange); /* endpoint_library.c */
void endpoint_ollama_show(http_exchange *exchange);
void endpoint_ollama_copy(http_exchange *exchange);
void endpoint_ollama_delete(http_exchange *exchange);
void endpoint_ollama_ps(http_exchange *exchange);     /* endpoint_ps.c */
void endpoint_ollama_pull(http_exchange *exchange);   /* endpoint_pull.c */
void endpoint_ollama_create(http_exchange *exchange); /* endpoint_create.c */
void endpoint_ollama_blob(http_exchange *exchange);
void endpoint_ollama_blob_head(http_exchange *exchange);
void endpoint_status(http_exchange *exchange); /* endpoint_status.c */
void endpoint_metrics(http_exchange *exchange);

#endif
