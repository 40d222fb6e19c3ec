/*
 * server.h - the parts of a server, as its files share them.
 *
 *     http (sockets, requests)  -->  handlers (endpoint_*.c)  -->  fleet (loaded models)  -->  engine (one process)
 *                                          |                                                     ^
 *                                          '--> models (store.h)           upstream (HTTP) ------'
 *
 * requests   http_daemon.c (sockets), http_request.c, http_check.c, guard.c (who may ask), routes.c, jobs.c (threads), http.c and
 *            http_answer.c (the answer), http_links.c (who is too slow)
 * handlers   endpoint_*.c, one for each route; target.c makes the model ready that one asks for
 * forms      of requests and answers, pure: ollama_*.c from and to Ollama's API, overlooked*.c what llama.cpp's server passes
 *            over, amend*.c what it answers otherwise than the API has it; constraint.c, given.c, go_template.c, refusal.c, sse.c,
 *            form.c, text.c; pictures.c, pixels.c and json_weight.c (what a request may cost)
 * fleet      fleet.c (who uses which engine), fleet_load.c, fleet_memory.c and fleet_gpu.c (what they share),
 *            fleet_speculation.c; adapter_scale.c, prefix.c (conversations that outlive an engine)
 * engine     engine.c (a process), engine_process.c (its command line), engine_ask.c, run_folder.c; upstream.c
 * models     store.c and store_*.c (folders, scans, changes), name.c, card.c and describe.c (what a GGUF says), digest.c,
 *            layer.c; pull.c, pull_hub.c, pull_registry.c, fetch.c (from elsewhere)
 * figures    meter.c counts, figures.c tells; log.c
 * programs   without a server: local.c (models by name), client.c (asks a server that runs)
 */
#ifndef HYPURA_SERVER_SERVER_H
#define HYPURA_SERVER_SERVER_H

#include "hypura_server.h"
#include "server/fleet.h"
#include "server/http.h"
#include "server/store.h"

struct hypura_server {
    hypura_server_options options;
    hypura_models *models;
    const hypura_model_entry *draft; /* held: the server's draft model, where it was named and no file; or NULL */
    server_fleet *fleet;
    http_daemon *http;
    struct server_meter *meter;
    uint64_t begin_us; /* when it opened */
    bool draining;
};

#endif
