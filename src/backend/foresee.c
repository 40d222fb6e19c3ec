/*
 * foresee.c - tells the pager what the next layer will probably select.
 *
 * While decoding: the next layer's router is asked with the rows that this layer's
 * experts read. That takes one small product, right after this layer's own reads were
 * asked for. In a wide batch nearly every expert of the next layer will be needed, so
 * all are named, no router is asked, and this layer leaves room for them. Where a batch
 * is a few conversations, a token each, the router is asked for all of them: an expert
 * that none of them wants is not read.
 *
 * The guess decides only what is read early. No result depends on it.
 */
#include "backend/internal.h"

#include "predict/candidates.h"

#include <math.h>
#include <string.h>

#define FEW  16 /* tokens at most that a router is asked for */
#define WIDE 2 /* a batch that selects as many times all experts will need nearly all of them */

static void expect_all(hypura_pager *pager, int bundle, uint32_t *experts)
{
    const uint32_t n = (uint32_t)hypura_pager_map(pager)->bundles[bundle].n_experts;
    for (uint32_t i = 0; i < n; i++) {
        experts[i] = i;
    }
    hypura_pager_expect_experts(pager, bundle, experts, n, true);
}

/* The rows of a chain's first product, where there is one for each token and a router can read them. */
static const struct ggml_tensor *token_rows(const backend_chain *chain, const hypura_router *router)
{
    const struct ggml_tensor *input = chain->nodes[0].node->src[1];
    return input->ne[0] == router->n_inputs && input->nb[0] == sizeof(float) && input->type == GGML_TYPE_F32 &&
                   input->ne[1] == 1 && input->ne[2] == chain->n_tokens
               ? input
               : NULL;
}

/* The router's scores of all its experts, token after token. */
static bool score(backend_instance *instance, const hypura_router *router, const struct ggml_tensor *input,
                  float *scores)
{
    const int64_t n_tokens = input->ne[2];
    struct ggml_tensor *rows =
        shadow_tensor(instance, (enum ggml_type)router->type, router->n_inputs, router->n_experts, 1, router->rows);
    struct ggml_tensor *row = shadow_tensor(instance, GGML_TYPE_F32, router->n_inputs, n_tokens, 1, input->data);
    struct ggml_tensor *product = shadow_tensor(instance, GGML_TYPE_F32, router->n_experts, n_tokens, 1, scores);
    row->nb[1] = input->nb[2];
    row->nb[2] = row->nb[3] = row->nb[1] * (size_t)n_tokens;
    product->op = GGML_OP_MUL_MAT;
    product->src[0] = rows;
    product->src[1] = row;
    shadow_add(instance, product);
    if (shadow_run(instance) != GGML_STATUS_SUCCESS) {
        return false;
    }
    for (uint32_t i = 0; router->bias && i < router->n_experts * (uint32_t)n_tokens; i++) {
        const float raw = scores[i];
        scores[i] = (router->bias_on_probability ? 1.0f / (1.0f + expf(-raw)) : raw) + router->bias[i % router->n_experts];
    }
    return true;
}

/* What each of a few tokens will probably select, together. False when that cannot be told. */
static bool expect_few(backend_instance *instance, const backend_chain *chain, const hypura_router *router,
                       uint32_t *experts)
{
    const struct ggml_tensor *input = token_rows(chain, router);
    const uint32_t n_tokens = (uint32_t)chain->n_tokens;
    const size_t mark = instance->indices.used; /* what is taken here is given back */
    const uint32_t n_each = (uint32_t)chain->n_used < router->n_experts ? (uint32_t)chain->n_used : router->n_experts;
    float *scores = arena_take(&instance->indices, (size_t)router->n_experts * n_tokens * sizeof(*scores));
    uint32_t *picked = arena_take(&instance->indices, n_each * sizeof(*picked));
    bool *named = arena_take(&instance->indices, router->n_experts * sizeof(*named));
    uint32_t n = 0;
    if (!input || !scores || !picked || !named || !score(instance, router, input, scores)) {
        instance->indices.used = mark;
        return false;
    }
    memset(named, 0, router->n_experts * sizeof(*named));
    for (uint32_t t = 0; t < n_tokens; t++) {
        hypura_candidates_pick(scores + (size_t)t * router->n_experts, router->n_experts, picked, n_each);
        for (uint32_t i = 0; i < n_each; i++) {
            if (!named[picked[i]]) {
                named[picked[i]] = true;
                experts[n++] = picked[i];
            }
        }
    }
    hypura_pager_expect_experts(chain->weight->pager, chain->weight->bundle + 1, experts, n, true);
    instance->indices.used = mark;
    return true;
}

bool backend_foresee_batch(backend_instance *instance, const backend_chain *chain, uint32_t *experts)
{
    hypura_pager        *pager = chain->weight->pager;
    const int            next = chain->weight->bundle + 1;
    const hypura_router *router = hypura_pager_router(pager, next);
    const bool wide = router && (uint64_t)chain->n_tokens * (uint32_t)chain->n_used >= (uint64_t)WIDE * router->n_experts;
    const bool few = wide && chain->n_tokens <= FEW && expect_few(instance, chain, router, experts);
    if (wide && !few) {
        expect_all(pager, next, experts);
    }
    return wide;
}

void backend_foresee(backend_instance *instance, const backend_chain *chain, uint32_t *experts)
{
    hypura_pager             *pager = chain->weight->pager;
    const int                 next = chain->weight->bundle + 1;
    const hypura_router      *router = hypura_pager_router(pager, next);
    const struct ggml_tensor *input = router && chain->n_tokens == 1 ? token_rows(chain, router) : NULL;
    if (!input || !hypura_pager_foresees(pager)) {
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
