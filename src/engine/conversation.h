/*
 * conversation.h - the messages of a chat, and which tokens the context holds.
 */
#ifndef HYPURA_ENGINE_CONVERSATION_H
#define HYPURA_ENGINE_CONVERSATION_H

#include "engine/llama_shim.h"
#include "hypura.h"

typedef struct hypura_conversation hypura_conversation;

/* n_context: tokens that the context can hold. */
hypura_status hypura_conversation_open(const struct llama_model *model, struct llama_context *ctx, uint32_t n_context,
                                       hypura_conversation **conversation, hypura_error *error);
void hypura_conversation_close(hypura_conversation *conversation);

/* Forgets the messages and empties the context. */
void hypura_conversation_clear(hypura_conversation *conversation);

/* ---- messages ----------------------------------------------------------- */

/* A template in Jinja in place of the model's own; NULL: the model's. Before the first render. */
hypura_status hypura_conversation_choose_template(hypura_conversation *conversation, const char *text,
                                                  hypura_error *error);
size_t hypura_conversation_messages(const hypura_conversation *conversation);

/* Adds a message (its text is copied) and takes the last one back. */
hypura_status hypura_conversation_push(hypura_conversation *conversation, const char *role, const char *text,
                                       hypura_error *error);
void hypura_conversation_pop(hypura_conversation *conversation);

/* Renders all messages with the model's template, ready for the assistant's
 * answer. Free the text with free(). Fails when the model has no template. */
hypura_status hypura_conversation_render(hypura_conversation *conversation, char **text, hypura_error *error);

/* ---- the context's contents --------------------------------------------- */

/* Keeps the longest beginning of tokens that the context already holds and that
 * it can go back to, drops the rest, and returns its length; always less than n. */
uint32_t hypura_conversation_reuse(hypura_conversation *conversation, const llama_token *tokens, uint32_t n);

/* n more tokens were decoded. */
void hypura_conversation_extend(hypura_conversation *conversation, const llama_token *tokens, uint32_t n);

/* How many tokens the context holds, and which. */
uint32_t hypura_conversation_length(const hypura_conversation *conversation);
const llama_token *hypura_conversation_tokens(const hypura_conversation *conversation);

/* Decoding failed: what the context holds is unknown, so it is emptied. */
void hypura_conversation_empty(hypura_conversation *conversation);

#endif
