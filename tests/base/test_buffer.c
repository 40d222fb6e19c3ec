/* Bytes in pieces, and lists that anything in them may leave. */
#include "base/buffer.h"
#include "base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void pieces_come_together(void **state)
{
    (void)state;
    hypura_buffer buffer = {0};
    assert_string_equal(hypura_buffer_text(&buffer), "");
    assert_true(hypura_buffer_add(&buffer, NULL, 0));
    assert_string_equal(buffer.data, "");
    for (int i = 0; i < 3000; i++) {
        const char byte = (char)('a' + i % 26);
        assert_true(hypura_buffer_add(&buffer, &byte, 1));
        assert_int_equal(buffer.data[buffer.bytes], 0);
    }
    assert_int_equal(buffer.bytes, 3000);
    for (int i = 0; i < 3000; i++) {
        assert_int_equal(buffer.data[i], 'a' + i % 26);
    }
    hypura_buffer_drop(&buffer, 2998);
    assert_string_equal(buffer.data, "ij");
    hypura_buffer_drop(&buffer, 2);
    hypura_buffer_drop(&buffer, 0);
    assert_string_equal(buffer.data, "");
    assert_true(hypura_buffer_add(&buffer, "end", 3));
    assert_string_equal(buffer.data, "end");
    /* More than there can be changes nothing. */
    assert_false(hypura_buffer_add(&buffer, "x", SIZE_MAX - 2));
    assert_string_equal(buffer.data, "end");
    hypura_buffer_clear(&buffer);
    assert_null(buffer.data);
    assert_int_equal(buffer.capacity, 0);
}

typedef struct thing {
    hypura_link link;
    int number;
} thing;

static void expect_list(const hypura_list *list, const char *numbers)
{
    size_t n = 0;
    const hypura_link *before = NULL;
    for (const hypura_link *at = list->first; at; at = at->next) {
        assert_int_equal(((const thing *)at)->number, numbers[n++] - '0');
        assert_ptr_equal(at->previous, before);
        before = at;
    }
    assert_int_equal(n, strlen(numbers));
    assert_int_equal(list->n, n);
}

static void anything_may_leave_a_list(void **state)
{
    (void)state;
    static const char *const left[] = {"321", "320", "310", "210"};
    for (int out = 0; out < 4; out++) {
        hypura_list list = {0};
        thing things[4];
        for (int i = 0; i < 4; i++) {
            things[i].number = i;
            hypura_list_add(&list, &things[i].link);
        }
        expect_list(&list, "3210");
        hypura_list_remove(&list, &things[out].link);
        expect_list(&list, left[out]);
        hypura_list_add(&list, &things[out].link);
        while (list.first) {
            hypura_list_remove(&list, list.first);
        }
        expect_list(&list, "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_come_together),
        cmocka_unit_test(anything_may_leave_a_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
