/* The whole profile on the machine that runs the tests. Figures are checked for
 * sense, never for speed. */
#include "hw/probe.h"

#include "invented.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

static bool must_not_measure(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user;
    (void)done;
    (void)total;
    fail_msg("measured (%s) although a profile is stored", what);
    return false;
}

static void store_invented(void)
{
    hypura_profile p = invented_profile(12345678);
    invented_gpu(&p);
    invented_store(&p);
}

static void a_stored_profile_is_used_with_memory_of_now(void **state)
{
    (void)state;
    store_invented();
    hypura_profile_options options = {.cache_dir = fixture_folder, .progress = must_not_measure};
    hypura_profile p;
    hypura_error error;
    assert_int_equal(hypura_profile_get(&options, &p, &error), HYPURA_OK);
    assert_true(p.direct_bytes_per_s == 12345678);
    assert_int_equal(p.io_depth, 3);
    assert_true(p.ram_total_bytes >= p.ram_limit_bytes && p.ram_limit_bytes >= p.ram_available_bytes);
    assert_true(p.ram_available_bytes > 0);
    for (int i = 0; i < p.n_devices; i++) {
        assert_true(strcmp(p.devices[i].kind, "cpu") != 0 || p.devices[i].free_bytes == p.ram_available_bytes);
    }
    assert_true(p.n_devices >= 1 && p.n_devices <= HYPURA_MAX_DEVICES);
    bool has_cpu = false;
    for (int i = 0; i < p.n_devices; i++) {
        has_cpu = has_cpu || strcmp(p.devices[i].kind, "cpu") == 0;
        assert_true(strlen(p.devices[i].name) > 0);
        /* what the GPU that is not here had is not this one's */
        assert_true(strcmp(p.devices[i].kind, "cpu") != 0 || p.devices[i].upload_bytes_per_s == 0.0);
    }
    assert_true(has_cpu);
}

/* Stops at the nth call whose text contains `in`. */
typedef struct stopper {
    const char *in;
    int left;
} stopper;

static bool stop(void *user, const char *what, uint64_t done, uint64_t total)
{
    stopper *s = user;
    assert_true(done <= total && total > 0);
    return strstr(what, s->in) == NULL || s->left-- > 0;
}

static void force_and_damage_measure_anew_and_a_stop_leaves_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        int left;
        bool force;
    } cases[] = {{"memory", 0, true}, {"memory", 0, false}, {"writing", 3, false}, {"storage", 2, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        store_invented();
        if (!cases[i].force) {
            fixture_write("profile.json", "{ damaged");
        }
        stopper s = {.in = cases[i].in, .left = cases[i].left};
        hypura_profile_options options = {
            .cache_dir = fixture_folder, .force = cases[i].force, .progress = stop, .progress_user = &s};
        hypura_profile p;
        hypura_error error;
        assert_int_equal(hypura_profile_get(&options, &p, &error), HYPURA_ERR_CANCELLED);
        assert_true(strlen(error.message) > 0);
        assert_int_equal(fixture_count_files(), 1); /* profile.json */
    }
}

