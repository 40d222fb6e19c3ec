/*
 * environment.h - what the program takes from outside its command line. The only
 * place that reads environment variables; everything else is handed this struct.
 */
#ifndef HYPURA_CLI_ENVIRONMENT_H
#define HYPURA_CLI_ENVIRONMENT_H

#include "hypura_server.h"

#define HYPURA_PATH_BYTES 4096

typedef struct hypura_environment {
    char *const *words;                 /* of the whole command line, as the program was started with */
    char cache_dir[HYPURA_PATH_BYTES];  /* HYPURA_CACHE_DIR or the user's cache folder; "" when there is none */
    char models_dir[HYPURA_PATH_BYTES]; /* HYPURA_MODELS or the user's data folder; "" when there is none */
    char ollama_dir[HYPURA_PATH_BYTES]; /* OLLAMA_MODELS or ~/.ollama/models; "" without a home */
    const char *hub_url;                /* HF_ENDPOINT; NULL when it is not set */
    const char *hub_token;              /* HF_TOKEN; NULL when it is not set */
    const char *api_keys;               /* HYPURA_API_KEY, by comma; NULL when it is not set */
    double gpu_seconds;                 /* HYPURA_GPU_SECONDS; 0 when it is not set, or is no number of seconds */
    bool offline;                       /* HF_HUB_OFFLINE: nothing is fetched */
    bool keep_unused;                   /* OLLAMA_NOPRUNE */
    bool terminal_in;                   /* standard input is a terminal */
    bool terminal_error;                /* standard error is a terminal: bars and prompts may be drawn */
    bool color;                         /* terminal_error, and neither NO_COLOR nor TERM=dumb */
} hypura_environment;

/* Fails with HYPURA_ERR_USAGE when a variable holds a path that is too long. */
hypura_status hypura_environment_read(hypura_environment *environment, hypura_error *error);

/* The file of the running program, to path of HYPURA_PATH_BYTES. False when the system does not tell. */
bool hypura_environment_program(char *path);

/* Where models are and come from. Strings live as long as environment. */
hypura_local_options hypura_environment_places(const hypura_environment *environment);

/* The file that the word MODEL stands for: a path as it is when it exists; models_dir/NAME or
 * models_dir/NAME.gguf; or a model that the server would know by that name. Writes at most
 * HYPURA_PATH_BYTES to path. Fails naming every place looked at. */
hypura_status hypura_environment_find_model(const hypura_environment *environment, const char *model, char *path,
                                            hypura_error *error);
/* The same with what belongs to a model that is known by its name; of a path, the file alone. An adapter,
 * which find_model refuses, is one of these. Clear the files. look_up is OK, with no path, where nothing has that name. */
hypura_status hypura_environment_look_up(const hypura_environment *environment, const char *model,
                                         hypura_local_files *files, hypura_error *error);
hypura_status hypura_environment_find_files(const hypura_environment *environment, const char *model,
                                            hypura_local_files *files, hypura_error *error);

#endif
