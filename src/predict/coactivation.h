/*
 * coactivation.h - which experts a layer will probably select, from what the two layers
 * before it selected for the same token. For models whose routers cannot be asked ahead,
 * or are asked in vain. Pure: owned by the pager, told every selection.
 *
 * How often an expert followed each expert of the layer before, and of the one before
 * that, is counted over all tokens, those of prompts too. Experts selected together say
 * partly the same, so their lifts (how much likelier than usual an expert is behind one)
 * enter as a mean of logarithms, beside the odds that recency and frequency alone give
 * (cache/history.h): a naive Bayes classifier with weights. The weights were fitted on two
 * recorded routes, see docs/notes/0012.
 *
 * What always holds:
 *  1. After open nothing is allocated.
 *  2. Layers are told in the order in which a batch passes them; where a batch has other
 *     tokens than in the layer before, nothing is learned of that pair.
 */
#ifndef HYPURA_PREDICT_COACTIVATION_H
#define HYPURA_PREDICT_COACTIVATION_H

#include <stdbool.h>
#include <stdint.h>

#define HYPURA_COACTIVATION_LAYERS 2     /* before a layer, that are looked at */
#define HYPURA_COACTIVATION_TOKENS 512   /* of a batch, its last ones, that are learned from */
#define HYPURA_COACTIVATION_LEAST  -1.39 /* log odds that are worth a read: a chance of a fifth */

typedef struct hypura_coactivation hypura_coactivation;

/* What it takes for so many layers; n_experts of each, n_used at most for a token. */
uint64_t hypura_coactivation_bytes(uint32_t n_layers, const uint32_t *n_experts, uint32_t n_used);

/* NULL when memory is short. */
hypura_coactivation *hypura_coactivation_open(uint32_t n_layers, const uint32_t *n_experts, uint32_t n_used);
void                 hypura_coactivation_close(hypura_coactivation *seen);

/* What a layer selected: ids, n_used for each of n_tokens, strides in bytes. */
typedef struct hypura_selected {
    uint32_t    n_used;
    uint32_t    n_tokens;
    const char *ids; /* int32_t, below n_experts of the layer */
    uint64_t    rank_stride_bytes;
    uint64_t    token_stride_bytes;
} hypura_selected;

/* Learns from it. A layer told again before another one came is told for nothing. */
void hypura_coactivation_note(hypura_coactivation *seen, uint32_t layer, const hypura_selected *selected);

/* Whether the layers before were told, for a batch of which all tokens are kept, so that `layer` can be guessed. */
bool hypura_coactivation_knows(const hypura_coactivation *seen, uint32_t layer);

/* Log odds that the layer selects each of its experts for that token, or for any token of
 * the batch. chances and frequencies: of each, by its own past alone, as in cache/cache.h. */
void hypura_coactivation_score(const hypura_coactivation *seen, uint32_t layer, const float *chances,
                               const float *frequencies, float *scores);

#endif
