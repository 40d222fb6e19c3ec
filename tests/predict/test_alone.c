/*
 * test_alone.c - one thread, or its team, by given times.
 */
#include "predict/alone.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define BYTES 1000000

static void test_unknown_is_tried(void **state)
{
    (void)state;
    hypura_alone alone = {0};
    assert_true(hypura_alone_fits(&alone, BYTES, 1));
}

static void test_nothing_pending_is_for_the_team(void **state)
{
    (void)state;
    hypura_alone alone = {0};
    assert_false(hypura_alone_fits(&alone, BYTES, 0));
    hypura_alone_took(&alone, BYTES, 100);
    assert_false(hypura_alone_fits(&alone, 1, 0));
}

static void test_it_has_to_be_done_in_time(void **state)
{
    (void)state;
    hypura_alone alone = {0};
    hypura_alone_took(&alone, BYTES, 100);
    assert_true(hypura_alone_fits(&alone, BYTES, 201));
    assert_true(hypura_alone_fits(&alone, 3 * BYTES, 601));
    assert_false(hypura_alone_fits(&alone, BYTES, 180));
    assert_false(hypura_alone_fits(&alone, 4 * BYTES, 601));
}

static void test_the_mean_follows(void **state)
{
    (void)state;
    hypura_alone alone = {0};
    hypura_alone_took(&alone, BYTES, 100);
    hypura_alone_took(&alone, BYTES, 500); /* once is not enough */
    assert_true(hypura_alone_fits(&alone, BYTES, 400));
    for (int i = 0; i < 40; i++) {
        hypura_alone_took(&alone, BYTES, 500);
    }
    assert_false(hypura_alone_fits(&alone, BYTES, 900));
    assert_true(hypura_alone_fits(&alone, BYTES, 1100));
    hypura_alone_took(&alone, 0, 1000000); /* says nothing of a byte */
    assert_true(hypura_alone_fits(&alone, BYTES, 1100));
}

/* Where it never fits nothing new is learned: a time that was bad by chance must not last. */
static void test_a_bad_time_is_forgotten(void **state)
{
    (void)state;
    hypura_alone alone = {0};
    hypura_alone_took(&alone, BYTES, 20000);
    int n = 0;
    while (n < 1000 && !hypura_alone_fits(&alone, BYTES, 2000)) {
        n++;
    }
    assert_in_range(n, 100, 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown_is_tried),
        cmocka_unit_test(test_nothing_pending_is_for_the_team),
        cmocka_unit_test(test_it_has_to_be_done_in_time),
        cmocka_unit_test(test_the_mean_follows),
        cmocka_unit_test(test_a_bad_time_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
