/*
 * kept.c - see kept.h. The lock is one of a file beside (flock), which is made and never removed: one that
 * is replaced or removed would be locked by two.
 */
#include "hw/kept.h"

#include "base/clock.h"
#include "base/path.h"
#include "base/status.h"
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

/* A turn takes some milliseconds: what a drive needs to have a small file for good. */
#define MOST_WAIT_US 1000000u
#define LOOK_US      2000u

bool hypura_kept_begin(const char *folder, int *turn)
{
    static const struct timespec look = {0, LOOK_US * 1000};
    char path[PATH_BYTES];
    /* Opened to read, as it may be another user's, who was here with sudo. */
    *turn = hypura_path_join(path, sizeof path, folder, ".lock") ? open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0644) : -1;
    const uint64_t until_us = hypura_clock_us() + MOST_WAIT_US;
    while (*turn >= 0 && flock(*turn, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            break; /* no locks here */
        }
        if (hypura_clock_us() >= until_us) {
            hypura_kept_end(*turn);
            *turn = -1;
            return false;
        }
        (void)nanosleep(&look, NULL);
    }
    return true;
}

void hypura_kept_end(int turn)
{
    if (turn >= 0) {
        (void)close(turn);
    }
}

hypura_status hypura_kept_write(const char *path, const char *text, hypura_error *error)
{
    char temporary[PATH_BYTES + 16];
    (void)snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
    int fd = mkstemp(temporary);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    if (file == NULL) {
        int e = errno;
        if (fd >= 0) {
            (void)close(fd);
            (void)unlink(temporary);
        }
        return hypura_fail_errno(error, e, "cannot write %s", temporary);
    }
    int e = 0;
    if (fputs(text, file) < 0 || fputc('\n', file) == EOF || fflush(file) != 0 || fsync(fd) != 0) {
        e = errno;
    }
    if (fclose(file) != 0 && e == 0) {
        e = errno;
    }
    if (e == 0 && rename(temporary, path) != 0) {
        e = errno;
    }
    if (e != 0) {
        (void)unlink(temporary);
        return hypura_fail_errno(error, e, "cannot write %s", path);
    }
    return HYPURA_OK;
}

hypura_status hypura_kept_make_folder(const char *path, hypura_error *error)
{
    char part[PATH_BYTES];
    if (strlen(path) >= sizeof part) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the path of the cache folder is too long: %s", path);
    }
    memcpy(part, path, strlen(path) + 1);
    return hypura_os_make_folders(part, 0755) ? HYPURA_OK
                                              : hypura_fail_errno(error, errno, "cannot make the folder %s", part);
}

json_t *hypura_kept_text(const char *text)
{
    json_t *string = json_string(text);
    if (string != NULL) {
        return string;
    }
    char *plain = strdup(text);
    for (char *at = plain; at != NULL && *at != '\0'; at++) {
        *at = (unsigned char)*at < 0x80 ? *at : '?';
    }
    string = plain == NULL ? NULL : json_string(plain);
    free(plain);
    return string;
}
