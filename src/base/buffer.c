/*
 * buffer.c - see buffer.h.
 */
#include "base/buffer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BYTES ((size_t)512)

bool hypura_buffer_add(hypura_buffer *buffer, const void *data, size_t bytes)
{
    if (bytes > SIZE_MAX / 2 - buffer->bytes - 1) {
        return false;
    }
    const size_t needed = buffer->bytes + bytes + 1;
    if (needed > buffer->capacity) {
        size_t capacity = buffer->capacity > 0 ? buffer->capacity : FIRST_BYTES;
        while (capacity < needed) {
            capacity *= 2;
        }
        char *larger = realloc(buffer->data, capacity);
        if (!larger) {
            return false;
        }
        buffer->data = larger;
        buffer->capacity = capacity;
    }
    if (bytes > 0) {
        memcpy(buffer->data + buffer->bytes, data, bytes);
    }
    buffer->bytes += bytes;
    buffer->data[buffer->bytes] = '\0';
    return true;
}

void hypura_buffer_drop(hypura_buffer *buffer, size_t bytes)
{
    if (bytes > 0) {
        buffer->bytes -= bytes;
        memmove(buffer->data, buffer->data + bytes, buffer->bytes + 1);
    }
}

const char *hypura_buffer_text(const hypura_buffer *buffer)
{
    return buffer->data ? buffer->data : "";
}

void hypura_buffer_clear(hypura_buffer *buffer)
{
    free(buffer->data);
    *buffer = (hypura_buffer){0};
}
