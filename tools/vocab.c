/*
 * vocab.c - see vocab.h.
 */
#include "vocab.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mkmodel.h"

/* enum llama_token_type, as files hold it */
enum { TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_BYTE = 6 };

enum { TEXT_BYTES = 24 };

int vocab_bytes(struct gguf_context *header, uint32_t n_vocab)
{
    static const char *const special[] = {"<unk>", "<s>", "</s>"};
    if (n_vocab < VOCAB_BYTES_TOKENS) {
        return mk_fail("a vocabulary of %" PRIu32 " tokens cannot hold the %d of bytes", n_vocab, VOCAB_BYTES_TOKENS);
    }
    char(*text)[TEXT_BYTES] = calloc(n_vocab, sizeof *text);
    const char **tokens = calloc(n_vocab, sizeof *tokens);
    float *scores = calloc(n_vocab, sizeof *scores);
    int32_t *types = calloc(n_vocab, sizeof *types);
    int rc = MK_OK;
    if (!text || !tokens || !scores || !types) {
        rc = mk_fail("out of memory for %" PRIu32 " tokens", n_vocab);
    } else {
        for (uint32_t i = 0; i < n_vocab; i++) {
            if (i < 3) {
                snprintf(text[i], sizeof text[i], "%s", special[i]);
                types[i] = i == 0 ? TOKEN_UNKNOWN : TOKEN_CONTROL;
            } else if (i < VOCAB_BYTES_TOKENS) {
                snprintf(text[i], sizeof text[i], "<0x%02" PRIX32 ">", i - 3);
                types[i] = TOKEN_BYTE;
            } else {
                /* U+2581 stands for the space in SentencePiece */
                snprintf(text[i], sizeof text[i], "\xe2\x96\x81w%" PRIu32, i);
                types[i] = TOKEN_NORMAL;
            }
            tokens[i] = text[i];
        }
        gguf_set_val_str(header, "tokenizer.ggml.model", "llama");
        gguf_set_arr_str(header, "tokenizer.ggml.tokens", tokens, n_vocab);
        gguf_set_arr_data(header, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores, n_vocab);
        gguf_set_arr_data(header, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types, n_vocab);
        gguf_set_val_u32(header, "tokenizer.ggml.unknown_token_id", 0);
        gguf_set_val_u32(header, "tokenizer.ggml.bos_token_id", 1);
        gguf_set_val_u32(header, "tokenizer.ggml.eos_token_id", 2);
        gguf_set_val_bool(header, "tokenizer.ggml.add_space_prefix", false);
    }
    free(text);
    free(tokens);
    free(scores);
    free(types);
    return rc;
}

int vocab_copy(struct gguf_context *header, const char *path, uint32_t *n_vocab)
{
    if (access(path, R_OK) != 0) {
        return mk_fail("cannot open '%s': %s", path, strerror(errno));
    }
    struct gguf_context *source = gguf_init_from_file(path, (struct gguf_init_params){.no_alloc = true});
    if (!source) {
        return mk_fail("'%s' is not a valid GGUF file", path);
    }
    int64_t tokens = gguf_find_key(source, "tokenizer.ggml.tokens");
    int rc = MK_OK;
    if (tokens < 0 || gguf_get_kv_type(source, tokens) != GGUF_TYPE_ARRAY || gguf_get_arr_n(source, tokens) == 0 ||
        gguf_get_arr_n(source, tokens) > UINT32_MAX) {
        rc = mk_fail("'%s' has no tokenizer", path);
    } else {
        *n_vocab = (uint32_t)gguf_get_arr_n(source, tokens);
        for (int64_t i = gguf_get_n_kv(source) - 1; i >= 0; i--) {
            const char *key = gguf_get_key(source, i);
            if (strncmp(key, "tokenizer.", strlen("tokenizer.")) != 0) {
                gguf_remove_key(source, key);
            }
        }
        gguf_set_kv(header, source);
    }
    gguf_free(source);
    return rc;
}

void vocab_none(struct gguf_context *header)
{
    gguf_set_val_str(header, "tokenizer.ggml.model", "none");
}
