/* Errors: terminated, truncated, prefixed; NULL allowed. */
#include "base/status.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void fail_fills_and_returns(void **state)
{
    (void)state;
    hypura_error error;
    assert_int_equal(hypura_fail(&error, HYPURA_ERR_FORMAT, "bad %d", 7), HYPURA_ERR_FORMAT);
    assert_int_equal(error.status, HYPURA_ERR_FORMAT);
    assert_string_equal(error.message, "bad 7");
    hypura_error_clear(&error);
    assert_int_equal(error.status, HYPURA_OK);
    assert_string_equal(error.message, "");
}

static void null_error_is_allowed(void **state)
{
    (void)state;
    assert_int_equal(hypura_fail(NULL, HYPURA_ERR_USAGE, "x"), HYPURA_ERR_USAGE);
    assert_int_equal(hypura_fail_errno(NULL, ENOENT, "x"), HYPURA_ERR_IO);
    hypura_fail_prefix(NULL, "x");
    hypura_error_clear(NULL);
}

static void long_messages_are_cut(void **state)
{
    (void)state;
    struct {
        hypura_error error;
        char canary[8];
    } guarded;
    char text[2000];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    memset(guarded.canary, 'C', sizeof guarded.canary);

    hypura_fail(&guarded.error, HYPURA_ERR_IO, "%s", text);
    assert_int_equal(strlen(guarded.error.message), sizeof guarded.error.message - 1);
    hypura_fail_prefix(&guarded.error, "%s", "p");
    assert_int_equal(strlen(guarded.error.message), sizeof guarded.error.message - 1);
    assert_memory_equal(guarded.error.message, "p: aaa", 6);
    hypura_fail_errno(&guarded.error, EIO, "%s", text);
    assert_int_equal(strlen(guarded.error.message), sizeof guarded.error.message - 1);
    hypura_fail(&guarded.error, HYPURA_ERR_IO, "x");
    const int n = (int)sizeof guarded.error.message + 2;
    hypura_fail_prefix(&guarded.error, "%.*s", n, text); /* no room for what comes behind it */
    assert_int_equal(strlen(guarded.error.message), n - 3);
    assert_memory_equal(guarded.canary, "CCCCCCCC", 8);
}

static void errno_text_comes_last(void **state)
{
    (void)state;
    hypura_error error;
    assert_int_equal(hypura_fail_errno(&error, ENOENT, "open %s", "m.gguf"), HYPURA_ERR_IO);
    assert_string_equal(error.message, "open m.gguf: No such file or directory");
    hypura_fail_prefix(&error, "model %d", 2);
    assert_int_equal(error.status, HYPURA_ERR_IO);
    assert_string_equal(error.message, "model 2: open m.gguf: No such file or directory");
}

static void every_status_has_its_own_name(void **state)
{
    (void)state;
    for (int a = HYPURA_OK; a <= HYPURA_ERR_CANCELLED; a++) {
        assert_string_not_equal(hypura_status_name((hypura_status)a), "unknown");
        for (int b = a + 1; b <= HYPURA_ERR_CANCELLED; b++) {
            assert_string_not_equal(hypura_status_name((hypura_status)a), hypura_status_name((hypura_status)b));
        }
    }
    assert_true(strlen(hypura_version()) >= 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fail_fills_and_returns),        cmocka_unit_test(null_error_is_allowed),
        cmocka_unit_test(long_messages_are_cut),         cmocka_unit_test(errno_text_comes_last),
        cmocka_unit_test(every_status_has_its_own_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
