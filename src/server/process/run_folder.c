/*
 * run_folder.c - see run_folder.h.
 *
 * What always holds: what is removed is a folder of this user with the name of such a folder, whose file `lock` could be
 * locked. A folder gets that file when it is locked already, so none is taken away while it is made.
 */
#include "server/process/run_folder.h"

#include "base/path.h"
#include "base/status.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK     "lock"
#define NEW_LOCK "lock.new"

enum { PATH_BYTES = 512, MAX_OPEN = 8 };

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info;
    (void)kind;
    (void)place;
    return remove(path);
}

static void remove_all(const char *path)
{
    (void)nftw(path, remove_entry, MAX_OPEN, FTW_DEPTH | FTW_PHYS);
}

/* How the names of this user's folders begin. */
static int name_prefix(char *prefix, size_t capacity)
{
    return snprintf(prefix, capacity, "hypura-%u-", (unsigned)getuid());
}

/* Its server is gone. Then *lock is locked. */
static bool is_left(const char *path, int *lock)
{
    char file[PATH_BYTES];
    struct stat info;
    *lock = -1;
    if (lstat(path, &info) != 0 || !S_ISDIR(info.st_mode) || info.st_uid != getuid() ||
        !hypura_path_join(file, PATH_BYTES, path, LOCK)) {
        return false;
    }
    *lock = open(file, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    return *lock >= 0 && flock(*lock, LOCK_EX | LOCK_NB) == 0;
}

static void remove_left(const char *parent)
{
    char prefix[32];
    char path[PATH_BYTES];
    const int n = name_prefix(prefix, sizeof prefix);
    DIR *all = opendir(parent);
    for (struct dirent *found; all && (found = readdir(all)) != NULL;) {
        int lock = -1;
        if (strncmp(found->d_name, prefix, (size_t)n) == 0 &&
            hypura_path_join(path, PATH_BYTES, parent, found->d_name) && is_left(path, &lock)) {
            remove_all(path);
        }
        if (lock >= 0) {
            (void)close(lock);
        }
    }
    if (all) {
        (void)closedir(all);
    }
}

static int make_lock(const char *path)
{
    char made[PATH_BYTES];
    char file[PATH_BYTES];
    if (!hypura_path_join(made, PATH_BYTES, path, NEW_LOCK) || !hypura_path_join(file, PATH_BYTES, path, LOCK)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    const int lock = open(made, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (lock >= 0 && (flock(lock, LOCK_EX | LOCK_NB) != 0 || rename(made, file) != 0)) {
        const int code = errno;
        (void)close(lock);
        errno = code;
        return -1;
    }
    return lock;
}

hypura_status run_folder_open(const char *parent, run_folder *folder, hypura_error *error)
{
    char prefix[32];
    *folder = (run_folder){.lock = -1};
    (void)name_prefix(prefix, sizeof prefix);
    remove_left(parent);
    const int n = snprintf(folder->path, sizeof folder->path, "%s/%sXXXXXX", parent, prefix);
    if (n < 0 || (size_t)n >= sizeof folder->path) {
        folder->path[0] = '\0';
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s is too long a path for sockets", parent);
    }
    if (!mkdtemp(folder->path)) {
        const int code = errno;
        folder->path[0] = '\0';
        return hypura_fail_errno(error, code, "no folder for sockets can be made in %s", parent);
    }
    folder->lock = make_lock(folder->path);
    if (folder->lock < 0) {
        const hypura_status status = hypura_fail_errno(error, errno, "%s cannot be locked", folder->path);
        run_folder_close(folder);
        return status;
    }
    return HYPURA_OK;
}

void run_folder_close(run_folder *folder)
{
    if (folder->path[0] != '\0') {
        remove_all(folder->path);
    }
    if (folder->lock >= 0) {
        (void)close(folder->lock);
    }
    *folder = (run_folder){.lock = -1};
}
