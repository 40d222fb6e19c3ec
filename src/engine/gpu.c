/*
 * gpu.c - see gpu.h.
 */
#include "engine/gpu.h"

#include "base/buffer.h"
#include "base/status.h"
#include "hw/modules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What drivers, pipelines and scratch of ggml's own backends take beside what we
 * place, where nobody gave a limit. */
#define MARGIN_BYTES   (UINT64_C(768) << 20)
#define MARGIN_PERCENT 4

static bool is_gpu(ggml_backend_dev_t device)
{
    const enum ggml_backend_dev_type type = ggml_backend_dev_type(device);
    return type == GGML_BACKEND_DEVICE_TYPE_GPU || type == GGML_BACKEND_DEVICE_TYPE_IGPU;
}

/* Among those that nobody named: one with memory of its own, then the one with more of it
 * free. About as much says nothing. */
static bool is_better(ggml_backend_dev_t one, ggml_backend_dev_t than)
{
    const bool own = ggml_backend_dev_type(one) == GGML_BACKEND_DEVICE_TYPE_GPU;
    size_t free_bytes = 0;
    size_t other_bytes = 0;
    size_t ignored;
    if (own != (ggml_backend_dev_type(than) == GGML_BACKEND_DEVICE_TYPE_GPU)) {
        return own;
    }
    ggml_backend_dev_memory(one, &free_bytes, &ignored);
    ggml_backend_dev_memory(than, &other_bytes, &ignored);
    return free_bytes / 9 > other_bytes / 8;
}

/* "Vulkan0, Vulkan1"; "none" without any. */
static void list_gpus(char *text, size_t capacity)
{
    size_t used = (size_t)snprintf(text, capacity, "none");
    for (size_t i = 0, n = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t found = ggml_backend_dev_get(i);
        if (is_gpu(found)) {
            used = n++ == 0 ? 0 : used;
            const int more = snprintf(text + used, capacity - used, "%s%s", used > 0 ? ", " : "",
                                      ggml_backend_dev_name(found));
            used = used + (size_t)more < capacity ? used + (size_t)more : capacity - 1;
        }
    }
}

hypura_status hypura_gpu_find(const char *name, ggml_backend_dev_t *device, hypura_error *error)
{
    *device = NULL;
    if (name && strcmp(name, "none") == 0) {
        return HYPURA_OK;
    }
    if (name) {
        (void)hypura_modules_load(NULL);
    } else {
        hypura_modules_load_present();
    }
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t found = ggml_backend_dev_get(i);
        const bool fits = is_gpu(found) && (name ? strcmp(name, ggml_backend_dev_name(found)) == 0
                                                 : hypura_modules_first_of(found) == found);
        if (fits && (!*device || is_better(found, *device))) {
            *device = found;
        }
    }
    if (!name || *device) {
        return HYPURA_OK;
    }
    char there[256];
    list_gpus(there, sizeof(there));
    return hypura_fail(error, HYPURA_ERR_USAGE, "there is no GPU %s; there are: %s", name, there);
}

void hypura_gpu_describe(ggml_backend_dev_t device, const hypura_profile *profile, uint64_t vram_bytes,
                         hypura_plan_gpu *described)
{
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    ggml_backend_dev_memory(device, &free_bytes, &total_bytes);
    const uint64_t margin = free_bytes / 100 * MARGIN_PERCENT > MARGIN_BYTES ? free_bytes / 100 * MARGIN_PERCENT
                                                                             : MARGIN_BYTES;
    const uint64_t usable = free_bytes > margin ? free_bytes - margin : 0;
    const size_t most = ggml_backend_buft_get_max_size(ggml_backend_dev_buffer_type(device));
    *described = (hypura_plan_gpu){
        .name = ggml_backend_dev_name(device),
        .bytes = vram_bytes > 0 ? vram_bytes : usable,
        .max_buffer_bytes = most < SIZE_MAX ? most : 0,
    };
    const char *listed = ggml_backend_dev_name(hypura_modules_first_of(device));
    for (int i = 0; i < profile->n_devices; i++) {
        const hypura_device *measured = &profile->devices[i];
        if (strcmp(measured->name, listed) == 0) {
            described->upload_bytes_per_s = measured->upload_bytes_per_s;
            described->memory_bytes_per_s = measured->device_memory_bytes_per_s;
            described->round_trip_us = measured->round_trip_us;
        }
    }
}

/* ---- overrides --------------------------------------------------------------------- */

