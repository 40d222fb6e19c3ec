/*
 * sse.h - a stream of server-sent events, cut into events as its bytes come in.
 */
#ifndef HYPURA_SERVER_DIALECT_SSE_H
#define HYPURA_SERVER_DIALECT_SSE_H

#include "base/buffer.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct sse_reader {
    hypura_buffer line;  /* not yet ended */
    unsigned n_comments; /* lines that say nothing but that the server is there */
} sse_reader;

/* Called with the text after "data: " of each line, terminated. false stops. */
typedef bool (*sse_event_fn)(void *user, const char *data, size_t bytes);

/* Takes the next bytes, cut anywhere. False when on_event stopped it or memory ran out. */
bool sse_feed(sse_reader *reader, const char *data, size_t bytes, sse_event_fn on_event, void *user);
void sse_clear(sse_reader *reader);

#endif
