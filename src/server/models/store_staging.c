/*
 * store_staging.c - see store_internal.h: where files get ready.
 *
 * A staging folder is locked (flock) by the process that fills it: one that can be locked is left over, and what a
 * broken install moved into it goes back to its place (store_install.c) before it is removed.
 */
#include "server/models/store_internal.h"

#include "base/status.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_TRIES = 8 }; /* of a folder of its own, while others sweep */

/* Makes one and locks it; false, with errno, when there is none. Who sweeps just then may have it first: *again. */
static bool make_locked(hypura_staging *staging, const char *pattern, bool *again)
{
    struct stat opened;
    struct stat named;
    *again = false;
    (void)snprintf(staging->path, sizeof staging->path, "%s", pattern);
    if (mkdtemp(staging->path) == NULL) {
        staging->path[0] = '\0';
        return false;
    }
    staging->fd = open(staging->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool locked = staging->fd >= 0 && flock(staging->fd, LOCK_EX) == 0;
    if (locked && fstat(staging->fd, &opened) == 0 && stat(staging->path, &named) == 0 && opened.st_ino == named.st_ino) {
        return true;
    }
    *again = locked || (staging->fd < 0 && errno == ENOENT);
    const int problem = errno;
    hypura_staging_end(staging);
    errno = problem;
    return false;
}

hypura_status hypura_staging_begin(hypura_models *models, hypura_staging *staging, hypura_error *error)
{
    char pattern[HYPURA_STORE_PATH_BYTES];
    *staging = (hypura_staging){.fd = -1};
    if (models->folder[0] == '\0') {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "there is no models folder to keep models in: start the server with --models DIR");
    }
    if (!hypura_store_path(pattern, "%s" HYPURA_STORE_STAGING "/XXXXXX", models->folder)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the path of the models folder is too long");
    }
    const hypura_status status = hypura_store_make_place(pattern, error);
    bool again = status == HYPURA_OK;
    for (int i = 0; i < MAX_TRIES && again; i++) {
        if (make_locked(staging, pattern, &again)) {
            return HYPURA_OK;
        }
    }
    if (status == HYPURA_OK) {
        const int problem = again ? EAGAIN : errno;
        *strrchr(pattern, '/') = '\0';
        return hypura_fail_errno(error, problem, "cannot make a folder in %s", pattern);
    }
    return status;
}

/* Removes a folder of files. */
static void remove_folder(const char *path)
{
    char file[HYPURA_STORE_PATH_BYTES];
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return;
    }
    for (struct dirent *d = readdir(folder); d != NULL; d = readdir(folder)) {
        if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0 &&
            hypura_store_path(file, "%s/%s", path, d->d_name)) {
            (void)unlink(file);
        }
    }
    (void)closedir(folder);
    (void)rmdir(path);
}

void hypura_staging_end(hypura_staging *staging)
{
    if (staging->path[0] != '\0') {
        remove_folder(staging->path);
    }
    if (staging->fd >= 0) {
        (void)close(staging->fd);
    }
    *staging = (hypura_staging){.fd = -1};
}

void hypura_staging_each_left(const hypura_models *models, void (*visit)(const hypura_models *models, const char *left))
{
    char path[HYPURA_STORE_PATH_BYTES];
    char left[HYPURA_STORE_PATH_BYTES];
    DIR *folder = hypura_store_path(path, "%s" HYPURA_STORE_STAGING, models->folder) ? opendir(path) : NULL;
    for (const struct dirent *d; folder != NULL && (d = readdir(folder)) != NULL;) {
        int fd = -1;
        if (d->d_name[0] != '.' && hypura_store_path(left, "%s/%s", path, d->d_name)) {
            fd = open(left, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        }
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) {
            visit(models, left);
        }
        if (fd >= 0) {
            (void)close(fd);
        }
    }
    if (folder != NULL) {
        (void)closedir(folder);
    }
}

static void remove_left(const hypura_models *models, const char *left)
{
    (void)models;
    if (!hypura_store_is_broken(left)) {
        remove_folder(left);
    }
}

void hypura_staging_sweep(const hypura_models *models)
{
    if (models->folder[0] != '\0') {
        const int turn = hypura_store_take_turn(models);
        hypura_staging_each_left(models, remove_left);
        hypura_store_let_go(turn);
    }
}
