/*
 * test_look.c - whether threads that wait look for its end, by numbers of processors and given times.
 */
#include "predict/look.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_half_as_many_must_be_left(void **state)
{
    (void)state;
    assert_true(hypura_look_has_room(16, 8, 1));
    assert_true(hypura_look_has_room(16, 10, 1));
    assert_false(hypura_look_has_room(16, 11, 1));
    assert_false(hypura_look_has_room(16, 8, 5)); /* helpers that repack */
    assert_false(hypura_look_has_room(16, 16, 1));
    assert_false(hypura_look_has_room(16, 15, 1));
}

static void test_two_processors_have_none(void **state)
{
    (void)state;
    assert_false(hypura_look_has_room(2, 2, 1));
    assert_false(hypura_look_has_room(2, 1, 1));
    assert_false(hypura_look_has_room(1, 1, 1));
    assert_false(hypura_look_has_room(2, 8, 1)); /* as told, more than there are */
}

static void test_places_are_for_many_that_are_as_many_as_processors(void **state)
{
    (void)state;
    assert_true(hypura_look_needs_places(16, 16));
    assert_true(hypura_look_needs_places(LOOK_PLACES_LEAST, LOOK_PLACES_LEAST));
    assert_false(hypura_look_needs_places(LOOK_PLACES_LEAST - 1, LOOK_PLACES_LEAST - 1));
    assert_false(hypura_look_needs_places(16, 15)); /* there is room */
    assert_false(hypura_look_needs_places(64, 16)); /* a quota, or two threads to a core */
    assert_false(hypura_look_needs_places(16, 17));
    assert_false(hypura_look_needs_places(0, 16)); /* a system that does not tell */
}

static void test_places_are_given_up_where_others_have_most(void **state)
{
    (void)state;
    assert_false(hypura_look_gives_places_up(1000000, 0));
    assert_false(hypura_look_gives_places_up(1000000, 400000)); /* another team like this one */
    assert_true(hypura_look_gives_places_up(1000000, 780000));  /* a program on every processor */
    assert_false(hypura_look_gives_places_up(0, 0));
}

static void test_the_last_part_alone_is_looked_for(void **state)
{
    (void)state;
    assert_int_equal(hypura_look_for(10000).sleep_us, 7000 - LOOK_EARLY_US);
    assert_int_equal(hypura_look_for(10000).look_us, LOOK_US);
    assert_int_equal(hypura_look_for(1000).sleep_us, 700 - LOOK_EARLY_US);
}

static void test_short_or_unknown_is_looked_for_at_once(void **state)
{
    (void)state;
    const uint64_t times[] = {0, 1, 200, 350};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        assert_int_equal(hypura_look_for(times[i]).sleep_us, 0);
        assert_int_equal(hypura_look_for(times[i]).look_us, LOOK_US);
    }
    assert_true(hypura_look_for(400).sleep_us > 0);
}

static void test_any_time_is_taken(void **state)
{
    (void)state;
    assert_int_equal(hypura_look_for(UINT64_MAX).sleep_us, UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half_as_many_must_be_left),
        cmocka_unit_test(test_two_processors_have_none),
        cmocka_unit_test(test_places_are_for_many_that_are_as_many_as_processors),
        cmocka_unit_test(test_places_are_given_up_where_others_have_most),
        cmocka_unit_test(test_the_last_part_alone_is_looked_for),
        cmocka_unit_test(test_short_or_unknown_is_looked_for_at_once),
        cmocka_unit_test(test_any_time_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
