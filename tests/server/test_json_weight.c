/* What JSON is said to weigh is what it takes. */
#include "server/http/json_weight.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static size_t taken;

/* Before each piece, how long it is; malloc itself takes as much, in steps of 16. */
enum { HEAD_BYTES = 16 };

static size_t in_steps(size_t bytes)
{
    return (bytes + sizeof(size_t) + 15) / 16 * 16;
}

static void *count_malloc(size_t bytes)
{
    char *memory = malloc(HEAD_BYTES + bytes);
    if (!memory) {
        return NULL;
    }
    memcpy(memory, &bytes, sizeof bytes);
    taken += in_steps(bytes);
    return memory + HEAD_BYTES;
}

static void count_free(void *memory)
{
    size_t bytes;
    if (memory) {
        memcpy(&bytes, (char *)memory - HEAD_BYTES, sizeof bytes);
        taken -= in_steps(bytes);
        free((char *)memory - HEAD_BYTES);
    }
}

/* "[", n times the item, "]". */
static char *repeat(const char *item, size_t n)
{
    const size_t bytes = strlen(item);
    char *text = malloc(n * (bytes + 1) + 2);
    assert_non_null(text);
    char *at = text;
    *at++ = '[';
    for (size_t i = 0; i < n; i++) {
        memcpy(at, item, bytes);
        at += bytes;
        *at++ = i + 1 < n ? ',' : ']';
    }
    *at = '\0';
    return text;
}

static void check(const char *item)
{
    char *text = repeat(item, 20000);
    const uint64_t told = json_weight(text, strlen(text));
    taken = 0;
    json_t *value = json_loads(text, 0, NULL);
    assert_non_null(value);
    if (told * 2 < taken || told > taken * 2) {
        fail_msg("%s: %zu bytes are taken, %llu were told", item, taken, (unsigned long long)told);
    }
    json_decref(value);
    free(text);
}

static void it_is_what_jansson_takes(void **state)
{
    (void)state;
    json_set_alloc_funcs(count_malloc, count_free);
    check("{}");
    check("[]");
    check("1");
    check("[[1,2,3],[4,5,6]]");
    check("{\"a\":1}");
    check("{\"a\":1,\"b\":{\"c\":2}}");
    check("{\"role\":\"user\",\"content\":\"hi\"}");
    json_set_alloc_funcs(malloc, free);
}

static void what_is_in_strings_does_not_count(void **state)
{
    static const char text[] = "\"[{,:\\\"[{,:\\\\\"";
    (void)state;
    assert_int_equal(json_weight(text, sizeof text - 1), 0);
    assert_true(json_weight("\"\\\\\",[", 7) > 0);
    assert_int_equal(json_weight("", 0), 0);
    assert_int_equal(json_weight("\"\\", 2), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_what_jansson_takes),
        cmocka_unit_test(what_is_in_strings_does_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
