/*
 * endpoint_adapters.c - /lora-adapters of llama.cpp's server: the adapter of a model, and how much of it applies to requests
 * that do not say. Answered here: see adapter_scale.h.
 */
#include "server/adapter_scale.h"
#include "server/routes.h"
#include "server/server.h"
#include "server/target.h"

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
    if (target.entry->adapter_path) {
        json_array_append_new(adapters, json_pack("{s:i, s:s, s:f, s:s, s:s}", "id", 0, "path", target.entry->adapter_path,
                                                  "scale", (double)adapter_scale_get(engine_adapter_scale(target.lease.engine)),
                                                  "task_name", "", "prompt_prefix", ""));
    }
    target_close(exchange, &target);
    http_reply_json(exchange, 200, adapters);
}

/* Each names the only adapter, and a number. */
static bool is_list(const json_t *list)
{
    size_t i;
    const json_t *one;
    bool good = json_is_array(list);
    json_array_foreach(list, i, one)
    {
        const json_t *id = json_object_get(one, "id");
        good = good && json_is_integer(id) && json_integer_value(id) == 0 &&
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
    if (!is_list(list)) {
        http_fail(exchange, 400, "a list of the model's adapter and its scale is wanted: [{\"id\": 0, \"scale\": 0.5}]");
    } else if (open_named(exchange, &target)) {
        const float scale = adapter_scale_of(list);
        const bool any = json_array_size(list) > 0;
        if (!target.entry->adapter_path && any) {
            http_fail(exchange, 400, "%s has no adapter", target.entry->name);
        } else {
            if (target.entry->adapter_path) {
                adapter_scale_set(engine_adapter_scale(target.lease.engine), any ? scale : 0.0f);
            }
            http_reply_json(exchange, 200, json_pack("{s:b}", "success", 1));
        }
        target_close(exchange, &target);
    }
    json_decref(list);
}
