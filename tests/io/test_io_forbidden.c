/* A kernel that forbids io_uring, as container runtimes make it by seccomp: the
 * default engine is the pool, and asking for io_uring is an error that says so. */
#include "forbid_io_uring.h"
#include "io_fixture.h"

static void the_pool_takes_over_and_uring_is_refused(void **state)
{
    (void)state;
    if (!forbid_io_uring()) {
        print_message("this system has no seccomp filters\n");
        skip();
    }
    assert_false(hypura_io_engine_available("uring"));
    assert_true(hypura_io_engine_available("pool"));

    const char *const paths[] = {fixture_path};
    hypura_io_options options = {.paths = paths, .n_paths = 1};
    hypura_io *io;
    hypura_error error;
    assert_int_equal(hypura_io_open(&options, &io, &error), HYPURA_OK);
    assert_string_equal(hypura_io_engine_name(io), "pool");
    unsigned char data[5000];
    const hypura_io_read read = {.offset = 333, .bytes = sizeof data, .dst = data};
    assert_int_equal(hypura_io_read_all(io, &read, 1, NULL, NULL, &error), HYPURA_OK);
    assert_true(fixture_matches(data, 333, sizeof data));
    hypura_io_close(io);

    options.engine = "uring";
    assert_true(hypura_io_open(&options, &io, &error) != HYPURA_OK);
    assert_null(io);
    assert_non_null(strstr(error.message, "\"uring\""));
    assert_non_null(strstr(error.message, strerror(EPERM)));
    assert_non_null(strstr(error.message, "\"pool\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_pool_takes_over_and_uring_is_refused)};
    return cmocka_run_group_tests(tests, fixture_make, fixture_remove);
}
