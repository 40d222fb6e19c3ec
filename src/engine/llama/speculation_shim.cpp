/*
 * speculation_shim.cpp - see speculation_shim.h.
 */
#include "engine/llama/speculation_shim.h"

#include "common.h"
#include "speculative.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

namespace
{

/* Unless it is told: a pass over so many takes hardly longer than one over a single token. */
constexpr uint32_t GUESSED_TOKENS = 8;

/* Looked for are keys of so many tokens at most: with longer ones than what is guessed llama.cpp's never find any. */
void limit(common_params_speculative_ngram_map &map, uint32_t n)
{
    map.size_m = (uint16_t)n;
    map.size_n = std::min(map.size_n, map.size_m);
}

common_params_speculative params_of(const hypura_speculation *options)
{
    common_params_speculative params;
    params.types.clear();
    if (options->types) {
        params.types = common_speculative_types_from_names(string_split<std::string>(options->types, ','));
    }
    const bool drafts = std::find(params.types.begin(), params.types.end(), COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE) !=
                        params.types.end();
    if (options->draft && !drafts) {
        params.types.push_back(COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE);
    }
    if (options->draft) {
        params.draft.mparams.path = options->draft;
    }
    const uint32_t n_max = options->n_max > 0 ? options->n_max : GUESSED_TOKENS;
    params.draft.n_max = (int32_t)n_max;
    params.draft.p_min = options->p_min;
    limit(params.ngram_simple, n_max);
    limit(params.ngram_map_k, n_max);
    limit(params.ngram_map_k4v, n_max);
    params.ngram_mod.n_max = (int32_t)n_max;
    params.ngram_mod.n_min = std::min(params.ngram_mod.n_min, params.ngram_mod.n_max);
    return params;
}

bool uses(const common_params_speculative &params, common_speculative_type type)
{
    return std::find(params.types.begin(), params.types.end(), type) != params.types.end();
}

} // namespace

uint32_t hypura_shim_speculation_max(const hypura_speculation *options)
{
    try {
        const common_params_speculative params = params_of(options);
        return (uint32_t)common_speculative_n_max(&params);
    } catch (const std::exception &) {
        return 0;
    }
}

uint64_t hypura_shim_speculation_bytes(const hypura_speculation *options)
{
    const uint64_t table = UINT64_C(4) * 1024 * 1024 * sizeof(llama_token); /* of ngram-mod, one for all sequences */
    try {
        return uses(params_of(options), COMMON_SPECULATIVE_TYPE_NGRAM_MOD) ? table : 0;
    } catch (const std::exception &) {
        return 0;
    }
}

void hypura_shim_speculation_words(const hypura_speculation *options, hypura_shim_word_fn add, void *user)
{
    const common_params_speculative params = params_of(options);
    const struct {
        common_speculative_type type;
        const char *option;
        int value;
    } numbers[] = {
        {COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE, "--spec-draft-n-max", params.draft.n_max},
        {COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE, "--spec-ngram-simple-size-n", params.ngram_simple.size_n},
        {COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE, "--spec-ngram-simple-size-m", params.ngram_simple.size_m},
        {COMMON_SPECULATIVE_TYPE_NGRAM_MAP_K, "--spec-ngram-map-k-size-n", params.ngram_map_k.size_n},
        {COMMON_SPECULATIVE_TYPE_NGRAM_MAP_K, "--spec-ngram-map-k-size-m", params.ngram_map_k.size_m},
        {COMMON_SPECULATIVE_TYPE_NGRAM_MAP_K4V, "--spec-ngram-map-k4v-size-n", params.ngram_map_k4v.size_n},
        {COMMON_SPECULATIVE_TYPE_NGRAM_MAP_K4V, "--spec-ngram-map-k4v-size-m", params.ngram_map_k4v.size_m},
        {COMMON_SPECULATIVE_TYPE_NGRAM_MOD, "--spec-ngram-mod-n-min", params.ngram_mod.n_min},
        {COMMON_SPECULATIVE_TYPE_NGRAM_MOD, "--spec-ngram-mod-n-max", params.ngram_mod.n_max},
    };
    if (params.types.empty()) {
        return;
    }
    add(user, "--spec-type", common_speculative_type_name_str(params.types).c_str());
    for (const auto &number : numbers) {
        if (uses(params, number.type)) {
            add(user, number.option, std::to_string(number.value).c_str());
        }
    }
    if (uses(params, COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE)) {
        char p_min[32];
        std::snprintf(p_min, sizeof(p_min), "%.9g", (double)params.draft.p_min);
        add(user, "--spec-draft-p-min", p_min);
        add(user, "--spec-draft-device", "none");
        add(user, "--spec-draft-model", options->draft);
    }
}

