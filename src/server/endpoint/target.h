/*
 * target.h - the model that a request means, found and made ready.
 */
#ifndef HYPURA_SERVER_ENDPOINT_TARGET_H
#define HYPURA_SERVER_ENDPOINT_TARGET_H

#include "server/dialect/ollama.h"
#include "server/fleet/fleet.h"
#include "server/http/http.h"
#include "server/process/upstream.h"

typedef struct server_target {
    const hypura_model_entry *entry; /* held */
    fleet_wish wish;
    fleet_lease lease;
    double keep_alive_s; /* NAN: as the server was told */
} server_target;

/* The entry of that name; name NULL or "": the only model there is, or the only one loaded. Answers and returns NULL
 * when there is none. Release the entry. */
const hypura_model_entry *target_find(http_exchange *exchange, const char *name);

/* The same; a name that no model has means the server's default model, where it was given one: clients made for one
 * model of theirs name it as they like. */
const hypura_model_entry *target_find_or_default(http_exchange *exchange, const char *name);

/* Whether it can do that ("tools", "thinking", "insert"). False when it was answered, with the name that the client
 * has for it. */
bool target_can(http_exchange *exchange, const hypura_model_entry *entry, const char *name, const char *capability);

/* Whether it takes what body shows, as far as that can be told before it is loaded. shown: pictures, or sound. False when it
 * was answered. */
bool target_sees(http_exchange *exchange, const hypura_model_entry *entry, bool shown, const json_t *body);

fleet_settings target_settings(const ollama_common *common);

/* Blocks until the model is loaded. Takes the entry over. Answers and returns false when it cannot be. */
bool target_open(http_exchange *exchange, const hypura_model_entry *entry, const fleet_settings *settings,
                 server_target *opened);
void target_close(http_exchange *exchange, server_target *target);

/* Runs a call on the target's engine. One that ends before anything of its answer came is replaced, once: nobody
 * notices, as computing twice does no harm. body: the call's, as JSON; NULL when it is none. */
hypura_status target_run(http_exchange *exchange, server_target *target, upstream_call *call, const json_t *body,
                         hypura_error *error);
/* The same for a POST of JSON that JSON answers, see upstream_json. */
hypura_status target_json(http_exchange *exchange, server_target *target, const char *path, const json_t *body,
                          int *code, json_t **answer, hypura_error *error);

/* Answers what target_run failed with, unless the client is gone. */
void target_tell(http_exchange *exchange, const hypura_error *error);

/* The tokens that the engine has for a text, a new reference; NULL when it does not say. */
json_t *target_tokens(http_exchange *exchange, server_target *target, const json_t *text);

/* http_gone, as callbacks want it. */
bool target_client_gone(void *exchange);

#endif
