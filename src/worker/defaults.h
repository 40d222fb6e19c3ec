/*
 * defaults.h - what requests to llama.cpp's server mean where they do not say it, as its command line takes it.
 */
#ifndef HYPURA_WORKER_DEFAULTS_H
#define HYPURA_WORKER_DEFAULTS_H

#include "worker/arguments.h"

/* json: an object in the words of its requests: {"seed": 7, "stop": ["END"]}. Words are added; those of *kept live in
 * it, to be released with json_decref. Fails with HYPURA_ERR_USAGE for what is no such object; what its command line
 * cannot take is named as well. */
hypura_status hypura_worker_add_defaults(const char *json, hypura_worker_words *words, void **kept,
                                         hypura_error *error);

#endif
