/* quoted.h - JSON as tests write it. After cmocka.h. */
#ifndef QUOTED_H
#define QUOTED_H

#include <jansson.h>
#include <stdlib.h>
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
    json_error_t reason;
    json_t *value = json_loads(json, JSON_DECODE_ANY, &reason);
    if (!value) {
        fail_msg("%s: %s", text, reason.text);
    }
    return value;
}

/* Fails the test unless both are equal; got: NULL is nothing. */
static inline void quoted_expect(const json_t *got, const char *wanted)
{
    json_t *value = quoted_parse(wanted);
    if (!json_equal(got, value)) {
        char *text = got ? json_dumps(got, JSON_ENCODE_ANY) : NULL;
        print_error("got    %s\nwanted %s\n", text ? text : "nothing", wanted);
        free(text);
        fail();
    }
    json_decref(value);
}

#endif