bool hypura_shim_same_vocabulary(const struct llama_model *model, const struct llama_model *draft)
{
    try {
        return common_speculative_are_compatible(model, draft);
    } catch (const std::exception &) {
        return false;
    }
}

struct hypura_shim_speculator {
    common_params_speculative params;
    common_speculative_ptr speculative;
    common_batch batch;
    llama_tokens held;
    llama_tokens guessed;
};

hypura_shim_speculator *hypura_shim_speculator_open(const hypura_speculation *options, struct llama_context *ctx,
                                                    struct llama_context *draft, char *error, size_t error_bytes)
{
    try {
        auto speculator = std::make_unique<hypura_shim_speculator>();
        speculator->params = params_of(options);
        speculator->params.draft.ctx_tgt = ctx;
        speculator->params.draft.ctx_dft = draft;
        speculator->speculative.reset(common_speculative_init(speculator->params, 1));
        speculator->batch = common_batch(ctx);
        speculator->held.reserve(llama_n_ctx(ctx) + 1);
        speculator->guessed.reserve(llama_n_ctx(ctx) + 1);
        if (speculator->speculative) {
            return speculator.release();
        }
        std::snprintf(error, error_bytes, "nothing is there that guesses");
    } catch (const std::exception &e) {
        std::snprintf(error, error_bytes, "%s", e.what());
    }
    return nullptr;
}

void hypura_shim_speculator_close(hypura_shim_speculator *speculator)
{
    delete speculator;
}

bool hypura_shim_speculator_decoded(hypura_shim_speculator *speculator, const llama_token *tokens, uint32_t n,
                                    uint32_t first)
{
    if (!speculator->params.draft.ctx_dft) {
        return true; /* the others know the text alone */
    }
    try {
        speculator->batch.clear();
        for (uint32_t i = 0; i < n; i++) {
            speculator->batch.add(tokens[i], (llama_pos)(first + i), 0, true);
        }
        return common_speculative_process(speculator->speculative.get(), speculator->batch);
    } catch (const std::exception &) {
        return false;
    }
}

bool hypura_shim_speculator_begin(hypura_shim_speculator *speculator, const llama_token *tokens, uint32_t n)
{
    try {
        speculator->held.assign(tokens, tokens + n);
        common_speculative_begin(speculator->speculative.get(), 0, speculator->held);
        return true;
    } catch (const std::exception &) {
        return false;
    }
}

uint32_t hypura_shim_speculator_guess(hypura_shim_speculator *speculator, llama_token token, uint32_t n_most,
                                      llama_token *guessed)
{
    try {
        llama_tokens &to = speculator->guessed;
        to.clear();
        common_speculative_draft_params &asked = common_speculative_get_draft_params(speculator->speculative.get(), 0);
        asked = common_speculative_draft_params();
        asked.drafting = true;
        asked.n_max = (int32_t)n_most;
        asked.pos0 = (llama_pos)speculator->held.size();
        asked.id_last = token;
        asked.prompt = &speculator->held;
        asked.result = &to;
        common_speculative_draft(speculator->speculative.get());
        (void)hypura_shim_speculator_cut(speculator, (uint32_t)speculator->held.size());
        const uint32_t n = (uint32_t)std::min<size_t>(to.size(), n_most);
        std::copy_n(to.begin(), n, guessed);
        return n;
    } catch (const std::exception &) {
        return 0;
    }
}

void hypura_shim_speculator_keep(hypura_shim_speculator *speculator, const llama_token *tokens, uint32_t n,
                                 uint32_t n_guessed)
{
    try {
        speculator->held.insert(speculator->held.end(), tokens, tokens + n);
        if (n_guessed > 0) {
            common_speculative_accept(speculator->speculative.get(), 0, (uint16_t)(n - 1));
        }
    } catch (const std::exception &) {
        /* the reserve of held is as large as the context */
    }
}

bool hypura_shim_speculator_cut(hypura_shim_speculator *speculator, uint32_t n)
{
    llama_context *draft = speculator->params.draft.ctx_dft;
    if (!draft) {
        return true;
    }
    llama_memory_t memory = llama_get_memory(draft);
    const llama_pos last = llama_memory_seq_pos_max(memory, 0);
    if (n > 0 && last + 1 >= (llama_pos)n && llama_memory_seq_rm(memory, 0, (llama_pos)n, -1)) {
        return true;
    }
    llama_memory_clear(memory, true);
    return n == 0;
}
