/*
 * random_model.h - models of random weights in the shape of real ones.
 *
 * Weights have deviation 1/sqrt(inputs), norms are 1, routers have logits of
 * deviation 2: states stay finite through any number of layers, and tokens route
 * to varied experts.
 */
#ifndef HYPURA_TOOLS_RANDOM_MODEL_H
#define HYPURA_TOOLS_RANDOM_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "ggml.h"

/* Numbers as in the metadata of the architecture; 0 where it has none. */
typedef struct model_shape {
    const char *name;
    const char *arch; /* a row of the table in random_model.c */
    uint32_t n_layers;
    uint32_t n_embd;
    uint32_t n_heads;
    uint32_t n_heads_kv;
    uint32_t head_size;
    uint32_t n_ff; /* hidden units of a dense layer */
    uint32_t n_experts;
    uint32_t top_k;
    uint32_t n_ff_expert;
    uint32_t n_ff_shared;
    uint32_t n_dense_lead; /* first layers that are dense */
    uint32_t n_vocab;
    uint32_t n_context;
    float rope_base;
    bool tied;          /* the embedding is the output matrix, too */
    bool fused_gate_up; /* one expert tensor for gate and up */
} model_shape;

typedef struct random_model_options {
    enum ggml_type type; /* of every weight matrix but the routers */
    bool mixed;          /* about half of the matrices, by the seed, have other_type in its place */
    enum ggml_type other_type;
    uint64_t seed;
    uint32_t n_layers;      /* 0: the shape's */
    uint32_t n_parts;       /* files; 0 and 1: one, else PREFIX-0000N-of-0000M.gguf */
    const char *vocab_from; /* GGUF whose tokenizer to take; NULL: a vocabulary of bytes */
    bool no_vocab;          /* token ids only */
    bool words;             /* of a vocabulary of bytes: none of these and no end of a text is ever the likeliest token */
    bool quiet;             /* do not tell of types that did not fit */
    bool progress;
} random_model_options;

/* Writes out_path, or the parts that its name without .gguf is the prefix of.
 * Returns an exit code of mkmodel.h. */
int random_model_write(const model_shape *shape, const random_model_options *options, const char *out_path);

#endif
