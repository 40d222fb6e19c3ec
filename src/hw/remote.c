/*
 * remote.c - see remote.h.
 */
#include "hw/remote.h"

#include "base/status.h"
#include "hw/rpc_link.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_REMOTES    64
#define ENDPOINT_BYTES 280

typedef struct remote {
    ggml_backend_dev_t device;
    char endpoint[ENDPOINT_BYTES];
    char name[64];
} remote;

/* Filled up, never emptied. */
static pthread_mutex_t knowing = PTHREAD_MUTEX_INITIALIZER;
static remote          remotes[MAX_REMOTES];
static int             n_remotes;
static void (*told)(const hypura_error *error);

static const remote *find(ggml_backend_dev_t device)
{
    const remote *found = NULL;
    (void)pthread_mutex_lock(&knowing);
    for (int i = 0; i < n_remotes && !found; i++) {
        found = remotes[i].device == device ? &remotes[i] : NULL;
    }
    (void)pthread_mutex_unlock(&knowing);
    return found;
}

static hypura_status add(ggml_backend_dev_t device, const char *endpoint, size_t index, hypura_error *error)
{
    if (find(device)) {
        return HYPURA_OK;
    }
    (void)pthread_mutex_lock(&knowing);
    const bool room = n_remotes < MAX_REMOTES;
    if (room) {
        remote *r = &remotes[n_remotes++];
        r->device = device;
        (void)snprintf(r->endpoint, sizeof(r->endpoint), "%s", endpoint);
        const int n = snprintf(r->name, sizeof(r->name), "%s", endpoint);
        if (index > 0 && n < (int)sizeof(r->name)) {
            (void)snprintf(r->name + n, sizeof(r->name) - (size_t)n, "/%zu", index);
        }
    }
    (void)pthread_mutex_unlock(&knowing);
    return room ? HYPURA_OK
                : hypura_fail(error, HYPURA_ERR_USAGE, "%s: more than %d devices of other machines", endpoint, MAX_REMOTES);
}

/* As ggml takes it: the first colon parts them. */
static bool is_endpoint(const char *text)
{
    const char *colon = strchr(text, ':');
    char *end = NULL;
    const long port = colon && colon > text && colon[1] >= '0' && colon[1] <= '9' ? strtol(colon + 1, &end, 10) : 0;
    return port > 0 && port <= 65535 && *end == '\0';
}

static hypura_status fail_lost(const char *endpoint, const char *reason, hypura_error *error)
{
    return hypura_fail(error, HYPURA_ERR_BACKEND,
                       "the server %s is lost: %s. See whether `hypura rpc-server` runs there, and try again, or without --rpc",
                       endpoint, reason);
}

static hypura_status check(const char *endpoint, hypura_error *error)
{
    rpc_link link;
    rpc_link_of(endpoint, &link);
    return link.lost ? fail_lost(endpoint, link.reason, error) : HYPURA_OK;
}

static hypura_status add_server(const char *endpoint, ggml_backend_dev_t *devices, int *n, hypura_error *error)
{
    if (!is_endpoint(endpoint)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s is not HOST:PORT of an RPC server", endpoint);
    }
    ggml_backend_reg_t server = hypura_rpc_add_server(endpoint);
    hypura_status status = HYPURA_OK;
    size_t free_bytes, total_bytes;
    if (server) { /* known for long, it may be: is it there now? */
        ggml_backend_dev_memory(ggml_backend_reg_dev_get(server, 0), &free_bytes, &total_bytes);
    }
    rpc_link link;
    rpc_link_of(endpoint, &link);
    if (link.lost || !server) {
        return hypura_fail(error, HYPURA_ERR_BACKEND,
                           "the server %s cannot be used: %s. Start `hypura rpc-server` there, of the same version", endpoint,
                           link.lost ? link.reason : "it has no device");
    }
    for (size_t i = 0; i < ggml_backend_reg_dev_count(server) && status == HYPURA_OK; i++) {
        ggml_backend_dev_t device = ggml_backend_reg_dev_get(server, i);
        for (int d = 0; d < *n && status == HYPURA_OK; d++) {
            if (devices[d] == device) {
                status = hypura_fail(error, HYPURA_ERR_USAGE, "the server %s is named twice", endpoint);
            }
        }
        if (status == HYPURA_OK && *n == HYPURA_MAX_GPUS) {
            status = hypura_fail(error, HYPURA_ERR_USAGE, "%s: more than %d devices", endpoint, HYPURA_MAX_GPUS);
        }
        if (status == HYPURA_OK) {
            devices[(*n)++] = device;
            status = add(device, endpoint, i, error);
        }
    }
    return status;
}

hypura_status hypura_remote_find(const char *servers, ggml_backend_dev_t *devices, int *n, hypura_error *error)
{
    hypura_status status = HYPURA_OK;
    for (const char *at = servers; at && status == HYPURA_OK;) {
        char endpoint[ENDPOINT_BYTES];
        const size_t bytes = strcspn(at, ",");
        if (bytes >= sizeof(endpoint)) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "%.40s... is not HOST:PORT of an RPC server", at);
        }
        memcpy(endpoint, at, bytes);
        endpoint[bytes] = '\0';
        status = add_server(endpoint, devices, n, error);
        at = at[bytes] == ',' ? at + bytes + 1 : NULL;
    }
    return status;
}

const char *hypura_remote_name(ggml_backend_dev_t device)
{
    const remote *r = find(device);
    return r ? r->name : ggml_backend_dev_name(device);
}

hypura_status hypura_remote_check(ggml_backend_dev_t device, hypura_error *error)
{
    const remote *r = find(device);
    return r ? check(r->endpoint, error) : HYPURA_OK;
}

hypura_status hypura_remote_memory(ggml_backend_dev_t device, uint64_t *free_bytes, hypura_error *error)
{
    size_t now = 0;
    size_t total = 0;
    ggml_backend_dev_memory(device, &now, &total);
    *free_bytes = now;
    return hypura_remote_check(device, error);
}

void hypura_remote_traffic(ggml_backend_dev_t device, hypura_gpu_statistics *statistics)
{
    rpc_link link = {.lost = false};
    const remote *r = find(device);
    if (r) {
        rpc_link_of(r->endpoint, &link);
    }
    statistics->link_bytes_sent = link.sent_bytes;
    statistics->link_bytes_received = link.received_bytes;
    statistics->n_link_answers = link.n_answers;
}

static void tell(const char *endpoint, const char *reason)
{
    hypura_error error = {0};
    (void)fail_lost(endpoint, reason, &error);
    told(&error);
}

void hypura_remote_on_lost(void (*function)(const hypura_error *error))
{
    told = function;
    rpc_link_on_lost(function ? tell : NULL);
}
