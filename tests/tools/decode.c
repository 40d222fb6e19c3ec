/*
 * decode.c - loads each model named with plain libllama, decodes a prompt and a few
 * tokens, and fails unless every logit is finite and they differ from one another.
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "llama.h"

enum { N_PROMPT = 12, N_DECODE = 4 };

static void only_errors(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

static bool are_sound(const float *logits, int n)
{
    float low = logits[0];
    float high = logits[0];
    for (int i = 0; i < n; i++) {
        if (!isfinite(logits[i])) {
            return false;
        }
        low = fminf(low, logits[i]);
        high = fmaxf(high, logits[i]);
    }
    return high > low;
}

static bool decode(struct llama_context *context, int n_vocab)
{
    llama_token tokens[N_PROMPT];
    for (int i = 0; i < N_PROMPT; i++) {
        tokens[i] = (3 + 17 * i) % n_vocab;
    }
    int n = N_PROMPT;
    for (int step = 0; step <= N_DECODE; step++) {
        if (llama_decode(context, llama_batch_get_one(tokens, n)) != 0) {
            return false;
        }
        const float *logits = llama_get_logits_ith(context, -1);
        if (!logits || !are_sound(logits, n_vocab)) {
            return false;
        }
        n = 1;
        for (int i = 0; i < n_vocab; i++) {
            tokens[0] = logits[i] > logits[tokens[0]] ? i : tokens[0];
        }
    }
    return true;
}

static bool check_model(const char *path)
{
    struct llama_model *model = llama_model_load_from_file(path, llama_model_default_params());
    if (!model) {
        return false;
    }
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = 64;
    params.n_threads = params.n_threads_batch = 1;
    struct llama_context *context = llama_init_from_model(model, params);
    bool                  ok = context && decode(context, llama_vocab_n_tokens(llama_model_get_vocab(model)));
    llama_free(context);
    llama_model_free(model);
    return ok;
}

int main(int argc, char **argv)
{
    int n_failed = argc < 2;
    llama_log_set(only_errors, NULL);
    for (int i = 1; i < argc; i++) {
        bool ok = check_model(argv[i]);
        printf("%s %s\n", ok ? "ok    " : "FAILED", argv[i]);
        n_failed += !ok;
    }
    return n_failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
