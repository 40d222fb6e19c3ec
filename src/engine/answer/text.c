/*
 * text.c - see text.h. Well-formed sequences are those of table 3-7 of the
 * Unicode Standard; an ill-formed one is replaced up to the byte that breaks it.
 */
#include "engine/answer/text.h"

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

static bool replace(hypura_text *text)
{
    return hypura_buffer_add(&text->whole, "\xEF\xBF\xBD", 3);
}

bool hypura_text_put(hypura_text *text, const char *raw, size_t n)
{
    bool fits = true;
    for (size_t i = 0; i < n && fits; i++) {
        text->pending[text->n_pending++] = raw[i];
        while (text->n_pending > 0 && fits) {
            int length = character((const unsigned char *)text->pending, text->n_pending);
            if (length == INCOMPLETE) {
                break;
            }
            if (length == BROKEN) {
                /* Only the last byte can have broken it, unless it stands alone. */
                size_t broken = text->n_pending > 1 ? text->n_pending - 1 : 1;
                fits = replace(text);
                text->n_pending -= broken;
                memmove(text->pending, text->pending + broken, text->n_pending);
            } else {
                fits = hypura_buffer_add(&text->whole, text->pending, (size_t)length);
                text->n_pending = 0;
            }
        }
    }
    return fits;
}

bool hypura_text_finish(hypura_text *text)
{
    const bool incomplete = text->n_pending > 0;
    text->n_pending = 0;
    return incomplete ? replace(text) : hypura_buffer_add(&text->whole, NULL, 0);
}

/* Bytes that the end of this text has in common with the beginning of `word`. */
static size_t overlap(const char *text, size_t bytes, const char *word)
{
    size_t n = strlen(word);
    n = n < bytes ? n : bytes;
    while (n > 0 && memcmp(text + bytes - n, word, n) != 0) {
        n--;
    }
    return n;
}

size_t hypura_text_before(const hypura_text *text, size_t from, const char *const *stop, int n_stop, bool *found)
{
    const char *rest = hypura_buffer_text(&text->whole) + from;
    const size_t bytes = text->whole.bytes - from;
    size_t first = bytes;
    size_t held = 0;
    for (int i = 0; i < n_stop; i++) {
        const char *at = strstr(rest, stop[i]);
        const size_t n = overlap(rest, bytes, stop[i]);
        first = at && (size_t)(at - rest) < first ? (size_t)(at - rest) : first;
        held = n > held ? n : held;
    }
    *found = first < bytes;
    /* A text of the model has no character in part, but the words to look for may. */
    size_t before = *found ? first : bytes - held;
    while (before > 0 && ((unsigned char)rest[before] & 0xC0) == 0x80) {
        before--;
    }
    return from + before;
}

void hypura_text_cut(hypura_text *text, size_t bytes)
{
    text->whole.bytes = bytes;
    text->whole.data[bytes] = '\0';
    text->n_pending = 0;
}
