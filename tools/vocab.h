/*
 * vocab.h - vocabularies for models made from nothing: keys tokenizer.* of a header.
 */
#ifndef HYPURA_TOOLS_VOCAB_H
#define HYPURA_TOOLS_VOCAB_H

#include <stdint.h>

#include "gguf.h"

/* <unk>, <s>, </s> and the 256 bytes: any text can be given to the model. */
enum { VOCAB_BYTES_TOKENS = 3 + 256 };

/* A SentencePiece vocabulary of bytes, filled up to n_vocab with words that text
 * never becomes but the model may say. Exit codes of mkmodel.h. */
int vocab_bytes(struct gguf_context *header, uint32_t n_vocab);

/* The tokenizer of another model; n_vocab becomes the number of its tokens. */
int vocab_copy(struct gguf_context *header, const char *path, uint32_t *n_vocab);

/* Token ids only: libllama then neither reads nor writes text. */
void vocab_none(struct gguf_context *header);

#endif
