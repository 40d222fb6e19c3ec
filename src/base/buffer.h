/*
 * buffer.h - bytes that come in pieces, together. What is there is always followed by a 0 that does not count, so that
 * text is a string.
 *
 * A zeroed one is empty and holds no memory; one thread at a time.
 */
#ifndef HYPURA_BASE_BUFFER_H
#define HYPURA_BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct hypura_buffer {
    char *data; /* NULL as long as nothing was added */
    size_t bytes;
    size_t capacity;
} hypura_buffer;

/* False, and nothing is changed, when memory is short. data may be NULL when bytes is 0. */
bool hypura_buffer_add(hypura_buffer *buffer, const void *data, size_t bytes);
/* Takes the first bytes away. */
void hypura_buffer_drop(hypura_buffer *buffer, size_t bytes);
/* "" when nothing was added. */
const char *hypura_buffer_text(const hypura_buffer *buffer);
/* Frees its memory; it is zeroed again. */
void hypura_buffer_clear(hypura_buffer *buffer);

#endif
