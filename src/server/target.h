/*
 * target.h - the model that a request means, found and made ready.
 */
#ifndef HYPURA_SERVER_TARGET_H
#define HYPURA_SERVER_TARGET_H

#include "server/fleet.h"
#include "server/http.h"

typedef struct server_target {
    const hypura_model_entry *entry; /* held */
    fleet_lease lease;
    double keep_alive_s; /* NAN: as the server was told */
} server_target;

/* The entry of that name; name NULL or "": the only model there is, or the only one loaded. Answers and returns NULL
 * when there is none. Release the entry. */
const hypura_model_entry *target_find(http_exchange *exchange, const char *name);

/* Blocks until the model is loaded. Takes the entry over. Answers and returns false when it cannot be. */
bool target_open(http_exchange *exchange, const hypura_model_entry *entry, uint32_t n_context, bool embeddings,
                 server_target *opened);
void target_close(http_exchange *exchange, server_target *target);

/* An error of the engine, whose process may be gone, while this target was in use. */
void target_explain(const server_target *target, hypura_error *error);

/* http_gone, as callbacks want it. */
bool target_client_gone(void *exchange);

#endif
