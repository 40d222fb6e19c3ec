/*
 * refusal.h - errors of llama.cpp's server, and whose fault they are.
 *
 * It answers 500 to some requests that it cannot understand, and 501 to what the model cannot do, such as an infill without
 * its tokens. Nothing has failed there: those are 400. The pinned release tells the former by their messages alone
 * (release b11434: common/chat.cpp, tools/server/server-common.cpp, server-chat.cpp).
 */
#ifndef HYPURA_SERVER_DIALECT_REFUSAL_H
#define HYPURA_SERVER_DIALECT_REFUSAL_H

#include "base/buffer.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* A piece of the body of such an error; of one that is longer than any, the rest is dropped. */
void refusal_add(hypura_buffer *refusal, const char *data, size_t bytes);

/* A body {"error":{"message":..}} of the engine and its status: the message goes to `message`, "" when there is none.
 * Returns the status that belongs to it. */
int refusal_read(int code, const hypura_buffer *refusal, char *message, size_t capacity);

/* Whether it was refused as longer than the context; in tokens. */
bool refusal_is_too_long(const hypura_buffer *refusal, int64_t *n_prompt, int64_t *n_context);

/* Of such a refusal the same body, with OpenAI's code for it in place of the status, which it repeats. The caller's; NULL
 * without memory. */
json_t *refusal_too_long(const hypura_buffer *refusal);

#endif
