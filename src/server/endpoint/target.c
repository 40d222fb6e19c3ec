/*
 * target.c - see target.h.
 */
#include "server/endpoint/target.h"

#include "base/status.h"
#include "server/dialect/pixels.h"
#include "server/endpoint/server.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DEATH_US 500000

bool target_client_gone(void *exchange)
{
    return http_gone(exchange);
}

/* The only loaded model, else the only one there is; NULL when a name is needed. */
static const hypura_model_entry *find_default(hypura_server *server)
{
    const hypura_model_entry *found = NULL;
    fleet_info *infos;
    const size_t n_loaded = fleet_list(server->fleet, &infos);
    if (n_loaded == 1) {
        found = hypura_model_entry_hold(infos[0].entry);
    }
    fleet_list_clear(infos, n_loaded);
    hypura_model_list list;
    if (n_loaded == 0 && hypura_models_list(server->models, &list, NULL) == HYPURA_OK) {
        if (list.n == 1) {
            found = hypura_model_entry_hold(list.entries[0]);
        }
        hypura_model_list_clear(&list);
    }
    return found;
}

/* False when it was answered; *entry NULL when no model has the name. */
static bool find(http_exchange *exchange, const char *name, const hypura_model_entry **entry)
{
    hypura_error error = {0};
    *entry = NULL;
    if (hypura_models_find(http_server(exchange)->models, name, HYPURA_FIND_TYPED, entry, &error) != HYPURA_OK) {
        http_fail_error(exchange, &error);
        return false;
    }
    return true;
}

const hypura_model_entry *target_find(http_exchange *exchange, const char *name)
{
    const hypura_model_entry *entry = NULL;
    if (!name || name[0] == '\0') {
        entry = find_default(http_server(exchange));
        if (!entry) {
            http_fail(exchange, 400, "no model is named, and there is not just one");
        }
    } else if (find(exchange, name, &entry) && !entry) {
        http_fail(exchange, 404, "model '%.200s' not found", name);
    }
    return entry;
}

const hypura_model_entry *target_find_or_default(http_exchange *exchange, const char *name)
{
    const char *other = http_server(exchange)->options.default_model;
    const hypura_model_entry *entry = NULL;
    if (!other) {
        return target_find(exchange, name);
    }
    if (name && name[0] != '\0' && !find(exchange, name, &entry)) {
        return NULL;
    }
    return entry ? entry : target_find(exchange, other);
}

bool target_can(http_exchange *exchange, const hypura_model_entry *entry, const char *name, const char *capability)
{
    hypura_error error = {0};
    bool able;
    if (hypura_models_can(http_server(exchange)->models, entry, capability, &able, &error) != HYPURA_OK) {
        http_fail_error(exchange, &error);
        return false;
    }
    if (!able) {
        http_fail(exchange, 400, "\"%.200s\" does not support %s", name, capability);
    }
    return able;
}

bool target_sees(http_exchange *exchange, const hypura_model_entry *entry, bool shown, const json_t *body)
{
    hypura_error error = {0};
    if (!entry->projector_path && shown) {
        http_fail(exchange, 400, "%s takes no images: it has no projector", entry->name);
        return false;
    }
    if (entry->projector_path && pixels_check(body, &error) != HYPURA_OK) {
        http_fail_error(exchange, &error);
        return false;
    }
    return true;
}

fleet_settings target_settings(const ollama_common *common)
{
    return (fleet_settings){.n_context = common->n_context, .n_batch = common->n_batch, .n_threads = common->n_threads};
}

bool target_open(http_exchange *exchange, const hypura_model_entry *entry, const fleet_settings *settings,
                 server_target *opened)
{
    hypura_error error = {0};
    *opened = (server_target){.entry = entry,
                              .keep_alive_s = (double)NAN,
                              .wish = {.entry = entry, .settings = *settings}};
    if (fleet_acquire(http_server(exchange)->fleet, &opened->wish, target_client_gone, exchange, &opened->lease,
                      &error) == HYPURA_OK) {
        return true;
    }
    hypura_model_entry_release(entry);
    opened->entry = NULL;
    http_fail_error(exchange, &error);
    return false;
}

void target_close(http_exchange *exchange, server_target *target)
{
    fleet_release(http_server(exchange)->fleet, &target->lease, target->keep_alive_s);
    hypura_model_entry_release(target->entry);
    target->entry = NULL;
}

/* The engine's own end, where that is why a call failed. */
static void explain(const server_target *target, hypura_error *error)
{
    char end[ENGINE_END_BYTES];
    const bool ours = error->status == HYPURA_ERR_CANCELLED || error->status == HYPURA_ERR_UNSUPPORTED;
    if (!ours && engine_ends_within(target->lease.engine, DEATH_US)) {
        engine_describe_end(target->lease.engine, end, sizeof end);
        (void)hypura_fail(error, error->status, "%s: the model's engine %s", target->entry->name, end);
    }
}

/* Another engine in place of one that has ended. */
static bool renew(http_exchange *exchange, server_target *target, hypura_error *error)
{
    server_fleet *fleet = http_server(exchange)->fleet;
    if (!engine_ends_within(target->lease.engine, DEATH_US)) {
        return false;
    }
    const adapter_scales scales = adapter_scale_get(engine_adapter_scale(target->lease.engine));
    fleet_release(fleet, &target->lease, target->keep_alive_s);
    if (fleet_acquire(fleet, &target->wish, target_client_gone, exchange, &target->lease, error) != HYPURA_OK) {
        return false;
    }
    if (!adapter_scales_are_whole(&scales)) { /* what was said to the one before */
        adapter_scale_set(engine_adapter_scale(target->lease.engine), &scales);
    }
    return true;
}

