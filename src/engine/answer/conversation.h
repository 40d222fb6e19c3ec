/*
 * conversation.h - the messages of a chat, and which tokens the context holds.
 */
#ifndef HYPURA_ENGINE_ANSWER_CONVERSATION_H
#define HYPURA_ENGINE_ANSWER_CONVERSATION_H

#include "engine/answer/media.h"
#include "engine/llama/chat_shim.h"

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

/* Adds a message (all of it is copied; role is a literal) and takes the last one back. */
hypura_status hypura_conversation_push(hypura_conversation *conversation, const hypura_message *said,
                                       hypura_error *error);
void hypura_conversation_pop(hypura_conversation *conversation);

/* Adds the prompt of options, and before it what begins a conversation where this is the first one. */
hypura_status hypura_conversation_ask(hypura_conversation *conversation, const hypura_generate_options *options,
                                      hypura_error *error);

/* Fails when the model has no template, or when it cannot be used. */
hypura_status hypura_conversation_open_template(hypura_conversation *conversation, hypura_error *error);
/* Renders all messages with the template, ready for the assistant's answer, which thinks or does not, as tokens; of a raw
 * prompt, that alone. media: NULL where nothing can be shown. */
hypura_status hypura_conversation_prompt(hypura_conversation *conversation, const hypura_generate_options *options,
                                         const hypura_media *media, hypura_prompt *prompt, hypura_error *error);

/* That reads the answer to what was rendered last, until the next render; NULL: it is text as it is. */
hypura_shim_reply *hypura_conversation_reply(hypura_conversation *conversation);

/* ---- the context's contents --------------------------------------------- */

/* Keeps the longest beginning of the prompt that the context already holds and that
 * it can go back to, drops the rest, and returns its tokens; always less than all. */
uint32_t hypura_conversation_reuse(hypura_conversation *conversation, const hypura_prompt *prompt);

/* n more tokens were decoded. */
void hypura_conversation_extend(hypura_conversation *conversation, const llama_token *tokens, uint32_t n);
/* What is shown there was decoded. Room for it is made before: false when memory is short. */
bool hypura_conversation_make_room(hypura_conversation *conversation, const hypura_prompt *prompt);
void hypura_conversation_show(hypura_conversation *conversation, const hypura_shown *shown);

/* The position of the next token; -1 where it is the number of those there are. */
llama_pos hypura_conversation_next_place(const hypura_conversation *conversation);

/* How many tokens the context holds, and which. */
uint32_t hypura_conversation_length(const hypura_conversation *conversation);
const llama_token *hypura_conversation_tokens(const hypura_conversation *conversation);

/* What the context holds beyond these tokens goes; all does where that cannot be. */
void hypura_conversation_forget_rest(hypura_conversation *conversation);

/* Decoding failed: what the context holds is unknown, so it is emptied. */
void hypura_conversation_empty(hypura_conversation *conversation);

#endif
