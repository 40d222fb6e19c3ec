/*
 * hw_fixture.h - a folder of its own for each test, removed with all that is in it.
 */
#ifndef HYPURA_TESTS_HW_FIXTURE_H
#define HYPURA_TESTS_HW_FIXTURE_H

#include "hypura.h"

#include <dirent.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char fixture_folder[64];

static int fixture_make(void **state)
{
    (void)state;
    snprintf(fixture_folder, sizeof fixture_folder, "./hypura-hw-XXXXXX");
    return mkdtemp(fixture_folder) == NULL ? -1 : 0;
}

static int fixture_remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int fixture_remove(void **state)
{
    (void)state;
    return nftw(fixture_folder, fixture_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static inline int fixture_count_files(void)
{
    int n = 0;
    DIR *dir = opendir(fixture_folder);
    assert_non_null(dir);
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        n += entry->d_name[0] != '.';
    }
    closedir(dir);
    return n;
}

static inline void fixture_write(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", fixture_folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, fixture_make, fixture_remove)

#endif
