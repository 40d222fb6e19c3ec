/*
 * new_file.c - see new_file.h.
 */
#include "base/new_file.h"

#include "base/status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_TRIES 100 /* of names: one may be left from a process that was killed */

/* Standard output or error when that is the file, as /dev/stdout names it: replacing it would lose what it holds. Else -1. */
static int own_stream(const struct stat *file)
{
    for (int stream = STDOUT_FILENO; stream <= STDERR_FILENO; stream++) {
        struct stat own;
        if (fstat(stream, &own) == 0 && own.st_dev == file->st_dev && own.st_ino == file->st_ino) {
            return stream;
        }
    }
    return -1;
}

static FILE *open_descriptor(int descriptor)
{
    FILE *to = descriptor >= 0 ? fdopen(descriptor, "w") : NULL;
    if (!to && descriptor >= 0) {
        const int saved = errno;
        (void)close(descriptor);
        errno = saved;
    }
    return to;
}

/* What is there may be for its owner's eyes alone, and another user's, who is here with sudo. */
static void take_over(int descriptor, const struct stat *before)
{
    if (before->st_uid != geteuid() || before->st_gid != getegid()) {
        (void)!fchown(descriptor, before->st_uid, before->st_gid);
    }
    (void)fchmod(descriptor, before->st_mode & 0777); /* some file systems have none */
}

/* A name of its own, with the permissions of what is there (NULL: of any new file). */
static bool open_beside(hypura_new_file *file, const struct stat *before)
{
    const size_t room = strlen(file->target) + 48;
    const mode_t mode = before ? 0600 : 0666; /* whoever could open it now could read it later */
    int descriptor = -1;
    file->written = malloc(room);
    for (int i = 0; file->written && descriptor < 0 && i < MAX_TRIES; i++) {
        (void)snprintf(file->written, room, "%s.%ld-%d.new", file->target, (long)getpid(), i);
        descriptor = open(file->written, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (descriptor < 0 && errno != EEXIST) {
            break;
        }
    }
    if (descriptor >= 0 && before) {
        take_over(descriptor, before);
    }
    file->to = open_descriptor(descriptor);
    if (descriptor >= 0 && !file->to) {
        const int saved = errno;
        (void)unlink(file->written);
        errno = saved;
    }
    return file->to != NULL;
}

/* What the path stands for, to be freed; NULL with errno. A link to nothing is no name for a new file: it stays, as /dev/stdout
 * has to where /proc is not mounted, and what it names is made, empty. */
static char *find_target(const char *path, bool exists)
{
    struct stat link;
    if (!exists && lstat(path, &link) == 0) {
        const int made = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
        if (made < 0) {
            return NULL;
        }
        (void)close(made);
        exists = true;
    }
    return exists ? realpath(path, NULL) : strdup(path);
}

/* errno is kept. */
static void forget(hypura_new_file *file)
{
    const int saved = errno;
    free(file->path);
    free(file->target);
    free(file->written);
    *file = (hypura_new_file){.to = NULL};
    errno = saved;
}

hypura_status hypura_new_file_open(hypura_new_file *file, const char *path, hypura_error *error)
{
    struct stat kind;
    const bool exists = stat(path, &kind) == 0;
    const int own = exists ? own_stream(&kind) : -1;
    *file = (hypura_new_file){.path = strdup(path)};
    if (exists && S_ISDIR(kind.st_mode)) {
        errno = EISDIR;
    } else if (own >= 0) {
        file->to = open_descriptor(dup(own));
    } else if (exists && !S_ISREG(kind.st_mode)) {
        file->to = fopen(path, "we");
    } else {
        file->target = find_target(path, exists);
        if (file->target && file->path) {
            (void)open_beside(file, exists ? &kind : NULL);
        }
    }
    if (!file->to) {
        forget(file);
        return hypura_fail_errno(error, errno, "cannot write %s", path);
    }
    return HYPURA_OK;
}

static hypura_status finish(hypura_new_file *file, bool sync, hypura_error *error)
{
    errno = 0;
    bool ok = fflush(file->to) == 0 && !ferror(file->to) && (!sync || fsync(fileno(file->to)) == 0);
    int problem = ok ? 0 : errno;
    if (fclose(file->to) != 0 && ok) {
        ok = false;
        problem = errno;
    }
    if (ok && file->target && rename(file->written, file->target) != 0) {
        ok = false;
        problem = errno;
    }
    if (!ok && file->target) {
        (void)unlink(file->written);
    }
    const hypura_status status =
        ok ? HYPURA_OK : hypura_fail_errno(error, problem != 0 ? problem : EIO, "cannot write %s", file->path);
    forget(file);
    return status;
}

hypura_status hypura_new_file_close(hypura_new_file *file, hypura_error *error)
{
    return finish(file, false, error);
}

hypura_status hypura_new_file_close_synced(hypura_new_file *file, hypura_error *error)
{
    return finish(file, true, error);
}
