/*
 * routers.c - copies of the routers, for asking a layer's before its turn.
 *
 * A router multiplies the normalized hidden state of its layer. One layer earlier
 * the state differs by little, and its norm by weights that are known: these are
 * divided out of the copy once, so that the product of the copy with what the
 * earlier layer's experts read is the guess. Copies are 8 bits wide: they decide
 * what is read, never what is computed.
 */
#include "pager/internal.h"

#include "base/size.h"
#include "base/status.h"

#include "ggml.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first of these names that the layer has. */
static const char *const norm_names[] = {"ffn_norm.weight", "post_attention_norm.weight", "attn_post_norm.weight"};

static int find(const hypura_map *map, int layer, const char *name)
{
    char full[96];
    snprintf(full, sizeof(full), "blk.%d.%s", layer, name);
    for (int i = 0; i < map->n_tensors; i++) {
        if (map->tensors[i].layer == layer && strcmp(map->tensors[i].name, full) == 0) {
            return i;
        }
    }
    return -1;
}

static int find_norm(const hypura_map *map, int layer)
{
    int tensor = -1;
    for (size_t i = 0; i < sizeof(norm_names) / sizeof(norm_names[0]) && tensor < 0; i++) {
        tensor = find(map, layer, norm_names[i]);
    }
    return tensor;
}

/* The bundle's router can be asked: it scores these experts. */
static int find_router(const hypura_map *map, int bundle)
{
    const int tensor = find(map, map->bundles[bundle].layer, "ffn_gate_inp.weight");
    return tensor >= 0 && map->tensors[tensor].ne[1] == map->bundles[bundle].n_experts &&
                   map->tensors[tensor].ne[0] == map->embedding_length
               ? tensor
               : -1;
}

static enum ggml_type copy_type(int64_t n_inputs)
{
    return n_inputs % ggml_blck_size(GGML_TYPE_Q8_0) == 0 ? GGML_TYPE_Q8_0 : GGML_TYPE_F32;
}

/* The bias behind them is of floats. */
static uint64_t rows_bytes(const hypura_tensor *tensor)
{
    return hypura_round_up(ggml_row_size(copy_type(tensor->ne[0]), tensor->ne[0]) * (uint64_t)tensor->ne[1], sizeof(float));
}

static uint64_t copy_bytes(const hypura_tensor *tensor)
{
    return rows_bytes(tensor) + (uint64_t)tensor->ne[1] * sizeof(float);
}

uint64_t hypura_pager_router_bytes(const hypura_map *map)
{
    uint64_t bytes = 0;
    for (int b = 1; b < map->n_bundles; b++) {
        const int tensor = find_router(map, b);
        bytes += tensor >= 0 ? copy_bytes(&map->tensors[tensor]) : 0;
    }
    return bytes;
}

/* ---- reading ------------------------------------------------------------------- */

/* A whole tensor as floats; NULL with a message when it cannot be had. */
static float *read_floats(hypura_pager *pager, int index, hypura_error *error)
{
    const hypura_tensor *tensor = &pager->map->tensors[index];
    const size_t         n = (size_t)(tensor->ne[0] * tensor->ne[1]);
    char                *bytes = malloc(tensor->bytes);
    float               *values = malloc(n * sizeof(*values));
    const hypura_load    load = {.file = tensor->file, .offset = tensor->offset, .bytes = tensor->bytes, .dst = bytes};
    const struct ggml_type_traits *traits = ggml_get_type_traits((enum ggml_type)tensor->type);
    hypura_status        status = HYPURA_OK;
    if (tensor->type != GGML_TYPE_F32 && !traits->to_float) {
        status = hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%s: tensor %s: a router does not compute with type %s",
                             pager->map->files[tensor->file], tensor->name, tensor->type_name);
    } else if (!bytes || !values) {
        status = hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to read tensor %s", tensor->name);
    } else {
        status = hypura_pager_load(pager, &load, 1, NULL, NULL, error);
    }
    if (status == HYPURA_OK && tensor->type == GGML_TYPE_F32) {
        memcpy(values, bytes, n * sizeof(*values));
    } else if (status == HYPURA_OK) {
        traits->to_float(bytes, values, (int64_t)n);
    }
    free(bytes);
    if (status != HYPURA_OK) {
        free(values);
        return NULL;
    }
    return values;
}

