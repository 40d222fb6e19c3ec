/*
 * run_arguments.h - what the command line of `hypura run` says, and everything that is read for it before a model is
 * opened: prompt, template, history, pictures, the files that a name stands for.
 *
 *     parse -> prepare -> clear
 */
#ifndef HYPURA_CLI_RUN_ARGUMENTS_H
#define HYPURA_CLI_RUN_ARGUMENTS_H

#include "cli/command.h"
#include "cli/history.h"
#include "cli/keys.h"
#include "cli/shown.h"
#include "hypura_server.h"

/* The library's options are the destinations. */
typedef struct hypura_run_arguments {
    const hypura_environment *environment;
    hypura_model_options model;
    hypura_generate_options generate;
    hypura_budget weights;
    const char *server;    /* asks this one instead of opening the model */
    hypura_key_arguments keys; /* of the server: the first one is shown */
    hypura_client *client; /* of the server */
    hypura_vram_limit vram;
    const char *gpu_misses;
    hypura_speculation_arguments speculation;
    hypura_adapter_list adapters;
    const char *think;
    bool hides_thoughts;
    bool quiet;
    bool chose_thinking; /* in the conversation */
    hypura_string_list stop;
    hypura_string_list images;
    hypura_shown_files shown; /* before the first prompt */
    const char *projector;    /* of the command line */
    const char *prompt_file;
    const char *template_file;
    const char *stats_file;
    const char *history_file;
    hypura_history *history; /* NULL: it is not kept */
    hypura_history kept;     /* what that points to */
    char *owned[4];          /* texts that were read */
    bool offline; /* a model that is not here is not fetched */
    bool interactive;
    bool from_input; /* the prompt is a file, or standard input */
    const char *before; /* a file that comes before it; NULL: none */
    bool seed_given;
    struct { /* on the command line: what the model was made with does not count then */
        bool temperature, top_p, top_k, min_p, repeat_penalty, frequency_penalty, presence_penalty, max_tokens;
    } given;
    json_t *chosen;     /* in the conversation: system, parameters, as a model's settings have them */
    json_t *settings;   /* what the model was made with; NULL: nothing */
    bool system_is_own; /* the system text is the model's */
    char applied[256];  /* the names of what was taken of it, or "" */
    hypura_local_files files; /* of the model */
    const char *path;
    const char *name; /* of the model, as given */
} hypura_run_arguments;

/* False with an exit code where there is nothing more to do. */
bool hypura_run_arguments_parse(hypura_run_arguments *run, const hypura_environment *environment, int argc,
                                char *const *argv, int *exit_code);
hypura_status hypura_run_arguments_prepare(hypura_run_arguments *run, hypura_error *error);
void hypura_run_arguments_clear(hypura_run_arguments *run);

/* run_settings.c: takes what the model was made with, its system text, template, parameters, where the command line says
 * nothing else; and, once the history was read, the conversation that comes before the first prompt. */
hypura_status hypura_run_settings_apply(hypura_run_arguments *run, hypura_error *error);
hypura_status hypura_run_settings_begin(hypura_run_arguments *run, hypura_error *error);

/* The same for one parameter, by Ollama's name for it; several words are of "stop", whose texts they are. */
hypura_status hypura_run_settings_set(hypura_run_arguments *run, const char *name, const char *const *words, int n,
                                      hypura_error *error);
/* Those there are. */
const char *hypura_run_parameter_names(void);
/* False where the word is none of on, off, low, medium, high. */
bool hypura_run_thinking(const char *word, hypura_thinking *thinking);

/* Takes what a message names. Where nothing can be shown, the text is sent as it is. *rest: to be freed. */
hypura_status hypura_run_take_shown(const hypura_run_arguments *run, hypura_generate_options *generate,
                                    hypura_shown_files *shown, char **rest, hypura_error *error);

#endif
