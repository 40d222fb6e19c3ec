/*
 * gpu_foresee.c - tells the slots in a GPU's memory what the next layer will probably
 * select, while one token is computed.
 *
 * The host asks the next layer's router with the row that this layer's experts read: it
 * arrives with this layer's ids, while these experts are computed, so the uploads begin a
 * layer earlier. The copy of a router that it asks is the one of pager/routers.c. Where that
 * is of no use, or none can be asked, what layers before selected says less (pager/guess.c).
 *
 * The guess decides only what is uploaded early. No result depends on it.
 */
#include "backend/gpu_internal.h"

#include "predict/candidates.h"

#include "ggml-cpu.h"

static int bundle_of(const gpu_piece *piece)
{
    return piece->cut.weight->bundle;
}

hypura_guesser gpu_find_guesser(const gpu_walk *walk)
{
    const hypura_gpu *gpu = walk->instance->gpu;
    return gpu->foresight != HYPURA_FORESIGHT_OFF && hypura_vram_uploads_beside(walk->vram) ? hypura_pager_guesser(gpu->pager)
                                                                                            : HYPURA_GUESS_NOBODY;
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

/* What the router of the piece behind this one would read, where it can; else NULL. */
static const struct ggml_tensor *row_of(const gpu_walk *walk, const gpu_piece *piece)
{
    const hypura_router      *router = hypura_pager_router(walk->instance->gpu->pager, bundle_of(piece) + 1);
    const struct ggml_tensor *row = walk->graph->nodes[piece->cut.at]->src[1];
    return router && row->type == GGML_TYPE_F32 && row->ne[0] == router->n_inputs && ggml_nelements(row) == row->ne[0] &&
                   ggml_is_contiguous(row)
               ? row
               : NULL;
}

void gpu_fetch_row(const gpu_walk *walk, const gpu_piece *piece)
{
    const gpu_pieces *pieces = &walk->instance->pieces;
    const bool has_next = piece + 1 < pieces->list + pieces->n && bundle_of(piece + 1) == bundle_of(piece) + 1;
    const struct ggml_tensor *row = has_next ? row_of(walk, piece) : NULL;
    if (row) {
        hypura_vram_fetch(walk->vram, row, hypura_vram_state(walk->vram, bundle_of(piece)), ggml_nbytes(row));
    }
}

/* The scores that the router gives its experts; NULL when it could not be asked. */
static const float *score(const gpu_walk *walk, const hypura_router *router, const float *row)
{
    gpu_instance                   *instance = walk->instance;
    const struct ggml_type_traits_cpu *traits = ggml_get_type_traits_cpu((enum ggml_type)router->type);
    const size_t                    row_bytes = ggml_row_size((enum ggml_type)router->type, router->n_inputs);
    const void                     *input = row;
    if (router->n_experts > GPU_MAX_EXPERTS || !traits->vec_dot || !instance->row) {
        return NULL;
    }
    if (traits->vec_dot_type != GGML_TYPE_F32) {
        ggml_get_type_traits_cpu(traits->vec_dot_type)->from_float(row, instance->row, router->n_inputs);
        input = instance->row;
    }
    for (uint32_t e = 0; e < router->n_experts; e++) {
        traits->vec_dot((int)router->n_inputs, &instance->scores[e], 0, (const char *)router->rows + e * row_bytes, 0, input,
                        0, 1);
    }
    if (router->bias) {
        hypura_candidates_add_bias(instance->scores, router->n_experts, router->bias, router->n_experts,
                                   router->bias_on_probability);
    }
    return instance->scores;
}

static hypura_status ask_router(const gpu_walk *walk, const gpu_piece *piece)
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
    const float *scores = row_of(walk, piece - 1) ? score(walk, router, hypura_vram_state(walk->vram, bundle - 1)) : NULL;
    if (!hypura_pager_foretell(pager, bundle, 0, n, instance->foreseen, n)) {
        if (!scores) {
            return HYPURA_OK;
        }
        hypura_candidates_pick(scores, router->n_experts, instance->foreseen, n);
    }
    return hypura_vram_expect(walk->vram, bundle, instance->foreseen, n);
}

hypura_status gpu_foresee(const gpu_walk *walk, const gpu_piece *piece)
{
    const gpu_instance *instance = walk->instance;
    if (piece == instance->pieces.list || bundle_of(piece - 1) != bundle_of(piece) - 1) {
        return HYPURA_OK;
    }
    const uint64_t      begin_us = gpu_begin(walk);
    const hypura_status status = instance->guesser == HYPURA_GUESS_ROUTERS
                                     ? ask_router(walk, piece)
                                     : hypura_vram_expect_companion(walk->vram, bundle_of(piece));
    gpu_done(walk, HYPURA_GPU_FORESEE, &piece->cut, begin_us);
    return status;
}
