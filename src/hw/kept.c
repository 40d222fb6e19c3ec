/*
 * kept.c - see kept.h. The lock is one of a file beside (flock), which is made and never removed: one that
 * is replaced or removed would be locked by two.
 */
#include "hw/kept.h"

#include "base/clock.h"
#include "base/new_file.h"
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
    hypura_new_file file;
    const hypura_status status = hypura_new_file_open(&file, path, error);
    if (status != HYPURA_OK) {
        return status;
    }
    (void)fputs(text, file.to); /* closing tells of what could not be written */
    (void)fputc('\n', file.to);
    return hypura_new_file_close_synced(&file, error);
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
