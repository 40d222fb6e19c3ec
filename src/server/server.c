/*
 * server.c - see hypura_server.h: puts the parts together.
 */
#include "server/endpoint/server.h"

#include "base/clock.h"
#include "base/host.h"
#include "base/size.h"
#include "base/status.h"
#include "engine/prepare/estimate.h"
#include "os/os.h"
#include "server/base/log.h"
#include "server/endpoint/meter.h"
#include "server/endpoint/routes.h"
#include "server/process/upstream.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define DEFAULT_REQUESTS   128
#define DEFAULT_BODY_BYTES (UINT64_C(64) << 20)
#define MAX_CONNECTIONS    4096
#define IDLE_S             120
#define HEAD_S             30
#define WRITE_S            120

static hypura_status check_options(hypura_server_options *options, hypura_error *error)
{
    server_log_level level = LOG_INFO;
    if (!options->host) {
        options->host = "127.0.0.1";
    }
    if (!options->api_keys && !options->no_auth && !hypura_hosts_are_loopback(options->host)) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "%s can be reached from other machines: give --api-key-file FILE or --api-key KEY, or --no-auth if anyone "
                           "may come",
                           options->host);
    }
    for (const char *const *key = options->api_keys; key && *key; key++) {
        if ((*key)[0] == '\0') {
            return hypura_fail(error, HYPURA_ERR_USAGE, "an API key is empty");
        }
    }
    if (options->log_level && !server_log_parse(options->log_level, &level)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s is no level of the log: error, warn, info or debug",
                           options->log_level);
    }
    server_log_set(level);
    return HYPURA_OK;
}

/* Memory that is free now, less a tenth for everybody else. */
static hypura_status choose_memory(hypura_server_options *options, hypura_error *error)
{
    hypura_os_memory memory = {.available_bytes = 0};
    char least[HYPURA_SIZE_TEXT];
    char given[HYPURA_SIZE_TEXT];
    if (options->memory_bytes > 0 && options->memory_bytes <= HYPURA_PREPARE_LEAST_BYTES) {
        return hypura_fail(error, HYPURA_ERR_BUDGET,
                           "no model runs in %s: any takes %s beside its weights, context and computing. Give the server more "
                           "with --memory, or leave that out",
                           hypura_size_format(options->memory_bytes, given, sizeof given),
                           hypura_size_format(HYPURA_PREPARE_LEAST_BYTES, least, sizeof least));
    }
    if (options->memory_bytes > 0) {
        return HYPURA_OK;
    }
    hypura_status status = hypura_os_memory_read(&memory, error);
    options->memory_bytes = memory.available_bytes / 10 * 9;
    return status;
}

/* A draft is a file, or the name of a model. */
static hypura_status find_draft(hypura_server *server, hypura_error *error)
{
    hypura_speculation *speculation = &server->options.speculation;
    if (!speculation->draft || access(speculation->draft, R_OK) == 0) {
        return HYPURA_OK;
    }
    const hypura_status status =
        hypura_models_find(server->models, speculation->draft, HYPURA_FIND_TYPED, &server->draft, error);
    if (status == HYPURA_OK && !server->draft) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "the draft '%s' is neither a file nor a model that is there: pull it, or name its file",
                           speculation->draft);
    }
    speculation->draft = status == HYPURA_OK ? server->draft->path : NULL;
    return status;
}

/* As Ollama does when it starts. */
static void clear_unused(const hypura_server *server)
{
    char size[HYPURA_SIZE_TEXT];
    if (server->options.keep_unused) {
        return;
    }
    const hypura_unused unused = hypura_models_unused(server->models, HYPURA_UNUSED_LONG, true);
    (void)hypura_size_format(unused.bytes, size, sizeof size);
    if (unused.n_files > 0) {
        server_log(LOG_INFO, "removed %s that no model used, %zu file%s of downloads that were broken off or of files sent",
                   size, unused.n_files, unused.n_files == 1 ? "" : "s");
    }
}

