/*
 * cmd_remove.c - `hypura remove`: takes a model out of the models folder.
 */
#include "cli/command.h"

#include "cli/output.h"
#include "hypura_server.h"

int hypura_command_remove(const hypura_environment *environment, int argc, char *const *argv)
{
    hypura_local_options places = hypura_environment_places(environment);
    const hypura_option options[] = {
        hypura_option_models(&places.models_folder),
    };
    const hypura_syntax syntax = {
        .command = "remove",
        .operands = "NAME",
        .n_operands = 1,
        .about = "Removes a model of the models folder, by the name that list shows: its files and its\n"
                 "settings. Models of Ollama's store are left alone. A server that has it open goes on\n"
                 "with it until it is unloaded.\n",
        .options = options,
        .n_options = sizeof options / sizeof *options,
    };
    hypura_arguments arguments;
    hypura_error error;
    int code;
    if (!hypura_command_begin(&syntax, argc, argv, &arguments, &error, &code)) {
        return code;
    }
    if (hypura_local_remove(&places, arguments.operands[0], &error) != HYPURA_OK) {
        return hypura_command_fail(&error);
    }
    hypura_output_note("removed %s", arguments.operands[0]);
    return HYPURA_EXIT_SUCCESS;
}
