/*
 * dense_source.h - a dense llama model that others are made of: its header, and its tensors one at a time.
 *
 * What always holds: an open source is one whole file of the llama architecture, without experts. Every failure is
 * printed by mk_fail.
 */
#ifndef HYPURA_TOOLS_DENSE_SOURCE_H
#define HYPURA_TOOLS_DENSE_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "gguf.h"

typedef struct dense_source {
    const char *path;
    int fd;
    struct gguf_context *gguf;
    enum ggml_type type; /* that the layers' matrices are converted to; GGML_TYPE_COUNT: they keep theirs */
} dense_source;

/* --type of a command. */
int dense_source_parse_type(dense_source *source, const char *text);

/* path and type are set and fd -1. Close in any case. */
int dense_source_open(dense_source *source);
void dense_source_close(dense_source *source);

int dense_source_u32(const dense_source *source, const char *key, uint32_t *value);
/* Tensor "blk.LAYER.SUFFIX", or -1 after printing. */
int64_t dense_source_layer_tensor(const dense_source *source, int layer, const char *suffix);
/* A tensor in the type that it is to have: embeddings, and what is in full precision, keep their own. */
enum ggml_type dense_source_type(const dense_source *source, int64_t id);
size_t dense_source_bytes(const dense_source *source, int64_t id);
/* The whole of it, freed by the caller; NULL after printing. */
uint8_t *dense_source_read(const dense_source *source, int64_t id);

#endif