/* The norm of the router's layer in place of that of the layer that is asked. */
static hypura_status change_norm(hypura_pager *pager, int bundle, float *rows, int64_t n_inputs, hypura_error *error)
{
    const hypura_map *map = pager->map;
    const int         own = find_norm(map, map->bundles[bundle].layer);
    const int         earlier = find_norm(map, map->bundles[bundle - 1].layer);
    if (own < 0 || earlier < 0 || map->tensors[own].ne[0] != n_inputs || map->tensors[earlier].ne[0] != n_inputs) {
        return HYPURA_OK;
    }
    float *own_norm = read_floats(pager, own, error);
    float *earlier_norm = own_norm ? read_floats(pager, earlier, error) : NULL;
    if (earlier_norm) {
        for (int64_t i = 0; i < n_inputs; i++) {
            const float ratio = own_norm[i] / earlier_norm[i];
            for (int e = 0; e < map->bundles[bundle].n_experts; e++) {
                rows[e * n_inputs + i] *= isfinite(ratio) ? ratio : 0.0f;
            }
        }
    }
    const hypura_status status = earlier_norm ? HYPURA_OK : error->status;
    free(own_norm);
    free(earlier_norm);
    return status;
}

static hypura_status read_bias(hypura_pager *pager, int bundle, float *bias, hypura_error *error)
{
    static const char *const names[] = {"ffn_gate_inp.bias", "exp_probs_b.bias"};
    const hypura_bundle *shape = &pager->map->bundles[bundle];
    for (int i = 0; i < 2; i++) {
        const int tensor = find(pager->map, shape->layer, names[i]);
        if (tensor < 0 || pager->map->tensors[tensor].ne[0] != shape->n_experts) {
            continue;
        }
        float *values = read_floats(pager, tensor, error);
        if (!values) {
            return error->status;
        }
        memcpy(bias, values, (size_t)shape->n_experts * sizeof(*bias));
        free(values);
        pager->routers[bundle].bias = bias;
        pager->routers[bundle].bias_on_probability = i == 1;
    }
    return HYPURA_OK;
}

static hypura_status open_router(hypura_pager *pager, int bundle, int tensor, char *memory, hypura_error *error)
{
    const hypura_tensor *shape = &pager->map->tensors[tensor];
    const enum ggml_type type = copy_type(shape->ne[0]);
    hypura_router       *router = &pager->routers[bundle];
    float               *rows = read_floats(pager, tensor, error);
    if (!rows) {
        return error->status;
    }
    hypura_status status = change_norm(pager, bundle, rows, shape->ne[0], error);
    if (status == HYPURA_OK) {
        (void)ggml_quantize_chunk(type, rows, memory, 0, shape->ne[1], shape->ne[0], NULL);
        status = read_bias(pager, bundle, (float *)(void *)(memory + rows_bytes(shape)), error);
        router->type = (int)type;
        router->n_inputs = shape->ne[0];
        router->n_experts = (uint32_t)shape->ne[1];
        router->rows = memory;
    }
    free(rows);
    return status;
}

hypura_status pager_open_routers(hypura_pager *pager, hypura_error *error)
{
    const hypura_map *map = pager->map;
    if (pager->n_pools == 0) {
        return HYPURA_OK;
    }
    pager->router_memory = malloc(hypura_pager_router_bytes(map) + 1);
    pager->routers = calloc((size_t)map->n_bundles, sizeof(*pager->routers));
    if (!pager->router_memory || !pager->routers) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for copies of %d routers", map->n_bundles);
    }
    char *at = pager->router_memory;
    for (int b = 1; b < map->n_bundles; b++) {
        const int tensor = find_router(map, b);
        if (tensor >= 0 && pager_streams(pager, b) && pager_streams(pager, b - 1)) {
            if (open_router(pager, b, tensor, at, error) != HYPURA_OK) {
                return error->status;
            }
            at += copy_bytes(&map->tensors[tensor]);
        }
    }
    return HYPURA_OK;
}

void pager_close_routers(hypura_pager *pager)
{
    free(pager->router_memory);
    free(pager->routers);
}

const hypura_router *hypura_pager_router(const hypura_pager *pager, int bundle)
{
    const bool known = bundle > 0 && bundle < pager->map->n_bundles && pager->routers && pager->routers[bundle].rows;
    return known ? &pager->routers[bundle] : NULL;
}
