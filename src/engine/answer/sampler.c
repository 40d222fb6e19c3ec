/*
 * sampler.c - see sampler.h.
 *
 *     penalties -> top-k -> top-p -> min-p -> temperature -> one at random       temperature 0: penalties -> the first
 *
 * With a grammar the token so chosen is looked at; only where it does not fit, the grammar is asked about the whole
 * vocabulary, which takes long, and one of those that fit is chosen anew.
 */
#include "engine/answer/sampler.h"

#include "base/status.h"
#include "engine/llama/llama_shim.h"

#include <math.h>
#include <stdlib.h>

enum {
    PENALTY_TOKENS = 64, /* that penalties look back */
};

struct hypura_sampler {
    struct llama_sampler *chain;
    struct llama_sampler *grammar; /* NULL: none */
    llama_token_data *candidates;  /* n_vocab of them, for the grammar */
    int32_t n_vocab;
};

hypura_status hypura_sampler_check(const hypura_generate_options *options, hypura_error *error)
{
    const hypura_sampling *s = &options->sampling;
    if (!(s->temperature >= 0.0f) || isinf(s->temperature)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "temperature %g: pass 0 (greedy) or more", (double)s->temperature);
    }
    if (!(s->top_p >= 0.0f && s->top_p <= 1.0f)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "top_p %g: pass 0 to 1 (off)", (double)s->top_p);
    }
    if (!(s->min_p >= 0.0f && s->min_p <= 1.0f)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "min_p %g: pass 0 (off) to 1", (double)s->min_p);
    }
    if (s->top_k < 0) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "top_k %d: pass 0 (off) or more", s->top_k);
    }
    if (!(s->repeat_penalty >= 0.0f) || isinf(s->repeat_penalty)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "repeat_penalty %g: pass 1 (off) or more",
                           (double)s->repeat_penalty);
    }
    if (!isfinite(s->frequency_penalty) || !isfinite(s->presence_penalty)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "frequency_penalty %g, presence_penalty %g: pass numbers, 0 (off)",
                           (double)s->frequency_penalty, (double)s->presence_penalty);
    }
    const bool asks_for_thoughts = options->thinking != HYPURA_THINKING_AUTO && options->thinking != HYPURA_THINKING_OFF;
    if ((options->grammar || options->json_schema) && asks_for_thoughts) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "what has a grammar or a schema has no thoughts before it");
    }
    if (options->grammar && options->json_schema) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a grammar and a JSON schema exclude each other");
    }
    if (options->grammar && options->grammar[0] == '\0') { /* which llama.cpp takes for none */
        return hypura_fail(error, HYPURA_ERR_USAGE, "the grammar is empty");
    }
    if (options->raw && (options->system || options->chat_template || options->n_history > 0)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a raw prompt has no system text, no chat template and no history");
    }
    return HYPURA_OK;
}

/* Tokens that the model's file forbids as output get no chance. False when memory
 * ran out. */
static bool suppress(const struct llama_vocab *vocab, struct llama_sampler *chain)
{
    int32_t n = 0;
    const llama_token *tokens = llama_vocab_get_suppress_tokens(vocab, &n);
    if (n <= 0) {
        return true;
    }
    llama_logit_bias *bias = malloc((size_t)n * sizeof(*bias));
    if (!bias) {
        return false;
    }
    for (int32_t i = 0; i < n; i++) {
        bias[i] = (llama_logit_bias){tokens[i], -INFINITY};
    }
    llama_sampler_chain_add(chain, llama_sampler_init_logit_bias(llama_vocab_n_tokens(vocab), n, bias));
    free(bias);
    return true;
}

float hypura_repeat_penalty(const hypura_sampling *s)
{
    return s->repeat_penalty > 0.0f ? s->repeat_penalty : 1.0f;
}

static bool has_penalties(const hypura_sampling *s)
{
    return fabsf(hypura_repeat_penalty(s) - 1.0f) > 0.0f || fabsf(s->frequency_penalty) > 0.0f || fabsf(s->presence_penalty) > 0.0f;
}

static void add_penalties(struct llama_sampler *chain, int32_t n_vocab, const hypura_sampling *s,
                          const llama_token *tokens, uint32_t n)
{
    struct llama_sampler *added = llama_sampler_init_penalties(n_vocab, PENALTY_TOKENS, hypura_repeat_penalty(s),
                                                               s->frequency_penalty, s->presence_penalty);
    for (uint32_t i = n > PENALTY_TOKENS ? n - PENALTY_TOKENS : 0; i < n; i++) {
        if (tokens[i] != LLAMA_TOKEN_NULL) { /* something that is shown */
            llama_sampler_accept(added, tokens[i]);
        }
    }
    llama_sampler_chain_add(chain, added);
}

