/*
 * text.h - the text of an answer as it grows: raw bytes of tokens in, whole UTF-8
 * characters out. A token may end in the middle of a character.
 */
#ifndef HYPURA_ENGINE_ANSWER_TEXT_H
#define HYPURA_ENGINE_ANSWER_TEXT_H

#include "base/buffer.h"

typedef struct hypura_text {
    hypura_buffer whole; /* valid UTF-8; whoever put text there takes it, or clears it */
    char pending[4];     /* beginning of a character not yet complete */
    size_t n_pending;
} hypura_text;

/* Appends n raw bytes. What is not UTF-8 becomes U+FFFD; the beginning of a
 * character at the end is held back. False when memory ran out; a part may have been
 * appended. */
bool hypura_text_put(hypura_text *text, const char *raw, size_t n);

/* Ends the text, which is a string then: a character left incomplete becomes U+FFFD. */
bool hypura_text_finish(hypura_text *text);

/* How much of the text may be passed on when `from` bytes of it were: up to the first of these texts after them, *found
 * is then true, else up to what may be the beginning of one. From the beginning of the text, and whole characters. */
size_t hypura_text_before(const hypura_text *text, size_t from, const char *const *stop, int n_stop, bool *found);

/* The text ends after so many bytes, a number that hypura_text_before returned. */
void hypura_text_cut(hypura_text *text, size_t bytes);

#endif
