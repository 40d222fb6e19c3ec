/*
 * cmd_serve.c - `hypura serve`: the server, until a signal ends it.
 *
 * SIGINT and SIGTERM let the requests under way end (--drain), then the engines; a second one breaks the requests off. A
 * third SIGINT ends at once, and the engines follow by themselves.
 */
#include "cli/command.h"

#include "base/path.h"
#include "base/status.h"
#include "cli/interrupt.h"
#include "cli/keys.h"
#include "cli/output.h"
#include "hypura_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_ORIGINS 16

typedef struct serve_arguments {
    hypura_server_options server;
    hypura_budget weights;
    hypura_vram_limit vram;
    const char *gpu_misses;
    hypura_speculation_arguments speculation;
    hypura_key_arguments keys;
    const char *models;
    const char *origin_list;
    uint32_t port;
    float keep_alive_s;
    float drain_s;
    uint64_t state_bytes;
    bool no_ollama;
    const char *origins[MAX_ORIGINS + 1];
    char *origin_text;
    char engine[HYPURA_PATH_BYTES];
    char state[HYPURA_PATH_BYTES];
} serve_arguments;

/* hypura-engine lies beside this program, or where it is installed. */
static hypura_status find_engine(char *path, hypura_error *error)
{
    static const char *const places[] = {"hypura-engine", "../lib/hypura/hypura-engine"};
    char own[HYPURA_PATH_BYTES];
    if (!hypura_environment_program(own)) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "this system does not tell where the program lies: give --engine");
    }
    *strrchr(own, '/') = '\0';
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (hypura_path_join(path, HYPURA_PATH_BYTES, own, places[i]) && access(path, X_OK) == 0) {
            return HYPURA_OK;
        }
    }
    return hypura_fail(error, HYPURA_ERR_IO, "hypura-engine is not beside %s/hypura (--engine names it)", own);
}

static hypura_status split_origins(serve_arguments *serve, hypura_error *error)
{
    int n = 0;
    serve->origin_text = serve->origin_list ? strdup(serve->origin_list) : NULL;
    for (char *at = serve->origin_text, *word; (word = strsep(&at, ",")) != NULL;) {
        if (n == MAX_ORIGINS) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "--origins takes %d at most", MAX_ORIGINS);
        }
        serve->origins[n++] = word;
    }
    serve->server.origins = serve->origins;
    return HYPURA_OK;
}

static hypura_status complete(serve_arguments *serve, const hypura_environment *environment,
                              const hypura_arguments *arguments, hypura_error *error)
{
    hypura_server_options *server = &serve->server;
    server->paths = arguments->operands;
    server->n_paths = arguments->n_operands;
    for (int i = 0; i < server->n_paths; i++) {
        if (access(server->paths[i], F_OK) != 0) {
            return hypura_fail_errno(error, errno, "%s (models of the folder and Ollama's are there by name without being named here)",
                                     server->paths[i]);
        }
    }
    server->port = (uint16_t)serve->port;
    server->keep_alive_s = (double)serve->keep_alive_s;
    server->weights_bytes = serve->weights.bytes;
    server->weights_percent = serve->weights.percent;
    if (serve->vram.all.percent > 0.0) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "option --vram: a server takes a size, for all its models");
    }
    server->vram_bytes = serve->vram.all.bytes;
    server->gpu_misses = hypura_gpu_misses_of(serve->gpu_misses);
    memcpy(server->gpu_vram_bytes, serve->vram.each, sizeof server->gpu_vram_bytes);
    hypura_status status = hypura_speculation_resolve(NULL, &serve->speculation, &server->speculation, error);
    if (status != HYPURA_OK) {
        return status;
    }
    status = hypura_keys_resolve(environment, &serve->keys, error);
    if (status != HYPURA_OK) {
        return status;
    }
    server->api_keys = serve->keys.n_keys > 0 ? serve->keys.keys : NULL;
    server->cache_dir = hypura_command_cache_dir(environment);
    server->models_folder = serve->models ? serve->models : environment->models_dir[0] ? environment->models_dir : NULL;
    if (!server->hub_url) {
        server->hub_url = environment->hub_url;
    }
    server->hub_token = environment->hub_token;
    server->keep_unused = environment->keep_unused;
    if (!serve->no_ollama && environment->ollama_dir[0]) {
        server->ollama_folder = environment->ollama_dir;
    }
    if (serve->state_bytes > 0 && environment->cache_dir[0]) {
        if (!hypura_path_join(serve->state, HYPURA_PATH_BYTES, environment->cache_dir, "conversations")) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "%s is too long a path", environment->cache_dir);
        }
        server->state_folder = serve->state;
        server->state_bytes = serve->state_bytes;
    }
    if (server->child_log) {
        status = hypura_output_check(server->child_log, error);
        if (status != HYPURA_OK) {
            return status;
        }
    }
    if (server->engine && access(server->engine, X_OK) != 0) {
        return hypura_fail_errno(error, errno, "option --engine: %s cannot be run", server->engine);
    }
    if (!server->engine) {
        server->engine = serve->engine;
        status = find_engine(serve->engine, error);
        if (status != HYPURA_OK) {
            return status;
        }
    }
    return split_origins(serve, error);
}

