/*
 * utf8.h - characters of UTF-8, well-formed as in table 3-7 of the Unicode Standard.
 */
#ifndef HYPURA_BASE_UTF8_H
#define HYPURA_BASE_UTF8_H

#include <stddef.h>

enum {
    HYPURA_UTF8_BROKEN = 0,
    HYPURA_UTF8_INCOMPLETE = -1, /* so far it may be one */
};

/* Length of the character that the n bytes at text, one at least, begin with; or one of the above. */
int hypura_utf8_character(const char *text, size_t n);

#endif
