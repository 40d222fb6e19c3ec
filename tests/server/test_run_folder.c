/*
 * test_run_folder.c - folders of servers that live stay, those of servers that are gone do not.
 */
#include "server/process/run_folder.h"

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char parent[] = "./run-XXXXXX";

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info;
    (void)kind;
    (void)place;
    return remove(path);
}

static int setup(void **state)
{
    (void)state;
    strcpy(parent, "./run-XXXXXX");
    return mkdtemp(parent) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return nftw(parent, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static run_folder open_one(void)
{
    run_folder folder;
    hypura_error error = {0};
    if (run_folder_open(parent, &folder, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    return folder;
}

static const char *below(const char *folder, const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void make(const char *folder, const char *name)
{
    const int fd = open(below(folder, name), O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static bool is_there(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0;
}

static void it_is_private_and_goes_with_what_is_in_it(void **state)
{
    (void)state;
    struct stat info;
    run_folder folder = open_one();
    assert_int_equal(stat(folder.path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    char engine[256];
    snprintf(engine, sizeof engine, "%s", below(folder.path, "engine"));
    assert_int_equal(mkdir(engine, 0700), 0);
    make(engine, "live");
    char path[sizeof folder.path];
    strcpy(path, folder.path);
    run_folder_close(&folder);
    assert_false(is_there(path));
    run_folder_close(&folder); /* nothing any more */
}

/* Leaves it as a killed server does. */
static void leave(char *path, size_t capacity)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        run_folder folder = open_one();
        make(folder.path, "live");
        (void)!write(ends[1], folder.path, strlen(folder.path));
        _exit(0);
    }
    close(ends[1]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    const ssize_t n = read(ends[0], path, capacity - 1);
    assert_true(n > 0);
    path[n] = '\0';
    close(ends[0]);
    assert_true(is_there(below(path, "live")));
}

static void the_next_one_takes_those_away_whose_server_is_gone(void **state)
{
    (void)state;
    char left[2][128];
    run_folder lives = open_one();
    for (int i = 0; i < 2; i++) {
        leave(left[i], sizeof left[i]);
    }
    assert_false(is_there(left[0])); /* the second did it */
    run_folder next = open_one();
    assert_false(is_there(left[1]));
    assert_true(is_there(below(lives.path, "lock")));
    run_folder_close(&lives);
    run_folder_close(&next);
}

static void what_is_not_such_a_folder_stays(void **state)
{
    (void)state;
    char name[64];
    char path[256];
    char other[256];
    snprintf(name, sizeof name, "hypura-%u-none", (unsigned)getuid()); /* being made, or of an older version */
    snprintf(path, sizeof path, "%s", below(parent, name));
    assert_int_equal(mkdir(path, 0700), 0);
    make(path, "lock.new");
    snprintf(other, sizeof other, "%s", below(parent, "other"));
    assert_int_equal(mkdir(other, 0700), 0);
    make(other, "lock");
    snprintf(name, sizeof name, "hypura-%u-link", (unsigned)getuid());
    assert_int_equal(symlink("other", below(parent, name)), 0);
    snprintf(name, sizeof name, "hypura-%u-file", (unsigned)getuid());
    make(parent, name);
    run_folder folder = open_one();
    assert_true(is_there(below(path, "lock.new")));
    assert_true(is_there(below(other, "lock")));
    assert_true(is_there(below(parent, name)));
    snprintf(name, sizeof name, "hypura-%u-link", (unsigned)getuid());
    assert_true(is_there(below(parent, name)));
    run_folder_close(&folder);
}

static void a_place_that_cannot_be_written_is_named(void **state)
{
    (void)state;
    run_folder folder;
    hypura_error error = {0};
    assert_int_equal(run_folder_open("/no/such/folder", &folder, &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, "/no/such/folder"));
    char longer[200];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(run_folder_open(longer, &folder, &error), HYPURA_ERR_USAGE);
    run_folder_close(&folder);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_is_private_and_goes_with_what_is_in_it),
        TEST(the_next_one_takes_those_away_whose_server_is_gone),
        TEST(what_is_not_such_a_folder_stays),
        TEST(a_place_that_cannot_be_written_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
