/*
 * refusal.h - errors of llama.cpp's server, and whose fault they are.
 *
 * It answers 500 to some requests that it cannot understand, where nothing has failed: those are 400. The pinned
 * release tells them by their messages alone (release b11434: common/chat.cpp, tools/server/server-common.cpp,
 * server-chat.cpp).
 */
#ifndef HYPURA_SERVER_REFUSAL_H
#define HYPURA_SERVER_REFUSAL_H

#include <stddef.h>

/* What an error of the engine says, up to this size. */
#define REFUSAL_MAX_BYTES (64 * 1024)

/* A body {"error":{"message":..}} of the engine and its status: the message goes to `message`, "" when there is none.
 * Returns the status that belongs to it. */
int refusal_read(int code, const char *body, size_t bytes, char *message, size_t capacity);

#endif
