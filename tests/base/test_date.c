/* Dates as RFC 3339 writes them. */
#include "base/date.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void seconds_have_as_many_digits_as_wanted(void **state)
{
    (void)state;
    const struct timespec when = {.tv_sec = 1769860800, .tv_nsec = 7654321};
    char text[HYPURA_DATE_BYTES];
    assert_string_equal(hypura_date_format(when, 0, text), "2026-01-31T12:00:00Z");
    assert_string_equal(hypura_date_format(when, 3, text), "2026-01-31T12:00:00.007Z");
    assert_string_equal(hypura_date_format(when, 9, text), "2026-01-31T12:00:00.007654321Z");
}

static void what_no_calendar_has_is_the_beginning(void **state)
{
    (void)state;
    const struct timespec never = {.tv_sec = INT64_MAX};
    char text[HYPURA_DATE_BYTES];
    assert_string_equal(hypura_date_format(never, 0, text), "1970-01-01T00:00:00Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seconds_have_as_many_digits_as_wanted),
        cmocka_unit_test(what_no_calendar_has_is_the_beginning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
