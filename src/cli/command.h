/*
 * command.h - what a command is, and what commands share. A new command is one
 * file with one function, declared here, and one line of the table in main.c.
 *
 *     main.c, environment.c, option*.c   the words and variables that the program is given
 *     cmd_NAME.c                         a command; run's is in run_*.c, with chat.c, message.c, history.c, prompt.c and shown.c
 *     placement.c, bench_*.c             plans and benches, told
 *     output.c, json.c, progress.c       all that is printed
 *     interrupt.c, keys.c, pulling.c     signals, API keys, models that are fetched first
 */
#ifndef HYPURA_CLI_COMMAND_H
#define HYPURA_CLI_COMMAND_H

#include "cli/environment.h"
#include "cli/options.h"

enum {
    HYPURA_EXIT_SUCCESS = 0,
    HYPURA_EXIT_FAILURE = 1,
    HYPURA_EXIT_USAGE = 2,
};

typedef struct hypura_command {
    const char *name;
    const char *summary; /* one line of `hypura --help`; NULL: not for people */
    /* Gets the words after the command's name; returns the exit code. */
    int (*run)(const hypura_environment *environment, int argc, char *const *argv);
    bool computes; /* with llama.cpp, in this process */
} hypura_command;

int hypura_command_bench(const hypura_environment *environment, int argc, char *const *argv);
int hypura_command_bench_worker(const hypura_environment *environment, int argc, char *const *argv);
int hypura_command_estimate(const hypura_environment *environment, int argc, char *const *argv);
int hypura_command_inspect(const hypura_environment *environment, int argc, char *const *argv);
int hypura_command_iobench(const hypura_environment *environment, int argc, char *const *argv);
int hypura_command_list(const hypura_environment *environment, int argc, char *const *argv);
int hypura_command_optimize(const hypura_environment *environment, int argc, char *const *argv);
int hypura_command_profile(const hypura_environment *environment, int argc, char *const *argv);
int hypura_command_ps(const hypura_environment *environment, int argc, char *const *argv);
int hypura_command_pull(const hypura_environment *environment, int argc, char *const *argv);
int hypura_command_remove(const hypura_environment *environment, int argc, char *const *argv);
int hypura_command_replay(const hypura_environment *environment, int argc, char *const *argv);
int hypura_command_rpc_server(const hypura_environment *environment, int argc, char *const *argv);
int hypura_command_run(const hypura_environment *environment, int argc, char *const *argv);
int hypura_command_serve(const hypura_environment *environment, int argc, char *const *argv);
int hypura_command_stop(const hypura_environment *environment, int argc, char *const *argv);
int hypura_command_verify(const hypura_environment *environment, int argc, char *const *argv);

/* Parses, and clears error; true when the command is to go on. Else help or an error was
 * printed and *exit_code says how the program ends. */
bool hypura_command_begin(const hypura_syntax *syntax, int argc, char *const *argv, hypura_arguments *arguments,
                          hypura_error *error, int *exit_code);
/* The words that say which model is meant. */
typedef struct hypura_model_words {
    char path[HYPURA_PATH_BYTES]; /* where it lies */
    hypura_adapter_list adapters; /* of --lora */
    const char *gpu_misses;
} hypura_model_words;

/* The same for a command whose one operand is a model. model gets what the words come to, with adapters that belong to the
 * model's name; NULL: the command looks at the file alone. */
bool hypura_command_begin_model(const hypura_syntax *syntax, const hypura_environment *environment, int argc,
                                char *const *argv, hypura_model_words *words, hypura_model_options *model,
                                hypura_error *error, int *exit_code);
/* The adapters that belong to the model, before those that were named. */
hypura_status hypura_adapters_begin_with(hypura_adapter_list *adapters, const hypura_local_files *files, hypura_error *error);

/* The exit code of a command that comes to this; what failed is printed. */
int hypura_command_end(hypura_status status, const hypura_error *error);
/* The same where it has failed, as error tells. */
int hypura_command_fail(const hypura_error *error);

/* The cache folder as the library wants it: NULL when there is none. */
const char *hypura_command_cache_dir(const hypura_environment *environment);

/* ---- options that several commands have ------------------------------------ */

hypura_option hypura_option_json(bool *json);
hypura_option hypura_option_memory(uint64_t *bytes);
hypura_option hypura_option_weights(hypura_budget *budget);
hypura_option hypura_option_context(uint32_t *n_context);
hypura_option hypura_option_cache_type_k(hypura_kv_cache *kv_cache);
hypura_option hypura_option_cache_type_v(hypura_kv_cache *kv_cache);
hypura_option hypura_option_ubatch(uint32_t *n_ubatch);
hypura_option hypura_option_lora(hypura_adapter_list *adapters);
hypura_option hypura_option_gpu(const char **gpu);
hypura_option hypura_option_gpu_misses(const char **who);
hypura_option hypura_option_rpc(const char **servers);
hypura_option hypura_option_rpc_memory(uint64_t *bytes);
hypura_gpu_misses hypura_gpu_misses_of(const char *who);
hypura_option hypura_option_vram(hypura_vram_limit *limit);
hypura_option hypura_option_threads(int *n_threads);
hypura_option hypura_option_io_engine(const char **name);
hypura_option hypura_option_models(const char **folder);
hypura_option hypura_option_hub(const char **url);
hypura_option hypura_option_registry(const char **url);

/* What the four options of speculation say; resolve turns it into what the library takes. */
typedef struct hypura_speculation_arguments {
    const char *draft; /* a model, as commands take them */
    hypura_choice_list types;
    uint32_t n_max;
    float p_min;
    char path[HYPURA_PATH_BYTES];
    char names[128];
} hypura_speculation_arguments;

hypura_option hypura_option_draft(hypura_speculation_arguments *arguments);
hypura_option hypura_option_spec_type(hypura_speculation_arguments *arguments);
hypura_option hypura_option_draft_max(hypura_speculation_arguments *arguments);
hypura_option hypura_option_draft_p_min(hypura_speculation_arguments *arguments);
/* The result points into arguments. environment NULL: whoever gets it knows the models. */
hypura_status hypura_speculation_resolve(const hypura_environment *environment, hypura_speculation_arguments *arguments,
                                         hypura_speculation *speculation, hypura_error *error);

/* What SIZE means, for the notes of a syntax. */
extern const char hypura_size_notes[];

/* "uring", "pool", NULL */
extern const char *const hypura_io_engines[];

/* Turns n limits on GPU memory into bytes: on all GPUs, or, where these are 0, on each. Per
 * cent are of what lies between the least with which all layers are computed there and the
 * whole model, as model (path, gpu, context, ubatch) takes it. */
hypura_status hypura_vram_resolve(const hypura_vram_limit *limits, int n, const hypura_model_options *model,
                                  uint64_t *bytes, uint64_t (*each)[HYPURA_MAX_GPUS], hypura_error *error);
/* The same for one limit, which becomes the model's. */
hypura_status hypura_vram_apply(const hypura_vram_limit *limit, hypura_model_options *model, hypura_error *error);
/* To standard error, where there is a limit and no GPU. */
void hypura_vram_note(const hypura_model_options *model, const hypura_plan *plan);

/* Of a limit on everything and one on the weights alone only one may be given. */
hypura_status hypura_limits_check(uint64_t memory_bytes, const hypura_budget *weights, hypura_error *error);

/* Turns n budgets for the model at path into bytes; its header is read only when
 * one of them is a per cent, of all its files together. */
hypura_status hypura_budgets_resolve(const hypura_budget *budgets, int n, const char *path, uint64_t *bytes,
                                     hypura_error *error);

#endif
