/* Files of results: whole or not there, links and devices as they were. */
#include "base/new_file.h"

#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[] = "/tmp/hypura-new-file-XXXXXX";

static int enter(void **state)
{
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int leave(void **state)
{
    (void)state;
    char command[64];
    (void)snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static hypura_status write_text(const char *path, const char *text, hypura_error *error)
{
    hypura_new_file file;
    const hypura_status status = hypura_new_file_open(&file, path, error);
    if (status != HYPURA_OK) {
        return status;
    }
    (void)fputs(text, file.to);
    return hypura_new_file_close(&file, error);
}

/* As what is kept is written. */
static hypura_status write_synced(const char *path, const char *text, hypura_error *error)
{
    hypura_new_file file;
    const hypura_status status = hypura_new_file_open(&file, path, error);
    if (status != HYPURA_OK) {
        return status;
    }
    (void)fputs(text, file.to);
    return hypura_new_file_close_synced(&file, error);
}

static void expect_text(const char *path, const char *wanted)
{
    char text[64] = "";
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    (void)fclose(file);
    assert_string_equal(text, wanted);
}

static int count_files(void)
{
    int n = 0;
    DIR *all = opendir(".");
    for (const struct dirent *one; (one = readdir(all)) != NULL;) {
        n += one->d_name[0] != '.';
    }
    (void)closedir(all);
    return n;
}

static void a_file_is_whole_or_as_it_was(void **state)
{
    (void)state;
    hypura_error error;
    struct rlimit before;
    struct stat kind;
    assert_int_equal(write_text("a", "first", &error), HYPURA_OK);
    assert_int_equal(write_text("a", "second", &error), HYPURA_OK);
    expect_text("a", "second");
    assert_true(stat("a", &kind) == 0 && (kind.st_mode & 0600) == 0600);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    const struct rlimit small = {3, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const hypura_status status = write_text("a", "third", &error);
    const hypura_status other = write_text("b", "third", NULL);
    const hypura_status synced = write_synced("a", "third", NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(status, HYPURA_ERR_IO);
    assert_int_equal(other, HYPURA_ERR_IO);
    assert_int_equal(synced, HYPURA_ERR_IO);
    assert_string_equal(error.message, "cannot write a: File too large");
    expect_text("a", "second");
    assert_int_equal(count_files(), 1);
    assert_int_equal(write_synced("a", "fourth", &error), HYPURA_OK);
    expect_text("a", "fourth");
    assert_int_equal(count_files(), 1);
    assert_int_equal(unlink("a"), 0);
}

static void nothing_is_written_while_it_is_open(void **state)
{
    (void)state;
    hypura_new_file file;
    hypura_new_file same;
    assert_int_equal(hypura_new_file_open(&file, "a", NULL), HYPURA_OK);
    assert_int_not_equal(access("a", F_OK), 0);
    assert_int_equal(hypura_new_file_open(&same, "a", NULL), HYPURA_OK); /* a name of its own */
    (void)fputs("x", file.to);
    assert_int_equal(hypura_new_file_close(&file, NULL), HYPURA_OK);
    expect_text("a", "x");
    assert_int_equal(hypura_new_file_close(&same, NULL), HYPURA_OK);
    expect_text("a", "");
    assert_int_equal(unlink("a"), 0);
}

static void links_and_devices_stay(void **state)
{
    (void)state;
    struct stat kind;
    hypura_error error;
    assert_int_equal(write_text("target", "old", NULL), HYPURA_OK);
    assert_int_equal(symlink("target", "link"), 0);
    assert_int_equal(write_text("link", "new", NULL), HYPURA_OK);
    assert_true(lstat("link", &kind) == 0 && S_ISLNK(kind.st_mode));
    expect_text("target", "new");
    assert_int_equal(write_text("/dev/null", "x", NULL), HYPURA_OK);
    assert_true(stat("/dev/null", &kind) == 0 && S_ISCHR(kind.st_mode));
    assert_int_equal(write_text(".", "x", &error), HYPURA_ERR_IO);
    assert_string_equal(error.message, "cannot write .: Is a directory");
    assert_int_equal(write_text("no/such", "x", &error), HYPURA_ERR_IO);
    assert_string_equal(error.message, "cannot write no/such: No such file or directory");
}

static void permissions_stay(void **state)
{
    (void)state;
    struct stat kind;
    const mode_t before = umask(022);
    assert_int_equal(write_text("secret", "old", NULL), HYPURA_OK);
    assert_true(stat("secret", &kind) == 0 && (kind.st_mode & 0777) == 0644);
    assert_int_equal(chmod("secret", 0600), 0);
    assert_int_equal(symlink("secret", "to-it"), 0);
    const bool given = chown("secret", 12345, 12345) == 0; /* by root alone */
    assert_int_equal(write_synced("to-it", "new", NULL), HYPURA_OK);
    (void)umask(before);
    expect_text("secret", "new");
    assert_int_equal(stat("secret", &kind), 0);
    assert_int_equal(kind.st_mode & 0777, 0600);
    assert_true(!given || (kind.st_uid == 12345 && kind.st_gid == 12345));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_whole_or_as_it_was),
        cmocka_unit_test(nothing_is_written_while_it_is_open),
        cmocka_unit_test(links_and_devices_stay),
        cmocka_unit_test(permissions_stay),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
