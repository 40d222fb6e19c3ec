/*
 * models.c - OpenAI's list of models, and Anthropic's, in one: all that are known, loaded or not.
 */
#include "server/endpoint/routes.h"
#include "server/endpoint/server.h"
#include "server/endpoint/target.h"

static json_t *describe(const hypura_model_entry *entry)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:s, s:s, s:s}", "id", entry->name, "object", "model", "created",
                     (json_int_t)(entry->modified_ns / 1000000000), "owned_by", "library", "type", "model",
                     "display_name", entry->name, "created_at", entry->modified);
}

void endpoint_models(http_exchange *exchange)
{
    hypura_error error = {0};
    const char *name = http_rest(exchange);
    if (name[0] != '\0') {
        const hypura_model_entry *entry = target_find(exchange, name);
        if (entry) {
            http_reply_json(exchange, 200, describe(entry));
            hypura_model_entry_release(entry);
        }
        return;
    }
    hypura_model_list list;
    if (hypura_models_list(http_server(exchange)->models, &list, &error) != HYPURA_OK) {
        http_fail_error(exchange, &error);
        return;
    }
    json_t *data = json_array();
    const char *first = list.n > 0 ? list.entries[0]->name : NULL;
    const char *last = list.n > 0 ? list.entries[list.n - 1]->name : NULL;
    json_t *answer = json_pack("{s:s, s:o, s:b, s:s?, s:s?}", "object", "list", "data", data, "has_more", 0, "first_id",
                               first, "last_id", last);
    for (size_t i = 0; i < list.n; i++) {
        json_array_append_new(data, describe(list.entries[i]));
    }
    hypura_model_list_clear(&list);
    http_reply_json(exchange, 200, answer);
}
