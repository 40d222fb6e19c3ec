/* test_source.c - past the page cache or through it: when each is taken. */
#include "plan/source.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

typedef struct decode {
    hypura_source source;
    uint64_t now_us;
    uint64_t needed_bytes;
    double share;    /* cached */
    double speed[2]; /* past, through */
    int n_changes;
} decode;

static void run(decode *d, int steps)
{
    for (int i = 0; i < steps; i++) {
        d->now_us += 20000;
        d->needed_bytes += (uint64_t)(d->speed[d->source.through] * 20000);
        const double share = hypura_source_asks(&d->source, d->now_us) ? d->share : -1;
        d->n_changes += hypura_source_decide(&d->source, d->now_us, d->needed_bytes, share);
    }
}

static decode begin(double share, double past, double through)
{
    decode d = {.now_us = 5, .share = share, .speed = {past, through}};
    hypura_source_begin(&d.source, share);
    return d;
}

static void a_file_that_is_not_cached_is_read_direct(void **state)
{
    (void)state;
    decode d = begin(0.5, 1, 100);
    run(&d, 1000);
    assert_int_equal(d.n_changes, 0);
    assert_false(d.source.through);
    assert_int_equal(d.source.reads, HYPURA_READS_NOT_CACHED);
}

static void the_faster_way_is_kept(void **state)
{
    (void)state;
    decode cached = begin(1.0, 100, 150);
    run(&cached, 1000);
    assert_true(cached.source.through);
    assert_int_equal(cached.source.reads, HYPURA_READS_CACHED_FASTER);
    decode direct = begin(1.0, 100, 103); /* hardly faster: memory is left to others */
    run(&direct, 1000);
    assert_false(direct.source.through);
    assert_int_equal(direct.source.reads, HYPURA_READS_DIRECT_FASTER);
    const int n = direct.n_changes;
    run(&direct, 1000);
    assert_int_equal(direct.n_changes, n);
}

static void a_file_that_leaves_the_cache_is_read_direct_again(void **state)
{
    (void)state;
    decode d = begin(1.0, 100, 150);
    run(&d, 1000);
    d.share = 0.7;
    run(&d, 200);
    assert_false(d.source.through);
    assert_int_equal(d.source.reads, HYPURA_READS_NOT_CACHED);
    d.share = 1.0;
    run(&d, 1000);
    assert_false(d.source.through); /* for good */
}

static void idle_time_decides_nothing(void **state)
{
    (void)state;
    decode d = begin(1.0, 0, 0);
    run(&d, 2000);
    assert_int_equal(d.source.reads, HYPURA_READS_ON_TRIAL);
    assert_int_equal(d.source.n_windows, 0);
    d.speed[0] = 100;
    d.speed[1] = 200;
    run(&d, 1000);
    assert_true(d.source.through);
}

/* A decode that stood still for a while says nothing about its reads. */
static void a_window_with_a_pause_does_not_count(void **state)
{
    (void)state;
    decode d = begin(1.0, 100, 200);
    for (int i = 0; i < 50; i++) {
        d.now_us += 900000;
        d.needed_bytes += 1000;
        d.n_changes += hypura_source_decide(&d.source, d.now_us, d.needed_bytes, -1);
    }
    assert_int_equal(d.n_changes, 0);
    assert_int_equal(d.source.n_windows, 0);
    run(&d, 1000);
    assert_true(d.source.through);
}

/* Twice as much work while both are tried: each meets some of it. */
static void a_change_of_the_work_does_not_decide(void **state)
{
    (void)state;
    decode d = begin(1.0, 100, 110);
    run(&d, 95); /* most of the windows */
    d.speed[0] *= 2;
    d.speed[1] *= 2;
    run(&d, 1000);
    assert_true(d.source.through);
}

static void every_way_has_a_name(void **state)
{
    (void)state;
    for (int r = HYPURA_READS_FIXED; r <= HYPURA_READS_CACHED_FASTER; r++) {
        assert_string_not_equal(hypura_reads_name((hypura_reads)r), "unknown");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_that_is_not_cached_is_read_direct),
        cmocka_unit_test(the_faster_way_is_kept),
        cmocka_unit_test(a_file_that_leaves_the_cache_is_read_direct_again),
        cmocka_unit_test(idle_time_decides_nothing),
        cmocka_unit_test(a_window_with_a_pause_does_not_count),
        cmocka_unit_test(a_change_of_the_work_does_not_decide),
        cmocka_unit_test(every_way_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
