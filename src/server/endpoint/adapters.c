/*
 * adapters.c - /lora-adapters of llama.cpp's server: the adapters of a model, and how much of them applies to requests
 * that do not say. Answered here: see adapter_scale.h.
 */
#include "server/endpoint/routes.h"
#include "server/endpoint/target.h"
#include "server/process/adapter_scale.h"

#include <math.h>

/* Loads the model. False when it was answered. */
static bool open_named(http_exchange *exchange, server_target *target)
{
    const char *name = http_query(exchange, "model");
    const hypura_model_entry *entry = target_find_or_default(exchange, name ? name : "");
    return entry && target_open(exchange, entry, &(fleet_settings){0}, target);
}

void endpoint_adapters(http_exchange *exchange)
{
    server_target target;
    if (!open_named(exchange, &target)) {
        return;
    }
    json_t *adapters = json_array();
    const adapter_scales scales = adapter_scale_get(engine_adapter_scale(target.lease.engine));
    for (int i = 0; i < target.entry->n_adapters; i++) {
        json_array_append_new(adapters, json_pack("{s:i, s:s, s:f, s:s, s:s}", "id", i, "path", target.entry->adapter_paths[i],
                                                  "scale", (double)scales.of[i], "task_name", "", "prompt_prefix", ""));
    }
    target_close(exchange, &target);
    http_reply_json(exchange, 200, adapters);
}

/* Each names an adapter, and a number. *most: the largest id. */
static bool is_list(const json_t *list, json_int_t *most)
{
    size_t i;
    const json_t *one;
    bool good = json_is_array(list);
    *most = -1;
    json_array_foreach(list, i, one)
    {
        const json_t *id = json_object_get(one, "id");
        *most = json_integer_value(id) > *most ? json_integer_value(id) : *most;
        good = good && json_is_integer(id) && json_integer_value(id) >= 0 &&
               json_is_number(json_object_get(one, "scale")) &&
               isfinite((float)json_number_value(json_object_get(one, "scale")));
    }
    return good;
}

void endpoint_adapters_set(http_exchange *exchange)
{
    json_t *list = http_json_value(exchange);
    server_target target;
    if (!list) {
        return;
    }
    json_int_t most;
    if (!is_list(list, &most)) {
        http_fail(exchange, 400, "a list of the model's adapters and their scales is wanted: [{\"id\": 0, \"scale\": 0.5}]");
    } else if (open_named(exchange, &target)) {
        const int n = target.entry->n_adapters;
        adapter_scales scales;
        (void)adapter_scale_of(list, n, &scales);
        if (most >= n && n == 0) {
            http_fail(exchange, 400, "%s has no adapter", target.entry->name);
        } else if (most >= n) {
            http_fail(exchange, 400, "%s has no adapter of id %lld: there are %d", target.entry->name, (long long)most, n);
        } else {
            if (n > 0) {
                adapter_scale_set(engine_adapter_scale(target.lease.engine), &scales);
            }
            http_reply_json(exchange, 200, json_pack("{s:b}", "success", 1));
        }
        target_close(exchange, &target);
    }
    json_decref(list);
}
