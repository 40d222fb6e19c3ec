/* quoted.h - JSON as tests write it. After cmocka.h. */
#ifndef QUOTED_H
#define QUOTED_H

#include <jansson.h>
#include <string.h>

/* With ' for ". */
static inline json_t *quoted_parse(const char *text)
{
    char json[2048];
    const size_t n = strlen(text);
    assert_true(n < sizeof json);
    for (size_t i = 0; i <= n; i++) {
        json[i] = text[i] == '\'' ? '"' : text[i];
    }
    json_t *value = json_loads(json, 0, NULL);
    assert_non_null(value);
    return value;
}

#endif