typedef struct pattern {
    hypura_buffer text;
    bool          failed;
} pattern;

static void append(pattern *p, const char *text)
{
    p->failed = !hypura_buffer_add(&p->text, text, strlen(text)) || p->failed;
}

/* What follows "blk.N."; NULL for a tensor of another name. */
static const char *name_in_layer(const char *name)
{
    int layer;
    int n = 0;
    return sscanf(name, "blk.%d.%n", &layer, &n) == 1 && n > 0 ? name + n : NULL;
}

static bool is_streamed(const hypura_map *map, const hypura_plan *plan, int t)
{
    return plan->placements[t].place == HYPURA_PLACE_EXPERTS && name_in_layer(map->tensors[t].name);
}

static bool is_first_of_name(const hypura_map *map, const hypura_plan *plan, int t)
{
    for (int i = 0; i < t; i++) {
        if (is_streamed(map, plan, i) &&
            strcmp(name_in_layer(map->tensors[i].name), name_in_layer(map->tensors[t].name)) == 0) {
            return false;
        }
    }
    return true;
}

/* "^blk\.(0|1|7)\.ffn_up_exps\.weight$": libllama compiles every pattern anew for
 * every tensor, so there is one for each name and not one for each tensor. */
static char *pattern_of(const hypura_map *map, const hypura_plan *plan, int first)
{
    pattern p = {.failed = false};
    const char *name = name_in_layer(map->tensors[first].name);
    append(&p, "^blk\\.(");
    for (int t = first; t < map->n_tensors; t++) {
        if (is_streamed(map, plan, t) && strcmp(name_in_layer(map->tensors[t].name), name) == 0) {
            char layer[16];
            (void)snprintf(layer, sizeof(layer), "%s%d", t > first ? "|" : "", map->tensors[t].layer);
            append(&p, layer);
        }
    }
    append(&p, ")\\.");
    for (const char *c = name; *c; c++) {
        const char text[3] = {*c == '.' ? '\\' : *c, *c == '.' ? '.' : '\0', '\0'};
        append(&p, text);
    }
    append(&p, "$");
    if (p.failed) {
        hypura_buffer_clear(&p.text);
        return NULL;
    }
    return p.text.data;
}

struct llama_model_tensor_buft_override *hypura_gpu_overrides(const hypura_map *map, const hypura_plan *plan,
                                                              ggml_backend_buffer_type_t type)
{
    struct llama_model_tensor_buft_override *overrides = calloc((size_t)map->n_tensors + 1, sizeof(*overrides));
    int n = 0;
    for (int t = 0; overrides && t < map->n_tensors; t++) {
        if (is_streamed(map, plan, t) && is_first_of_name(map, plan, t)) {
            overrides[n] = (struct llama_model_tensor_buft_override){.pattern = pattern_of(map, plan, t), .buft = type};
            if (!overrides[n++].pattern) {
                hypura_gpu_overrides_free(overrides);
                return NULL;
            }
        }
    }
    return overrides;
}

void hypura_gpu_overrides_free(struct llama_model_tensor_buft_override *overrides)
{
    for (int i = 0; overrides && overrides[i].pattern; i++) {
        free((char *)(uintptr_t)overrides[i].pattern);
    }
    free(overrides);
}

hypura_status hypura_gpu_load_paged(const hypura_preparation *prepared, hypura_pager *pager, bool repack,
                                    hypura_gpu **gpu, struct llama_model **model, hypura_error *error)
{
    struct llama_model_tensor_buft_override *overrides = NULL;
    hypura_load_gpu target = {.device = prepared->gpu, .n_layers = prepared->n_gpu_layers};
    if (prepared->plan->n_vram_pools > 0) {
        hypura_status status = hypura_gpu_open(prepared->gpu, pager, gpu, error);
        if (status != HYPURA_OK) {
            return status;
        }
        overrides = hypura_gpu_overrides(prepared->map, prepared->plan, hypura_gpu_expert_type(*gpu));
        if (!overrides) {
            return hypura_fail(error, HYPURA_ERR_MEMORY, "%s: no memory to list %d tensors", prepared->map->path,
                               prepared->map->n_tensors);
        }
        target.device = hypura_gpu_device(*gpu);
        target.overrides = overrides;
    }
    hypura_status status =
        hypura_load_model(prepared->map, HYPURA_LOAD_PAGED, &target, repack, NULL, NULL, model, error);
    hypura_gpu_overrides_free(overrides);
    return status;
}
