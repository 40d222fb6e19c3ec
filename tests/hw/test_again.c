/*
 * test_again.c - a profile that was measured beside other work is measured again when that has ended. Runs alone: other
 * tests are other work.
 */
#include "hw/store.h"
#include "os/os.h"

#include "hw_fixture.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

enum { MAX_BUSY = 256 };

static pid_t busy[MAX_BUSY];
static int n_busy;

/* Twice as many programs as there are processors, which do nothing but compute. */
static void keep_busy(void)
{
    const long n_online = sysconf(_SC_NPROCESSORS_ONLN);
    const pid_t own = getpid();
    for (n_busy = 0; n_busy < 2 * n_online && n_busy < MAX_BUSY; n_busy++) {
        busy[n_busy] = fork();
        assert_true(busy[n_busy] >= 0);
        for (volatile uint32_t n = 1; busy[n_busy] == 0; n++) {
            if (n % (1u << 24) == 0 && getppid() != own) {
                _exit(0); /* nobody ends it any more */
            }
        }
    }
}

static int rest(void **state)
{
    for (; n_busy > 0; n_busy--) {
        (void)kill(busy[n_busy - 1], SIGKILL);
        (void)waitpid(busy[n_busy - 1], NULL, 0);
    }
    return fixture_remove(state);
}

static bool must_not_measure(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user;
    (void)done;
    (void)total;
    fail_msg("measured (%s)", what);
    return false;
}

static hypura_profile get(bool force, hypura_progress_fn progress)
{
    const hypura_profile_options options = {.cache_dir = fixture_folder, .force = force, .progress = progress};
    hypura_profile p;
    hypura_error error;
    if (hypura_profile_get(&options, &p, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    return p;
}

static void what_others_disturb_is_told_and_left_while_they_do(void **state)
{
    (void)state;
    keep_busy();
    hypura_profile p = get(true, NULL);
    assert_int_equal(p.n_disturbed, 1);
    p = get(false, must_not_measure);
    assert_int_equal(p.n_disturbed, 1);
}

/* Waits until the machine is at rest; skips where it is busy for long. */
static void wait_for_rest(void)
{
    static const struct timespec pause = {0, 300000000};
    for (int i = 0; i < 60; i++) {
        uint64_t before_us;
        uint64_t after_us;
        if (!hypura_os_others_us(&before_us)) {
            break;
        }
        (void)nanosleep(&pause, NULL);
        if (hypura_os_others_us(&after_us) && after_us < before_us + 30000) {
            return;
        }
    }
    print_message("this machine is busy with something else\n");
    skip();
}

static void store(int n_disturbed)
{
    hypura_os_drive drive;
    hypura_error error;
    hypura_profile p = {.version = HYPURA_PROFILE_VERSION,
                        .memory_bytes_per_s = 1,
                        .storage_path = "/invented",
                        .io_engine = "pool",
                        .io_align_offset_bytes = 1,
                        .io_align_memory_bytes = 1,
                        .io_block_bytes = 1 << 16,
                        .io_depth = 3,
                        .direct_bytes_per_s = 1,
                        .read_latency_us = 9,
                        .n_disturbed = n_disturbed};
    hypura_os_cpu_name(p.cpu, sizeof p.cpu);
    p.n_cpus = hypura_os_cpu_count();
    assert_int_equal(hypura_os_drive_read(fixture_folder, &drive, &error), HYPURA_OK);
    assert_int_equal(hypura_store_save(fixture_folder, drive.id, &p, &error), HYPURA_OK);
}

static void at_rest_it_is_measured_again(void **state)
{
    (void)state;
    store(2);
    wait_for_rest();
    hypura_profile p = get(false, NULL);
    assert_true(p.direct_bytes_per_s > 1 && p.memory_bytes_per_s > 1); /* the faster one, also where that was disturbed */
    assert_true(p.n_disturbed == 0 || p.n_disturbed == 3);
    assert_string_equal(p.storage_path, fixture_folder);
    p = get(false, must_not_measure);
    assert_true(p.direct_bytes_per_s > 1);

    store(3); /* often enough */
    p = get(false, must_not_measure);
    assert_true(p.direct_bytes_per_s == 1);
}

static bool stop(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user;
    (void)what;
    (void)done;
    (void)total;
    return false;
}

static void a_stop_leaves_what_was_stored(void **state)
{
    (void)state;
    store(1);
    wait_for_rest();
    const hypura_profile_options options = {.cache_dir = fixture_folder, .progress = stop};
    hypura_profile p;
    hypura_error error;
    assert_int_equal(hypura_profile_get(&options, &p, &error), HYPURA_ERR_CANCELLED);
    keep_busy();
    p = get(false, must_not_measure);
    assert_true(p.direct_bytes_per_s == 1 && p.n_disturbed == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_others_disturb_is_told_and_left_while_they_do, fixture_make, rest),
        cmocka_unit_test_setup_teardown(at_rest_it_is_measured_again, fixture_make, rest),
        cmocka_unit_test_setup_teardown(a_stop_leaves_what_was_stored, fixture_make, rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
