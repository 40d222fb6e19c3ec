/*
 * speculation.c - see speculation.h.
 */
#include "engine/prepare/speculation.h"

#include "base/status.h"
#include "engine/llama/llama_shim.h"
#include "engine/llama/speculation_shim.h"
#include "engine/prepare/survey.h"
#include "os/os.h"

#include <string.h>

#define MAX_GUESSED           1024                 /* llama.cpp's own limit */
#define TENSOR_OVERHEAD_BYTES (UINT64_C(16) << 10) /* as of any model, see estimate.c */

static const char draft_simple[] = "draft-simple";

const char *const *hypura_speculation_types(void)
{
    static const char *const types[] = {"ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod", "ngram-cache",
                                        "draft-simple", NULL};
    return types;
}

bool hypura_speculation_wanted(const hypura_speculation *speculation)
{
    return speculation->draft || speculation->types;
}

static bool is_type(const char *name, size_t bytes)
{
    for (const char *const *type = hypura_speculation_types(); *type; type++) {
        if (strlen(*type) == bytes && memcmp(*type, name, bytes) == 0) {
            return true;
        }
    }
    return false;
}

hypura_status hypura_speculation_check(const hypura_speculation *speculation, const char *path, hypura_error *error)
{
    const hypura_speculation *s = speculation;
    bool drafts = false;
    for (const char *name = s->types; name && *name;) {
        const size_t bytes = strcspn(name, ",");
        if (!is_type(name, bytes)) {
            return hypura_fail(error, HYPURA_ERR_USAGE,
                               "speculation: '%.*s' is not one of ngram-simple, ngram-map-k, ngram-map-k4v, ngram-mod, "
                               "ngram-cache, draft-simple",
                               (int)bytes, name);
        }
        drafts = drafts || (bytes == sizeof(draft_simple) - 1 && memcmp(name, draft_simple, bytes) == 0);
        name += bytes + (name[bytes] == ',');
    }
    if (s->types && s->types[0] == '\0') {
        return hypura_fail(error, HYPURA_ERR_USAGE, "speculation: no type is named");
    }
    if (drafts && !s->draft) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "speculation: draft-simple needs a draft model: name one");
    }
    if (s->n_max > MAX_GUESSED) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "speculation: %u tokens at once, pass 1 to %d", s->n_max,
                           MAX_GUESSED);
    }
    if (!(s->p_min >= 0.0f && s->p_min <= 1.0f)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "speculation: a probability of %g, pass 0 to 1", (double)s->p_min);
    }
    if (s->draft && hypura_os_same_file(s->draft, path)) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "%s cannot be its own draft: name a smaller model of the same vocabulary", path);
    }
    return HYPURA_OK;
}

static hypura_status load_vocabulary(const hypura_map *map, struct llama_model **model, hypura_error *error)
{
    const hypura_load_gpu none = {.n = 0};
    return hypura_load_model(map, HYPURA_LOAD_VOCAB, &none, HYPURA_FORM_FILE, NULL, NULL, model, error);
}

static int n_tokens(const struct llama_model *model)
{
    return llama_vocab_n_tokens(llama_model_get_vocab(model));
}

static hypura_status compare_vocabularies(const hypura_map *map, const hypura_map *draft, hypura_error *error)
{
    struct llama_model *large = NULL;
    struct llama_model *small = NULL;
    hypura_load_lock();
    hypura_status status = load_vocabulary(map, &large, error);
    if (status == HYPURA_OK) {
        status = load_vocabulary(draft, &small, error);
    }
    if (status == HYPURA_OK && !hypura_shim_same_vocabulary(large, small)) {
        status =
            hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                        "%s cannot be the draft of %s: its vocabulary is another one (%d tokens of '%s', and %d of "
                        "'%s'). Name a small model of the same family",
                        draft->path, map->path, n_tokens(small), draft->arch, n_tokens(large), map->arch);
    }
    llama_model_free(small);
    llama_model_free(large);
    hypura_load_unlock();
    return status;
}

/* What is both embedding and output lies in memory twice, in two forms. */
static uint64_t weight_bytes(const hypura_map *map, const hypura_survey *survey)
{
    const uint32_t both = HYPURA_USE_GET_ROWS | HYPURA_USE_MUL_MAT;
    uint64_t bytes = map->tensor_bytes;
    for (int t = 0; t < survey->n_uses; t++) {
        bytes += (survey->uses[t].flags & both) == both ? map->tensors[t].bytes : 0;
    }
    return bytes;
}

static hypura_status survey_draft(const hypura_map *draft, const hypura_context_options *context, uint64_t *bytes,
                                  hypura_error *error)
{
    const hypura_load_gpu none = {.n = 0};
    hypura_survey *survey = NULL;
    uint64_t vocab_bytes = 0;
    const int64_t each = context->n_context / context->n_sequences;
    if (draft->context_length > 0 && each > draft->context_length) {
        return hypura_fail(
            error, HYPURA_ERR_UNSUPPORTED,
            "%s cannot be the draft: its context is of %lld tokens at most and the model's is of %lld: ask "
            "for a context of %lld",
            draft->path, (long long)draft->context_length, (long long)each, (long long)draft->context_length);
    }
    hypura_context_options options = *context;
    options.n_outputs = context->n_sequences;
    options.n_adapters = 0; /* they are the model's, and so are the types of its cache */
    options.kv_cache = (hypura_kv_cache){.type_k = NULL};
    hypura_status status = hypura_survey_take(draft, &options, &none, NULL, NULL, NULL, &survey, &vocab_bytes, error);
    if (status == HYPURA_OK && survey->kv_bytes == 0) {
        status = hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                             "%s cannot be a draft: its architecture %s does not write text token by token",
                             draft->path, draft->arch);
    }
    if (status == HYPURA_OK) {
        *bytes = weight_bytes(draft, survey) + survey->kv_bytes + survey->compute_bytes + vocab_bytes +
                 TENSOR_OVERHEAD_BYTES * (uint64_t)draft->n_tensors;
    }
    hypura_survey_free(survey);
    return status;
}

hypura_status hypura_speculation_plan(const hypura_speculation *speculation, const hypura_map *map,
                                      const hypura_context_options *context, hypura_speculation_needs *needs,
                                      hypura_error *error)
{
    *needs = (hypura_speculation_needs){.n_most = hypura_shim_speculation_max(speculation),
                                        .bytes = hypura_shim_speculation_bytes(speculation)};
    if (!speculation->draft) {
        return HYPURA_OK;
    }
    hypura_map *draft = NULL;
    hypura_status status = hypura_map_open(speculation->draft, &draft, error);
    if (status == HYPURA_OK) {
        status = survey_draft(draft, context, &needs->draft_bytes, error);
    }
    if (status == HYPURA_OK) {
        status = compare_vocabularies(map, draft, error);
    }
    hypura_map_close(draft);
    needs->bytes += needs->draft_bytes;
    return status;
}

hypura_status hypura_speculation_load(const char *path, struct llama_model **draft, hypura_error *error)
{
    const hypura_load_gpu none = {.n = 0};
    hypura_map *map = NULL;
    *draft = NULL;
    hypura_status status = hypura_map_open(path, &map, error);
    if (status == HYPURA_OK) {
        status = hypura_load_model(map, HYPURA_LOAD_RESIDENT, &none, HYPURA_FORM_REPACKED, NULL, NULL, draft, error);
    }
    hypura_map_close(map);
    return status;
}
