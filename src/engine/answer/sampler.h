/*
 * sampler.h - which token comes next: llama.cpp's samplers, as the options of an answer have them.
 *
 * Belongs to one answer. What always holds: after open nothing is allocated here.
 */
#ifndef HYPURA_ENGINE_ANSWER_SAMPLER_H
#define HYPURA_ENGINE_ANSWER_SAMPLER_H

#include "hypura.h"
#include "llama.h"

typedef struct hypura_sampler hypura_sampler;

/* HYPURA_ERR_USAGE where an option is out of range or contradicts another. */
hypura_status hypura_sampler_check(const hypura_generate_options *options, hypura_error *error);

/* tokens: the n before the answer, which count as said for the repeat penalty. HYPURA_ERR_USAGE: the grammar or schema
 * cannot be understood. */
hypura_status hypura_sampler_open(const struct llama_vocab *vocab, const hypura_generate_options *options,
                                  const llama_token *tokens, uint32_t n, hypura_sampler **sampler, hypura_error *error);
void hypura_sampler_close(hypura_sampler *sampler);

/* Of a row of the logits that the last decode left; -1: the last one. */
hypura_status hypura_sampler_next(hypura_sampler *sampler, struct llama_context *ctx, int32_t row, llama_token *token,
                                  hypura_error *error);

#endif
