/*
 * json_weight.c - see json_weight.h.
 */
#include "server/http/json_weight.h"

#include <stdbool.h>

/* What jansson 2.14 asks malloc for, and what that adds, on 64 bits. */
enum { OBJECT_BYTES = 240, ARRAY_BYTES = 128, ITEM_BYTES = 48, KEY_BYTES = 64 };

static uint64_t weight_of(char c)
{
    switch (c) {
    case '{':
        return OBJECT_BYTES;
    case '[':
        return ARRAY_BYTES;
    case ',':
        return ITEM_BYTES;
    case ':':
        return KEY_BYTES;
    default:
        return 0;
    }
}

uint64_t json_weight(const char *text, size_t bytes)
{
    uint64_t sum = 0;
    bool in_string = false;
    bool escaped = false;
    for (size_t i = 0; i < bytes; i++) {
        const char c = text[i];
        if (escaped) {
            escaped = false;
        } else if (in_string && c == '\\') {
            escaped = true;
        } else if (c == '"') {
            in_string = !in_string;
        } else if (!in_string) {
            sum += weight_of(c);
        }
    }
    return sum;
}
