/* What no model uses: what is found, what is removed, and what somebody may be using. */
#include "store_fixture.h"

#include "server/models/store_internal.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#define PART "models/.partial/sha256-1111111111111111111111111111111111111111111111111111111111111111"
#define SENT "models/.blobs/sha256-2222222222222222222222222222222222222222222222222222222222222222"
#define HEX  "2222222222222222222222222222222222222222222222222222222222222222"

static char bytes[10000];

static void age(const char *below, double days)
{
    const time_t when = time(NULL) - (time_t)(days * 86400);
    const struct timespec times[2] = {{.tv_sec = when}, {.tv_sec = when}};
    assert_int_equal(utimensat(AT_FDCWD, fixture_path(below), times, 0), 0);
}

static void write_both(double part_days, double sent_days)
{
    memset(bytes, 'x', sizeof bytes);
    fixture_write(PART, bytes, sizeof bytes);
    fixture_write(SENT, bytes, sizeof bytes);
    age(PART, part_days);
    age(SENT, sent_days);
}

static void what_is_old_enough_is_found_and_removed(void **state)
{
    (void)state;
    static const struct {
        double part_days;
        double sent_days;
        hypura_unused_age age;
        size_t n;
    } cases[] = {{0, 0, HYPURA_UNUSED_ANY, 1},    {0, 0, HYPURA_UNUSED_LONG, 0}, {6, 0.9, HYPURA_UNUSED_LONG, 0},
                 {8, 0.9, HYPURA_UNUSED_LONG, 1}, {8, 2, HYPURA_UNUSED_LONG, 2}, {1, 2, HYPURA_UNUSED_ANY, 2}};
    hypura_models *models = fixture_open();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_both(cases[i].part_days, cases[i].sent_days);
        hypura_unused unused = hypura_models_unused(models, cases[i].age, false);
        assert_int_equal(unused.n_files, cases[i].n);
        assert_true(unused.bytes >= cases[i].n * sizeof bytes);
        assert_int_equal(fixture_count_files("models"), 2);
        unused = hypura_models_unused(models, cases[i].age, true);
        assert_int_equal(unused.n_files, cases[i].n);
        assert_int_equal(fixture_count_files("models"), 2 - (int)cases[i].n);
    }
    hypura_models_close(models);
}

static void models_are_left_alone(void **state)
{
    (void)state;
    fixture_write_gguf("models/a.gguf", &(fixture_gguf){.name = "a"});
    fixture_write_text("models/.partial/notes", "of somebody");
    age("models/a.gguf", 100);
    age("models/.partial/notes", 100);
    assert_int_equal(link(fixture_path("models/a.gguf"), fixture_path(PART)), 0);
    hypura_models *models = fixture_open();
    const hypura_unused unused = hypura_models_unused(models, HYPURA_UNUSED_ANY, true);
    assert_int_equal(unused.n_files, 1); /* the other name of what a model is */
    assert_int_equal(unused.bytes, 0);
    assert_true(fixture_has(models, "a"));
    assert_true(fixture_exists("models/.partial/notes"));
    hypura_models_close(models);
}

/* Another process holds the folder. */
static void what_somebody_holds_stays(void **state)
{
    (void)state;
    static const char *const folders[] = {HYPURA_STORE_PARTIAL, HYPURA_STORE_BLOBS};
    hypura_models *models = fixture_open();
    for (size_t i = 0; i < 2; i++) {
        int ready[2];
        char byte;
        write_both(100, 100);
        assert_int_equal(pipe(ready), 0);
        const pid_t holder = fork();
        if (holder == 0) {
            const int held = hypura_store_hold(models, folders[i]);
            (void)!write(ready[1], held >= 0 ? "y" : "n", 1);
            (void)pause();
            _exit(0);
        }
        assert_int_equal(read(ready[0], &byte, 1), 1);
        assert_int_equal(byte, 'y');
        assert_int_equal(hypura_models_unused(models, HYPURA_UNUSED_ANY, true).n_files, 1);
        assert_true(fixture_exists(i == 0 ? PART : SENT));
        assert_int_equal(kill(holder, SIGKILL), 0);
        assert_int_equal(waitpid(holder, NULL, 0), holder);
        assert_int_equal(hypura_models_unused(models, HYPURA_UNUSED_ANY, true).n_files, 1);
        (void)close(ready[0]);
        (void)close(ready[1]);
    }
    hypura_models_close(models);
}

static void one_that_is_asked_for_is_kept_for_another_day(void **state)
{
    (void)state;
    hypura_models *models = fixture_open();
    write_both(0, 100);
    assert_true(hypura_models_has_blob(models, "sha256:" HEX));
    assert_int_equal(hypura_models_unused(models, HYPURA_UNUSED_LONG, true).n_files, 0);
    assert_true(hypura_models_has_blob(models, HEX));
    hypura_models_close(models);
}

static void removing_a_model_removes_them(void **state)
{
    (void)state;
    for (int keep = 0; keep < 2; keep++) {
        hypura_models *models = NULL;
        hypura_error error = {0};
        const hypura_models_options options = {.folder = fixture_path("models"), .keep_unused = keep};
        fixture_write_gguf("models/a.gguf", &(fixture_gguf){.name = "a"});
        write_both(100, 100);
        assert_int_equal(hypura_models_open(&options, &models, &error), HYPURA_OK);
        const hypura_model_entry *entry = fixture_find(models, "a");
        assert_int_equal(hypura_models_remove(models, entry, &error), HYPURA_OK);
        hypura_model_entry_release(entry);
        assert_int_equal(fixture_count_files("models"), keep ? 2 : 0);
        hypura_models_close(models);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(what_is_old_enough_is_found_and_removed),
        IN_FOLDER(models_are_left_alone),
        IN_FOLDER(what_somebody_holds_stays),
        IN_FOLDER(one_that_is_asked_for_is_kept_for_another_day),
        IN_FOLDER(removing_a_model_removes_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
