/*
 * test_cut.c - lengths of requests for drives of several kinds.
 */
#include "plan/cut.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)

/* A drive that takes latency_s before each request's bytes, serves so many at once and
 * gives no more than most together. */
static hypura_plan plan_of(double latency_s, double one_bytes_per_s, uint32_t at_once, double most_bytes_per_s)
{
    static const uint64_t blocks[] = {128 * KIB, 256 * KIB, 512 * KIB, 1 * MIB};
    hypura_plan           plan = {.io_block_bytes = 1 * MIB, .io_depth = 8};
    for (int b = 0; b < 4; b++) {
        for (uint32_t depth = 1; depth <= 32; depth *= 2) {
            const double alone = (double)blocks[b] / (latency_s + (double)blocks[b] / one_bytes_per_s);
            const double together = alone * (depth < at_once ? depth : at_once);
            const double rate = together < most_bytes_per_s ? together : most_bytes_per_s;
            plan.io_rates[plan.n_io_rates++] =
                (hypura_io_rate){.block_bytes = blocks[b], .depth = depth, .bytes_per_s = rate};
        }
    }
    return plan;
}

static void few_bytes_are_cut_shorter(void **state)
{
    (void)state;
    /* 1 GB/s to one request, 5 GB/s to many: one expert of 2.6 MB has to be ten requests */
    const hypura_plan plan = plan_of(100e-6, 1e9, 32, 5e9);
    const uint64_t    few = hypura_cut_bytes(&plan, 2600 * KIB);
    assert_int_equal(few, 256 * KIB);
    assert_true(hypura_cut_seconds(&plan, 2600 * KIB, few, 8 * MIB) <
                0.7 * hypura_cut_seconds(&plan, 2600 * KIB, 1 * MIB, 8 * MIB));
}

static void slow_beginnings_want_long_requests(void **state)
{
    (void)state;
    /* a disk that seeks: 8 ms before every request, one after the other */
    const hypura_plan plan = plan_of(8e-3, 1e9, 1, 1e9);
    assert_int_equal(hypura_cut_bytes(&plan, 100 * MIB), 1 * MIB);
}

static void as_good_is_the_shorter_one(void **state)
{
    (void)state;
    const hypura_plan plan = plan_of(1e-6, 2e9, 32, 2e9); /* one request is all it takes */
    assert_int_equal(hypura_cut_bytes(&plan, 100 * MIB), 256 * KIB);
    assert_int_equal(hypura_cut_bytes(&plan, 1), 256 * KIB);
}

static void shorter_still_where_that_gains_much(void **state)
{
    (void)state;
    const hypura_plan plan = plan_of(20e-6, 0.5e9, 32, 8e9);
    assert_int_equal(hypura_cut_bytes(&plan, 600 * KIB), 128 * KIB);
}

static void more_at_once_is_taken_for_no_slower(void **state)
{
    (void)state;
    hypura_plan plan = plan_of(100e-6, 1e9, 32, 5e9);
    const double before = hypura_cut_seconds(&plan, 8 * MIB, 256 * KIB, 8 * MIB);
    for (int i = 0; i < plan.n_io_rates; i++) {
        if (plan.io_rates[i].block_bytes == 256 * KIB && plan.io_rates[i].depth == 32) {
            plan.io_rates[i].bytes_per_s /= 10; /* somebody else used the drive */
        }
    }
    assert_true(hypura_cut_seconds(&plan, 8 * MIB, 256 * KIB, 8 * MIB) <= before * 1.25);
}

static void without_rates_there_is_a_length(void **state)
{
    (void)state;
    hypura_plan plan = {.io_block_bytes = 1 * MIB, .io_depth = 8};
    assert_int_equal(hypura_cut_bytes(&plan, 10 * MIB), 256 * KIB);
    plan.io_block_bytes = 16 * KIB;
    assert_int_equal(hypura_cut_bytes(&plan, 10 * MIB), 16 * KIB);
    assert_true(hypura_cut_seconds(&plan, MIB, 16 * KIB, MIB) == 0);
}

static void never_above_the_plans_block(void **state)
{
    (void)state;
    hypura_plan plan = plan_of(8e-3, 1e9, 1, 1e9);
    plan.io_block_bytes = 512 * KIB;
    assert_int_equal(hypura_cut_bytes(&plan, 100 * MIB), 512 * KIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_bytes_are_cut_shorter),     cmocka_unit_test(slow_beginnings_want_long_requests),
        cmocka_unit_test(as_good_is_the_shorter_one),    cmocka_unit_test(shorter_still_where_that_gains_much),
        cmocka_unit_test(more_at_once_is_taken_for_no_slower), cmocka_unit_test(without_rates_there_is_a_length),
        cmocka_unit_test(never_above_the_plans_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
