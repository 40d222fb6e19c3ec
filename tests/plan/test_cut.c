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

static hypura_cut chosen(const hypura_plan *plan, uint64_t bytes)
{
    return hypura_cut_choose(plan, bytes);
}

static double seconds(const hypura_plan *plan, uint64_t bytes, uint64_t block, uint64_t window)
{
    return hypura_cut_seconds(plan, bytes, (hypura_cut){.block_bytes = block, .window_bytes = window});
}

static void few_bytes_are_cut_shorter(void **state)
{
    (void)state;
    /* 1 GB/s to one request, 5 GB/s to many: one expert of 2.6 MB has to be ten requests */
    const hypura_plan plan = plan_of(100e-6, 1e9, 32, 5e9);
    const hypura_cut  few = chosen(&plan, 2600 * KIB);
    assert_int_equal(few.block_bytes, 256 * KIB);
    assert_true(few.window_bytes >= 1 * MIB);
    assert_true(hypura_cut_seconds(&plan, 2600 * KIB, few) < 0.8 * seconds(&plan, 2600 * KIB, MIB, 8 * MIB));
}

static void no_more_at_once_than_the_drive_needs(void **state)
{
    (void)state;
    /* two requests are all it takes: more of them would only arrive together, later */
    const hypura_plan plan = plan_of(1e-6, 1e9, 32, 2e9);
    const hypura_cut  cut = chosen(&plan, 6 * MIB);
    assert_true(cut.window_bytes < 8 * MIB);
    assert_true(hypura_cut_seconds(&plan, 6 * MIB, cut) < seconds(&plan, 6 * MIB, 256 * KIB, 512 * KIB));
    assert_true(hypura_cut_seconds(&plan, 6 * MIB, cut) < seconds(&plan, 6 * MIB, MIB, 8 * MIB));
}

/* A place that becomes free is not taken at once: little that is cut to follow one
 * after the other would leave the drive idle in between. */
static void few_bytes_are_all_under_way(void **state)
{
    (void)state;
    const hypura_plan plan = plan_of(60e-6, 3e9, 4, 2.5e9);
    assert_true(chosen(&plan, 900 * KIB).window_bytes >= 900 * KIB);
}

static void slow_beginnings_want_long_requests(void **state)
{
    (void)state;
    /* a disk that seeks: 8 ms before every request, one after the other */
    const hypura_plan plan = plan_of(8e-3, 1e9, 1, 1e9);
    assert_int_equal(chosen(&plan, 100 * MIB).block_bytes, 1 * MIB);
}

static void short_requests_only_where_they_gain(void **state)
{
    (void)state;
    const hypura_plan fast = plan_of(1e-6, 8e9, 32, 8e9);
    assert_true(chosen(&fast, 100 * MIB).block_bytes > 256 * KIB); /* the processor's time */
    const hypura_plan parallel = plan_of(20e-6, 0.5e9, 32, 8e9);
    assert_int_equal(chosen(&parallel, 600 * KIB).block_bytes, 256 * KIB); /* none is shorter */
}

static void more_at_once_is_taken_for_no_slower(void **state)
{
    (void)state;
    hypura_plan plan = plan_of(100e-6, 1e9, 32, 5e9);
    const double before = seconds(&plan, 8 * MIB, 256 * KIB, 8 * MIB);
    for (int i = 0; i < plan.n_io_rates; i++) {
        if (plan.io_rates[i].block_bytes == 256 * KIB && plan.io_rates[i].depth == 32) {
            plan.io_rates[i].bytes_per_s /= 10; /* somebody else used the drive */
        }
    }
    assert_true(seconds(&plan, 8 * MIB, 256 * KIB, 8 * MIB) <= before * 1.25);
}

static void without_rates_there_is_a_cut(void **state)
{
    (void)state;
    hypura_plan plan = {.io_block_bytes = 1 * MIB, .io_depth = 8};
    assert_int_equal(chosen(&plan, 10 * MIB).block_bytes, 256 * KIB);
    assert_int_equal(chosen(&plan, 10 * MIB).window_bytes, 8 * MIB);
    plan.io_block_bytes = 16 * KIB;
    assert_int_equal(chosen(&plan, 10 * MIB).block_bytes, 16 * KIB);
    assert_true(seconds(&plan, MIB, 16 * KIB, MIB) == 0);
}

static void never_above_the_plans(void **state)
{
    (void)state;
    hypura_plan plan = plan_of(8e-3, 1e9, 32, 100e9);
    plan.io_block_bytes = 512 * KIB;
    plan.io_depth = 4;
    const hypura_cut cut = chosen(&plan, 100 * MIB);
    assert_true(cut.block_bytes <= 512 * KIB);
    assert_int_equal(cut.window_bytes, 2 * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_bytes_are_cut_shorter),
        cmocka_unit_test(no_more_at_once_than_the_drive_needs),
        cmocka_unit_test(few_bytes_are_all_under_way),
        cmocka_unit_test(slow_beginnings_want_long_requests),
        cmocka_unit_test(short_requests_only_where_they_gain),
        cmocka_unit_test(more_at_once_is_taken_for_no_slower),
        cmocka_unit_test(without_rates_there_is_a_cut),
        cmocka_unit_test(never_above_the_plans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
