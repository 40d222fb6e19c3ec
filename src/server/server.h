/*
 * server.h - the parts of a server, as its files share them.
 *
 *     http (sockets, requests)  -->  handlers (endpoint_*.c)  -->  fleet (loaded models)  -->  engine (one process)
 *                                          |                                                     ^
 *                                          '--> models (store.h)           upstream (HTTP) ------'
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
