/*
 * test_calm.c - a thread that sleeps as it has nothing to do disturbs no measurement; one that waits for a processor does.
 */
#include "hw/probe_compute.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static bool     known;
static uint64_t each_us; /* that threads wait between two looks */
static uint64_t waited_us;

bool __real_hypura_os_waited_us(uint64_t *us);
bool __wrap_hypura_os_waited_us(uint64_t *us);

bool __wrap_hypura_os_waited_us(uint64_t *us)
{
    waited_us += each_us;
    *us = waited_us;
    return known;
}

/* Of one row: one thread of two computes, and the other one sleeps, as all tests have it. A run that is not is waited
 * for as long: on a busy machine one alone takes tenths of a second. */
static bool is_disturbed(uint64_t most_us)
{
    const hypura_product_shape shape = {.type = 0, .columns = 65536, .rows = 1, .n_rows = 1};
    double bytes_per_s = 0.0;
    bool disturbed = false;
    hypura_error error;
    assert_int_equal(hypura_probe_products(&shape, 2, most_us, &bytes_per_s, &disturbed, &error), HYPURA_OK);
    assert_true(bytes_per_s > 0.0);
    return disturbed;
}

static void a_thread_without_work_is_no_disturbance(void **state)
{
    (void)state;
    known = true;
    each_us = 0;
    assert_false(is_disturbed(30000000));
}

static void a_thread_that_waits_for_a_processor_is(void **state)
{
    (void)state;
    known = true;
    each_us = 60000000;
    assert_true(is_disturbed(100000));
}

static void where_that_is_not_known_the_time_spent_tells(void **state)
{
    (void)state;
    known = false;
    each_us = 0;
    assert_true(is_disturbed(100000));
}

static void it_is_known_and_grows(void **state)
{
    (void)state;
    uint64_t before_us = 0;
    uint64_t after_us = 0;
#ifdef __linux__
    assert_true(__real_hypura_os_waited_us(&before_us));
    assert_true(__real_hypura_os_waited_us(&after_us));
    assert_true(after_us >= before_us);
#else
    assert_false(__real_hypura_os_waited_us(&before_us) || after_us > 0);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_without_work_is_no_disturbance),
        cmocka_unit_test(a_thread_that_waits_for_a_processor_is),
        cmocka_unit_test(where_that_is_not_known_the_time_spent_tells),
        cmocka_unit_test(it_is_known_and_grows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
