/*
 * gpu_foresee.c - tells the slots in a GPU's memory what the next layer will probably
 * select, while one token is computed.
 *
 * The next layer's router is asked with the row that this layer's experts read, so the uploads
 * begin a layer earlier. The GPU asks it beside what it computes (pager/vram_routers.c), and the
 * scores arrive about when this layer's ids do: a host would take a third of a layer's time for
 * that. Where the GPU cannot, the row arrives with these ids, and the host asks its own copy of the
 * router (pager/routers.c). Where routers are of no use, or none can be asked, what layers before
 * selected says less (pager/guess.c).
 *
 * The guess decides only what is uploaded early. No result depends on it.
 */
#include "backend/gpu_internal.h"

#include "predict/candidates.h"

#include "ggml-cpu.h"

#include <string.h>

static int bundle_of(const gpu_piece *piece)
{
    return piece->cut.weight->bundle;
}

static bool follows(const gpu_piece *piece)
{
    return bundle_of(piece - 1) == bundle_of(piece) - 1;
}

hypura_guesser gpu_find_guesser(const gpu_walk *walk)
{
    const hypura_gpu *gpu = walk->instance->gpu;
    return gpu->foresight != HYPURA_FORESIGHT_OFF && hypura_vram_uploads_beside(walk->vram) ? hypura_pager_guesser(gpu->pager)
                                                                                            : HYPURA_GUESS_NOBODY;
}

bool gpu_asks_next(const gpu_walk *walk, const gpu_piece *piece)
{
    return walk->instance->guesser == HYPURA_GUESS_ROUTERS && piece->row;
}

void gpu_note_selection(const gpu_walk *walk, const gpu_cut *cut, const int32_t *ids)
{
    const hypura_selection selection = {.bundle = cut->weight->bundle,
                                        .selected = {.n_used = (uint32_t)cut->ids->ne[0],
                                                     .n_tokens = (uint32_t)cut->ids->ne[1],
                                                     .ids = (const char *)ids,
                                                     .rank_stride_bytes = sizeof(*ids),
                                                     .token_stride_bytes = (uint64_t)cut->ids->ne[0] * sizeof(*ids)}};
    hypura_pager_note_selection(walk->instance->gpu->pager, &selection);
}

/* What the router of the next layer would read, where it can; else NULL. */
static struct ggml_tensor *row_of(const gpu_walk *walk, const gpu_piece *piece)
{
    const hypura_router *router = hypura_pager_router(walk->instance->gpu->pager, bundle_of(piece) + 1);
    struct ggml_tensor  *row = walk->graph->nodes[piece->cut.at]->src[1];
    return router && row->type == GGML_TYPE_F32 && row->ne[0] == router->n_inputs && ggml_nelements(row) == row->ne[0] &&
                   ggml_is_contiguous(row)
               ? row
               : NULL;
}

void gpu_find_router(const gpu_walk *walk, gpu_piece *piece)
{
    const int next = bundle_of(piece) + 1;
    piece->row = bundle_of(piece + 1) == next ? row_of(walk, piece) : NULL;
    piece->gpu_asks = piece->row && hypura_vram_can_ask(walk->vram, next, piece->row);
}

void gpu_fetch_row(const gpu_walk *walk, const gpu_piece *piece)
{
    const struct ggml_tensor *row = piece->row;
    if (row && !piece->gpu_asks && !piece->reports_row) {
        hypura_vram_fetch(walk->vram, row, hypura_vram_state(walk->vram, bundle_of(piece)), ggml_nbytes(row));
    }
}

enum ggml_status gpu_ask_router(const gpu_walk *walk, const gpu_piece *piece, int place)
{
    const int next = bundle_of(piece) + 1;
    if (!piece->gpu_asks) {
        return GGML_STATUS_SUCCESS;
    }
    gpu_expect_numbers(hypura_vram_asked(walk->vram, next, place), hypura_pager_router(walk->instance->gpu->pager, next)->n_experts);
    return hypura_vram_ask(walk->vram, next, piece->row, place) == HYPURA_OK ? GGML_STATUS_SUCCESS : GGML_STATUS_FAILED;
}

