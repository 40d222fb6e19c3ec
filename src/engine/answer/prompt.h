/*
 * prompt.h - what a model is to read: tokens, and among them what is shown, pictures and sound, which libmtmd makes of
 * files (see media.h).
 */
#ifndef HYPURA_ENGINE_ANSWER_PROMPT_H
#define HYPURA_ENGINE_ANSWER_PROMPT_H

#include "hypura.h"

#include "llama.h"
#include "mtmd.h"

/* A picture, a part of one, or a sound: it takes n_tokens of the context, and moves what follows by n_places, which may
 * be fewer where positions have several dimensions. */
typedef struct hypura_shown {
    uint32_t begin;
    uint32_t n_tokens;
    uint32_t n_places;
    char id[72]; /* of the file it was made of: equal ones are equal */
    const mtmd_input_chunk *chunk; /* of the prompt; NULL once it is in the context */
} hypura_shown;

/* Zero-initialise; clear frees. */
typedef struct hypura_prompt {
    llama_token *tokens; /* LLAMA_TOKEN_NULL where something is shown */
    uint32_t n;
    hypura_shown *shown; /* by begin */
    uint32_t n_shown;
    mtmd_input_chunks *chunks; /* NULL: text alone */
} hypura_prompt;

/* Text alone. Fails where there is none. */
hypura_status hypura_prompt_of_text(const struct llama_vocab *vocab, const char *text, hypura_prompt *prompt,
                                    hypura_error *error);
/* HYPURA_ERR_USAGE where the context cannot hold it. */
hypura_status hypura_prompt_check(const hypura_prompt *prompt, uint32_t n_context, hypura_error *error);
void hypura_prompt_clear(hypura_prompt *prompt);

#endif
