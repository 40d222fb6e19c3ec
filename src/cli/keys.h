/*
 * keys.h - API keys: of the command line, of a file, of the environment.
 *
 * On a command line everybody on the machine can read one (ps); in a file or the environment those can who may read it.
 */
#ifndef HYPURA_CLI_KEYS_H
#define HYPURA_CLI_KEYS_H

#include "cli/environment.h"
#include "cli/options.h"

#define HYPURA_MAX_KEYS 256

/* Zero-initialise: the options fill the first two. */
typedef struct hypura_key_arguments {
    hypura_string_list words; /* --api-key: keys by comma */
    const char *file;         /* --api-key-file: one a line; # begins a remark */
    const char *keys[HYPURA_MAX_KEYS + 1]; /* ends with NULL */
    int n_keys;
    char *texts[HYPURA_MAX_LIST + 2]; /* that the keys lie in */
    int n_texts;
} hypura_key_arguments;

hypura_option hypura_option_api_key(hypura_key_arguments *arguments, const char *help);
hypura_option hypura_option_api_key_file(hypura_key_arguments *arguments, const char *help);
/* Fills keys: those of both options, or, where neither is given, of the environment. Clear in any case. */
hypura_status hypura_keys_resolve(const hypura_environment *environment, hypura_key_arguments *arguments,
                                  hypura_error *error);
void hypura_keys_clear(hypura_key_arguments *arguments);

#endif
