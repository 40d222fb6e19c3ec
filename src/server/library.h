/*
 * library.h - models as Ollama's API shows them.
 */
#ifndef HYPURA_SERVER_LIBRARY_H
#define HYPURA_SERVER_LIBRARY_H

#include "server/store.h"

/* New references. */
json_t *library_details(const hypura_model_entry *entry);
json_t *library_line(const hypura_model_entry *entry);

#endif
