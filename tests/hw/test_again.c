/*
 * test_again.c - a profile that was measured beside other work is measured again when that has ended. What others have of
 * the processors, and what the probes measure, is as the tests say; test_os.c looks at the one, test_profile.c at the other.
 */
#include "base/clock.h"
#include "base/status.h"

#include "invented.h"

#include <sys/stat.h>
#include <time.h>

static struct {
    double others;         /* their share of all processors */
    double others_at_work; /* as soon as something was measured; below 0: the same */
    bool unknown;
    bool fails;
    double bytes_per_s; /* of memory and drive */
    int n_measured;
} machine;

bool __wrap_hypura_os_others_us(uint64_t *us);
hypura_status __wrap_hypura_probe_memory(int n_threads, double *bytes_per_s, hypura_error *error);
hypura_status __wrap_hypura_probe_storage(const char *path, hypura_progress_fn progress, void *progress_user,
                                          hypura_profile *profile, hypura_error *error);

bool __wrap_hypura_os_others_us(uint64_t *us)
{
    static uint64_t now_us;
    static uint64_t had_us;
    const uint64_t before_us = now_us;
    now_us = hypura_clock_us();
    had_us += (uint64_t)(machine.others * (double)(now_us - before_us));
    *us = had_us;
    return !machine.unknown;
}

hypura_status __wrap_hypura_probe_memory(int n_threads, double *bytes_per_s, hypura_error *error)
{
    static const struct timespec span = {0, 3000000};
    assert_int_equal(n_threads, hypura_os_cpu_count());
    if (machine.others_at_work >= 0.0) {
        machine.others = machine.others_at_work;
    }
    (void)nanosleep(&span, NULL);
    machine.n_measured++;
    *bytes_per_s = machine.bytes_per_s;
    return machine.fails ? hypura_fail(error, HYPURA_ERR_IO, "no drive") : HYPURA_OK;
}

hypura_status __wrap_hypura_probe_storage(const char *path, hypura_progress_fn progress, void *progress_user,
                                          hypura_profile *profile, hypura_error *error)
{
    (void)progress;
    (void)progress_user;
    (void)error;
    assert_string_equal(path, fixture_folder);
    hypura_profile made = invented_profile(machine.bytes_per_s);
    made.n_devices = profile->n_devices;
    memcpy(made.devices, profile->devices, sizeof made.devices);
    *profile = made;
    return HYPURA_OK;
}

static int begin(void **state)
{
    machine.others = 0.1;
    machine.others_at_work = -1.0;
    machine.unknown = false;
    machine.fails = false;
    machine.bytes_per_s = 100;
    machine.n_measured = 0;
    return fixture_make(state);
}

static hypura_profile get(bool force)
{
    const hypura_profile_options options = {.cache_dir = fixture_folder, .force = force};
    hypura_profile p;
    hypura_error error;
    if (hypura_profile_get(&options, &p, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    return p;
}

static void store(double bytes_per_s, int n_disturbed)
{
    hypura_profile p = invented_profile(bytes_per_s);
    p.n_disturbed = n_disturbed;
    invented_store(&p);
}

/* What is used, and whether the next one finds the same. */
static void expect(double bytes_per_s, int n_disturbed, int n_measured)
{
    const hypura_profile p = get(false);
    assert_true(p.direct_bytes_per_s == bytes_per_s);
    assert_true(p.memory_bytes_per_s == bytes_per_s);
    assert_int_equal(p.n_disturbed, n_disturbed);
    assert_int_equal(machine.n_measured, n_measured);
    machine.others = 0.9;
    assert_int_equal(get(false).n_disturbed, n_disturbed);
    assert_int_equal(machine.n_measured, n_measured);
}

static void what_others_disturb_is_told_and_left_while_they_do(void **state)
{
    (void)state;
    machine.others = 0.9;
    assert_int_equal(get(true).n_disturbed, 1);
    expect(100, 1, 1);
    machine.others = 0.1;
    assert_int_equal(get(true).n_disturbed, 0);
    expect(100, 0, 2);
}

static void at_rest_it_is_measured_again(void **state)
{
    (void)state;
    store(1, 2);
    expect(100, 0, 1);
    machine.others = 0.1;
    store(1000, 2); /* the slower one, as nothing disturbed it */
    expect(100, 0, 2);
    machine.others = 0.1;
    store(1, 0);
    expect(1, 0, 2);
    machine.unknown = true;
    store(1, 1);
    expect(100, 0, 3);
}

/* Of two that were disturbed the faster one, and not for ever. */
static void others_that_come_back_are_counted(void **state)
{
    (void)state;
    store(1, 1);
    machine.others_at_work = 0.9;
    expect(100, 2, 1);
    machine.others = 0.1;
    machine.bytes_per_s = 50;
    expect(100, 3, 2);
    machine.others = 0.1;
    expect(100, 3, 2); /* often enough */
}

static void what_cannot_be_measured_now_stays(void **state)
{
    (void)state;
    store(1, 1);
    machine.fails = true;
    expect(1, 1, 1);
}

static bool has_rates_of(const char *gpu)
{
    hypura_profile stored = invented_profile(0);
    hypura_os_drive drive;
    hypura_error error;
    assert_int_equal(hypura_os_drive_read(fixture_folder, &drive, &error), HYPURA_OK);
    assert_true(hypura_store_load(fixture_folder, drive.id, &stored));
    for (int i = 0; i < stored.n_devices; i++) {
        if (strcmp(stored.devices[i].name, gpu) == 0) {
            return stored.devices[i].upload_bytes_per_s == 1e9;
        }
    }
    return false;
}

/* Its driver is not loaded now, or it is listed under another one's name. */
static void rates_of_a_gpu_that_is_not_listed_stay(void **state)
{
    (void)state;
    hypura_profile p = invented_profile(1);
    p.n_disturbed = 1;
    invented_gpu(&p);
    invented_store(&p);
    expect(100, 0, 1); /* stored anew */
    assert_true(has_rates_of("Elsewhere0"));
}

/* A cache that cannot be written costs the time to measure again, and nothing else. */
static void what_cannot_be_stored_is_measured_for_each(void **state)
{
    (void)state;
    char stored[128];
    snprintf(stored, sizeof stored, "%s/profile.json", fixture_folder);
    assert_int_equal(mkdir(stored, 0755), 0); /* also root cannot write a file of this name */
    for (int i = 1; i <= 2; i++) {
        const hypura_profile p = get(false);
        assert_int_equal(machine.n_measured, i);
        assert_true(p.direct_bytes_per_s == 100 && p.ram_available_bytes > 0);
        assert_non_null(strstr(p.not_stored, stored));
    }
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
    store(1, 1);
    const hypura_profile_options options = {.cache_dir = fixture_folder, .progress = stop};
    hypura_profile p;
    hypura_error error;
    assert_int_equal(hypura_profile_get(&options, &p, &error), HYPURA_ERR_CANCELLED);
    machine.others = 0.9;
    expect(1, 1, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, fixture_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_others_disturb_is_told_and_left_while_they_do),
        TEST(at_rest_it_is_measured_again),
        TEST(others_that_come_back_are_counted),
        TEST(what_cannot_be_measured_now_stays),
        TEST(rates_of_a_gpu_that_is_not_listed_stay),
        TEST(what_cannot_be_stored_is_measured_for_each),
        TEST(a_stop_leaves_what_was_stored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