/* Into instance->scores, by the host; false: it cannot. */
static bool score(const gpu_walk *walk, const hypura_router *router, const float *row)
{
    gpu_instance                   *instance = walk->instance;
    const struct ggml_type_traits_cpu *traits = ggml_get_type_traits_cpu((enum ggml_type)router->type);
    const size_t                    row_bytes = ggml_row_size((enum ggml_type)router->type, router->n_inputs);
    const void                     *input = row;
    if (!traits->vec_dot || !instance->row) {
        return false;
    }
    if (traits->vec_dot_type != GGML_TYPE_F32) {
        ggml_get_type_traits_cpu(traits->vec_dot_type)->from_float(row, instance->row, router->n_inputs);
        input = instance->row;
    }
    for (uint32_t e = 0; e < router->n_experts; e++) {
        traits->vec_dot((int)router->n_inputs, &instance->scores[e], 0, (const char *)router->rows + e * row_bytes, 0, input,
                        0, 1);
    }
    return true;
}

/* When the ids of a piece have arrived: the row, which a copy brought before them, or a node in no order with theirs. */
static const float *row_at_host(const gpu_walk *walk, const gpu_piece *piece, int bundle)
{
    if (!piece->reports_row) {
        return hypura_vram_state(walk->vram, bundle);
    }
    const float *row = hypura_vram_reported_state(walk->vram, bundle);
    gpu_await_numbers(walk, row, (size_t)piece->row->ne[0], hypura_vram_await_fetch);
    return row;
}

/* The scores that a bundle's router gives its experts, asked behind a piece; NULL when it was not. */
static const float *scores_of(const gpu_walk *walk, const gpu_piece *piece, const hypura_router *router)
{
    gpu_instance *instance = walk->instance;
    const int     bundle = bundle_of(piece) + 1;
    if (!piece->row || router->n_experts > GPU_MAX_EXPERTS) {
        return NULL;
    }
    if (piece->gpu_asks) {
        const float *asked = hypura_vram_asked(walk->vram, bundle, instance->arrived_at);
        gpu_await_numbers(walk, asked, router->n_experts, hypura_vram_await_asked);
        memcpy(instance->scores, asked, router->n_experts * sizeof(*asked));
    } else if (!score(walk, router, row_at_host(walk, piece, bundle - 1))) {
        return NULL;
    }
    hypura_pager_add_asked(instance->gpu->pager, piece->gpu_asks);
    if (router->bias) {
        hypura_candidates_add_bias(instance->scores, router->n_experts, router->bias, router->n_experts,
                                   router->bias_on_probability);
    }
    return instance->scores;
}

static hypura_status ask_router(const gpu_walk *walk, const gpu_piece *piece, uint32_t n_runs)
{
    gpu_instance        *instance = walk->instance;
    hypura_pager        *pager = instance->gpu->pager;
    const int            bundle = bundle_of(piece);
    const hypura_router *router = hypura_pager_router(pager, bundle);
    const uint32_t       n = (uint32_t)piece->cut.ids->ne[0];
    if (!router || n > router->n_experts) {
        return HYPURA_OK;
    }
    /* Asked in any case, so that who foretells in its place saves no time. */
    const float *scores = scores_of(walk, piece - 1, router);
    if (!hypura_pager_foretell(pager, bundle, 0, n, instance->foreseen, n)) {
        if (!scores) {
            return HYPURA_OK;
        }
        hypura_candidates_pick(scores, router->n_experts, instance->foreseen, n);
    }
    return hypura_vram_expect(walk->vram, bundle, instance->foreseen, n, n_runs);
}

hypura_status gpu_foresee(const gpu_walk *walk, const gpu_piece *piece, uint32_t n_runs)
{
    const gpu_instance *instance = walk->instance;
    if (instance->guesser == HYPURA_GUESS_NOBODY || piece == instance->pieces.list || !follows(piece)) {
        return HYPURA_OK;
    }
    const uint64_t      begin_us = gpu_begin(walk);
    const hypura_status status = instance->guesser == HYPURA_GUESS_ROUTERS
                                     ? ask_router(walk, piece, n_runs)
                                     : hypura_vram_expect_companions(walk->vram, bundle_of(piece), n_runs);
    gpu_done(walk, HYPURA_GPU_FORESEE, &piece->cut, begin_us);
    return status;
}
