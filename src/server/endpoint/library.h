/*
 * library.h - models as Ollama's API shows them.
 */
#ifndef HYPURA_SERVER_ENDPOINT_LIBRARY_H
#define HYPURA_SERVER_ENDPOINT_LIBRARY_H

#include "server/http/http.h"
#include "server/models/store.h"

/* A new reference. */
json_t *library_line(const hypura_model_entry *entry);

/* The name in a field of the body, or in the older one of the same meaning. Answers and returns NULL when it is
 * missing. */
const char *library_need_name(http_exchange *exchange, const json_t *body, const char *field, const char *older);

/* Ends an answer that may have told steps, as lines of NDJSON: with the error, or after "success". */
void library_end_steps(http_exchange *exchange, const hypura_error *error);

#endif
