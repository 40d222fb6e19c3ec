/*
 * paged_gpu.c - see paged_gpu.h.
 */
#include "engine/model/paged_gpu.h"

#include "base/buffer.h"
#include "base/status.h"

#include <stdlib.h>
#include <string.h>

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

/* By GPU g. */
static bool is_streamed(const hypura_map *map, const hypura_plan *plan, int g, int t)
{
    return plan->placements[t].place == HYPURA_PLACE_EXPERTS && plan->placements[t].gpu == g &&
           name_in_layer(map->tensors[t].name);
}

static bool is_first_of_name(const hypura_map *map, const hypura_plan *plan, int g, int t)
{
    for (int i = 0; i < t; i++) {
        if (is_streamed(map, plan, g, i) &&
            strcmp(name_in_layer(map->tensors[i].name), name_in_layer(map->tensors[t].name)) == 0) {
            return false;
        }
    }
    return true;
}

/* "^blk\.(0|1|7)\.ffn_up_exps\.weight$": libllama compiles every pattern anew for
 * every tensor, so there is one for each name and GPU and not one for each tensor. */
static char *pattern_of(const hypura_map *map, const hypura_plan *plan, int g, int first)
{
    pattern p = {.failed = false};
    const char *name = name_in_layer(map->tensors[first].name);
    append(&p, "^blk\\.(");
    for (int t = first; t < map->n_tensors; t++) {
        if (is_streamed(map, plan, g, t) && strcmp(name_in_layer(map->tensors[t].name), name) == 0) {
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

static void free_overrides(struct llama_model_tensor_buft_override *overrides)
{
    for (int i = 0; overrides && overrides[i].pattern; i++) {
        free((char *)(uintptr_t)overrides[i].pattern);
    }
    free(overrides);
}

/* The overrides that send the experts which the plan streams to the buffer types of our
 * devices: as regular expressions, ended by one without pattern. NULL when memory runs out. */
static struct llama_model_tensor_buft_override *make_overrides(const hypura_map *map, const hypura_plan *plan,
                                                               const hypura_gpus *gpus)
{
    struct llama_model_tensor_buft_override *overrides = calloc((size_t)map->n_tensors + 1, sizeof(*overrides));
    int n = 0;
    for (int t = 0; overrides && t < map->n_tensors; t++) {
        const int g = plan->placements[t].gpu;
        if (g >= 0 && is_streamed(map, plan, g, t) && is_first_of_name(map, plan, g, t)) {
            overrides[n] = (struct llama_model_tensor_buft_override){
                .pattern = pattern_of(map, plan, g, t), .buft = hypura_gpu_expert_type(gpus->list[g])};
            if (!overrides[n++].pattern) {
                free_overrides(overrides);
                return NULL;
            }
        }
    }
    return overrides;
}

/* ---- loading ------------------------------------------------------------------------- */

/* A device of ours over each GPU here, also over one whose layers are all whole: states are
 * passed on between devices of one kind. */
static hypura_status open_devices(const hypura_preparation *prepared, hypura_pager *pager, hypura_gpus *gpus,
                                  hypura_load_gpu *target, hypura_error *error)
{
    hypura_status status = HYPURA_OK;
    for (int g = 0; g < prepared->gpus.n_here && status == HYPURA_OK; g++) {
        status = hypura_gpu_open(prepared->gpus.devices[g], g, pager, &gpus->list[g], error);
        if (status == HYPURA_OK) {
            gpus->n++;
            target->devices[g] = hypura_gpu_device(gpus->list[g]);
        }
    }
    return status;
}

/* Where GPUs have slots; and where one takes the host's memory as it is, which ours does not say of itself. */
static bool need_devices(const hypura_preparation *prepared)
{
    bool needed = prepared->plan->n_vram_pools > 0;
    for (int g = 0; g < prepared->gpus.n; g++) {
        needed = needed || prepared->plan->gpus[g].addressable;
    }
    return needed;
}

/* Streamed, the output is the pager's. */
static hypura_form form_held(const hypura_preparation *prepared)
{
    const hypura_map *map = prepared->map;
    const hypura_form form = prepared->plan->form;
    for (int t = 0; form == HYPURA_FORM_OUTPUT && t < map->n_tensors; t++) {
        if (map->tensors[t].role == HYPURA_ROLE_OUTPUT &&
            prepared->plan->placements[t].place != HYPURA_PLACE_RESIDENT) {
            return HYPURA_FORM_FILE;
        }
    }
    return form;
}

hypura_status hypura_gpus_load_paged(const hypura_preparation *prepared, hypura_pager *pager,
                                     const hypura_model_options *options, hypura_gpus *gpus,
                                     struct llama_model **model, hypura_error *error)
{
    struct llama_model_tensor_buft_override *overrides = NULL;
    hypura_load_gpu target = prepared->gpus;
    gpus->n = 0;
    if (need_devices(prepared)) {
        hypura_status status = open_devices(prepared, pager, gpus, &target, error);
        if (status != HYPURA_OK) {
            return status;
        }
        for (int g = 0; g < gpus->n; g++) {
            hypura_gpu_set_foresight(gpus->list[g], options->foresight);
            hypura_gpu_set_misses(gpus->list[g], options->gpu_misses, prepared->context.n_threads);
        }
        overrides = make_overrides(prepared->map, prepared->plan, gpus);
        if (!overrides) {
            return hypura_fail(error, HYPURA_ERR_MEMORY, "%s: no memory to list %d tensors", prepared->map->path,
                               prepared->map->n_tensors);
        }
        target.overrides = overrides;
    }
    hypura_status status =
        hypura_load_model(prepared->map, HYPURA_LOAD_PAGED, &target, form_held(prepared), NULL, NULL, model, error);
    free_overrides(overrides);
    return status;
}

void hypura_gpus_close(hypura_gpus *gpus)
{
    for (int g = 0; g < gpus->n; g++) {
        hypura_gpu_close(gpus->list[g]);
    }
    gpus->n = 0;
}