static void add_chances(struct llama_sampler *chain, const hypura_sampling *s)
{
    if (!(s->temperature > 0.0f)) {
        llama_sampler_chain_add(chain, llama_sampler_init_greedy());
        return;
    }
    if (s->top_k > 0) {
        llama_sampler_chain_add(chain, llama_sampler_init_top_k(s->top_k));
    }
    if (s->top_p < 1.0f) {
        llama_sampler_chain_add(chain, llama_sampler_init_top_p(s->top_p, 1));
    }
    if (s->min_p > 0.0f) {
        llama_sampler_chain_add(chain, llama_sampler_init_min_p(s->min_p, 1));
    }
    llama_sampler_chain_add(chain, llama_sampler_init_temp(s->temperature));
    llama_sampler_chain_add(chain, llama_sampler_init_dist(s->seed));
}

static hypura_status open_grammar(hypura_sampler *sampler, const struct llama_vocab *vocab,
                                  const hypura_generate_options *options, hypura_error *error)
{
    char reason[256];
    sampler->candidates = malloc((size_t)sampler->n_vocab * sizeof(*sampler->candidates));
    if (!sampler->candidates) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %d tokens to choose from", sampler->n_vocab);
    }
    sampler->grammar = hypura_shim_grammar_open(vocab, options->grammar, options->json_schema, reason, sizeof(reason));
    return sampler->grammar ? HYPURA_OK
                            : hypura_fail(error, HYPURA_ERR_USAGE, "the %s cannot be used: %s",
                                          options->grammar ? "grammar" : "JSON schema", reason);
}

hypura_status hypura_sampler_open(const struct llama_vocab *vocab, const hypura_generate_options *options,
                                  const llama_token *tokens, uint32_t n, hypura_sampler **opened, hypura_error *error)
{
    const hypura_sampling *s = &options->sampling;
    hypura_sampler *sampler = calloc(1, sizeof(*sampler));
    hypura_status status = HYPURA_OK;
    *opened = NULL;
    if (sampler) {
        sampler->n_vocab = llama_vocab_n_tokens(vocab);
        sampler->chain = llama_sampler_chain_init((struct llama_sampler_chain_params){.no_perf = true});
    }
    if (!sampler || !suppress(vocab, sampler->chain)) {
        hypura_sampler_close(sampler);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the tokens that must not be put out");
    }
    if (has_penalties(s)) {
        add_penalties(sampler->chain, sampler->n_vocab, s, tokens, n);
    }
    add_chances(sampler->chain, s);
    if (options->grammar || options->json_schema) {
        status = open_grammar(sampler, vocab, options, error);
    }
    if (status != HYPURA_OK) {
        hypura_sampler_close(sampler);
        return status;
    }
    *opened = sampler;
    return HYPURA_OK;
}

void hypura_sampler_close(hypura_sampler *sampler)
{
    if (sampler) {
        llama_sampler_free(sampler->grammar);
        llama_sampler_free(sampler->chain);
        free(sampler->candidates);
        free(sampler);
    }
}

/* ---- with a grammar ---------------------------------------------------------- */

/* Of all tokens; of those that go on with the grammar's text where strict. */
static llama_token_data choose(const hypura_sampler *sampler, struct llama_context *ctx, int32_t row, bool strict)
{
    const float *logits = llama_get_logits_ith(ctx, row);
    llama_token_data_array all = {sampler->candidates, (size_t)sampler->n_vocab, -1, false};
    for (int32_t i = 0; i < sampler->n_vocab; i++) {
        sampler->candidates[i] = (llama_token_data){i, logits[i], 0.0f};
    }
    if (strict) {
        llama_sampler_apply(sampler->grammar, &all);
    }
    llama_sampler_apply(sampler->chain, &all);
    return all.data[all.selected >= 0 ? all.selected : 0];
}

static bool goes_on(const hypura_sampler *sampler, llama_token token)
{
    llama_token_data one = {token, 1.0f, 0.0f};
    llama_token_data_array all = {&one, 1, -1, false};
    llama_sampler_apply(sampler->grammar, &all);
    return !isinf(one.logit);
}

hypura_status hypura_sampler_next(hypura_sampler *sampler, struct llama_context *ctx, int32_t row, llama_token *token,
                                  hypura_error *error)
{
    if (!sampler->grammar) {
        *token = llama_sampler_sample(sampler->chain, ctx, row);
        return HYPURA_OK;
    }
    *token = choose(sampler, ctx, row, false).id;
    if (!goes_on(sampler, *token)) {
        *token = choose(sampler, ctx, row, true).id;
    }
    if (!goes_on(sampler, *token) || !hypura_shim_grammar_accept(sampler->grammar, *token)) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "the model has no token with which its answer would go on as the grammar wants");
    }
    llama_sampler_accept(sampler->chain, *token);
    return HYPURA_OK;
}
