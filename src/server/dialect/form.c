/*
 * form.c - see form.h.
 *
 *     --BOUNDARY          names in the header Content-Type
 *     Content-Disposition: form-data; name="model"
 *     (empty line)
 *     TEXT
 *     --BOUNDARY--
 */
#include "server/dialect/form.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define MAX_BOUNDARY 70 /* RFC 2046, 5.1.1 */

bool form_is_one(const char *content_type)
{
    static const char type[] = "multipart/form-data";
    return content_type && strncasecmp(content_type, type, sizeof type - 1) == 0;
}

/* The value after NAME= in a header, with or without quotes: how many bytes, and where. 0: it is not there. */
static size_t parameter_of(const char *header, size_t bytes, const char *name, const char **value)
{
    const size_t n = strlen(name);
    for (size_t i = 1; i + n < bytes; i++) {
        const bool begins = header[i - 1] == ' ' || header[i - 1] == ';';
        if (begins && strncasecmp(header + i, name, n) == 0 && header[i + n] == '=') {
            const bool quoted = i + n + 1 < bytes && header[i + n + 1] == '"';
            const size_t from = i + n + 1 + quoted;
            size_t to = from;
            while (to < bytes && (quoted ? header[to] != '"' : !strchr("; \r\n", header[to]))) {
                to++;
            }
            *value = header + from;
            return to - from;
        }
    }
    return 0;
}

/* "\r\n--BOUNDARY"; its length, 0: the header names none. */
static size_t delimiter_of(const char *content_type, char *delimiter)
{
    const char *boundary;
    const size_t n = parameter_of(content_type, strlen(content_type), "boundary", &boundary);
    if (n == 0 || n > MAX_BOUNDARY) {
        return 0;
    }
    return (size_t)snprintf(delimiter, MAX_BOUNDARY + 8, "\r\n--%.*s", (int)n, boundary);
}

static const char *find(const char *text, size_t bytes, const char *what, size_t n)
{
    while (bytes >= n) {
        const char *at = memchr(text, what[0], bytes - n + 1);
        if (!at) {
            return NULL;
        }
        if (memcmp(at, what, n) == 0) {
            return at;
        }
        bytes -= (size_t)(at + 1 - text);
        text = at + 1;
    }
    return NULL;
}

/* Whether the head of a part says that name. */
static bool has_name(const char *head, size_t bytes, const char *name)
{
    const char *said;
    const size_t n = parameter_of(head, bytes, "name", &said);
    return n == strlen(name) && memcmp(said, name, n) == 0;
}

char *form_field(const char *content_type, const char *body, size_t bytes, const char *name)
{
    char delimiter[MAX_BOUNDARY + 8];
    const size_t n = form_is_one(content_type) ? delimiter_of(content_type, delimiter) : 0;
    const char *end = body + bytes;
    if (n == 0 || bytes < n - 2 || memcmp(body, delimiter + 2, n - 2) != 0) { /* what may come before the first is no form's */
        return NULL;
    }
    for (const char *at = body + n - 2; at;) {
        const char *text = find(at, (size_t)(end - at), "\r\n\r\n", 4);
        const char *next = text ? find(text + 2, (size_t)(end - text) - 2, delimiter, n) : NULL;
        if (!next) {
            return NULL;
        }
        if (has_name(at, (size_t)(text - at), name)) {
            text += 4;
            return next >= text ? strndup(text, (size_t)(next - text)) : strdup("");
        }
        at = next + n;
    }
    return NULL;
}
