/*
 * vram_routers.c - a layer's router asked by the device itself, a layer before its turn:
 *
 *     computes   layer before, its row | lookup, experts of that row, ...
 *     asks                             | router x row -> scores -> host
 *     copies                           | ids -> host
 *
 * The copies of routers.c lie on the device too, as numbers of 16 bits: one small kernel multiplies them
 * with a row, without more memory. It goes through an instance of its own, and not behind the ids: when
 * these have been copied the device is busy with experts, and a kernel waits for tens of microseconds
 * until those leave it a place (docs/notes/0078). For the same reason the host picks the largest scores.
 *
 * What always holds: nothing that is computed waits for this, or reads what it writes; and a device
 * without room for it is not asked.
 */
#include "pager/vram_internal.h"

#include "base/status.h"

#include "ggml-backend-impl.h"
#include "ggml-impl.h"

#include <stdlib.h>

#define COPY_TYPE GGML_TYPE_BF16
#define TENSORS_OF_A_ROUTER 3 /* row, copy, scores */

/* ---- memory ---------------------------------------------------------------- */

/* Kernels for one row read numbers of 16 bits by twos. */
static bool is_asked(const hypura_vram *vram, int bundle)
{
    const hypura_router *router = hypura_pager_router(vram->pager, bundle);
    return vram->bundles[bundle].paged && router && router->n_inputs % 2 == 0;
}

/* For all that there are, as no plan knows yet which are paged. */
uint64_t hypura_vram_router_bytes(const hypura_map *map)
{
    uint64_t bytes = 0;
    for (int b = 1; b < map->n_bundles; b++) {
        bytes += ggml_row_size(COPY_TYPE, map->embedding_length) * (uint64_t)map->bundles[b].n_experts;
    }
    return bytes;
}

static size_t scores_bytes_of(const hypura_vram *vram)
{
    size_t most = 0;
    for (int b = 0; b < vram->pager->map->n_bundles; b++) {
        const size_t bytes = (size_t)vram->pager->map->bundles[b].n_experts * sizeof(float);
        most = bytes > most ? bytes : most;
    }
    return GGML_PAD(most, ggml_backend_buft_get_alignment(vram->type));
}

/* A graph of one node, whose row is named when it is asked. */
static struct ggml_cgraph *describe(hypura_vram *vram, int bundle)
{
    struct ggml_context *ctx = vram->router_nodes;
    const hypura_router *router = hypura_pager_router(vram->pager, bundle);
    struct ggml_tensor  *copy = ggml_new_tensor_2d(ctx, COPY_TYPE, router->n_inputs, router->n_experts);
    struct ggml_tensor  *scores = ggml_mul_mat(ctx, copy, ggml_new_tensor_1d(ctx, GGML_TYPE_F32, router->n_inputs));
    struct ggml_cgraph  *graph = ggml_new_graph_custom(ctx, TENSORS_OF_A_ROUTER, false);
    ggml_format_name(scores, "asked-%d", vram->pager->map->bundles[bundle].layer);
    ggml_build_forward_expand(graph, scores);
    return graph;
}

static struct ggml_tensor *scores_of(const hypura_vram *vram, int bundle)
{
    return vram->routers[bundle]->nodes[0];
}

static size_t padded(const hypura_vram *vram, const struct ggml_tensor *tensor)
{
    return GGML_PAD(ggml_backend_buft_get_alloc_size(vram->type, tensor), ggml_backend_buft_get_alignment(vram->type));
}

/* ---- open and close ---------------------------------------------------------- */

/* row, bits: room for one row. */
static void send_copy(const hypura_router *router, struct ggml_tensor *copy, float *row, ggml_bf16_t *bits)
{
    const enum ggml_type type = (enum ggml_type)router->type;
    const size_t         row_bytes = ggml_row_size(type, router->n_inputs);
    for (uint32_t e = 0; e < router->n_experts; e++) {
        const char *from = (const char *)router->rows + e * row_bytes;
        if (type == GGML_TYPE_F32) {
            ggml_fp32_to_bf16_row((const float *)(const void *)from, bits, router->n_inputs);
        } else {
            ggml_get_type_traits(type)->to_float(from, row, router->n_inputs);
            ggml_fp32_to_bf16_row(row, bits, router->n_inputs);
        }
        ggml_backend_tensor_set(copy, bits, e * copy->nb[1], copy->nb[1]);
    }
}

