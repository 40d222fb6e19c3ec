/*
 * pull.c - POST /api/pull: a model is fetched, and how far that is comes as lines.
 */
#include "server/base/log.h"
#include "server/endpoint/library.h"
#include "server/endpoint/routes.h"
#include "server/endpoint/server.h"
#include "server/models/pull.h"

typedef struct pulling {
    http_exchange *exchange;
    bool stream;
} pulling;

static bool on_step(void *user, const hypura_pull_step *step)
{
    const pulling *p = user;
    if (!p->stream) {
        return !http_gone(p->exchange);
    }
    json_t *line = json_pack("{s:s}", "status", step->status);
    if (step->digest) {
        json_object_set_new(line, "digest", json_string(step->digest));
        json_object_set_new(line, "total", json_integer((json_int_t)step->total_bytes));
        json_object_set_new(line, "completed", json_integer((json_int_t)step->completed_bytes));
    }
    return http_write_line(p->exchange, line);
}

void endpoint_ollama_pull(http_exchange *exchange)
{
    json_t *body = http_json(exchange);
    const char *name = body ? library_need_name(exchange, body, "model", "name") : NULL;
    const hypura_server_options *options = &http_server(exchange)->options;
    pulling p = {.exchange = exchange, .stream = !json_is_false(json_object_get(body, "stream"))};
    hypura_error error = {0};
    if (name) {
        const hypura_pull_options pull = {.name = name,
                                          .hub_url = options->hub_url,
                                          .hub_token = options->hub_token,
                                          .registry_url = options->registry_url,
                                          .report = on_step,
                                          .user = &p};
        const hypura_status status = hypura_models_pull(http_server(exchange)->models, &pull, &error);
        if (status != HYPURA_OK && status != HYPURA_ERR_CANCELLED) {
            server_log(LOG_WARN, "pull: %s", error.message);
        }
        library_end_steps(exchange, status == HYPURA_OK ? NULL : &error);
    }
    json_decref(body);
}
