/*
 * prompt.c - see prompt.h.
 */
#include "engine/answer/prompt.h"

#include "base/status.h"

#include <stdlib.h>
#include <string.h>

hypura_status hypura_prompt_of_text(const struct llama_vocab *vocab, const char *text, hypura_prompt *prompt,
                                    hypura_error *error)
{
    const size_t bytes = strlen(text);
    if (bytes > INT32_MAX / 2) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a prompt of %zu bytes is too long", bytes);
    }
    const int32_t length = (int32_t)bytes;
    const int32_t needed = -llama_tokenize(vocab, text, length, NULL, 0, true, true);
    if (needed <= 0) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the prompt is empty: there is nothing to continue");
    }
    prompt->tokens = malloc((size_t)needed * sizeof(*prompt->tokens));
    if (!prompt->tokens) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a prompt of %d tokens", needed);
    }
    if (llama_tokenize(vocab, text, length, prompt->tokens, needed, true, true) != needed) {
        return hypura_fail(error, HYPURA_ERR_BACKEND, "llama.cpp cannot tokenise the prompt of %zu bytes", bytes);
    }
    prompt->n = (uint32_t)needed;
    return HYPURA_OK;
}

hypura_status hypura_prompt_check(const hypura_prompt *prompt, uint32_t n_context, hypura_error *error)
{
    return prompt->n <= n_context ? HYPURA_OK
                                  : hypura_fail(error, HYPURA_ERR_USAGE,
                                                "the prompt takes %u tokens and the context holds %u: give a larger context, "
                                                "or start a new conversation",
                                                prompt->n, n_context);
}

void hypura_prompt_clear(hypura_prompt *prompt)
{
    if (prompt->chunks) {
        mtmd_input_chunks_free(prompt->chunks);
    }
    free(prompt->tokens);
    free(prompt->shown);
    *prompt = (hypura_prompt){.tokens = NULL};
}
