/* An emulated drive: its arithmetic, and that no read completes before it would
 * have there. Only lower bounds of time are checked: they hold on any machine. */
#include "io_fixture.h"

#include "base/clock.h"
#include "io/limit.h"

static void a_drive_serves_one_request_after_the_other(void **state)
{
    (void)state;
    hypura_io_limit limit = {.bytes_per_s = 1000000};
    assert_int_equal(hypura_io_limit_add(&limit, 5000, 10), 15000);
    assert_int_equal(hypura_io_limit_add(&limit, 5000, 10), 25000);   /* behind the first */
    assert_int_equal(hypura_io_limit_add(&limit, 100000, 1), 101000); /* idle time is lost */
    limit = (hypura_io_limit){.bytes_per_s = 5090000000};
    uint64_t due_ns = 0;
    for (int i = 0; i < 5090; i++) {
        due_ns = hypura_io_limit_add(&limit, 0, 1000000);
    }
    assert_in_range(due_ns, 999990000, 1000000000); /* rounding does not add up */
}

static void what_is_held_is_handed_out_once_and_when_due(void **state)
{
    (void)state;
    hypura_io_held held[3];
    hypura_io_limit limit = {.bytes_per_s = 1, .held = held};
    hypura_io_raw raw;
    assert_int_equal(hypura_io_limit_wait_us(&limit, 0), UINT64_MAX);
    assert_false(hypura_io_limit_take(&limit, UINT64_MAX, &raw));
    for (uint32_t i = 0; i < 3; i++) {
        hypura_io_limit_hold(&limit, (hypura_io_raw){.tag = i, .result = i}, 3000 - 1000 * i);
    }
    assert_int_equal(hypura_io_limit_wait_us(&limit, 0), 1);
    assert_int_equal(hypura_io_limit_wait_us(&limit, 1000), 0);
    assert_false(hypura_io_limit_take(&limit, 999, &raw));
    uint32_t seen = 0;
    while (hypura_io_limit_take(&limit, 2000, &raw)) {
        assert_int_equal(raw.result, raw.tag);
        seen |= 1u << raw.tag;
    }
    assert_int_equal(seen, 6); /* the last two, of which one is due at 1000 */
    assert_int_equal(hypura_io_limit_wait_us(&limit, 2001), 1);
    assert_true(hypura_io_limit_take(&limit, 3000, &raw));
    assert_int_equal(limit.n_held, 0);
}

static void no_read_completes_before_the_drive_is_done(void **state)
{
    enum { N = 8, BYTES = 128 << 10, RATE = 16 << 20 };
    hypura_io *io =
        fixture_open((hypura_io_options){.block_bytes = 64 * KIB, .depth = 4, .limit_bytes_per_s = RATE}, *state);
    static unsigned char data[N][BYTES];
    hypura_io_read reads[N];
    for (uint32_t i = 0; i < N; i++) {
        reads[i] = (hypura_io_read){.offset = i * (uint64_t)BYTES, .bytes = BYTES, .dst = data[i], .user = i};
    }
    const uint64_t begin_us = hypura_clock_us();
    assert_int_equal(hypura_io_submit(io, reads, N), N);
    for (uint32_t done = 0; done < N;) {
        hypura_io_completion c;
        /* Nothing wakes and nothing times out, so a reap never comes back empty. */
        assert_int_equal(hypura_io_reap(io, &c, 1, UINT64_MAX), 1);
        assert_int_equal(c.status, HYPURA_OK);
        assert_true(fixture_matches(data[c.user], reads[c.user].offset, BYTES));
        done++;
        const uint64_t least_us = done * (uint64_t)BYTES * 1000000 / RATE;
        assert_true(hypura_clock_us() - begin_us + 2 >= least_us); /* clocks of whole microseconds */
        hypura_io_counters counters;
        hypura_io_read_counters(io, &counters);
        assert_true(counters.busy_us + 2 >= least_us); /* also while more is under way */
    }
    hypura_io_close(io);
}

static void waits_and_closing_do_not_stay_with_what_is_held(void **state)
{
    hypura_io *io =
        fixture_open((hypura_io_options){.block_bytes = 64 * KIB, .depth = 4, .limit_bytes_per_s = 1000}, *state);
    static unsigned char data[MIB];
    const hypura_io_read read = {.bytes = MIB, .dst = data}; /* a quarter of an hour on this drive */
    hypura_io_completion c;
    assert_int_equal(hypura_io_submit(io, &read, 1), 1);
    assert_int_equal(hypura_io_reap(io, &c, 1, 20000), 0);
    hypura_io_wake(io);
    assert_int_equal(hypura_io_reap(io, &c, 1, UINT64_MAX), 0);
    hypura_io_close(io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_drive_serves_one_request_after_the_other),
        cmocka_unit_test(what_is_held_is_handed_out_once_and_when_due),
        FOR_EACH_ENGINE(no_read_completes_before_the_drive_is_done),
        FOR_EACH_ENGINE(waits_and_closing_do_not_stay_with_what_is_held),
    };
    return cmocka_run_group_tests(tests, fixture_make, fixture_remove);
}
