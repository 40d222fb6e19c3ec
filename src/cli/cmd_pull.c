/*
 * cmd_pull.c - `hypura pull`: fetches a model into the models folder, as the server's /api/pull does, and prints where
 * it lies. What is broken off, by Ctrl-C, the network or a full disk, the next call resumes.
 */
#include "cli/command.h"

#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/pulling.h"
#include "hypura_server.h"

int hypura_command_pull(const hypura_environment *environment, int argc, char *const *argv)
{
    hypura_local_options places = hypura_environment_places(environment);
    const hypura_option options[] = {
        hypura_option_models(&places.models_folder),
        hypura_option_hub(&places.hub_url),
        hypura_option_registry(&places.registry_url),
    };
    const hypura_syntax syntax = {
        .command = "pull",
        .operands = "NAME",
        .n_operands = 1,
        .about = "Fetches a model into the models folder, and prints where it lies. NAME is a repository of\n"
                 "Hugging Face with GGUFs, hf.co/USER/REPOSITORY[:TYPE], or a name of Ollama's registry. The\n"
                 "other commands then know it by that name. When stopped, the next call goes on from there.\n",
        .options = options,
        .n_options = sizeof options / sizeof *options,
    };
    hypura_arguments arguments;
    hypura_error error;
    int code;
    if (!hypura_command_begin(&syntax, argc, argv, &arguments, &error, &code)) {
        return code;
    }
    char path[HYPURA_PATH_BYTES];
    hypura_status status = hypura_interrupt_open(&error);
    if (status == HYPURA_OK) {
        status = hypura_pulling(environment, &places, arguments.operands[0], path, &error);
    }
    if (status == HYPURA_OK) {
        hypura_output_printf("%s\n", path);
    }
    return hypura_command_end(status, &error);
}
