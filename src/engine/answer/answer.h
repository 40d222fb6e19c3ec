/*
 * answer.h - what a model says as it comes: bytes of tokens in, whole characters out to the caller, thoughts apart from text.
 *
 *     tokens --> raw --(reply: llama.cpp's parser)--> thought --> on_thought
 *                                                 \-> text --(before a text that ends it)--> on_text
 *
 * Without a reply, where the model does not think or its answer has a grammar, raw is the text. One thread; the caller's
 * functions are called by it.
 */
#ifndef HYPURA_ENGINE_ANSWER_ANSWER_H
#define HYPURA_ENGINE_ANSWER_ANSWER_H

#include "base/buffer.h"
#include "engine/answer/text.h"
#include "engine/llama/chat_shim.h"
#include "hypura.h"

/* Initialise the first two, zero the rest; what is in text and thought is whoever takes it to free. */
typedef struct hypura_answer {
    const hypura_generate_options *options;
    hypura_shim_reply *reply; /* NULL: none. Somebody else's */
    hypura_text text;
    hypura_buffer thought;
    hypura_text raw; /* with a reply */
    size_t text_passed;
    size_t thought_passed;
    uint64_t passed_us; /* the caller's time */
    bool ended;         /* by a text that ends it */
    bool stopped;       /* by the caller */
} hypura_answer;

/* Whether this token is part of what is said, though it is no text. */
bool hypura_answer_shows(const hypura_answer *answer, llama_token token);

/* Says n bytes more, and passes on what can be. */
hypura_status hypura_answer_add(hypura_answer *answer, const char *piece, size_t n, hypura_error *error);
/* There is no more of it: text is a string then. Nothing is passed on. */
hypura_status hypura_answer_end(hypura_answer *answer, hypura_error *error);
/* Passes on what is left. */
void hypura_answer_pass(hypura_answer *answer);
/* Frees what nobody takes. */
void hypura_answer_close(hypura_answer *answer);

#endif