/* error: NULL where nobody wants to know. */
static hypura_status finish(const server_target *target, hypura_status status, hypura_error *error)
{
    if (status != HYPURA_OK && error && target->lease.member) {
        explain(target, error);
    }
    return status == HYPURA_OK || !error ? status : error->status;
}

static hypura_status run_call(server_target *target, upstream_call *call, const json_t *body, hypura_error *error)
{
    call->socket = target->lease.socket;
    prefix_restore(target->lease.prefix, call->path, body);
    const hypura_status status = upstream_run(call, error);
    prefix_used(target->lease.prefix);
    return status;
}

/* After its engine could not be replaced: the client went away, or the model can no longer be loaded. */
static hypura_status fail_lost(hypura_error *error)
{
    return hypura_fail(error, HYPURA_ERR_CANCELLED, "the model's engine has ended");
}

static hypura_status run_once(server_target *target, upstream_call *call, const json_t *body, hypura_error *error)
{
    if (!target->lease.member) {
        return fail_lost(error);
    }
    if (!target->entry->adapter_path) {
        return run_call(target, call, body, error);
    }
    adapter_scale *scale = engine_adapter_scale(target->lease.engine);
    json_t *made = NULL;
    hypura_status status = adapter_scale_begin(scale, call->path, body, &made, error);
    if (status != HYPURA_OK) {
        return status;
    }
    if (!made) {
        status = run_call(target, call, body, error);
        adapter_scale_end(scale);
        return status;
    }
    upstream_call scaled = *call;
    char *text = json_dumps(made, JSON_COMPACT);
    scaled.body = text;
    scaled.body_bytes = text ? strlen(text) : 0;
    prefix_stop(target->lease.prefix);
    status = text ? run_call(target, &scaled, made, error) : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a request");
    adapter_scale_end(scale);
    free(text);
    json_decref(made);
    return status;
}

/* Whether a request says what its answer has to look like: it may be what its engine did not come to an end with. */
static bool is_bound(const json_t *body)
{
    static const char *const keys[] = {"grammar", "json_schema", "response_format", "tools", "text", "output_config", "output_format"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (json_object_get(body, keys[i])) {
            return true;
        }
    }
    return false;
}

hypura_status target_run(http_exchange *exchange, server_target *target, upstream_call *call, const json_t *body,
                         hypura_error *error)
{
    char why[ENGINE_END_BYTES];
    hypura_status status = run_once(target, call, body, error);
    if ((status == HYPURA_ERR_IO || status == HYPURA_ERR_BACKEND) && target->lease.member && is_bound(body) &&
        engine_ends_within(target->lease.engine, DEATH_US) && engine_refused(target->lease.engine, why, sizeof why)) {
        /* another engine would end by it again */
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%s", why);
    }
    if (status == HYPURA_ERR_IO && renew(exchange, target, error)) {
        status = run_once(target, call, body, error);
    }
    return finish(target, status, error);
}

/* What asks this way generates nothing: there is no place for a scale in it. */
static hypura_status json_once(http_exchange *exchange, server_target *target, const char *path, const json_t *body,
                               int *code, json_t **answer, hypura_error *error)
{
    if (!target->lease.member) {
        *answer = NULL;
        return fail_lost(error);
    }
    adapter_scale *scale = target->entry->adapter_path ? engine_adapter_scale(target->lease.engine) : NULL;
    json_t *none = NULL;
    hypura_status status = scale ? adapter_scale_begin(scale, path, NULL, &none, error) : HYPURA_OK;
    if (status == HYPURA_OK) {
        status =
            upstream_json(target->lease.socket, "POST", path, body, target_client_gone, exchange, code, answer, error);
        if (scale) {
            adapter_scale_end(scale);
        }
    }
    return status;
}

hypura_status target_json(http_exchange *exchange, server_target *target, const char *path, const json_t *body,
                          int *code, json_t **answer, hypura_error *error)
{
    hypura_status status = json_once(exchange, target, path, body, code, answer, error);
    if (status == HYPURA_ERR_IO && renew(exchange, target, error)) {
        status = json_once(exchange, target, path, body, code, answer, error);
    }
    return finish(target, status, error);
}

void target_tell(http_exchange *exchange, const hypura_error *error)
{
    if (error->status == HYPURA_ERR_UNSUPPORTED) {
        http_fail_error(exchange, error);
    } else if (error->status != HYPURA_ERR_CANCELLED) {
        http_fail(exchange, 502, "%s", error->message);
    }
}

json_t *target_tokens(http_exchange *exchange, server_target *target, const json_t *text)
{
    int code = 0;
    json_t *answer = NULL;
    json_t *body = json_pack("{s:O, s:b}", "content", text, "add_special", 1);
    const hypura_status status = target_json(exchange, target, "/tokenize", body, &code, &answer, NULL);
    json_t *tokens = status == HYPURA_OK && code == 200 ? json_incref(json_object_get(answer, "tokens")) : NULL;
    json_decref(body);
    json_decref(answer);
    return tokens;
}
