/*
 * test_since.c - what others had of the processors, as how many of them.
 */
#include "hw/since.h"
#include "os/os.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

static void others_are_told_in_processors(void **state)
{
    (void)state;
    const double n_online = (double)sysconf(_SC_NPROCESSORS_ONLN);
    hypura_since begin = hypura_since_look(hypura_os_others_us);
    if (begin.counted_us < 5000000) {
        skip();
    }
    assert_true(hypura_since_others(&begin) <= 0.0); /* too short to say */
    begin.at_us -= 10000000;
    begin.counted_us -= 5000000;
    const double others = hypura_since_others(&begin);
    assert_true(others > 0.45 * n_online && others < 0.6 * n_online);
    begin.known = false;
    assert_true(hypura_since_others(&begin) <= 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(others_are_told_in_processors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
