/*
 * change_fixture.h - what changes a models folder. link() is ours, so that every file system can be one without hard links:
 * a program that includes this is linked with --wrap=link.
 */
#ifndef HYPURA_TESTS_CHANGE_FIXTURE_H
#define HYPURA_TESTS_CHANGE_FIXTURE_H

#include "store_fixture.h"

#include <errno.h>

static int link_errno; /* 0: links work */

int __real_link(const char *from, const char *to);
int __wrap_link(const char *from, const char *to);

int __wrap_link(const char *from, const char *to)
{
    if (link_errno != 0) {
        errno = link_errno;
        return -1;
    }
    return __real_link(from, to);
}

static inline int change_make(void **state)
{
    link_errno = 0;
    return fixture_make(state);
}

#define CHANGES(test) cmocka_unit_test_setup_teardown(test, change_make, fixture_remove)

static inline ino_t inode(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_ino;
}

static inline void check_ok(hypura_status status, const hypura_error *error)
{
    if (status != HYPURA_OK) {
        fail_msg("%s", error->message);
    }
}

static inline void copy(hypura_models *models, const char *from, const char *to)
{
    hypura_error error = {0};
    const hypura_model_entry *entry = fixture_find(models, from);
    check_ok(hypura_models_copy(models, entry, to, &error), &error);
    hypura_model_entry_release(entry);
}

static inline hypura_status remove_model(hypura_models *models, const char *name, hypura_error *error)
{
    const hypura_model_entry *entry = fixture_find(models, name);
    hypura_status status = hypura_models_remove(models, entry, error);
    hypura_model_entry_release(entry);
    return status;
}

#endif
