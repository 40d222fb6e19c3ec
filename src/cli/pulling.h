/*
 * pulling.h - a model is fetched, for those commands that do: what comes, how much, and how far it is, on standard error.
 */
#ifndef HYPURA_CLI_PULLING_H
#define HYPURA_CLI_PULLING_H

#include "cli/environment.h"

/* Fetches the model into the folder of places; path, of HYPURA_PATH_BYTES, is where it lies then. Signals are caught
 * (interrupt.h): one ends it with HYPURA_ERR_CANCELLED, and what came is kept. */
hypura_status hypura_pulling(const hypura_environment *environment, const hypura_local_options *places, const char *name,
                             char *path, hypura_error *error);
/* Whether a word that is no file and no model here may be the name of one elsewhere. */
bool hypura_pulling_may(const char *name);

#endif
