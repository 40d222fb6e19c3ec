/*
 * logits.c - see logits.h.
 */
#include "logits.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

enum { N_PROMPT = 12, N_STEPS = 5 };

static void discard_log(enum ggml_log_level level, const char *text, void *user)
{
    (void)level;
    (void)text;
    (void)user;
}

static bool decode(struct llama_context *context, int n_vocab, float *logits)
{
    llama_token tokens[N_PROMPT + N_STEPS];
    for (int i = 0; i < N_PROMPT + N_STEPS; i++) {
        tokens[i] = (3 + 17 * i) % n_vocab;
    }
    for (int step = 0; step < N_STEPS; step++) {
        struct llama_batch batch =
            step == 0 ? llama_batch_get_one(tokens, N_PROMPT) : llama_batch_get_one(tokens + N_PROMPT + step, 1);
        if (llama_decode(context, batch) != 0) {
            return false;
        }
        const float *row = llama_get_logits_ith(context, -1);
        if (!row) {
            return false;
        }
        memcpy(logits + (size_t)step * (size_t)n_vocab, row, (size_t)n_vocab * sizeof *row);
    }
    return true;
}

float *model_logits(const char *path, int *n_vocab, int *n_steps)
{
    llama_log_set(discard_log, NULL);
    struct llama_model *model = llama_model_load_from_file(path, llama_model_default_params());
    if (!model) {
        return NULL;
    }
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = 64;
    params.n_threads = params.n_threads_batch = 1;
    struct llama_context *context = llama_init_from_model(model, params);
    *n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    *n_steps = N_STEPS;
    float *logits = calloc((size_t)*n_vocab * N_STEPS, sizeof *logits);
    if (!context || !logits || !decode(context, *n_vocab, logits)) {
        free(logits);
        logits = NULL;
    }
    llama_free(context);
    llama_model_free(model);
    return logits;
}