static hypura_status send_copies(hypura_vram *vram, hypura_error *error)
{
    const int64_t n = vram->pager->map->embedding_length;
    float        *row = malloc((size_t)n * sizeof(*row));
    ggml_bf16_t  *bits = malloc((size_t)n * sizeof(*bits));
    size_t        at = 2 * vram->scores_bytes;
    bool          placed = row && bits;
    for (int b = 0; b < vram->pager->map->n_bundles && placed; b++) {
        if (!vram->routers[b]) {
            continue;
        }
        struct ggml_tensor *copy = scores_of(vram, b)->src[0];
        placed = vram_place_at(copy, vram->router_buffer, at) && vram_place_at(scores_of(vram, b), vram->router_buffer, 0);
        at += padded(vram, copy);
        if (placed) {
            send_copy(hypura_pager_router(vram->pager, b), copy, row, bits);
        }
    }
    const hypura_status status =
        placed        ? HYPURA_OK
        : row && bits ? hypura_fail(error, HYPURA_ERR_BACKEND, "%s does not accept copies of routers", ggml_backend_dev_name(vram->device))
                      : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a router's row of %lld numbers", (long long)n);
    free(row);
    free(bits);
    return status;
}

/* False: the device has no room. */
static bool take_memory(hypura_vram *vram)
{
    hypura_error ignored;
    size_t       bytes = 2 * vram->scores_bytes;
    for (int b = 0; b < vram->pager->map->n_bundles; b++) {
        bytes += vram->routers[b] ? padded(vram, scores_of(vram, b)->src[0]) : 0;
    }
    vram->router_buffer = vram_take(vram, bytes, "copies of routers", &ignored);
    vram->asker = vram->router_buffer ? ggml_backend_dev_init(vram->device, NULL) : NULL;
    if (vram->asker) {
        ggml_backend_synchronize(vram->asker); /* takes what it needs of the device's memory now */
    }
    return vram->asker != NULL;
}

hypura_status vram_open_routers(hypura_vram *vram, hypura_error *error)
{
    const int n_bundles = vram->pager->map->n_bundles;
    int       n_asked = 0;
    for (int b = 0; b < n_bundles; b++) {
        n_asked += is_asked(vram, b);
    }
    if (n_asked == 0 || !vram->reader || vram->pager->foresight == HYPURA_FORESIGHT_OFF) {
        return HYPURA_OK;
    }
    vram->routers = calloc((size_t)n_bundles, sizeof(struct ggml_cgraph *));
    vram->router_nodes = ggml_init((struct ggml_init_params){
        .mem_size = (size_t)n_asked * (TENSORS_OF_A_ROUTER * ggml_tensor_overhead() +
                                       ggml_graph_overhead_custom(TENSORS_OF_A_ROUTER, false)),
        .no_alloc = true});
    if (!vram->routers || !vram->router_nodes) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for graphs that ask %d routers", n_asked);
    }
    for (int b = 0; b < n_bundles; b++) {
        vram->routers[b] = is_asked(vram, b) ? describe(vram, b) : NULL;
    }
    vram->scores_bytes = scores_bytes_of(vram);
    if (!take_memory(vram)) {
        vram_close_routers(vram);
        return HYPURA_OK;
    }
    return send_copies(vram, error);
}

void vram_close_routers(hypura_vram *vram)
{
    if (vram->asker) {
        ggml_backend_synchronize(vram->asker);
        ggml_backend_free(vram->asker);
    }
    ggml_backend_buffer_free(vram->router_buffer);
    ggml_free(vram->router_nodes);
    free(vram->routers);
    vram->asker = NULL;
    vram->router_buffer = NULL;
    vram->router_nodes = NULL;
    vram->routers = NULL;
}

/* ---- asking -------------------------------------------------------------------- */

bool hypura_vram_can_ask(hypura_vram *vram, int bundle, struct ggml_tensor *row)
{
    if (!vram->routers || !vram->routers[bundle]) {
        return false;
    }
    scores_of(vram, bundle)->src[1] = row;
    return ggml_backend_dev_supports_op(vram->device, scores_of(vram, bundle));
}

void hypura_vram_await_asked(hypura_vram *vram)
{
    if (vram->asker) {
        ggml_backend_synchronize(vram->asker);
    }
}

float *hypura_vram_asked(hypura_vram *vram, int bundle, int place)
{
    return (float *)(void *)vram->bundles[bundle].values[HOST_ASKED + place];
}

hypura_status hypura_vram_ask(hypura_vram *vram, int bundle, struct ggml_tensor *row, int place)
{
    struct ggml_tensor *scores = scores_of(vram, bundle);
    char               *base = ggml_backend_buffer_get_base(vram->router_buffer);
    scores->src[1] = row;
    /* A graph that comes again as it was is recorded by CUDA's backend, which one kernel is not worth. */
    scores->data = scores->data == base ? base + vram->scores_bytes : base;
    ggml_backend_event_wait(vram->asker, vram->computed);
    if (ggml_backend_graph_compute_async(vram->asker, vram->routers[bundle]) != GGML_STATUS_SUCCESS) {
        return HYPURA_ERR_BACKEND;
    }
    ggml_backend_tensor_get_async(vram->asker, scores, hypura_vram_asked(vram, bundle, place), 0, ggml_nbytes(scores));
    return HYPURA_OK;
}
