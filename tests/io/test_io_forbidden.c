/* A kernel that forbids io_uring, as container runtimes make it by seccomp: the
 * default engine is the pool, and asking for io_uring is an error that says so. */
#include "io_fixture.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static bool forbid_io_uring(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

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
    assert_non_null(strstr(error.message, "\"pool\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_pool_takes_over_and_uring_is_refused)};
    return cmocka_run_group_tests(tests, fixture_make, fixture_remove);
}
