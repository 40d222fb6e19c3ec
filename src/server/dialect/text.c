/*
 * text.c - see text.h.
 */
#include "server/dialect/text.h"

#include <stdint.h>
#include <string.h>

bool text_is(const json_t *object, const char *key, const char *text)
{
    const char *own = json_string_value(json_object_get(object, key));
    return own && strcmp(own, text) == 0;
}

void text_join(json_t **joined, const char *between, const json_t *more)
{
    if (json_string_length(more) == 0) {
        return;
    }
    json_t *both = *joined ? json_sprintf("%s%s%s", json_string_value(*joined), between, json_string_value(more))
                           : json_incref((json_t *)(uintptr_t)more);
    json_decref(*joined);
    *joined = both;
}
