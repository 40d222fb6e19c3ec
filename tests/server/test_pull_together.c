/* Several pulls of one folder at once, and somebody who clears what pulls left. */
#include "pull_fixture.h"

#include "base/clock.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/file.h>

static void *pull_in_thread(void *user)
{
    hypura_error error = {0};
    (void)user;
    return pull_as("hf.co/user/repo", NULL, NULL, &error) == HYPURA_OK ? NULL : models;
}

static void pulls_of_one_model_share_what_comes(void **state)
{
    (void)state;
    pthread_t threads[4];
    fixture_write_gguf("hub/user/repo/m.gguf", &large);
    fixture_write_text("hub/user/repo/faults.json", "{\"bytes_per_s\": 2000000}");
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, pull_in_thread, NULL), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    assert_int_equal(n_requests("/cdn/"), 1);
    check_same("models/hf.co/user/repo.gguf", "hub/user/repo/m.gguf");
    assert_int_equal(fixture_count_files("models/.partial"), 0);
    assert_int_equal(fixture_count_files("models/.staging"), 0);
}

static bool tell_fetching(void *user, const hypura_pull_step *step)
{
    if (step->digest != NULL) {
        atomic_store((atomic_bool *)user, true);
    }
    return true;
}

static void *pull_telling(void *fetching)
{
    hypura_error error = {0};
    const hypura_pull_options options = {
        .name = "hf.co/user/repo", .hub_url = hub_url, .pause_us = 1000, .report = tell_fetching, .user = fetching};
    return hypura_models_pull(models, &options, &error) == HYPURA_OK ? NULL : models;
}

/* Locks a part of a model of two files, the one that is fetched first or the other, as the pull that fills it. below: of
 * 128 bytes. */
static int hold_part(const char *stem_json, size_t i, char *below)
{
    const char *digests[2];
    json_t *root = hypura_store_read_json(stem_json);
    for (size_t f = 0; f < 2; f++) {
        const json_t *file = json_array_get(json_object_get(root, "source"), f);
        digests[f] = json_string_value(json_object_get(file, "sha256"));
    }
    const size_t first = strcmp(digests[0], digests[1]) < 0 ? 0 : 1;
    snprintf(below, 128, "models/.partial/sha256-%s", digests[i == 0 ? first : 1 - first]);
    json_decref(root);
    fixture_write_text(below, "");
    const int fd = open(fixture_path(below), O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0 && flock(fd, LOCK_EX) == 0);
    return fd;
}

/* Who comes to the first part when the model is there already leaves the second to another model's pull. */
static void parts_that_others_fill_stay(void **state)
{
    (void)state;
    char first[128];
    char second[128];
    char settings[HYPURA_STORE_PATH_BYTES];
    char aside[HYPURA_STORE_PATH_BYTES];
    atomic_bool fetching = false;
    pthread_t thread;
    void *failed;
    fixture_write_gguf("hub/user/repo/m.gguf", &(fixture_gguf){0});
    fixture_write_gguf("hub/user/repo/mmproj-F16.gguf", &(fixture_gguf){.arch = "clip"});
    check_pull("hf.co/user/repo", NULL);
    snprintf(settings, sizeof settings, "%s", fixture_path("models/hf.co/user/repo.json"));
    snprintf(aside, sizeof aside, "%s", fixture_path("aside"));
    const int held = hold_part(settings, 0, first);
    const int others = hold_part(settings, 1, second);
    assert_int_equal(rename(settings, aside), 0);
    assert_int_equal(pthread_create(&thread, NULL, pull_telling, &fetching), 0);
    while (!atomic_load(&fetching)) {
        (void)usleep(1000);
    }
    assert_int_equal(rename(aside, settings), 0);
    (void)close(held);
    assert_int_equal(pthread_join(thread, &failed), 0);
    assert_null(failed);
    assert_false(fixture_exists(first));
    assert_true(fixture_exists(second));
    (void)close(others);
}

/* Somebody clears the folder whenever a file is told of. */
static bool clear_parts(void *user, const hypura_pull_step *step)
{
    if (step->digest != NULL) {
        *(uint64_t *)user += hypura_models_unused(models, HYPURA_UNUSED_ANY, true).n_files;
    }
    return true;
}

static void parts_under_way_are_not_cleared(void **state)
{
    (void)state;
    uint64_t n_cleared = 0;
    hypura_error error = {0};
    const hypura_pull_options options = {
        .name = "hf.co/user/repo", .hub_url = hub_url, .pause_us = 1000, .report = clear_parts, .user = &n_cleared};
    fixture_write_gguf("hub/user/repo/m.gguf", &(fixture_gguf){0});
    fixture_write_gguf("hub/user/repo/mmproj-F16.gguf", &(fixture_gguf){.arch = "clip"});
    if (hypura_models_pull(models, &options, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(n_cleared, 0);
    check_same("models/hf.co/user/repo.gguf", "hub/user/repo/m.gguf");
}

/* A pull that goes on behind its first file when the other one has come to a file too, and is given up after a while. */
typedef struct meeting {
    const char *name;
    atomic_bool fetching;
    const atomic_bool *other;
    uint64_t begin_us;
} meeting;

static bool meet(void *user, const hypura_pull_step *step)
{
    meeting *m = user;
    const uint64_t limit_us = m->begin_us + 20000000;
    if (step->digest != NULL) {
        atomic_store(&m->fetching, true);
    }
    while (step->digest != NULL && step->completed_bytes == step->total_bytes && !atomic_load(m->other) &&
           hypura_clock_us() < limit_us) {
        (void)usleep(1000);
    }
    return hypura_clock_us() < limit_us;
}

static void *pull_meeting(void *user)
{
    meeting *m = user;
    hypura_error error = {0};
    const hypura_pull_options options = {
        .name = m->name, .registry_url = hub_url, .pause_us = 1000, .report = meet, .user = m};
    return hypura_models_pull(models, &options, &error) == HYPURA_OK ? NULL : models;
}

/* Two models of the same two files, the one's first the other's second. */
static void pulls_that_share_files_do_not_wait_for_each_other(void **state)
{
    (void)state;
    static const fixture_gguf one = {.name = "one"};
    static const fixture_gguf two = {.name = "two"};
    meeting m[2] = {{.name = "m:a"}, {.name = "n:a"}};
    pthread_t threads[2];
    fixture_write_gguf("hub/library/m/a.gguf", &one);
    fixture_write_gguf("hub/library/m/a.mmproj", &two);
    fixture_write_gguf("hub/library/n/a.gguf", &two);
    fixture_write_gguf("hub/library/n/a.mmproj", &one);
    for (int i = 0; i < 2; i++) {
        m[i].other = &m[1 - i].fetching;
        m[i].begin_us = hypura_clock_us();
        assert_int_equal(pthread_create(&threads[i], NULL, pull_meeting, &m[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    check_same("models/m@a.gguf", "hub/library/m/a.gguf");
    check_same("models/n@a.gguf", "hub/library/n/a.gguf");
    assert_int_equal(fixture_count_files("models/.partial"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PULLS(pulls_of_one_model_share_what_comes),
        PULLS(parts_that_others_fill_stay),
        PULLS(parts_under_way_are_not_cleared),
        PULLS(pulls_that_share_files_do_not_wait_for_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
