/*
 * layer.c - see layer.h.
 */
#include "server/models/layer.h"

#include <string.h>

const char *hypura_layer_kind(const json_t *layer)
{
    static const char prefix[] = "application/vnd.ollama.image.";
    const char *type = json_string_value(json_object_get(layer, "mediaType"));
    return type != NULL && strncmp(type, prefix, sizeof prefix - 1) == 0 ? type + sizeof prefix - 1 : "";
}

bool hypura_layer_is_setting(const char *kind)
{
    static const char *const kinds[] = {"template", "system", "params", "messages", "license"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kind, kinds[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Several licenses become a list. */
void hypura_layer_add_setting(json_t *settings, const char *kind, const char *text, size_t bytes)
{
    if (strcmp(kind, "params") == 0 || strcmp(kind, "messages") == 0) {
        bool is_params = kind[0] == 'p';
        json_t *value = json_loadb(text, bytes, 0, NULL);
        if (is_params ? json_is_object(value) : json_is_array(value)) {
            (void)json_object_set(settings, is_params ? "parameters" : "messages", value);
        }
        json_decref(value);
        return;
    }
    /* Bytes that are no UTF-8 make no string, and no setting. */
    json_t *value = json_stringn(text, bytes);
    json_t *before = json_object_get(settings, kind);
    if (value != NULL && json_is_string(before)) {
        (void)json_object_set_new(settings, kind, json_pack("[O, O]", before, value));
    } else if (value != NULL && json_is_array(before)) {
        (void)json_array_append(before, value);
    } else if (value != NULL) {
        (void)json_object_set(settings, kind, value);
    }
    json_decref(value);
}
