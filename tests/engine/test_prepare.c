/*
 * test_prepare.c - memory that others took while the processor was measured is not counted on.
 */
#include "engine_fixture.h"

#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define BEFORE_BYTES (UINT64_C(9) << 30)
#define AFTER_BYTES  (UINT64_C(5) << 30)

static uint64_t limit_bytes;
static int      n_reads;

hypura_status __real_hypura_os_memory_read(hypura_os_memory *memory, hypura_error *error);
hypura_status __wrap_hypura_os_memory_read(hypura_os_memory *memory, hypura_error *error);

hypura_status __wrap_hypura_os_memory_read(hypura_os_memory *memory, hypura_error *error)
{
    const hypura_status status = __real_hypura_os_memory_read(memory, error);
    memory->limit_bytes = limit_bytes;
    n_reads++;
    return status;
}

/* The first measurement of the processor takes long, and somebody takes memory meanwhile. */
static bool take_long(void *user, const char *what, uint64_t done, uint64_t total)
{
    static const struct timespec long_time = {0, 700000000};
    bool *taken = user;
    (void)done;
    (void)total;
    if (strstr(what, "processor") && !*taken) {
        *taken = true;
        limit_bytes = AFTER_BYTES;
        (void)nanosleep(&long_time, NULL);
    }
    return true;
}

static void memory_is_read_again_after_measuring(void **state)
{
    (void)state;
    char cache[1024];
    char path[1200];
    char stored[1200];
    size_t n = 0;
    strcpy(cache, fixture_path("cache"));
    assert_int_equal(mkdir(cache, 0777), 0);
    snprintf(stored, sizeof stored, "%s/profile.json", fixture_cache_dir());
    snprintf(path, sizeof path, "%s/profile.json", cache);
    char *profile = fixture_read(stored, &n); /* the machine is measured, the processor is not */
    fixture_write(path, profile, n);
    free(profile);

    bool taken = false;
    hypura_plan *plan = NULL;
    hypura_error error;
    const hypura_model_options options = {.path = fixture_arch("olmoe-moe.gguf"),
                                          .n_threads = 1,
                                          .cache_dir = cache,
                                          .force_paging = true,
                                          .progress = take_long,
                                          .progress_user = &taken};
    limit_bytes = BEFORE_BYTES;
    fixture_ok(hypura_estimate(&options, &plan, &error), &error);
    assert_true(taken);
    assert_true(n_reads >= 2);
    assert_int_equal(plan->ram_limit_bytes, AFTER_BYTES);
    hypura_plan_free(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_read_again_after_measuring),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
