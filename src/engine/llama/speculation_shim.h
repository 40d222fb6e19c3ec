/*
 * speculation_shim.h - llama.cpp's own code for speculative decoding (common/speculative), behind C.
 *
 * A speculator belongs to one context and follows its one sequence:
 *
 *     begin (a prompt was read) --> guess --> (the model computes it) --> keep --> guess ...
 *
 * With a draft model everything that the context decodes is told to it as well (decoded), and both are cut back together
 * (cut). What always holds: no C++ exception leaves these functions.
 */
#ifndef HYPURA_ENGINE_LLAMA_SPECULATION_SHIM_H
#define HYPURA_ENGINE_LLAMA_SPECULATION_SHIM_H

#include "hypura.h"
#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Tokens guessed at once at most; 0 where a name is unknown. */
uint32_t hypura_shim_speculation_max(const hypura_speculation *options);

/* Memory of the speculators themselves, for n_sequences. */
uint64_t hypura_shim_speculation_bytes(const hypura_speculation *options);

/* As --spec-... options of llama.cpp's server: calls add for each with its value. */
typedef void (*hypura_shim_word_fn)(void *user, const char *option, const char *value);
void hypura_shim_speculation_words(const hypura_speculation *options, hypura_shim_word_fn add, void *user);

/* Whether tokens of one mean the same to the other. */
bool hypura_shim_same_vocabulary(const struct llama_model *model, const struct llama_model *draft);

typedef struct hypura_shim_speculator hypura_shim_speculator;

/* draft: the draft model's context, NULL without one. NULL with error filled when llama.cpp refuses. */
hypura_shim_speculator *hypura_shim_speculator_open(const hypura_speculation *options, struct llama_context *ctx,
                                                    struct llama_context *draft, char *error, size_t error_bytes);
void hypura_shim_speculator_close(hypura_shim_speculator *speculator);

/* These n tokens were decoded, from position first on. False when the draft model failed. */
bool hypura_shim_speculator_decoded(hypura_shim_speculator *speculator, const llama_token *tokens, uint32_t n,
                                    uint32_t first);
/* The context holds these n tokens, and an answer begins. */
bool hypura_shim_speculator_begin(hypura_shim_speculator *speculator, const llama_token *tokens, uint32_t n);
/* Guesses what follows token, which follows what is held; n_most > 0. Returns how many, 0 where nothing is guessed. */
uint32_t hypura_shim_speculator_guess(hypura_shim_speculator *speculator, llama_token token, uint32_t n_most,
                                      llama_token *guessed);
/* n more tokens are held now, of which the last n_accepted were guessed; n_guessed: so many were. */
void hypura_shim_speculator_keep(hypura_shim_speculator *speculator, const llama_token *tokens, uint32_t n,
                                 uint32_t n_guessed);
/* The draft model forgets what lies at positions from n on. False when it cannot: it then holds nothing. */
bool hypura_shim_speculator_cut(hypura_shim_speculator *speculator, uint32_t n);

#ifdef __cplusplus
}
#endif

#endif
