/*
 * given.c - see given.h.
 */
#include "server/dialect/given.h"

#include "server/dialect/text.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

size_t given_bytes(const json_t *given, const json_t *text)
{
    const size_t n = json_string_length(given);
    const size_t bytes = json_string_length(text);
    const char *begin = json_string_value(given);
    size_t space = 0;
    while (space < n && strchr(" \t\r\n", begin[space])) {
        space++;
    }
    if (n > 0 && bytes >= n && memcmp(json_string_value(text), begin, n) == 0) {
        return n;
    }
    const size_t rest = n - space; /* templates may leave out the space */
    return rest > 0 && bytes >= rest && memcmp(json_string_value(text), begin + space, rest) == 0 ? rest : 0;
}

json_t *given_skip(const json_t *given, const json_t *text)
{
    const size_t n = given_bytes(given, text);
    return n > 0 ? json_stringn(json_string_value(text) + n, json_string_length(text) - n)
                 : json_incref((json_t *)(uintptr_t)text);
}

static bool is_assistant(const json_t *message)
{
    return text_is(message, "role", "assistant");
}

/* Text is in parts as llama.cpp's server joins them. */
static void add_content(given_parts *given, const json_t *content)
{
    size_t i;
    const json_t *part;
    if (json_is_string(content)) {
        text_join(&given->text, "\n\n", content);
    }
    json_array_foreach(content, i, part)
    {
        if (text_is(part, "type", "thinking")) {
            text_join(&given->thought, "", json_object_get(part, "thinking"));
        } else {
            text_join(&given->text, "\n\n", json_object_get(part, "text"));
        }
    }
}

given_parts given_of_messages(const json_t *messages)
{
    given_parts given = {0};
    const size_t n = json_array_size(messages);
    const json_t *last = n > 0 ? json_array_get(messages, n - 1) : NULL;
    if (is_assistant(last)) {
        add_content(&given, json_object_get(last, "content"));
        text_join(&given.thought, "", json_object_get(last, "reasoning_content"));
        text_join(&given.thought, "", json_object_get(last, "thinking"));
    }
    return given;
}

given_parts given_of_input(const json_t *input)
{
    given_parts given = {0};
    const size_t n = json_array_size(input);
    size_t first = n;
    while (first > 0 && (is_assistant(json_array_get(input, first - 1)) ||
                         text_is(json_array_get(input, first - 1), "type", "reasoning"))) {
        first--;
    }
    for (size_t i = first; i < n; i++) {
        const json_t *item = json_array_get(input, i);
        if (is_assistant(item)) {
            add_content(&given, json_object_get(item, "content"));
        } else {
            text_join(&given.thought, "", json_object_get(json_array_get(json_object_get(item, "content"), 0), "text"));
        }
    }
    return given;
}

void given_clear(given_parts *given)
{
    json_decref(given->text);
    json_decref(given->thought);
    *given = (given_parts){0};
}
