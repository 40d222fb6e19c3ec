/*
 * cmd_list.c - `hypura list`: the models that the other commands and the server know by name.
 */
#include "cli/command.h"

#include "cli/json.h"
#include "cli/output.h"
#include "hypura_server.h"

typedef struct listing {
    hypura_table table;
    json_t *models;
    bool json; /* else the table */
    size_t n;
} listing;

static const char *const headings[] = {"name", "size", "parameters", "type", "modified", "file"};

static bool add_model(void *user, const hypura_local_model *model)
{
    listing *to = user;
    to->n++;
    if (to->json) {
        json_t *object = json_object();
        hypura_json_text(&object, "name", model->name);
        hypura_json_text(&object, "path", model->path);
        hypura_json_integer(&object, "bytes", model->bytes);
        hypura_json_text(&object, "architecture", model->architecture);
        hypura_json_text(&object, "parameters", model->parameters);
        hypura_json_text(&object, "quantization", model->quantization);
        hypura_json_text(&object, "modified", model->modified);
        hypura_json_append(&to->models, object);
        return true;
    }
    hypura_table_cell(&to->table, "%s", model->name);
    hypura_table_cell(&to->table, "%s", hypura_output_size(model->bytes));
    hypura_table_cell(&to->table, "%s", model->parameters);
    hypura_table_cell(&to->table, "%s", model->quantization);
    hypura_table_cell(&to->table, "%.10s", model->modified);
    hypura_table_cell(&to->table, "%s", model->path);
    return true;
}

/* Beside the list, where there is anything. */
static hypura_status tell_unused(const hypura_local_options *places, hypura_error *error)
{
    hypura_local_files_unused unused;
    const hypura_status status = hypura_local_unused(places, false, &unused, error);
    if (status == HYPURA_OK && unused.n_files > 0) {
        hypura_output_note("%s of downloads that were broken off, or files that no model uses, could be freed (hypura "
                           "remove --unused)", hypura_output_size(unused.bytes));
    }
    return status;
}

static hypura_status print_list(listing *to, const hypura_local_options *places, hypura_error *error)
{
    hypura_status status = hypura_local_list(places, add_model, to, error);
    if (status == HYPURA_OK && to->json) {
        status = hypura_json_print(to->models, error);
        to->models = NULL;
    } else if (status == HYPURA_OK && to->n == 0) {
        hypura_output_note("no models in %s%s%s (hypura pull fetches some)",
                           places->models_folder ? places->models_folder : "any folder",
                           places->ollama_folder ? " nor in " : "", places->ollama_folder ? places->ollama_folder : "");
    } else if (status == HYPURA_OK) {
        status = hypura_table_print(&to->table, error);
    }
    return status;
}

int hypura_command_list(const hypura_environment *environment, int argc, char *const *argv)
{
    hypura_local_options places = hypura_environment_places(environment);
    bool json = false;
    const hypura_option options[] = {
        hypura_option_models(&places.models_folder),
        hypura_option_json(&json),
    };
    const hypura_syntax syntax = {
        .command = "list",
        .operands = "",
        .about = "Lists the models that commands and the server know by name: those of the models folder,\n"
                 "and those that Ollama has. The last modified come first.\n",
        .options = options,
        .n_options = sizeof options / sizeof *options,
    };
    hypura_arguments arguments;
    hypura_error error;
    int code;
    if (!hypura_command_begin(&syntax, argc, argv, &arguments, &error, &code)) {
        return code;
    }
    listing to = {.models = json ? json_array() : NULL, .json = json};
    hypura_table_open(&to.table, "lrrlll", headings);
    hypura_status status = print_list(&to, &places, &error);
    status = status == HYPURA_OK ? tell_unused(&places, &error) : status;
    hypura_table_close(&to.table);
    json_decref(to.models);
    return hypura_command_end(status, &error);
}
