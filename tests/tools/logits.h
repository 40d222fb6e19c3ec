/*
 * logits.h - what plain libllama computes with a model.
 */
#ifndef HYPURA_TESTS_TOOLS_LOGITS_H
#define HYPURA_TESTS_TOOLS_LOGITS_H

/* Loads the model, decodes a fixed prompt and a few tokens that follow from it, and
 * returns the logits of every step, n_vocab apart; freed by the caller. NULL when
 * the model cannot be loaded or computed. The tokens are a fixed sequence, so that
 * models of the same vocabulary can be compared. */
float *model_logits(const char *path, int *n_vocab, int *n_steps);

#endif
