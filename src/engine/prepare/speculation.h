/*
 * speculation.h - what speculative decoding takes, before it runs: which guessers are wanted, whether the draft model fits
 * the model, and its memory. Running it is drafting.h's, or llama.cpp's server's.
 */
#ifndef HYPURA_ENGINE_PREPARE_SPECULATION_H
#define HYPURA_ENGINE_PREPARE_SPECULATION_H

#include "engine/llama/load.h"

/* Whether anything is to guess. */
bool hypura_speculation_wanted(const hypura_speculation *speculation);

/* The options alone; path: the model's. HYPURA_ERR_USAGE. */
hypura_status hypura_speculation_check(const hypura_speculation *speculation, const char *path, hypura_error *error);

typedef struct hypura_speculation_needs {
    uint32_t n_most;      /* tokens guessed at once: a pass has rows of logits for one more, for each sequence */
    uint64_t bytes;       /* of memory, everything */
    uint64_t draft_bytes; /* of these, the draft model's */
} hypura_speculation_needs;

/* Reads the header of the draft model and both vocabularies. context: the model's, whose sizes the draft's has too.
 * HYPURA_ERR_UNSUPPORTED where the draft does not fit the model. Takes the load lock. */
hypura_status hypura_speculation_plan(const hypura_speculation *speculation, const hypura_map *map,
                                      const hypura_context_options *context, hypura_speculation_needs *needs,
                                      hypura_error *error);

/* The draft model, whole in memory, on the CPU, in its fastest form. With the load lock held, and Hypura's device not
 * attached. */
hypura_status hypura_speculation_load(const char *path, struct llama_model **draft, hypura_error *error);

#endif
