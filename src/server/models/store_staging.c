/*
 * store_staging.c - see store_internal.h: how a model gets its name.
 *
 *     .staging/XXXXXX/model*  --install, under the mutex-->  STEM*
 *
 * The file that the listing looks for is renamed last and removed first, so that
 * what is listed is whole, also after a crash in between. A staging folder is
 * locked (flock) by the process that fills it: one that can be locked is left over.
 */
#include "server/models/store_internal.h"

#include "base/status.h"
#include "gguf/records.h"
#include "gguf/split.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define STAGED "model"

hypura_status hypura_staging_begin(hypura_models *models, hypura_staging *staging, hypura_error *error)
{
    *staging = (hypura_staging){.fd = -1};
    if (models->folder[0] == '\0') {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "there is no models folder to keep models in: start the server with --models DIR");
    }
    if (!hypura_store_path(staging->path, "%s" HYPURA_STORE_STAGING "/XXXXXX", models->folder)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the path of the models folder is too long");
    }
    hypura_status status = hypura_store_make_place(staging->path, error);
    if (status == HYPURA_OK && mkdtemp(staging->path) == NULL) {
        status = hypura_os_fail_write(errno, staging->path, 0, error);
    }
    if (status != HYPURA_OK) {
        staging->path[0] = '\0';
        return status;
    }
    staging->fd = open(staging->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (staging->fd < 0 || flock(staging->fd, LOCK_EX | LOCK_NB) != 0) {
        status = hypura_fail_errno(error, errno, "cannot lock %s", staging->path);
        hypura_staging_end(staging);
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

void hypura_staging_sweep(const hypura_models *models)
{
    char path[HYPURA_STORE_PATH_BYTES];
    char left[HYPURA_STORE_PATH_BYTES];
    DIR *folder = models->folder[0] != '\0' && hypura_store_path(path, "%s" HYPURA_STORE_STAGING, models->folder)
                      ? opendir(path)
                      : NULL;
    if (folder == NULL) {
        return;
    }
    for (struct dirent *d = readdir(folder); d != NULL; d = readdir(folder)) {
        int fd = -1;
        if (d->d_name[0] != '.' && hypura_store_path(left, "%s/%s", path, d->d_name)) {
            fd = open(left, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        }
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) {
            remove_folder(left);
        }
        if (fd >= 0) {
            (void)close(fd);
        }
    }
    (void)closedir(folder);
}

/* ---- removing --------------------------------------------------------------- */

static hypura_status unlink_below(const hypura_models *models, const char *below, const char *ending,
                                  hypura_error *error)
{
    char path[HYPURA_STORE_PATH_BYTES];
    if (!hypura_store_path(path, "%s/%s%s", models->folder, below, ending)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the path of the model is too long");
    }
    if (unlink(path) != 0 && errno != ENOENT) {
        return hypura_fail_errno(error, errno, "cannot remove %s", path);
    }
    return HYPURA_OK;
}

/* Removes folders that became empty, up to the models folder. */
static void prune(const hypura_models *models, const char *below)
{
    char path[HYPURA_STORE_PATH_BYTES];
    size_t root = strlen(models->folder);
    if (!hypura_store_path(path, "%s/%s", models->folder, below)) {
        return;
    }
    for (char *slash = strrchr(path, '/'); slash != NULL && (size_t)(slash - path) > root; slash = strrchr(path, '/')) {
        *slash = '\0';
        if (rmdir(path) != 0) {
            return;
        }
    }
}

hypura_status hypura_store_unlink(hypura_models *models, const hypura_entry *entry, hypura_error *error)
{
    hypura_status status = HYPURA_OK;
    hypura_split_name split;
    hypura_store_forget(models);
    if (entry->is.origin == HYPURA_MODEL_FOLDER) {
        status = unlink_below(models, entry->below, "", error);
        /* Its experts, laid out anew (gguf/records.h): of no use without it. */
        status = status == HYPURA_OK ? unlink_below(models, entry->below, HYPURA_RECORDS_SUFFIX, error) : status;
        int n_parts = hypura_split_parse(entry->below, &split) ? split.n_parts : 1;
        for (int i = 2; i <= n_parts && status == HYPURA_OK; i++) {
            char ending[32];
            (void)snprintf(ending, sizeof ending, "-%05d-of-%05d.gguf", i, n_parts);
            status = unlink_below(models, entry->stem, ending, error);
        }
        status = status == HYPURA_OK ? unlink_below(models, entry->stem, ".mmproj.gguf", error) : status;
        for (int i = 0; i < HYPURA_MAX_ADAPTERS && status == HYPURA_OK; i++) {
            char ending[HYPURA_ADAPTER_ENDING_BYTES];
            hypura_store_adapter_ending(i, ending);
            status = unlink_below(models, entry->stem, ending, error);
        }
    }
    status = status == HYPURA_OK ? unlink_below(models, entry->stem, ".json", error) : status;
    if (status == HYPURA_OK) {
        prune(models, entry->stem);
    }
    return status;
}

/* ---- installing -------------------------------------------------------------- */

/* Renames one staged file; false with errno. */
static bool rename_staged(const hypura_staging *staging, const char *name, const char *target)
{
    char from[HYPURA_STORE_PATH_BYTES];
    char to[HYPURA_STORE_PATH_BYTES];
    if (!hypura_store_path(from, "%s/%s", staging->path, name) ||
        !hypura_store_path(to, "%s%s", target, name + strlen(STAGED))) {
        errno = ENAMETOOLONG;
        return false;
    }
    return rename(from, to) == 0;
}

static bool is_listed(const char *name)
{
    hypura_split_name split;
    return hypura_split_parse(name, &split) ? split.part == 1 : strcmp(name, STAGED ".gguf") == 0;
}

/* Everything but the file that is listed, then that one. */
static hypura_status rename_all(const hypura_staging *staging, const char *target, hypura_error *error)
{
    char listed[256] = "";
    DIR *folder = opendir(staging->path);
    bool ok = folder != NULL;
    for (struct dirent *d = ok ? readdir(folder) : NULL; d != NULL && ok; d = readdir(folder)) {
        if (strncmp(d->d_name, STAGED, strlen(STAGED)) != 0) {
            continue;
        }
        if (is_listed(d->d_name)) {
            (void)snprintf(listed, sizeof listed, "%s", d->d_name);
        } else {
            ok = rename_staged(staging, d->d_name, target);
        }
    }
    int e = errno;
    if (folder != NULL) {
        (void)closedir(folder);
    }
    if (ok && listed[0] != '\0') {
        ok = rename_staged(staging, listed, target);
        e = errno;
    }
    return ok ? HYPURA_OK : hypura_os_fail_write(e, target, 0, error);
}

hypura_status hypura_staging_install(hypura_models *models, const hypura_staging *staging, const char *name,
                                     hypura_error *error)
{
    char stem[HYPURA_NAME_BYTES];
    char target[HYPURA_STORE_PATH_BYTES];
    hypura_name_stem(name, stem);
    if (!hypura_store_path(target, "%s/%s", models->folder, stem)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the path of the models folder is too long");
    }
    (void)pthread_mutex_lock(&models->mutex);
    hypura_status status = hypura_store_scan(models, error);
    const hypura_entry *before = status == HYPURA_OK ? hypura_entries_find(&models->entries, name) : NULL;
    if (before != NULL && before->is.origin == HYPURA_MODEL_PATH) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "%s is a file named on the command line: choose another name",
                             before->is.name);
    } else if (before != NULL && before->is.origin != HYPURA_MODEL_OLLAMA) {
        status = hypura_store_unlink(models, before, error);
    }
    status = status == HYPURA_OK ? hypura_store_make_place(target, error) : status;
    status = status == HYPURA_OK ? rename_all(staging, target, error) : status;
    hypura_store_forget(models);
    (void)pthread_mutex_unlock(&models->mutex);
    return status;
}
