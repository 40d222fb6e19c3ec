/*
 * probe_file.c - see probe_file.h.
 */
#include "hw/probe_file.h"

#include "base/clock.h"
#include "base/size.h"
#include "base/status.h"
#include "os/os.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { CHUNK = 4 << 20 };

static hypura_status fail_writing(int errno_value, const char *folder, uint64_t bytes, hypura_error *error)
{
    char size[HYPURA_SIZE_TEXT];
    (void)hypura_size_format(bytes, size, sizeof size);
    if (errno_value == ENOSPC || errno_value == EDQUOT || errno_value == EFBIG) {
        return hypura_fail(error, HYPURA_ERR_IO,
                           "measuring %s needs a temporary file of %s and there is no room for it; free some space, or "
                           "name a file of that size or more (a model) to measure with",
                           folder, size);
    }
    return hypura_fail_errno(error, errno_value,
                             "cannot write a temporary file in %s (a file of %s or more can be named instead)", folder,
                             size);
}

static hypura_status write_whole(int fd, const char *data, size_t bytes, const char *folder, uint64_t total,
                                 hypura_error *error)
{
    for (size_t at = 0; at < bytes;) {
        const ssize_t written = write(fd, data + at, bytes - at);
        if (written < 0 && errno != EINTR) {
            return fail_writing(errno, folder, total, error);
        }
        at += written > 0 ? (size_t)written : 0;
    }
    return HYPURA_OK;
}

/* Contents that neither a drive nor a file system can compress (splitmix64; Steele,
 * Lea, Flood 2014). */
static void fill(uint64_t *words, size_t n, uint64_t *state)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t x = *state += UINT64_C(0x9E3779B97F4A7C15);
        x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
        x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
        words[i] = x ^ (x >> 31);
    }
}

static hypura_status write_contents(int fd, const char *folder, uint64_t bytes, hypura_progress_fn progress,
                                    void *progress_user, hypura_error *error)
{
    uint64_t *words = malloc(CHUNK);
    uint64_t state = hypura_clock_us();
    hypura_status status =
        words ? HYPURA_OK : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory (4 MiB) to measure storage with");
    for (uint64_t done = 0; status == HYPURA_OK && done < bytes; done += CHUNK) {
        fill(words, CHUNK / sizeof *words, &state);
        status = write_whole(fd, (const char *)words, CHUNK, folder, bytes, error);
        if (status == HYPURA_OK && progress != NULL &&
            !progress(progress_user, "writing a file to measure with", done + CHUNK, bytes)) {
            status = hypura_fail(error, HYPURA_ERR_CANCELLED, "measuring %s was stopped", folder);
        }
    }
    free(words);
    if (status == HYPURA_OK && fsync(fd) != 0) {
        status = fail_writing(errno, folder, bytes, error);
    }
    return status;
}

/* Takes its name away where it can be opened without one. */
static void take_name(hypura_probe_file *file)
{
    char link[32];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", file->fd);
    if (access(link, R_OK) == 0 && unlink(file->path) == 0) {
        (void)snprintf(file->path, sizeof file->path, "%s", link);
        file->named = false;
    }
}

hypura_status hypura_probe_file_open(const char *folder, uint64_t bytes, hypura_progress_fn progress,
                                     void *progress_user, hypura_probe_file *file, hypura_error *error)
{
    hypura_os_drive drive;
    hypura_status status = hypura_os_drive_read(folder, &drive, error);
    if (status != HYPURA_OK) {
        return status;
    }
    if (drive.free_bytes < bytes) {
        return fail_writing(ENOSPC, folder, bytes, error);
    }
    const int n = snprintf(file->path, sizeof file->path, "%s/hypura-probe-XXXXXX", folder);
    if (n < 0 || (size_t)n >= sizeof file->path) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the path is too long: %s", folder);
    }
    file->fd = mkstemp(file->path);
    if (file->fd < 0) {
        return fail_writing(errno, folder, bytes, error);
    }
    file->named = true;
    take_name(file);
    status = write_contents(file->fd, folder, bytes, progress, progress_user, error);
    if (status != HYPURA_OK) {
        hypura_probe_file_close(file);
    }
    return status;
}

void hypura_probe_file_close(hypura_probe_file *file)
{
    if (file->named) {
        (void)unlink(file->path);
    }
    (void)close(file->fd);
}
