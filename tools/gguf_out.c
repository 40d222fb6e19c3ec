/*
 * gguf_out.c - see gguf_out.h.
 *
 * Whole buffers are written past the page cache where the file system allows it:
 * a model is often larger than memory, and the first touch of a page costs more
 * than the copy. The end of the file, which is no whole block, goes through the cache.
 */
#include "gguf_out.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "mkmodel.h"

enum { BUFFER_BYTES = 8 << 20, BLOCK_BYTES = 4096 };

#ifndef O_DIRECT
#define O_DIRECT 0
#endif

static void show_progress(gguf_out *out)
{
    int permille = (int)((double)out->done_bytes / (double)out->total_bytes * 1000.0);
    if (!out->progress || permille == out->shown_permille) {
        return;
    }
    out->shown_permille = permille;
    char bar[41];
    int filled = permille * 40 / 1000;
    for (int i = 0; i < 40; i++) {
        bar[i] = i < filled ? '#' : '.';
    }
    bar[40] = '\0';
    fprintf(stderr, "\r%s [%s] %3d%% of %.1f MB", out->path, bar, permille / 10, (double)out->total_bytes / 1e6);
    if (out->done_bytes == out->total_bytes) {
        fputc('\n', stderr);
    }
}

static void leave_direct(gguf_out *out)
{
    if (out->direct) {
        (void)fcntl(out->fd, F_SETFL, fcntl(out->fd, F_GETFL) & ~O_DIRECT);
        out->direct = false;
    }
}

static int flush_buffer(gguf_out *out)
{
    size_t done = 0;
    while (done < out->buffered_bytes) {
        if (mk_interrupted) {
            return mk_fail("interrupted; '%s' was not written", out->path);
        }
        size_t wanted = out->buffered_bytes - done;
        if (wanted < BLOCK_BYTES || done % BLOCK_BYTES != 0) {
            leave_direct(out);
        }
        if (out->direct) {
            wanted -= wanted % BLOCK_BYTES;
        }
        ssize_t n = write(out->fd, out->buffer + done, wanted);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EINVAL && out->direct) {
            leave_direct(out);
            continue;
        }
        if (n <= 0) {
            return mk_fail("cannot write '%s' (%" PRIu64 " bytes in all): %s", out->path, out->total_bytes,
                           n == 0 ? "nothing was taken" : strerror(errno));
        }
        done += (size_t)n;
    }
    out->buffered_bytes = 0;
    show_progress(out);
    return MK_OK;
}

static int append(gguf_out *out, const void *data, size_t bytes)
{
    const uint8_t *from = data;
    while (bytes > 0) {
        size_t room = BUFFER_BYTES - out->buffered_bytes;
        size_t n = bytes < room ? bytes : room;
        memcpy(out->buffer + out->buffered_bytes, from, n);
        out->buffered_bytes += n;
        out->done_bytes += n;
        from += n;
        bytes -= n;
        if (out->buffered_bytes == BUFFER_BYTES) {
            int rc = flush_buffer(out);
            if (rc != MK_OK) {
                return rc;
            }
        }
    }
    return MK_OK;
}

/* A drive that is obviously too small is told before an hour of writing. */
static int check_room(const gguf_out *out)
{
    struct statvfs drive;
    if (fstatvfs(out->fd, &drive) != 0) {
        return mk_fail("cannot ask for the free space at '%s': %s", out->path, strerror(errno));
    }
    uint64_t free_bytes = (uint64_t)drive.f_bavail * (uint64_t)drive.f_frsize;
    if (free_bytes < out->total_bytes) {
        return mk_fail("not enough space for '%s': %" PRIu64 " bytes needed, %" PRIu64 " free", out->path,
                       out->total_bytes, free_bytes);
    }
    return MK_OK;
}

static int write_header(gguf_out *out)
{
    size_t meta_bytes = gguf_get_meta_size(out->meta);
    void *bytes = malloc(meta_bytes);
    if (!bytes) {
        return mk_fail("out of memory (%zu bytes for the header of '%s')", meta_bytes, out->path);
    }
    gguf_get_meta_data(out->meta, bytes);
    int rc = append(out, bytes, meta_bytes);
    free(bytes);
    return rc;
}

static uint64_t padded(const gguf_out *out, uint64_t bytes)
{
    uint64_t alignment = gguf_get_alignment(out->meta);
    return (bytes + alignment - 1) / alignment * alignment;
}

static uint64_t file_bytes(const gguf_out *out)
{
    uint64_t bytes = gguf_get_meta_size(out->meta);
    for (int64_t i = 0; i < gguf_get_n_tensors(out->meta); i++) {
        bytes += padded(out, gguf_get_tensor_size(out->meta, i));
    }
    return bytes;
}

