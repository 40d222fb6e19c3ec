/*
 * cmd_ps.c - `hypura ps` and `hypura stop`: the models that a running server has loaded, and unloading one of them.
 */
#include "cli/command.h"

#include "base/status.h"
#include "cli/json.h"
#include "cli/keys.h"
#include "cli/output.h"
#include "hypura_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_SERVER "http://127.0.0.1:8080"

static const char *const headings[] = {"name", "state", "mode", "memory", "GPU", "drive alone", "hits", "busy", "until"};

typedef struct asking {
    const char *server;
    hypura_key_arguments keys;
    hypura_client *client;
} asking;

/* NULL: what was answered is no JSON, or the server did not answer; error tells. body NULL: nothing is sent. */
static json_t *ask(asking *a, const hypura_environment *environment, const char *path, const json_t *body, hypura_error *error)
{
    char *sent = body ? json_dumps(body, JSON_COMPACT) : NULL;
    char *answer = NULL;
    json_t *value = NULL;
    hypura_status status = body && !sent ? hypura_fail(error, HYPURA_ERR_USAGE, "the name of the model is no UTF-8")
                                         : hypura_keys_resolve(environment, &a->keys, error);
    if (status == HYPURA_OK) {
        status = hypura_client_open(a->server, a->keys.keys[0], "", &a->client, error);
    }
    if (status == HYPURA_OK) {
        status = hypura_client_request(a->client, path, sent, &answer, error);
    }
    if (status == HYPURA_OK && !(value = json_loads(answer, 0, NULL))) {
        (void)hypura_fail(error, HYPURA_ERR_BACKEND, "%s answers %s in a way that hypura serve does not", a->server, path);
    }
    hypura_client_close(a->client);
    hypura_keys_clear(&a->keys);
    free(answer);
    free(sent);
    return value;
}

static uint64_t number(const json_t *object, const char *key)
{
    const json_int_t value = json_integer_value(json_object_get(object, key));
    return value > 0 ? (uint64_t)value : 0;
}

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value && value[0] != '\0' ? value : "-";
}

/* Of the weights and all else that lies in memory; what is on the drive alone does not. */
static uint64_t held_bytes(const json_t *tiers)
{
    static const char *const kinds[] = {"resident_bytes", "pinned_bytes",  "pool_bytes",     "ring_bytes",
                                        "kv_bytes",       "compute_bytes", "overhead_bytes", "draft_bytes"};
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        sum += number(tiers, kinds[i]);
    }
    return sum;
}

static void add_model(hypura_table *table, const json_t *model)
{
    const json_t *tiers = json_object_get(model, "tiers");
    const json_t *gpu = json_object_get(model, "gpu");
    const json_t *counters = json_object_get(model, "counters");
    const uint64_t needed = number(counters, "bytes_needed");
    const double share = json_number_value(json_object_get(model, "load_share"));
    hypura_table_cell(table, "%s", text(model, "name"));
    if (strcmp(text(model, "state"), "loading") == 0) {
        hypura_table_cell(table, "loading %.0f %%", 100.0 * share);
    } else {
        hypura_table_cell(table, "%s", text(model, "state"));
    }
    hypura_table_cell(table, "%s", text(model, "mode"));
    hypura_table_size(table, held_bytes(tiers));
    hypura_table_size(table, number(gpu, "weight_bytes") + number(gpu, "slot_bytes") + number(gpu, "other_bytes"));
    hypura_table_size(table, number(tiers, "drive_bytes"));
    if (needed > 0) {
        hypura_table_cell(table, "%.1f %%", 100.0 * (double)number(counters, "bytes_hit") / (double)needed);
    } else {
        hypura_table_cell(table, "-");
    }
    hypura_table_cell(table, "%llu/%llu", (unsigned long long)number(model, "busy"), (unsigned long long)number(model, "slots"));
    hypura_table_cell(table, "%s", text(model, "expires_at"));
}

static hypura_status print_status(const json_t *status, hypura_error *error)
{
    const json_t *models = json_object_get(status, "models");
    const json_t *memory = json_object_get(status, "memory");
    hypura_table table;
    size_t i;
    const json_t *model;
    hypura_output_note("%s of %s that models may use, %zu loaded", hypura_output_size(number(memory, "used_bytes")),
                       hypura_output_size(number(memory, "budget_bytes")), json_array_size(models));
    if (json_array_size(models) == 0) {
        return HYPURA_OK;
    }
    hypura_table_open(&table, "lllrrrrrl", headings);
    json_array_foreach(models, i, model)
    {
        add_model(&table, model);
    }
    return hypura_table_print(&table, error);
}

static hypura_option option_server(const char **url)
{
    return (hypura_option){"server", "URL", "the server (default: " DEFAULT_SERVER ")", HYPURA_OPTION_STRING, .to.string = url};
}

int hypura_command_ps(const hypura_environment *environment, int argc, char *const *argv)
{
    asking a = {.server = DEFAULT_SERVER};
    bool json = false;
    const hypura_option options[] = {
        option_server(&a.server),
        hypura_option_api_key(&a.keys, "the server's key"),
        hypura_option_api_key_file(&a.keys, "the same, the first line of FILE"),
        hypura_option_json(&json),
    };
    const hypura_syntax syntax = {
        .command = "ps",
        .operands = "",
        .about = "Lists the models that a running server has loaded: what each takes of memory and of\n"
                 "GPUs, what is on the drive alone, how many of the bytes needed were in memory, how\n"
                 "many requests are computed of those that can be at once, and until when it stays if\n"
                 "nobody asks. --json has all that the server tells of itself (docs/api.md).\n",
        .options = options,
        .n_options = sizeof options / sizeof *options,
    };
    hypura_arguments arguments;
    hypura_error error;
    int code;
    if (!hypura_command_begin(&syntax, argc, argv, &arguments, &error, &code)) {
        return code;
    }
    json_t *told = ask(&a, environment, "/api/hypura/status", NULL, &error);
    if (!told) {
        return hypura_command_fail(&error);
    }
    const hypura_status status = json ? hypura_json_print(json_incref(told), &error) : print_status(told, &error);
    json_decref(told);
    return hypura_command_end(status, &error);
}

int hypura_command_stop(const hypura_environment *environment, int argc, char *const *argv)
{
    asking a = {.server = DEFAULT_SERVER};
    const hypura_option options[] = {
        option_server(&a.server),
        hypura_option_api_key(&a.keys, "the server's key"),
        hypura_option_api_key_file(&a.keys, "the same, the first line of FILE"),
    };
    const hypura_syntax syntax = {
        .command = "stop",
        .operands = "NAME",
        .n_operands = 1,
        .about = "Has a running server unload a model, once it has answered what it was asked. The\n"
                 "server itself ends by Ctrl-C or SIGTERM.\n",
        .options = options,
        .n_options = sizeof options / sizeof *options,
    };
    hypura_arguments arguments;
    hypura_error error;
    int code;
    if (!hypura_command_begin(&syntax, argc, argv, &arguments, &error, &code)) {
        return code;
    }
    json_t *body = json_pack("{s:s, s:i, s:b}", "model", arguments.operands[0], "keep_alive", 0, "stream", 0);
    json_t *told = ask(&a, environment, "/api/generate", body, &error);
    json_decref(body);
    json_decref(told);
    return told ? HYPURA_EXIT_SUCCESS : hypura_command_fail(&error);
}