static hypura_status open_parts(hypura_server *server, hypura_error *error)
{
    const hypura_server_options *options = &server->options;
    const hypura_models_options models = {.folder = options->models_folder,
                                          .ollama_folder = options->ollama_folder,
                                          .import_folder = options->import_folder,
                                          .paths = options->paths,
                                          .n_paths = options->n_paths,
                                          .keep_unused = options->keep_unused};
    const http_options http = {.routes = &endpoint_routes,
                               .hosts = options->host,
                               .port = options->port,
                               .max_connections = MAX_CONNECTIONS,
                               .max_active = options->max_requests > 0 ? options->max_requests : DEFAULT_REQUESTS,
                               .max_body_bytes =
                                   options->max_body_bytes > 0 ? options->max_body_bytes : DEFAULT_BODY_BYTES,
                               .idle_s = IDLE_S,
                               .head_s = HEAD_S,
                               .write_s = WRITE_S,
                               .origins = options->origins,
                               .api_keys = options->api_keys,
                               .answered = meter_answered};
    hypura_status status = hypura_models_open(&models, &server->models, error);
    if (status == HYPURA_OK) {
        clear_unused(server);
        status = find_draft(server, error);
    }
    if (status == HYPURA_OK) {
        server->meter = meter_open();
        status = server->meter ? HYPURA_OK : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a server");
    }
    if (status == HYPURA_OK) {
        status = fleet_open(options, server->models, &server->fleet, error);
    }
    return status == HYPURA_OK ? http_open(&http, server, &server->http, error) : status;
}

/* Each connection is a descriptor, and engines need some beside them. What is not permitted, or not known, stays. */
static void allow_descriptors(void)
{
    struct rlimit limit;
    const rlim_t wanted = 2 * MAX_CONNECTIONS;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < wanted && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Where it is, and what there is. */
static void greet(const hypura_server *server)
{
    const hypura_server_options *options = &server->options;
    const char *hosts = options->host;
    char host[HYPURA_HOST_BYTES];
    char memory[HYPURA_SIZE_TEXT];
    hypura_model_list list;
    while (hypura_host_next(&hosts, host)) {
        const bool v6 = strchr(host, ':') != NULL;
        server_log(LOG_INFO, "listening on http://%s%s%s:%u", v6 ? "[" : "", host, v6 ? "]" : "",
                   http_port(server->http));
    }
    (void)hypura_size_format(options->memory_bytes, memory, sizeof memory);
    if (hypura_models_list(server->models, &list, NULL) != HYPURA_OK) {
        return;
    }
    if (list.n > 0) {
        server_log(LOG_INFO, "%zu model%s, which may use %s together", list.n, list.n == 1 ? "" : "s", memory);
    } else {
        server_log(LOG_INFO, "no models in %s%s%s: /api/pull and hypura pull fetch some; they may use %s together",
                   options->models_folder ? options->models_folder : "any folder",
                   options->ollama_folder ? " and " : "", options->ollama_folder ? options->ollama_folder : "", memory);
    }
    hypura_model_list_clear(&list);
    const hypura_model_entry *entry = NULL;
    hypura_error error = {0};
    if (options->default_model &&
        (hypura_models_find(server->models, options->default_model, HYPURA_FIND_TYPED, &entry, &error) != HYPURA_OK || !entry)) {
        server_log(LOG_WARN, "--default %s: no model has that name now", options->default_model);
    }
    hypura_model_entry_release(entry);
}

hypura_status hypura_server_open(const hypura_server_options *options, hypura_server **opened, hypura_error *error)
{
    hypura_server *server = calloc(1, sizeof(*server));
    *opened = NULL;
    hypura_error_clear(error);
    if (!server) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a server");
    }
    server->options = *options;
    server->begin_us = hypura_clock_us();
    hypura_status status = check_options(&server->options, error);
    if (status == HYPURA_OK) {
        status = choose_memory(&server->options, error);
    }
    if (status == HYPURA_OK) {
        status = upstream_begin(error);
    }
    if (status != HYPURA_OK) {
        free(server);
        return status;
    }
    allow_descriptors();
    status = open_parts(server, error);
    if (status != HYPURA_OK) {
        hypura_server_close(server);
        return status;
    }
    greet(server);
    fleet_foretell(server->fleet);
    *opened = server;
    return HYPURA_OK;
}

uint16_t hypura_server_port(const hypura_server *server)
{
    return http_port(server->http);
}

bool hypura_server_drain(hypura_server *server, double seconds)
{
    const uint32_t n_active = http_active(server->http);
    if (!server->draining) {
        server_log(LOG_INFO, "shutting down%s", n_active > 0 ? ": waiting for what is running" : "");
    }
    server->draining = true;
    return http_drain(server->http, (uint64_t)(seconds * 1e6));
}

void hypura_server_close(hypura_server *server)
{
    if (!server) {
        return;
    }
    if (server->draining && http_active(server->http) > 0) {
        server_log(LOG_WARN, "shutting down: what was still running is broken off");
    }
    http_close(server->http);
    fleet_close(server->fleet);
    if (server->draft) {
        hypura_model_entry_release(server->draft);
    }
    hypura_models_close(server->models);
    meter_close(server->meter);
    upstream_end();
    free(server);
}
