/*
 * replay.h - the same tokens through two models, every output compared by its bits.
 *
 * A script is a prompt and the tokens that follow it. The first model writes the
 * script: it picks each next token greedily, and all its outputs are kept. Other
 * models follow the script, whatever they would have picked.
 */
#ifndef HYPURA_ENGINE_MEASURE_REPLAY_H
#define HYPURA_ENGINE_MEASURE_REPLAY_H

#include "engine/model/model.h"

typedef struct hypura_script {
    uint32_t n_prompt;
    uint32_t n_steps;    /* tokens decoded after the prompt; 0 for a model without memory */
    llama_token *tokens; /* prompt, then steps */
    uint32_t n_rows;     /* outputs: one row for each token */
    uint32_t n_filled;
    size_t row_floats; /* of the longest kind of row */
    float *rows;       /* what the first model put out, */
    uint64_t *hashes;  /* or a hash of each row where that would be too much */
} hypura_script;

/* Makes a prompt of n_prompt pseudo-random tokens of the model's vocabulary, the
 * same on every machine, plays it and keeps the outputs. budget_bytes is what may
 * still be spent on rows and is reduced; rows beyond it are kept as hashes. */
hypura_status hypura_script_write(hypura_model *model, uint32_t n_prompt, uint32_t n_steps, uint64_t *budget_bytes,
                                  hypura_script *script, hypura_error *error);

typedef struct hypura_difference {
    uint64_t differing; /* floats whose bits differ; where only a hash is kept, all of a differing row */
    double   largest;   /* of all differences; NAN where a hash differed */
} hypura_difference;

/* Plays the script and compares. */
hypura_status hypura_script_compare(hypura_model *model, const hypura_script *script, hypura_difference *difference,
                                    hypura_error *error);
/* The same, for the number of those that differ alone. */
hypura_status hypura_script_follow(hypura_model *model, const hypura_script *script, uint64_t *differing,
                                   hypura_error *error);

void hypura_script_clear(hypura_script *script);

/* Fills tokens with the pseudo-random ones that every prompt here consists of. */
void hypura_replay_fill(llama_token *tokens, uint32_t n, size_t n_vocab);

/* True when a prompt cannot be cut: every token sees every other. */
bool hypura_replay_needs_whole_prompt(const hypura_model *model);

#endif
