/*
 * candidates.h - which experts the next layer will probably select, from what its
 * router says of the hidden state as it is one layer earlier. A layer adds little to
 * the state, so three quarters to nine tenths of the guess come true; the two next in
 * line often are the ones that replace a wrong guess.
 */
#ifndef HYPURA_PREDICT_CANDIDATES_H
#define HYPURA_PREDICT_CANDIDATES_H

#include <stdbool.h>
#include <stdint.h>

#define HYPURA_MORE_CANDIDATES 2 /* than the router will select */

/* Scores of n_experts for each token, with what the router adds before it picks: to a
 * score, or to its sigmoid. */
void hypura_candidates_add_bias(float *scores, uint32_t n, const float *bias, uint32_t n_experts, bool on_probability);

/* The n largest scores' indices, the largest first. n <= n_scores. */
void hypura_candidates_pick(const float *scores, uint32_t n_scores, uint32_t *candidates, uint32_t n);

bool hypura_candidates_contain(const uint32_t *candidates, uint32_t n, uint32_t expert);

#endif
