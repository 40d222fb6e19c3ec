/*
 * chat_shim.h - llama.cpp's own code for chat templates, and for reading what a model answers to them (common/chat), behind C.
 *
 * A model that thinks says so in a form of its own: between <think> and </think>, on a channel, with its first word in the
 * prompt already. llama.cpp makes a parser of the template that takes an answer apart; a reply is such a parser with the
 * answer read so far. What always holds: no C++ exception leaves these functions.
 */
#ifndef HYPURA_ENGINE_LLAMA_CHAT_SHIM_H
#define HYPURA_ENGINE_LLAMA_CHAT_SHIM_H

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hypura_shim_chat hypura_shim_chat;
typedef struct hypura_shim_reply hypura_shim_reply;

typedef struct hypura_shim_message {
    const char *role;
    const char *text;
    const char *thought; /* of an answer; NULL: none */
} hypura_shim_message;

/* text, in Jinja, or where that is NULL the template of the model. NULL when it has
 * none (error stays empty) or when it does not parse (error tells). */
hypura_shim_chat *hypura_shim_chat_open(const struct llama_model *model, const char *text, char *error,
                                        size_t error_bytes);
void hypura_shim_chat_close(hypura_shim_chat *chat);

/* Renders n messages, then the opening of the assistant's answer: thinking, if it can, as far as think says; effort is what
 * some templates call reasoning_effort ("low"), NULL: their own. Returns text to be freed with free(), or NULL with error
 * filled. *reply reads the answer, NULL where the template knows no thoughts, and is to be closed in either case; reply itself
 * may be NULL. */
char *hypura_shim_chat_apply(const hypura_shim_chat *chat, const hypura_shim_message *messages, size_t n, bool think,
                             const char *effort, hypura_shim_reply **reply, char *error, size_t error_bytes);

/* ---- what was answered ---------------------------------------------------- */

/* Both texts are strings, and the reply's until the next read of it. */
typedef struct hypura_shim_parts {
    const char *thought;
    size_t thought_bytes;
    const char *text;
    size_t text_bytes;
} hypura_shim_parts;

/* Whether the answer has to have this token, of those that are no text otherwise: it tells the parts from each other. */
bool hypura_shim_reply_shows(const hypura_shim_reply *reply, llama_token token);
/* Reads the answer from its beginning; whole: there is no more of it. What the parser cannot make out is text. False: out of
 * memory. Takes time in proportion to the answer: 30 us for 10 KB, 0.3 ms for 60, where it was measured. */
bool hypura_shim_reply_read(hypura_shim_reply *reply, const char *answer, size_t bytes, bool whole, hypura_shim_parts *parts);
void hypura_shim_reply_close(hypura_shim_reply *reply);

#ifdef __cplusplus
}
#endif

#endif
