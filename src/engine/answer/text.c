/*
 * text.c - see text.h. An ill-formed sequence is replaced up to the byte that breaks it.
 */
#include "engine/answer/text.h"

#include "base/utf8.h"

#include <string.h>

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
            int length = hypura_utf8_character(text->pending, text->n_pending);
            if (length == HYPURA_UTF8_INCOMPLETE) {
                break;
            }
            if (length == HYPURA_UTF8_BROKEN) {
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
