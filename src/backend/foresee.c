/*
 * foresee.c - tells the pager what the next layer will probably select.
 *
 * While decoding: the next layer's router is asked with the rows that this layer's
 * experts read. That takes one small product, right after this layer's own reads were
 * asked for. In a wide batch nearly every expert of the next layer will be needed, so
 * all are named, no router is asked, and this layer leaves room for them.
 *
 * The guess decides only what is read early. No result depends on it.
 */
#include "backend/internal.h"

#include "predict/candidates.h"

#include <math.h>

#define WIDE 2 /* a batch that selects as many times all experts will need nearly all of them */

static void expect_all(hypura_pager *pager, int bundle, uint32_t *experts)
{
    const uint32_t n = (uint32_t)hypura_pager_map(pager)->bundles[bundle].n_experts;
    for (uint32_t i = 0; i < n; i++) {
        experts[i] = i;
    }
    hypura_pager_expect_experts(pager, bundle, experts, n, true);
}

static bool score(backend_instance *instance, const hypura_router *router, const struct ggml_tensor *input,
                  float *scores)
{
    struct ggml_tensor *rows =
        shadow_tensor(instance, (enum ggml_type)router->type, router->n_inputs, router->n_experts, 1, router->rows);
    struct ggml_tensor *row = shadow_tensor(instance, GGML_TYPE_F32, router->n_inputs, 1, 1, input->data);
    struct ggml_tensor *product = shadow_tensor(instance, GGML_TYPE_F32, router->n_experts, 1, 1, scores);
    product->op = GGML_OP_MUL_MAT;
    product->src[0] = rows;
    product->src[1] = row;
    shadow_add(instance, product);
    if (shadow_run(instance) != GGML_STATUS_SUCCESS) {
        return false;
    }
    for (uint32_t i = 0; router->bias && i < router->n_experts; i++) {
        scores[i] = (router->bias_on_probability ? 1.0f / (1.0f + expf(-scores[i])) : scores[i]) + router->bias[i];
    }
    return true;
}

bool backend_foresee_batch(const backend_chain *chain, uint32_t *experts)
{
    hypura_pager        *pager = chain->weight->pager;
    const int            next = chain->weight->bundle + 1;
    const hypura_router *router = hypura_pager_router(pager, next);
    const bool wide = router && (uint64_t)chain->n_tokens * (uint32_t)chain->n_used >= (uint64_t)WIDE * router->n_experts;
    if (wide) {
        expect_all(pager, next, experts);
    }
    return wide;
}

void backend_foresee(backend_instance *instance, const backend_chain *chain, uint32_t *experts)
{
    hypura_pager             *pager = chain->weight->pager;
    const int                 next = chain->weight->bundle + 1;
    const hypura_router      *router = hypura_pager_router(pager, next);
    const struct ggml_tensor *input = chain->nodes[0].node->src[1];
    if (!router || chain->n_tokens != 1 || !hypura_pager_foresees(pager) || input->ne[0] != router->n_inputs ||
        input->nb[0] != sizeof(float) || input->type != GGML_TYPE_F32) {
        return;
    }
    const uint32_t wanted = (uint32_t)chain->n_used + HYPURA_MORE_CANDIDATES;
    const uint32_t n = wanted < router->n_experts ? wanted : router->n_experts;
    float         *scores = arena_take(&instance->indices, router->n_experts * sizeof(*scores));
    if (scores && score(instance, router, input, scores)) {
        if (!hypura_pager_foretell(pager, next, (uint32_t)chain->n_used, experts, n)) {
            hypura_candidates_pick(scores, router->n_experts, experts, n);
        }
        hypura_pager_expect_experts(pager, next, experts, n, false);
    }
}
