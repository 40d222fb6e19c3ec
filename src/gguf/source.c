/*
 * source.c - files by pread (never mapped: a file that shrinks while it is read
 * must end in an error, not in a signal) and plain memory.
 */
#include "gguf/source.h"

#include "base/status.h"
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

hypura_status hypura_source_open_file(void *user, const char *path, hypura_source *source, hypura_error *error)
{
    (void)user;
    /* O_NONBLOCK: opening a pipe nobody writes to would wait for ever. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        return hypura_fail_errno(error, errno, "%s: cannot open", path);
    }
    struct stat info;
    hypura_os_identity identity;
    if (fstat(fd, &info) != 0 || !hypura_os_identity_of_file(fd, &identity)) {
        int reason = errno;
        close(fd);
        return hypura_fail_errno(error, reason, "%s: cannot read the size", path);
    }
    if (!S_ISREG(info.st_mode)) {
        close(fd);
        return hypura_fail(error, HYPURA_ERR_IO, "%s: not a regular file (give the path of a .gguf file)", path);
    }
    *source = (hypura_source){
        .path = path, .bytes = identity.bytes, .modified_ns = identity.modified_ns, .data = NULL, .fd = fd};
    return HYPURA_OK;
}

void hypura_source_open_memory(hypura_source *source, const char *path, const void *data, size_t bytes)
{
    *source = (hypura_source){.path = path, .bytes = bytes, .data = data, .fd = -1};
}

hypura_status hypura_source_read(const hypura_source *source, uint64_t offset, void *dst, size_t bytes,
                                 hypura_error *error)
{
    if (source->fd < 0) {
        memcpy(dst, source->data + offset, bytes);
        return HYPURA_OK;
    }
    uint8_t *to = dst;
    while (bytes > 0) {
        ssize_t got = pread(source->fd, to, bytes, (off_t)offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return hypura_fail_errno(error, errno, "%s: cannot read at byte %" PRIu64, source->path, offset);
        }
        if (got == 0) {
            return hypura_fail(error, HYPURA_ERR_IO, "%s: became shorter than %" PRIu64 " bytes while it was read",
                               source->path, source->bytes);
        }
        to += got;
        offset += (uint64_t)got;
        bytes -= (size_t)got;
    }
    return HYPURA_OK;
}

void hypura_source_close(hypura_source *source)
{
    if (source->fd >= 0) {
        close(source->fd);
    }
    source->fd = -1;
}
