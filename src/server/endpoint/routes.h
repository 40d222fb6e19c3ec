/*
 * routes.h - the table of endpoints. A new endpoint is one file with its handler and
 * one line of the table in routes.c.
 */
#ifndef HYPURA_SERVER_ENDPOINT_ROUTES_H
#define HYPURA_SERVER_ENDPOINT_ROUTES_H

#include "server/http/http.h"

extern const http_routes endpoint_routes;

/* ---- handlers, each in the file named after it --------------------------------- */

void endpoint_root(http_exchange *exchange);   /* page.c */
void endpoint_adapters(http_exchange *exchange); /* adapters.c */
void endpoint_adapters_set(http_exchange *exchange);
void endpoint_health(http_exchange *exchange); /* basic.c */
void endpoint_ready(http_exchange *exchange);
void endpoint_version(http_exchange *exchange);
void endpoint_models(http_exchange *exchange);      /* models.c */
void endpoint_pass(http_exchange *exchange);        /* pass.c */
void endpoint_ollama_chat(http_exchange *exchange); /* chat.c */
void endpoint_ollama_generate(http_exchange *exchange);
void endpoint_ollama_embed(http_exchange *exchange); /* embed.c */
void endpoint_ollama_embeddings(http_exchange *exchange);
void endpoint_ollama_tags(http_exchange *exchange); /* library.c */
void endpoint_ollama_show(http_exchange *exchange);
void endpoint_ollama_copy(http_exchange *exchange);
void endpoint_ollama_delete(http_exchange *exchange);
void endpoint_ollama_ps(http_exchange *exchange);     /* ps.c */
void endpoint_ollama_pull(http_exchange *exchange);   /* pull.c */
void endpoint_ollama_create(http_exchange *exchange); /* create.c */
void endpoint_ollama_blob(http_exchange *exchange);
void endpoint_ollama_blob_head(http_exchange *exchange);
void endpoint_status(http_exchange *exchange); /* status.c */
void endpoint_metrics(http_exchange *exchange);

#endif
