/*
 * server.h - the parts of a server, as handlers find them.
 *
 *     http (sockets, requests)  -->  handlers (endpoint/)  -->  fleet (loaded models)  -->  process (one engine each)
 *                                          |                                                     ^
 *                                          '--> models (store.h)           upstream (HTTP) ------'
 *
 * server.c makes it and takes it apart.
 */
#ifndef HYPURA_SERVER_ENDPOINT_SERVER_H
#define HYPURA_SERVER_ENDPOINT_SERVER_H

#include "hypura_server.h"
#include "server/fleet/fleet.h"
#include "server/http/http.h"
#include "server/models/store.h"

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
