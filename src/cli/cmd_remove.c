/*
 * cmd_remove.c - `hypura remove`: takes a model out of the models folder, or what no model uses.
 */
#include "cli/command.h"

#include "base/status.h"
#include "cli/output.h"
#include "hypura_server.h"

static hypura_status remove_unused(const hypura_local_options *places, hypura_error *error)
{
    hypura_local_files_unused unused;
    const hypura_status status = hypura_local_unused(places, true, &unused, error);
    if (status == HYPURA_OK) {
        hypura_output_note("removed %zu file%s that no model uses, %s", unused.n_files, unused.n_files == 1 ? "" : "s",
                           hypura_output_size(unused.bytes));
    }
    return status;
}

int hypura_command_remove(const hypura_environment *environment, int argc, char *const *argv)
{
    hypura_local_options places = hypura_environment_places(environment);
    bool unused = false;
    const hypura_option options[] = {
        {"unused", NULL, "remove what no model uses, such as downloads that were broken off", HYPURA_OPTION_FLAG, .to.flag = &unused},
        hypura_option_models(&places.models_folder),
    };
    const hypura_syntax syntax = {
        .command = "remove",
        .operands = "[NAME]",
        .n_operands = 1,
        .n_optional = 1,
        .about = "Removes a model of the models folder, by the name that list shows: its files and its\n"
                 "settings. Models of Ollama's store are left alone. A server that has it open goes on\n"
                 "with it until it is unloaded. Downloads that nobody went on with for a week go too.\n",
        .options = options,
        .n_options = sizeof options / sizeof *options,
    };
    hypura_arguments arguments;
    hypura_error error;
    int code;
    if (!hypura_command_begin(&syntax, argc, argv, &arguments, &error, &code)) {
        return code;
    }
    const char *name = arguments.n_operands > 0 ? arguments.operands[0] : NULL;
    hypura_status status = HYPURA_OK;
    if (!name && !unused) {
        status = hypura_fail(&error, HYPURA_ERR_USAGE, "NAME is missing (see hypura remove --help)");
    }
    if (status == HYPURA_OK && name) {
        status = hypura_local_remove(&places, name, &error);
    }
    if (status == HYPURA_OK && name) {
        hypura_output_note("removed %s", name);
    }
    if (status == HYPURA_OK && unused) {
        status = remove_unused(&places, &error);
    }
    return hypura_command_end(status, &error);
}