int gguf_out_open(gguf_out *out, const char *path, const struct gguf_context *meta, bool progress)
{
    *out = (gguf_out){.meta = meta, .fd = -1, .progress = progress && isatty(STDERR_FILENO), .shown_permille = -1};
    struct stat present;
    if (stat(path, &present) == 0 && !S_ISREG(present.st_mode)) {
        return mk_fail("'%s' exists and is not a regular file", path);
    }
    size_t part_bytes = strlen(path) + 32;
    out->path = strdup(path);
    out->part_path = malloc(part_bytes);
    void *buffer = NULL;
    if (posix_memalign(&buffer, BLOCK_BYTES, BUFFER_BYTES) == 0) {
        out->buffer = buffer;
    }
    if (!out->path || !out->part_path || !out->buffer) {
        gguf_out_abort(out);
        return mk_fail("out of memory (%d bytes to write '%s')", BUFFER_BYTES, path);
    }
    snprintf(out->part_path, part_bytes, "%s.part-%ld", path, (long)getpid());
    out->total_bytes = file_bytes(out);
    out->direct = O_DIRECT != 0;
    out->fd = open(out->part_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_DIRECT, 0666);
    if (out->fd < 0 && errno == EINVAL) {
        out->direct = false;
        out->fd = open(out->part_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    }
    int rc = MK_OK;
    if (out->fd < 0) {
        rc = mk_fail("cannot create '%s': %s", out->part_path, strerror(errno));
    }
    if (rc == MK_OK) {
        rc = check_room(out);
    }
    if (rc == MK_OK) {
        rc = write_header(out);
    }
    if (rc != MK_OK) {
        gguf_out_abort(out);
    }
    return rc;
}

int gguf_out_begin(gguf_out *out, const char *tensor_name)
{
    const char *expected =
        out->tensor < gguf_get_n_tensors(out->meta) ? gguf_get_tensor_name(out->meta, out->tensor) : "no more tensors";
    if (strcmp(expected, tensor_name) != 0) {
        return mk_fail("'%s': tensor '%s' written where the header has '%s'", out->path, tensor_name, expected);
    }
    out->left_bytes = gguf_get_tensor_size(out->meta, out->tensor);
    return MK_OK;
}

int gguf_out_write(gguf_out *out, const void *data, size_t bytes)
{
    if (bytes > out->left_bytes) {
        return mk_fail("'%s': %zu bytes too many for tensor '%s'", out->path, bytes - (size_t)out->left_bytes,
                       gguf_get_tensor_name(out->meta, out->tensor));
    }
    out->left_bytes -= bytes;
    return append(out, data, bytes);
}

int gguf_out_end(gguf_out *out)
{
    static const uint8_t zeros[4096];
    if (out->left_bytes != 0) {
        return mk_fail("'%s': %" PRIu64 " bytes missing in tensor '%s'", out->path, out->left_bytes,
                       gguf_get_tensor_name(out->meta, out->tensor));
    }
    uint64_t bytes = gguf_get_tensor_size(out->meta, out->tensor);
    uint64_t padding = padded(out, bytes) - bytes;
    out->tensor++;
    while (padding > 0) {
        size_t n = padding < sizeof zeros ? (size_t)padding : sizeof zeros;
        int rc = append(out, zeros, n);
        if (rc != MK_OK) {
            return rc;
        }
        padding -= n;
    }
    return MK_OK;
}

/* The rename itself is durable only once its folder is. */
static int sync_folder(const gguf_out *out)
{
    char *copy = strdup(out->path);
    if (!copy) {
        return mk_fail("out of memory");
    }
    int rc = MK_OK;
    int folder = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0 || (fsync(folder) != 0 && errno != EINVAL)) {
        rc = mk_fail("cannot flush the folder of '%s': %s", out->path, strerror(errno));
    }
    if (folder >= 0) {
        close(folder);
    }
    free(copy);
    return rc;
}

int gguf_out_commit(gguf_out *out)
{
    if (out->tensor != gguf_get_n_tensors(out->meta)) {
        return mk_fail("'%s': %" PRId64 " of %" PRId64 " tensors were written", out->path, out->tensor,
                       gguf_get_n_tensors(out->meta));
    }
    int rc = flush_buffer(out);
    if (rc != MK_OK) {
        return rc;
    }
    /* Some file systems tell of a full drive only here. */
    if (fsync(out->fd) != 0) {
        return mk_fail("cannot flush '%s': %s", out->path, strerror(errno));
    }
    int fd = out->fd;
    out->fd = -1;
    if (close(fd) != 0 || rename(out->part_path, out->path) != 0) {
        rc = mk_fail("cannot finish '%s': %s", out->path, strerror(errno));
        unlink(out->part_path);
        return rc;
    }
    rc = sync_folder(out);
    gguf_out_abort(out);
    return rc;
}

void gguf_out_abort(gguf_out *out)
{
    if (out->fd >= 0) {
        close(out->fd);
        unlink(out->part_path);
    }
    free(out->path);
    free(out->part_path);
    free(out->buffer);
    *out = (gguf_out){.fd = -1};
}
