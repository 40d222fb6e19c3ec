/* Files that several processes change: turns, and what ends them. */
#include "hw/kept.h"

#include "hw_fixture.h"

#include <signal.h>
#include <sys/wait.h>

enum { PROCESSES = 4, CHANGES = 10 };

static void join(char *path, size_t bytes, const char *name)
{
    snprintf(path, bytes, "%s/%s", fixture_folder, name);
}

/* Reads a number, and writes the next one. */
static bool count_on(const char *path)
{
    int turn;
    int n = 0;
    char text[16];
    while (!hypura_kept_begin(fixture_folder, &turn)) {
    }
    FILE *file = fopen(path, "r");
    const bool ok = file && fscanf(file, "%d", &n) == 1;
    if (file) {
        fclose(file);
    }
    snprintf(text, sizeof text, "%d", n + 1);
    const bool written = hypura_kept_write(path, text, NULL) == HYPURA_OK;
    hypura_kept_end(turn);
    return ok && written;
}

static void no_change_of_several_processes_is_lost(void **state)
{
    (void)state;
    char path[256];
    pid_t children[PROCESSES];
    int n = 0;
    join(path, sizeof path, "number");
    fixture_write("number", "0");
    for (int p = 0; p < PROCESSES; p++) {
        children[p] = fork();
        if (children[p] == 0) {
            bool ok = true;
            for (int i = 0; i < CHANGES; i++) {
                ok = ok && count_on(path);
            }
            _exit(ok ? 0 : 1);
        }
    }
    for (int p = 0; p < PROCESSES; p++) {
        int status;
        assert_int_equal(waitpid(children[p], &status, 0), children[p]);
        assert_int_equal(status, 0);
    }
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%d", &n), 1);
    fclose(file);
    assert_int_equal(n, PROCESSES * CHANGES);
    assert_int_equal(fixture_count_files(), 1);
}

static void a_turn_ends_with_its_process(void **state)
{
    (void)state;
    int ends[2];
    int turn;
    char byte;
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        (void)!write(ends[1], hypura_kept_begin(fixture_folder, &turn) ? "y" : "n", 1);
        (void)alarm(60); /* where this test ends without it */
        for (;;) {
            (void)pause();
        }
    }
    assert_int_equal(read(ends[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    assert_false(hypura_kept_begin(fixture_folder, &turn)); /* waits, but not for ever */
    assert_int_equal(turn, -1);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_true(hypura_kept_begin(fixture_folder, &turn));
    assert_true(turn >= 0);
    hypura_kept_end(turn);
    close(ends[0]);
    close(ends[1]);
}

/* Writing says what is wrong with the folder, better than a lock does. */
static void a_folder_without_locks_stops_nobody(void **state)
{
    (void)state;
    int turn;
    char path[256];
    hypura_error error;
    join(path, sizeof path, "missing");
    assert_true(hypura_kept_begin(path, &turn));
    assert_int_equal(turn, -1);
    hypura_kept_end(turn);
    join(path, sizeof path, "missing/file");
    assert_int_equal(hypura_kept_write(path, "x", &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(no_change_of_several_processes_is_lost),
        IN_FOLDER(a_turn_ends_with_its_process),
        IN_FOLDER(a_folder_without_locks_stops_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
