/*
 * basic.c - whether the server is there.
 */
#include "server/endpoint/routes.h"

/* What Ollama's clients ask of a version; the features of this one are served. */
#define OLLAMA_VERSION "0.13.0"

void endpoint_health(http_exchange *exchange)
{
    http_reply_json(exchange, 200, json_pack("{s:s}", "status", "ok"));
}

void endpoint_ready(http_exchange *exchange)
{
    endpoint_health(exchange); /* a server that is shutting down answers no new request */
}

void endpoint_version(http_exchange *exchange)
{
    http_reply_json(exchange, 200, json_pack("{s:s, s:s}", "version", OLLAMA_VERSION, "hypura", hypura_version()));
}
