/*
 * store_ollama.c - see store_internal.h: Ollama's own store, read in place.
 *
 *     manifests/HOST/NAMESPACE/MODEL/TAG    JSON: layers, each a media type and a digest
 *     blobs/sha256-HEX                      what the layers hold
 *
 * A manifest names blobs by digest alone, and a digest is 64 hexadecimal digits or
 * is not used: no manifest leads out of the store. Models whose weights are no GGUF
 * (remote ones, safetensors) are not listed.
 */
#include "server/models/store_internal.h"

#include "server/models/layer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LAYER_BYTES = 4 << 20 };

typedef struct scan {
    hypura_models *models;
    hypura_entries *entries;
    char manifests[HYPURA_STORE_PATH_BYTES];
} scan;

/* registry.ollama.ai/library/qwen3/30b -> qwen3:30b; hf.co/user/repo/Q4 -> hf.co/user/repo:Q4. */
static bool name_of_manifest(const char *below, char *name)
{
    char text[HYPURA_NAME_BYTES];
    int n = snprintf(text, sizeof text, "%s", below);
    char *tag = n > 0 && (size_t)n < sizeof text ? strrchr(text, '/') : NULL;
    if (tag == NULL) {
        return false;
    }
    *tag = ':';
    return hypura_name_normalize(text, name);
}

/* Where the blob of a layer lies; false when there is no such file in the store. */
static bool find_blob(const scan *s, const json_t *layer, char *path)
{
    char hex[HYPURA_DIGEST_BYTES];
    char link[HYPURA_STORE_PATH_BYTES];
    const char *digest = json_string_value(json_object_get(layer, "digest"));
    return digest != NULL && hypura_digest_parse(digest, hex) &&
           hypura_store_path(link, "%s/blobs/sha256-%s", s->models->ollama, hex) &&
           hypura_store_is_within(s->models->ollama, link, path);
}

static void read_settings(const scan *s, hypura_entry *entry, const json_t *layers)
{
    size_t i;
    json_t *layer;
    json_array_foreach(layers, i, layer)
    {
        const char *kind = hypura_layer_kind(layer);
        char path[HYPURA_STORE_PATH_BYTES];
        size_t bytes = 0;
        char *text = hypura_layer_is_setting(kind) && find_blob(s, layer, path)
                         ? hypura_store_read_text(path, MAX_LAYER_BYTES, &bytes)
                         : NULL;
        if (text != NULL) {
            hypura_layer_add_setting(entry->is.settings, kind, text, bytes);
        }
        free(text);
    }
}

/* The last one counts. */
static hypura_status find_projector(const scan *s, hypura_entry *entry, const json_t *layers, hypura_error *error)
{
    size_t i;
    json_t *layer;
    json_array_foreach(layers, i, layer)
    {
        char path[HYPURA_STORE_PATH_BYTES];
        hypura_os_identity identity;
        if (strcmp(hypura_layer_kind(layer), "projector") == 0 && find_blob(s, layer, path)) {
            entry->is.projector_path = hypura_arena_text(&entry->arena, path, strlen(path));
            if (entry->is.projector_path == NULL) {
                return hypura_store_out_of_memory(error);
            }
            entry->is.bytes += hypura_os_identity_of_path(path, &identity) ? identity.bytes : 0;
        }
    }
    return HYPURA_OK;
}

static hypura_status find_adapters(const scan *s, hypura_entry *entry, const json_t *layers, hypura_error *error)
{
    size_t i;
    json_t *layer;
    hypura_status status = HYPURA_OK;
    json_array_foreach(layers, i, layer)
    {
        char path[HYPURA_STORE_PATH_BYTES];
        if (status != HYPURA_OK || strcmp(hypura_layer_kind(layer), "adapter") != 0) {
            continue;
        }
        if (!find_blob(s, layer, path)) {
            entry->problem = "its adapter is not in Ollama's store: pull it again";
        } else {
            status = hypura_entry_add_adapter(s->models, entry, path, error);
        }
    }
    return status;
}

static hypura_status add_model(scan *s, const char *name, const char *manifest_path, const char *text, size_t bytes,
                               const json_t *layers, hypura_error *error)
{
    char path[HYPURA_STORE_PATH_BYTES];
    bool has_model = false;
    size_t i;
    json_t *layer;
    json_array_foreach(layers, i, layer)
    {
        if (!has_model && strcmp(hypura_layer_kind(layer), "model") == 0) {
            has_model = find_blob(s, layer, path);
        }
    }
    if (!has_model) {
        return HYPURA_OK;
    }
    bool added = false;
    hypura_entry *entry = hypura_entries_add(s->entries, name, &added, error);
    if (entry == NULL) {
        return added ? HYPURA_ERR_MEMORY : HYPURA_OK;
    }
    entry->is.origin = HYPURA_MODEL_OLLAMA;
    hypura_status status = hypura_entry_fill(s->models, entry, path, error);
    if (status == HYPURA_OK) {
        status = find_projector(s, entry, layers, error);
    }
    if (status == HYPURA_OK) {
        status = find_adapters(s, entry, layers, error);
    }
    read_settings(s, entry, layers);
    hypura_os_identity identity;
    if (hypura_os_identity_of_path(manifest_path, &identity)) {
        hypura_entry_set_modified(entry, identity.modified_ns);
    }
    hypura_digest *digest = hypura_digest_begin();
    if (digest != NULL) {
        hypura_digest_add(digest, text, bytes);
    }
    hypura_digest_end(digest, entry->is.digest);
    return status;
}

static hypura_status visit_manifest(void *user, const char *below, hypura_error *error)
{
    scan *s = user;
    char name[HYPURA_NAME_BYTES];
    char link[HYPURA_STORE_PATH_BYTES];
    char path[HYPURA_STORE_PATH_BYTES];
    if (!name_of_manifest(below, name) || !hypura_store_path(link, "%s/%s", s->manifests, below) ||
        !hypura_store_is_within(s->manifests, link, path)) {
        return HYPURA_OK;
    }
    size_t bytes = 0;
    char *text = hypura_store_read_text(path, MAX_LAYER_BYTES, &bytes);
    json_t *root = text == NULL ? NULL : json_loadb(text, bytes, 0, NULL);
    hypura_status status = add_model(s, name, path, text, bytes, json_object_get(root, "layers"), error);
    json_decref(root);
    free(text);
    return status;
}

hypura_status hypura_store_scan_ollama(hypura_models *models, hypura_entries *entries, hypura_error *error)
{
    scan s = {.models = models, .entries = entries};
    if (models->ollama[0] == '\0' || !hypura_store_path(s.manifests, "%s/manifests", models->ollama)) {
        return HYPURA_OK;
    }
    return hypura_store_walk(s.manifests, visit_manifest, &s, error);
}