/* As long as --drain says, or until another signal comes. */
static void drain(hypura_server *server, double seconds)
{
    const double step_s = 0.1;
    const int n_before = hypura_interrupts();
    for (double waited_s = 0; waited_s < seconds && hypura_interrupts() == n_before; waited_s += step_s) {
        if (hypura_server_drain(server, step_s)) {
            return;
        }
    }
    (void)hypura_server_drain(server, 0);
}

static hypura_status run_server(const serve_arguments *serve, hypura_error *error)
{
    hypura_server *server = NULL;
    hypura_status status = hypura_interrupt_open(error);
    if (status == HYPURA_OK) {
        status = hypura_server_open(&serve->server, &server, error);
    }
    if (status == HYPURA_OK) {
        while (!hypura_interrupted()) {
            (void)hypura_interrupt_wait(-1);
        }
        hypura_interrupt_clear();
        drain(server, (double)serve->drain_s);
    }
    hypura_server_close(server);
    return status;
}

int hypura_command_serve(const hypura_environment *environment, int argc, char *const *argv)
{
    static const char *const levels[] = {"error", "warn", "info", "debug", NULL};
    serve_arguments serve = {.port = 8080, .keep_alive_s = 300, .drain_s = 30, .state_bytes = UINT64_C(4) << 30};
    hypura_server_options *server = &serve.server;
    const hypura_option options[] = {
        {"host", "LIST", "addresses to listen on, by comma (default: 127.0.0.1)", HYPURA_OPTION_STRING,
         .to.string = &server->host},
        {"port", "N", "port (default: 8080; 0: any that is free)", HYPURA_OPTION_UNSIGNED,
         .to.unsigned_integer = &serve.port, .min = 0, .max = 65535},
        hypura_option_api_key(&serve.keys, "clients have to show this key; several by comma"),
        hypura_option_api_key_file(&serve.keys, "the same, one a line of FILE: a command line is no secret"),
        {"no-auth", NULL, "listen beyond this machine without a key", HYPURA_OPTION_FLAG, .to.flag = &server->no_auth},
        {"origins", "LIST", "web pages that may use the server, by comma (*: any)", HYPURA_OPTION_STRING,
         .to.string = &serve.origin_list},
        hypura_option_models(&serve.models),
        {"no-ollama", NULL, "leave Ollama's own models alone", HYPURA_OPTION_FLAG, .to.flag = &serve.no_ollama},
        {"import", "DIR", "GGUFs below DIR may be named in requests to create models", HYPURA_OPTION_STRING,
         .to.string = &server->import_folder},
        {"default", "NAME", "model of OpenAI's and Anthropic's clients that name one that is not there",
         HYPURA_OPTION_STRING, .to.string = &server->default_model},
        hypura_option_hub(&server->hub_url),
        hypura_option_registry(&server->registry_url),
        {"memory", "SIZE", "limit on all models together (default: nine tenths of what is free)", HYPURA_OPTION_SIZE,
         .to.size = &server->memory_bytes},
        hypura_option_weights(&serve.weights),
        hypura_option_context(&server->n_context),
        hypura_option_cache_type_k(&server->kv_cache),
        hypura_option_cache_type_v(&server->kv_cache),
        hypura_option_ubatch(&server->n_ubatch),
        hypura_option_draft(&serve.speculation),
        hypura_option_spec_type(&serve.speculation),
        hypura_option_draft_max(&serve.speculation),
        hypura_option_draft_p_min(&serve.speculation),
        {"context-shift", NULL, "answers go on beyond their context, without what is oldest", HYPURA_OPTION_FLAG,
         .to.flag = &server->context_shift},
        {"parallel", "N", "conversations that a model computes together (default: 4)", HYPURA_OPTION_UNSIGNED,
         .to.unsigned_integer = &server->n_parallel, .min = 1, .max = 64},
        hypura_option_threads(&server->n_threads),
        hypura_option_gpu(&server->gpu),
        {"vram", "SIZE", "limit on GPU memory for all models together, or 4G+8G: of each GPU (default: what is free)",
         HYPURA_OPTION_VRAM, .to.vram = &serve.vram},
        hypura_option_gpu_misses(&serve.gpu_misses),
        hypura_option_rpc(&server->rpc),
        hypura_option_rpc_memory(&server->rpc_bytes),
        {"keep-alive", "SECONDS", "an unused model stays this long, below 0: for ever (default: 300)",
         HYPURA_OPTION_FLOAT, .to.real = &serve.keep_alive_s, .min = -1, .max = 1e9},
        {"state-limit", "SIZE", "disk for conversations to be continued later, 0: none (default: 4G)",
         HYPURA_OPTION_SIZE, .to.size = &serve.state_bytes, .zero = true},
        {"max-requests", "N", "computed or waiting at the same time (default: 128)", HYPURA_OPTION_UNSIGNED,
         .to.unsigned_integer = &server->max_requests, .min = 1, .max = 1024},
        {"max-body", "SIZE", "largest request (default: 64M)", HYPURA_OPTION_SIZE, .to.size = &server->max_body_bytes},
        {"drain", "SECONDS", "at the end, requests under way may take this long (default: 30)", HYPURA_OPTION_FLOAT,
         .to.real = &serve.drain_s, .min = 0, .max = 1e6},
        hypura_option_io_engine(&server->io_engine),
        {"io-limit", "SIZE", "emulate a drive that reads SIZE a second", HYPURA_OPTION_SIZE,
         .to.size = &server->io_limit_bytes_per_s},
        {"log-level", "LEVEL", "error, warn, info or debug (default: info)", HYPURA_OPTION_CHOICE,
         .to.string = &server->log_level, .choices = levels},
        {"child-log", "FILE", "everything the engines print goes there", HYPURA_OPTION_STRING,
         .to.string = &server->child_log},
        {"engine", "FILE", "the program hypura-engine", HYPURA_OPTION_STRING, .to.string = &server->engine},
    };
    const hypura_syntax syntax = {
        .command = "serve",
        .operands = "[MODEL.gguf...]",
        .n_operands = HYPURA_MAX_OPERANDS,
        .n_optional = HYPURA_MAX_OPERANDS,
        .about =
            "Serves models over HTTP to clients of Ollama, OpenAI and Anthropic: those of the folder, those that\n"
            "Ollama has, and the files named. Each is loaded when it is asked for. docs/api.md lists the routes.\n",
        .options = options,
        .n_options = sizeof options / sizeof *options,
        .notes = hypura_size_notes,
    };
    hypura_arguments arguments;
    hypura_error error;
    int code;
    if (!hypura_command_begin(&syntax, argc, argv, &arguments, &error, &code)) {
        return code;
    }
    hypura_status status = complete(&serve, environment, &arguments, &error);
    if (status == HYPURA_OK) {
        status = run_server(&serve, &error);
    }
    hypura_keys_clear(&serve.keys);
    free(serve.origin_text);
    return hypura_command_end(status, &error);
}
