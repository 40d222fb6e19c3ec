/*
 * test_mkmodel.c - mkmodel as a program: exit codes, messages, and that a run that
 * fails leaves nothing behind and what was there as it was.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "run.h"

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void test_help(void **state)
{
    (void)state;
    assert_int_equal(MKMODEL_RUN("--help"), 0);
    assert_int_equal(MKMODEL_RUN("upcycle", "--help"), 0);
    assert_int_equal(MKMODEL_RUN("list"), 0);
    assert_string_equal(last_stderr(), "");
}

static void test_wrong_usage(void **state)
{
    (void)state;
    static const char *const cases[][8] = {
        {NULL},
        {"nonsense"},
        {"upcycle"},
        {"upcycle", "a", "b"},
        {"upcycle", "a", "b", "--experts", "8"},
        {"upcycle", "a", "b", "--experts", "0", "--top-k", "1"},
        {"upcycle", "a", "b", "--experts", "8x", "--top-k", "1"},
        {"upcycle", "a", "b", "--experts", "-8", "--top-k", "1"},
        {"upcycle", "a", "b", "--experts", "99999", "--top-k", "1"},
        {"upcycle", "a", "b", "--experts", "2", "--top-k", "3"},
        {"upcycle", "a", "b", "--wrong"},
        {"shape"},
        {"shape", "nonsense", "a"},
        {"shape", "llama-tiny", "a", "--layers", "0"},
        {"shape", "llama-tiny", "a", "--type", "iq1_s"},
        {"shape", "llama-tiny", "a", "--no-vocab", "--vocab-from", "b"},
        {"shape", "llama-tiny", "a", "--no-vocab", "--words"},
        {"tiny"},
        {"tiny", "a", "b"},
        {"list", "a"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (run_mkmodel(cases[i]) != 2 || last_stderr()[0] == '\0') {
            fail_msg("case %zu (%s): not told to be wrong usage", i, cases[i][0] ? cases[i][0] : "");
        }
    }
    assert_int_equal(count_files("."), 0);
}

static void test_bad_sources_are_named(void **state)
{
    (void)state;
    assert_int_equal(MKMODEL_RUN("upcycle", "missing.gguf", "out.gguf", "--experts", "2", "--top-k", "1"), 1);
    assert_non_null(strstr(last_stderr(), "missing.gguf"));
    assert_non_null(strstr(last_stderr(), "No such file"));
    write_text("text.gguf", "no model at all");
    assert_int_equal(MKMODEL_RUN("upcycle", "text.gguf", "out.gguf", "--experts", "2", "--top-k", "1"), 1);
    assert_non_null(strstr(last_stderr(), "text.gguf"));
    assert_int_equal(MKMODEL_RUN("shape", "llama-tiny", "out.gguf", "--vocab-from", "missing.gguf"), 1);
    assert_non_null(strstr(last_stderr(), "missing.gguf"));
    assert_int_equal(MKMODEL_RUN("shape", "llama-tiny", "short.gguf", "--layers", "1"), 0);
    struct stat file;
    assert_int_equal(stat("short.gguf", &file), 0);
    assert_int_equal(truncate("short.gguf", file.st_size - 4096), 0);
    assert_int_equal(MKMODEL_RUN("upcycle", "short.gguf", "out.gguf", "--experts", "2", "--top-k", "1"), 1);
    assert_non_null(strstr(last_stderr(), "short.gguf"));
    assert_non_null(strstr(last_stderr(), "truncated"));
    assert_int_not_equal(access("out.gguf", F_OK), 0);
    unlink("text.gguf");
    unlink("short.gguf");
}

static void test_bad_destinations_are_named(void **state)
{
    (void)state;
    assert_int_equal(mkdir("folder", 0777), 0);
    assert_int_equal(MKMODEL_RUN("shape", "llama-tiny", "folder"), 1);
    assert_non_null(strstr(last_stderr(), "folder"));
    assert_int_equal(MKMODEL_RUN("shape", "llama-tiny", "nowhere/out.gguf"), 1);
    assert_non_null(strstr(last_stderr(), "nowhere/out.gguf"));
    /* a device must not be replaced by a file, however privileged the user */
    assert_int_equal(MKMODEL_RUN("shape", "llama-tiny", "/dev/full"), 1);
    assert_non_null(strstr(last_stderr(), "/dev/full"));
    struct stat device;
    assert_int_equal(stat("/dev/full", &device), 0);
    assert_true(S_ISCHR(device.st_mode));
    assert_int_equal(rmdir("folder"), 0);
    assert_int_equal(count_files("."), 0);
}

static void check_nothing_is_left(const limits *l, const char *message)
{
    static const char *const words[] = {"shape", "llama-tiny", "out.gguf", "--type", "f32", NULL};
    write_text("out.gguf", "as before");
    assert_int_equal(run_mkmodel_within(l, words), 1);
    assert_non_null(strstr(last_stderr(), "out.gguf"));
    assert_non_null(strstr(last_stderr(), message));
    assert_int_equal(count_files("."), 1);
    size_t bytes = 0;
    uint8_t *text = read_file("out.gguf", &bytes);
    assert_int_equal(bytes, strlen("as before"));
    assert_memory_equal(text, "as before", bytes);
    free(text);
    unlink("out.gguf");
}

static void test_failing_write_leaves_nothing(void **state)
{
    (void)state;
    const limits l = {.file_bytes = 1 << 20};
    check_nothing_is_left(&l, "File too large");
}

static void test_interrupt_leaves_nothing(void **state)
{
    (void)state;
    const limits l = {.signal = SIGTERM};
    check_nothing_is_left(&l, "interrupted");
}

static void test_parts_go_together(void **state)
{
    (void)state;
    /* the first part fits, the second with the experts does not */
    const limits l = {.file_bytes = 700 << 10};
    static const char *const words[] = {"shape", "qwen3-tiny", "cut.gguf", "--layers", "1", "--parts", "4", NULL};
    assert_int_equal(run_mkmodel_within(&l, words), 1);
    assert_non_null(strstr(last_stderr(), "-of-00004"));
    assert_null(strstr(last_stderr(), "-00001-of-00004"));
    assert_int_equal(count_files("."), 0);
}

static void test_full_drive_is_told(void **state)
{
    (void)state;
    assert_int_equal(mkdir("full", 0777), 0);
    const limits l = {.tmpfs_bytes = 1 << 20};
    static const char *const words[] = {"shape", "llama-tiny", "full/out.gguf", "--type", "f32", NULL};
    int rc = run_mkmodel_within(&l, words);
    rmdir("full");
    if (rc == -1) {
        skip(); /* not allowed to mount */
    }
    assert_int_equal(rc, 1);
    assert_non_null(strstr(last_stderr(), "full/out.gguf"));
    assert_non_null(strstr(last_stderr(), "not enough space"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_wrong_usage),
        cmocka_unit_test(test_bad_sources_are_named),
        cmocka_unit_test(test_bad_destinations_are_named),
        cmocka_unit_test(test_failing_write_leaves_nothing),
        cmocka_unit_test(test_interrupt_leaves_nothing),
        cmocka_unit_test(test_parts_go_together),
        cmocka_unit_test(test_full_drive_is_told),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
