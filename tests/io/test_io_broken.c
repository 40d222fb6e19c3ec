/* A kernel that takes no more submissions, for good: reads fail and say why, and the owner
 * is woken as before, so that whoever waits for it hears of the failure. */
#include "io_fixture.h"

#include <errno.h>
#include <stdatomic.h>

/* The linker's --wrap sends the engine's calls here. */
struct io_uring;
int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);

static _Atomic bool refuses;

int __wrap_io_uring_submit(struct io_uring *ring)
{
    return refuses ? -ENXIO : __real_io_uring_submit(ring);
}

static int takes_again(void **state)
{
    (void)state;
    refuses = false;
    return 0;
}

static hypura_io_completion read_some(hypura_io *io, unsigned char *data, size_t bytes)
{
    const hypura_io_read read = {.offset = 333, .bytes = bytes, .dst = data};
    hypura_io_completion c;
    assert_int_equal(hypura_io_submit(io, &read, 1), 1);
    fixture_reap_all(io, 1, &c);
    return c;
}

static void reads_fail_and_say_why(void **state)
{
    (void)state;
    unsigned char data[5000];
    hypura_io *io = fixture_open((hypura_io_options){.depth = 2}, "uring");
    assert_int_equal(read_some(io, data, sizeof data).status, HYPURA_OK);
    assert_true(fixture_matches(data, 333, sizeof data));
    refuses = true;
    for (int i = 0; i < 3; i++) {
        const hypura_io_completion c = read_some(io, data, sizeof data);
        assert_int_equal(c.status, HYPURA_ERR_IO);
        assert_int_equal(c.errno_value, ENXIO);
    }
    hypura_io_close(io);
}

static void every_wake_ends_a_wait(void **state)
{
    (void)state;
    unsigned char data[5000];
    hypura_io *io = fixture_open((hypura_io_options){.depth = 2}, "uring");
    hypura_io_completion c;
    assert_int_equal(read_some(io, data, sizeof data).status, HYPURA_OK);
    refuses = true;
    assert_int_equal(read_some(io, data, sizeof data).errno_value, ENXIO);
    for (int i = 0; i < 3; i++) {
        fixture_expect_wake(io);
        hypura_io_wake(io);
        assert_int_equal(hypura_io_reap(io, &c, 1, UINT64_MAX), 0);
    }
    assert_int_equal(hypura_io_reap(io, &c, 1, 20000), 0);
    hypura_io_close(io);
}

/* Of a ring that never took anything, not even the poll of the wake. */
static void a_ring_that_never_worked_is_woken(void **state)
{
    (void)state;
    unsigned char data[5000];
    hypura_io_completion c;
    refuses = true;
    hypura_io *io = fixture_open((hypura_io_options){.depth = 2}, "uring");
    assert_int_equal(read_some(io, data, sizeof data).errno_value, ENXIO);
    hypura_io_wake(io);
    assert_int_equal(hypura_io_reap(io, &c, 1, UINT64_MAX), 0);
    hypura_io_close(io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(reads_fail_and_say_why, takes_again),
        cmocka_unit_test_teardown(every_wake_ends_a_wait, takes_again),
        cmocka_unit_test_teardown(a_ring_that_never_worked_is_woken, takes_again),
    };
    return cmocka_run_group_tests(tests, fixture_make, fixture_remove);
}
