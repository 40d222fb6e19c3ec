/*
 * constraint.h - what answers have to be, a grammar or a JSON schema, looked at before a model is loaded for it.
 */
#ifndef HYPURA_SERVER_ENDPOINT_CONSTRAINT_H
#define HYPURA_SERVER_ENDPOINT_CONSTRAINT_H

#include "server/http/http.h"
#include "server/models/store.h"

/* body: as the engine will get it. False when it was answered: it cannot be understood. A model that is loaded tells by
 * itself, so that nothing is looked at for it. */
bool constraint_check(http_exchange *exchange, const hypura_model_entry *entry, const json_t *body);

/* {"grammar": ..} or {"json_schema": ..} of a request of any of the APIs; a new reference, NULL: it has none. */
json_t *constraint_of(const json_t *body);

#endif
