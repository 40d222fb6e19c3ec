/*
 * utf8.c - see utf8.h.
 */
#include "base/utf8.h"

int hypura_utf8_character(const char *text, size_t n)
{
    const unsigned char *p = (const unsigned char *)text;
    if (p[0] < 0x80) {
        return 1;
    }
    if (p[0] < 0xc2 || p[0] > 0xf4) {
        return HYPURA_UTF8_BROKEN;
    }
    const int length = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    /* The second byte rules out overlong forms, surrogates and what is above U+10FFFF. */
    unsigned low = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
    unsigned high = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;
    for (int i = 1; i < length; i++) {
        if ((size_t)i == n) {
            return HYPURA_UTF8_INCOMPLETE;
        }
        if (p[i] < low || p[i] > high) {
            return HYPURA_UTF8_BROKEN;
        }
        low = 0x80;
        high = 0xbf;
    }
    return length;
}
