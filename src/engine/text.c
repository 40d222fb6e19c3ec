/*
 * text.c - see text.h. Well-formed sequences are those of table 3-7 of the
 * Unicode Standard; an ill-formed one is replaced up to the byte that breaks it.
 */
#include "engine/text.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    BROKEN = 0,
    INCOMPLETE = -1,
};

/* Length of the character that n bytes at p begin with, BROKEN or INCOMPLETE. */
static int character(const unsigned char *p, size_t n)
{
    if (p[0] < 0x80) {
        return 1;
    }
    int length = 0;
    unsigned char low = 0x80;
    unsigned char high = 0xBF;
    if (p[0] >= 0xC2 && p[0] <= 0xDF) {
        length = 2;
    } else if (p[0] >= 0xE0 && p[0] <= 0xEF) {
        length = 3;
        low = p[0] == 0xE0 ? 0xA0 : 0x80;
        high = p[0] == 0xED ? 0x9F : 0xBF;
    } else if (p[0] >= 0xF0 && p[0] <= 0xF4) {
        length = 4;
        low = p[0] == 0xF0 ? 0x90 : 0x80;
        high = p[0] == 0xF4 ? 0x8F : 0xBF;
    } else {
        return BROKEN;
    }
    for (int i = 1; i < length; i++) {
        if ((size_t)i == n) {
            return INCOMPLETE;
        }
        if (p[i] < low || p[i] > high) {
            return BROKEN;
        }
        low = 0x80;
        high = 0xBF;
    }
    return length;
}

static bool reserve(hypura_text *text, size_t more)
{
    if (more > SIZE_MAX / 2 - text->bytes) {
        return false;
    }
    size_t needed = text->bytes + more + 1;
    if (needed <= text->capacity) {
        return true;
    }
    size_t capacity = text->capacity > 0 ? text->capacity : 1024;
    while (capacity < needed) {
        capacity *= 2;
    }
    char *data = realloc(text->data, capacity);
    if (!data) {
        return false;
    }
    text->data = data;
    text->capacity = capacity;
    return true;
}

static void append(hypura_text *text, const void *bytes, size_t n)
{
    memcpy(text->data + text->bytes, bytes, n);
    text->bytes += n;
    text->data[text->bytes] = '\0';
}

bool hypura_text_put(hypura_text *text, const char *raw, size_t n)
{
    /* Each byte may become the three of U+FFFD. */
    if (n > SIZE_MAX / 8 || !reserve(text, 3 * (n + sizeof(text->pending)))) {
        return false;
    }
    text->data[text->bytes] = '\0';
    for (size_t i = 0; i < n; i++) {
        text->pending[text->n_pending++] = raw[i];
        while (text->n_pending > 0) {
            int length = character((const unsigned char *)text->pending, text->n_pending);
            if (length == INCOMPLETE) {
                break;
            }
            if (length == BROKEN) {
                /* Only the last byte can have broken it, unless it stands alone. */
                size_t broken = text->n_pending > 1 ? text->n_pending - 1 : 1;
                append(text, "\xEF\xBF\xBD", 3);
                text->n_pending -= broken;
                memmove(text->pending, text->pending + broken, text->n_pending);
            } else {
                append(text, text->pending, (size_t)length);
                text->n_pending = 0;
            }
        }
    }
    return true;
}

bool hypura_text_finish(hypura_text *text)
{
    if (!reserve(text, 3)) {
        return false;
    }
    text->data[text->bytes] = '\0';
    if (text->n_pending > 0) {
        append(text, "\xEF\xBF\xBD", 3);
        text->n_pending = 0;
    }
    return true;
}

void hypura_text_clear(hypura_text *text)
{
    free(text->data);
    memset(text, 0, sizeof(*text));
}