static void a_file_that_cannot_grow_is_an_error_with_advice(void **state)
{
    (void)state;
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    struct rlimit small = {.rlim_cur = 10 << 20, .rlim_max = old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    hypura_profile p = {.memory_bytes_per_s = 1e12};
    hypura_error error;
    hypura_status status = hypura_probe_storage(fixture_folder, NULL, NULL, &p, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(status, HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, fixture_folder));
    assert_non_null(strstr(error.message, "free some space"));
    assert_int_equal(fixture_count_files(), 0);
}

static void without_room_a_small_file_is_measured_itself(void **state)
{
    (void)state;
    char path[128];
    char cache[128];
    snprintf(path, sizeof path, "%s/model.gguf", fixture_folder);
    snprintf(cache, sizeof cache, "%s/cache", fixture_folder);
    fixture_write("model.gguf", "x");
    assert_int_equal(truncate(path, (off_t)(3 << 20)), 0);
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    struct rlimit small = {.rlim_cur = 10 << 20, .rlim_max = old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const hypura_profile_options options = {.cache_dir = cache, .storage_path = path};
    hypura_profile p;
    hypura_error error;
    hypura_status status = hypura_profile_get(&options, &p, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    if (status != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    assert_true(p.provisional);
    assert_string_equal(p.storage_path, path);
    assert_true(p.direct_bytes_per_s > 0 && p.direct_bytes_per_s <= p.memory_bytes_per_s);
    assert_true(p.io_block_bytes <= 3 << 20);
    char stored[144];
    snprintf(stored, sizeof stored, "%s/profile.json", cache);
    assert_int_equal(access(stored, F_OK), -1); /* where there is room again it is measured as it should be */
}

static void a_large_file_is_measured_as_it_is(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/model.gguf", fixture_folder);
    fixture_write("model.gguf", "x");
    assert_int_equal(truncate(path, (off_t)HYPURA_PROBE_FILE_BYTES), 0);
    /* Holes are not on the drive at all: faster than a slow memory. */
    hypura_profile p = {.memory_bytes_per_s = 1};
    hypura_error error;
    assert_int_equal(hypura_probe_storage(path, NULL, NULL, &p, &error), HYPURA_ERR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "faster than memory"));
    assert_string_equal(p.storage_path, path);
    assert_true(p.direct_bytes_per_s > 0 && p.read_latency_us > 0);
    assert_int_equal(fixture_count_files(), 1);
}

static bool has_no_gap(void *user, const char *what, uint64_t done, uint64_t total)
{
    uint64_t *n_calls = user;
    (*n_calls)++;
    assert_non_null(what);
    assert_true(done <= total);
    return true;
}

static void measured_figures_make_sense_and_are_stored(void **state)
{
    (void)state;
    char cache[128];
    char model[128];
    snprintf(cache, sizeof cache, "%s/not/yet/there", fixture_folder);
    snprintf(model, sizeof model, "%s/model.gguf", fixture_folder);
    fixture_write("model.gguf", "too small to be measured itself");
    uint64_t n_calls = 0;
    hypura_profile_options options = {
        .cache_dir = cache, .storage_path = model, .progress = has_no_gap, .progress_user = &n_calls};
    hypura_profile p;
    hypura_error error;
    if (hypura_profile_get(&options, &p, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    assert_true(n_calls > 10);
    assert_true(p.memory_bytes_per_s > 1e8 && p.memory_bytes_per_s < 1e13);
    assert_true(p.direct_bytes_per_s > 1e6 && p.direct_bytes_per_s <= p.memory_bytes_per_s);
    assert_true(p.read_latency_us >= 1 && p.read_latency_us < 1e6);
    assert_true(p.io_block_bytes >= 128 << 10 && p.io_block_bytes <= 4 << 20);
    assert_true(p.io_depth >= 1 && p.io_depth <= 32);
    assert_true(p.n_io_rates > 0);
    assert_false(p.provisional);
    assert_string_equal(p.storage_path, fixture_folder);
    assert_true(p.measured_unix_s > 1600000000);

    options.storage_path = NULL;
    options.progress = p.n_disturbed == 0 ? must_not_measure : NULL; /* else at rest it would be (test_again.c) */
    hypura_profile again;
    assert_int_equal(hypura_profile_get(&options, &again, &error), HYPURA_OK);
    assert_true(again.direct_bytes_per_s == p.direct_bytes_per_s || p.n_disturbed > 0);
    assert_true(again.measured_unix_s == p.measured_unix_s || p.n_disturbed > 0);
}

static void a_cache_that_cannot_be_made_is_measured_for(void **state)
{
    (void)state;
    hypura_profile p;
    hypura_error error;
    stopper s = {.in = "memory", .left = 0};
    const hypura_profile_options options = {
        .cache_dir = "/dev/null/cache", .storage_path = fixture_folder, .progress = stop, .progress_user = &s};
    assert_int_equal(hypura_profile_get(&options, &p, &error), HYPURA_ERR_CANCELLED); /* it would measure */
    assert_int_equal(hypura_profile_get(&options, &p, NULL), HYPURA_ERR_CANCELLED);
}

static void senseless_options_are_refused(void **state)
{
    (void)state;
    hypura_profile p;
    hypura_error error;
    assert_int_equal(hypura_profile_get(&(hypura_profile_options){0}, &p, &error), HYPURA_ERR_USAGE);
    hypura_profile_options options = {.storage_path = "/no/such/folder"};
    assert_int_equal(hypura_profile_get(&options, &p, &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, "/no/such/folder"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_stored_profile_is_used_with_memory_of_now),
        IN_FOLDER(force_and_damage_measure_anew_and_a_stop_leaves_nothing),
        IN_FOLDER(a_cache_that_cannot_be_made_is_measured_for),
        IN_FOLDER(a_file_that_cannot_grow_is_an_error_with_advice),
        IN_FOLDER(without_room_a_small_file_is_measured_itself),
        IN_FOLDER(a_large_file_is_measured_as_it_is),
        IN_FOLDER(measured_figures_make_sense_and_are_stored),
        cmocka_unit_test(senseless_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
