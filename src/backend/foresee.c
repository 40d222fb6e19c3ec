/*
 * foresee.c - tells the pager what the next layer will probably select.
 *
 * The next layer's router is asked with the rows that this layer's experts read. While
 * decoding that takes one small product, right after this layer's own reads were asked
 * for. Each token votes for its own selection, and experts are named by their votes: one
 * that no token wants is not read, and one that many want is there first. What one token or
 * a few select next may also be guessed from what layers before selected (pager/guess.c).
 * Where no router can be asked, a wide batch will need nearly all experts: all are named.
 * Either way this layer leaves room for them.
 *
 * The guess decides only what is read early. No result depends on it.
 */
#include "backend/internal.h"

#include "predict/candidates.h"

#include <string.h>

#define WIDE  2   /* a batch that selects as many times all experts will need nearly all of them */
#define ASKED 128 /* tokens of a batch, evenly spread: that many name nearly every expert of it */
#define LAST_LESS 0.5f /* of a vote: what a token wants last it is least sure of */

/* Scores of each token that is asked for, and votes. */
size_t backend_foresee_bytes(const backend_chain *chain)
{
    return sizeof(float) * (size_t)((chain->n_tokens < ASKED ? chain->n_tokens : ASKED) + 1);
}

static void expect_all(hypura_pager *pager, int bundle, uint32_t *experts)
{
    const uint32_t n = (uint32_t)hypura_pager_map(pager)->bundles[bundle].n_experts;
    for (uint32_t i = 0; i < n; i++) {
        experts[i] = i;
    }
    hypura_pager_expect_experts(pager, bundle, experts, n, HYPURA_CERTAIN);
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

/* Rows of a router's input: first, first + step, and so on. */
typedef struct asked_rows {
    uint32_t first;
    uint32_t step;
    uint32_t n;
} asked_rows;

/* The router's scores of all its experts, row after row. */
static bool score(backend_instance *instance, const hypura_router *router, const struct ggml_tensor *input,
                  asked_rows asked, float *scores)
{
    char *first = (char *)input->data + asked.first * input->nb[2];
    struct ggml_tensor *rows =
        shadow_tensor(instance, (enum ggml_type)router->type, router->n_inputs, router->n_experts, 1, router->rows);
    struct ggml_tensor *row = shadow_tensor(instance, GGML_TYPE_F32, router->n_inputs, asked.n, 1, first);
    struct ggml_tensor *product = shadow_tensor(instance, GGML_TYPE_F32, router->n_experts, asked.n, 1, scores);
    row->nb[1] = input->nb[2] * asked.step;
    row->nb[2] = row->nb[3] = row->nb[1] * asked.n;
    product->op = GGML_OP_MUL_MAT;
    product->src[0] = rows;
    product->src[1] = row;
    shadow_add(instance, product);
    if (shadow_run(instance) != GGML_STATUS_SUCCESS) {
        return false;
    }
    if (router->bias) {
        hypura_candidates_add_bias(scores, router->n_experts * asked.n, router->bias, router->n_experts,
                                   router->bias_on_probability);
    }
    return true;
}

/* What the tokens of a batch that reach the layer will probably select, by votes. False when that cannot be told. */
static bool expect_voted(backend_instance *instance, const backend_chain *chain, const hypura_router *router,
                         hypura_certainty certainty, uint32_t *experts)
{
    hypura_pager *pager = chain->weight->pager;
    const int next = chain->weight->bundle + 1;
    const struct ggml_tensor *input = token_rows(chain, router);
    const uint32_t n_experts = router->n_experts;
    const uint32_t n_batch = (uint32_t)chain->n_tokens;
    const uint32_t n_tokens = hypura_pager_tokens_that_reach(pager, next, n_batch);
    const uint32_t step = (n_tokens + ASKED - 1) / ASKED;
    const asked_rows asked = {.first = n_batch - n_tokens, .step = step, .n = (n_tokens + step - 1) / step};
    const uint32_t n_wanted = (uint32_t)chain->n_used + (n_batch == 1 ? HYPURA_MORE_CANDIDATES : 0);
    const uint32_t n_each = n_wanted < n_experts ? n_wanted : n_experts;
    const size_t mark = instance->indices.used; /* what is taken here is given back */
    float *scores = arena_take(&instance->indices, (size_t)n_experts * asked.n * sizeof(*scores));
    float *votes = arena_take(&instance->indices, n_experts * sizeof(*votes));
    uint32_t *picked = arena_take(&instance->indices, n_each * sizeof(*picked));
    const bool can = input && scores && votes && picked && score(instance, router, input, asked, scores);
    if (can) {
        uint32_t n = 0;
        memset(votes, 0, n_experts * sizeof(*votes));
        for (uint32_t t = 0; t < asked.n; t++) {
            if (!hypura_pager_foretell(pager, next, asked.first + t * step, (uint32_t)chain->n_used, picked, n_each)) {
                hypura_candidates_pick(scores + (size_t)t * n_experts, n_experts, picked, n_each);
            }
            for (uint32_t i = 0; i < n_each; i++) {
                n += votes[picked[i]] == 0.0f;
                votes[picked[i]] += 1.0f - LAST_LESS * (float)i / (float)n_each;
            }
        }
        hypura_candidates_pick(votes, n_experts, experts, n);
        hypura_pager_expect_experts(pager, next, experts, n, certainty);
    }
    instance->indices.used = mark;
    return can;
}

bool backend_foresee_batch(backend_instance *instance, const backend_chain *chain, uint32_t *experts)
{
    hypura_pager        *pager = chain->weight->pager;
    const int            next = chain->weight->bundle + 1;
    const hypura_router *router = hypura_pager_router(pager, next);
    const bool wide = router && (uint64_t)chain->n_tokens * (uint32_t)chain->n_used >= (uint64_t)WIDE * router->n_experts;
    if (wide && !expect_voted(instance, chain, router, HYPURA_CERTAIN, experts)) {
        expect_all(pager, next, experts);
    }
    return wide;
}

void backend_foresee(backend_instance *instance, const backend_chain *chain, uint32_t *experts)
{
    hypura_pager        *pager = chain->weight->pager;
    const int            next = chain->weight->bundle + 1;
    const hypura_router *router = hypura_pager_router(pager, next);
    switch (next < hypura_pager_map(pager)->n_bundles ? hypura_pager_guesser(pager) : HYPURA_GUESS_NOBODY) {
    case HYPURA_GUESS_ROUTERS:
        if (router) {
            (void)expect_voted(instance, chain, router, HYPURA_LIKELY, experts);
        }
        break;
    case HYPURA_GUESS_COACTIVATION:
        hypura_pager_expect_companions(pager, next);
        break;
    case HYPURA_GUESS_NOBODY:
        break;
    }
}
