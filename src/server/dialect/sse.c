/*
 * sse.c - see sse.h. llama.cpp's server sends each event as one data line, so lines are what matters here; comments
 * are counted and other fields passed over.
 */
#include "server/dialect/sse.h"

#include <string.h>

static bool end_line(sse_reader *reader, sse_event_fn on_event, void *user)
{
    static const char field[] = "data:";
    const size_t n_field = sizeof(field) - 1;
    size_t bytes = reader->line.bytes;
    char *line = reader->line.data;
    reader->line.bytes = 0;
    if (bytes > 0 && line[bytes - 1] == '\r') {
        line[--bytes] = '\0';
    }
    reader->n_comments += bytes > 0 && line[0] == ':';
    if (bytes < n_field || memcmp(line, field, n_field) != 0) {
        return true;
    }
    const char *data = line + n_field;
    data += *data == ' ';
    return on_event(user, data, bytes - (size_t)(data - line));
}

bool sse_feed(sse_reader *reader, const char *data, size_t bytes, sse_event_fn on_event, void *user)
{
    while (bytes > 0) {
        const char *end = memchr(data, '\n', bytes);
        const size_t n = end ? (size_t)(end - data) : bytes;
        if (!hypura_buffer_add(&reader->line, data, n) || (end && !end_line(reader, on_event, user))) {
            return false;
        }
        const size_t taken = n + (end != NULL);
        data += taken;
        bytes -= taken;
    }
    return true;
}

void sse_clear(sse_reader *reader)
{
    hypura_buffer_clear(&reader->line);
}
