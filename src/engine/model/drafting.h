/*
 * drafting.h - speculative decoding of one loaded model: tokens are guessed, and computed together with the one that is
 * certain. Owned by hypura_model.
 *
 *     read (each part of a prompt) --> begin --> (sample row --> next (token))* --> end
 *
 * `next` computes a token of the answer, and what may follow it, unless the token is the one that was guessed in its place:
 * then it was computed with those before it. What always holds: the conversation holds what was read and what `next` was
 * called with; after `end`, and after a failure of `next`, the context holds nothing else. After open nothing is
 * allocated here; llama.cpp's guessers make lists of a few tokens.
 */
#ifndef HYPURA_ENGINE_MODEL_DRAFTING_H
#define HYPURA_ENGINE_MODEL_DRAFTING_H

#include "hypura.h"
#include "llama.h"

typedef struct hypura_drafting hypura_drafting;

/* The draft model is loaded before the model: what is read later finds its memory taken. HYPURA_ERR_UNSUPPORTED where
 * the draft keeps a state that cannot be taken back token by token. */
hypura_status hypura_drafting_open(const hypura_speculation *speculation, uint32_t n_guessed, hypura_drafting **drafting,
                                   hypura_error *error);
/* The model's context exists. The same error, of the model. */
hypura_status hypura_drafting_attach(hypura_drafting *drafting, hypura_model *model, hypura_error *error);
/* Before the model. NULL is allowed. */
void hypura_drafting_close(hypura_drafting *drafting);

/* The draft model goes back to the first n tokens of the conversation. False where it must read all of them again: so
 * must the model. */
bool hypura_drafting_reuse(hypura_drafting *drafting, uint32_t n);
/* The model has computed n tokens, after the first `first` of the conversation. */
hypura_status hypura_drafting_read(hypura_drafting *drafting, const llama_token *tokens, uint32_t n, uint32_t first,
                                   hypura_error *error);
/* The whole prompt is read. */
hypura_status hypura_drafting_begin(hypura_drafting *drafting, hypura_error *error);
/* The row of logits that the next token is chosen from. */
int32_t hypura_drafting_row(const hypura_drafting *drafting);
/* token was chosen; n_more: as many may follow it. */
hypura_status hypura_drafting_next(hypura_drafting *drafting, llama_token token, uint32_t n_more, hypura_error *error);
void hypura_drafting_end(hypura_drafting *drafting);

/* Fills in what the answer took. */
void hypura_drafting_tell(const hypura_drafting *drafting, hypura_result *result);

#endif
