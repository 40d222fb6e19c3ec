/*
 * pull_registry.c - see pull_internal.h.
 *
 *     GET REGISTRY/v2/NAMESPACE/MODEL/manifests/TAG    layers: media type, digest, size
 *     GET REGISTRY/v2/NAMESPACE/MODEL/blobs/DIGEST     what a layer holds
 *
 * Layers of weights are fetched as files; small ones are the model's settings.
 */
#include "server/models/pull_internal.h"

#include "base/status.h"
#include "server/models/layer.h"
#include "server/models/store_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT_BYTES = 4 << 20 };

typedef struct registry {
    hypura_fetch *fetch;
    char base[1024]; /* REGISTRY/v2/NAMESPACE/MODEL */
    hypura_pull_plan *plan;
    hypura_error *error;
} registry;

static char *blob_url(const registry *r, const char *hex)
{
    size_t capacity = strlen(r->base) + 96;
    char *url = malloc(capacity);
    if (url != NULL) {
        (void)snprintf(url, capacity, "%s/blobs/sha256:%s", r->base, hex);
    }
    return url;
}

/* A layer of text, checked against its digest, as a setting. */
static hypura_status add_setting(const registry *r, const char *kind, const char *hex)
{
    char found[HYPURA_DIGEST_BYTES] = "";
    char *text = NULL;
    size_t bytes = 0;
    char *url = blob_url(r, hex);
    hypura_digest *digest = hypura_digest_begin();
    hypura_status status = url == NULL || digest == NULL
                               ? hypura_fail(r->error, HYPURA_ERR_MEMORY, "no memory to read a manifest")
                               : hypura_fetch_text(r->fetch, url, "*/*", MAX_TEXT_BYTES, &text, &bytes, NULL, r->error);
    if (status == HYPURA_OK) {
        hypura_digest_add(digest, text, bytes);
        hypura_digest_end(digest, found);
        digest = NULL;
        if (strcmp(found, hex) != 0) {
            status = hypura_fail(r->error, HYPURA_ERR_FORMAT, "digest mismatch: %s is sha256:%s", url, found);
        } else {
            hypura_layer_add_setting(r->plan->settings, kind, text, bytes);
        }
    }
    hypura_digest_end(digest, NULL);
    free(text);
    free(url);
    return status;
}

static bool has_model(const hypura_pull_plan *plan)
{
    bool found = false;
    for (size_t i = 0; i < plan->n_files; i++) {
        found = found || strcmp(plan->files[i].staged, "model.gguf") == 0;
    }
    return found;
}

/* Behind those that the plan has. False where this one is among them: it is listed twice. */
static bool name_adapter(const hypura_pull_plan *plan, const char *hex, char *staged, size_t capacity)
{
    char ending[HYPURA_ADAPTER_ENDING_BYTES];
    int n = 0;
    for (size_t i = 0; i < plan->n_files; i++) {
        const bool is_adapter = strncmp(plan->files[i].staged, "model.adapter", 13) == 0;
        n += is_adapter;
        if (is_adapter && strcmp(plan->files[i].sha256, hex) == 0) {
            return false;
        }
    }
    hypura_store_adapter_ending(n, ending);
    (void)snprintf(staged, capacity, "model%s", ending);
    return true;
}

static hypura_status add_layer(const registry *r, const json_t *layer)
{
    char hex[HYPURA_DIGEST_BYTES];
    const char *kind = hypura_layer_kind(layer);
    const char *digest = json_string_value(json_object_get(layer, "digest"));
    json_int_t bytes = json_integer_value(json_object_get(layer, "size"));
    bool is_model = strcmp(kind, "model") == 0;
    bool is_projector = strcmp(kind, "projector") == 0;
    if (digest == NULL || !hypura_digest_parse(digest, hex) || bytes <= 0) {
        return hypura_fail(r->error, HYPURA_ERR_FORMAT, "%s: its manifest has a layer without a digest", r->base);
    }
    bool is_adapter = strcmp(kind, "adapter") == 0;
    char adapter[48] = "";
    if (is_adapter && !name_adapter(r->plan, hex, adapter, sizeof adapter)) {
        return HYPURA_OK;
    }
    if (is_model || is_projector || is_adapter) {
        char *url = blob_url(r, hex);
        return url == NULL ? hypura_fail(r->error, HYPURA_ERR_MEMORY, "no memory to read a manifest")
                           : hypura_pull_plan_add(r->plan, url, hex, (uint64_t)bytes,
                                                  is_model     ? "model.gguf"
                                                  : is_adapter ? adapter
                                                               : "model.mmproj.gguf",
                                                  r->error);
    }
    return hypura_layer_is_setting(kind) ? add_setting(r, kind, hex) : HYPURA_OK;
}

hypura_status hypura_pull_plan_registry(hypura_fetch *fetch, const char *registry_url, const char *name,
                                        hypura_pull_plan *plan, hypura_error *error)
{
    registry r = {.fetch = fetch, .plan = plan, .error = error};
    char url[1536];
    const char *tag = strchr(name, ':');
    size_t n = strlen(registry_url);
    while (n > 0 && registry_url[n - 1] == '/') {
        n--;
    }
    int written = snprintf(r.base, sizeof r.base, "%.*s/v2/%s%.*s", (int)n, registry_url,
                           strchr(name, '/') == NULL ? "library/" : "", (int)(tag - name), name);
    if (written < 0 || (size_t)written >= sizeof r.base) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the address of the registry is too long");
    }
    (void)snprintf(url, sizeof url, "%s/manifests/%s", r.base, tag + 1);
    char *text = NULL;
    size_t bytes = 0;
    hypura_status status = hypura_fetch_text(fetch, url, "application/vnd.docker.distribution.manifest.v2+json",
                                             MAX_TEXT_BYTES, &text, &bytes, NULL, error);
    json_t *root = status == HYPURA_OK ? json_loadb(text, bytes, 0, NULL) : NULL;
    json_t *layers = json_object_get(root, "layers");
    if (status == HYPURA_OK && !json_is_array(layers)) {
        status = hypura_fail(error, HYPURA_ERR_FORMAT, "%s: is no manifest", url);
    }
    size_t i;
    json_t *layer;
    json_array_foreach(layers, i, layer)
    {
        status = status == HYPURA_OK ? add_layer(&r, layer) : status;
    }
    if (status == HYPURA_OK && !has_model(plan)) { /* what goes with a model would be all that is left of the name */
        status = hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%s holds no GGUF of a model", name);
    }
    json_decref(root);
    free(text);
    return status;
}
