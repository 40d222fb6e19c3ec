/*
 * files.c - see files.h.
 *
 * Whether a file is still what it was is told by its identity: device, inode, size
 * and time of the last change. A descriptor keeps a file that was renamed or deleted;
 * a path may lead to another one.
 */
#include "io/files.h"

#include "base/status.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

hypura_status hypura_io_files_open(hypura_io_table *table, const char *const *paths, int n, bool direct,
                                   hypura_error *error)
{
    *table = (hypura_io_table){.files = calloc((size_t)n, sizeof *table->files), .step = 1};
    if (table->files == NULL) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a table of %d files", n);
    }
    for (int i = 0; i < n; i++) {
        hypura_os_file opened;
        const hypura_status status = hypura_os_file_open(paths[i], direct, &opened, error);
        if (status != HYPURA_OK) {
            return status;
        }
        hypura_io_file *file = &table->files[table->n++];
        *file = (hypura_io_file){.path = strdup(paths[i]),
                                 .fd = opened.fd,
                                 .bytes = opened.bytes,
                                 .identity = opened.identity,
                                 .direct = opened.direct,
                                 .offset_align = opened.offset_align,
                                 .memory_align = opened.memory_align};
        if (file->path == NULL) {
            return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to open %s", paths[i]);
        }
        if (file->memory_align > hypura_os_page_bytes()) {
            return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%s: direct reads need memory aligned to %u", paths[i],
                               file->memory_align);
        }
        table->step = larger(table->step, larger(file->offset_align, file->memory_align));
    }
    return HYPURA_OK;
}

void hypura_io_files_close(hypura_io_table *table)
{
    for (int i = 0; i < table->n; i++) {
        hypura_os_file file = {.fd = table->files[i].fd};
        hypura_os_file_close(&file);
        free((char *)table->files[i].path);
    }
    free(table->files);
    *table = (hypura_io_table){0};
}

bool hypura_io_files_set_direct(hypura_io_table *table, bool direct)
{
    bool ok = true;
    for (int i = 0; i < table->n; i++) {
        ok = ok && (!table->files[i].direct || hypura_os_file_set_direct(table->files[i].fd, direct));
    }
    return ok;
}

static hypura_status compare(const hypura_io_file *file, bool known, const hypura_os_identity *now, hypura_error *error)
{
    const hypura_os_identity *then = &file->identity;
    if (!known) {
        return hypura_fail_errno(error, errno, "cannot look at %s again", file->path);
    }
    if (now->device != then->device || now->inode != then->inode) {
        return hypura_fail(error, HYPURA_ERR_IO, "%s was replaced while it was opened: open it again", file->path);
    }
    if (now->bytes != then->bytes) {
        return hypura_fail(error, HYPURA_ERR_IO,
                           "%s had %" PRIu64 " bytes when it was opened and has %" PRIu64
                           " now: it is truncated, or was replaced while in use",
                           file->path, then->bytes, now->bytes);
    }
    if (now->modified_ns != then->modified_ns) {
        return hypura_fail(error, HYPURA_ERR_IO,
                           "%s was written to while in use: what was read of it may be either; open it again",
                           file->path);
    }
    return HYPURA_OK;
}

hypura_status hypura_io_files_check_known(const hypura_io_file *files, int n, const uint64_t *bytes,
                                          const int64_t *modified_ns, hypura_error *error)
{
    for (int i = 0; i < n; i++) {
        const hypura_os_identity *now = &files[i].identity;
        if (now->bytes != bytes[i] || (modified_ns && now->modified_ns != modified_ns[i])) {
            return hypura_fail(error, HYPURA_ERR_IO, "%s was replaced or written to while it was opened: open it again",
                               files[i].path);
        }
    }
    return HYPURA_OK;
}

bool hypura_io_file_ends_before(const hypura_io_file *file, uint64_t offset)
{
    struct stat st;
    return fstat(file->fd, &st) == 0 && (uint64_t)st.st_size <= offset;
}

/* Each file as the table has it open, or as its path leads to one now. */
static hypura_status check_all(const hypura_io_table *table, bool paths, hypura_error *error)
{
    hypura_status status = HYPURA_OK;
    for (int i = 0; i < table->n && status == HYPURA_OK; i++) {
        const hypura_io_file *file = &table->files[i];
        hypura_os_identity now;
        const bool known =
            paths ? hypura_os_identity_of_path(file->path, &now) : hypura_os_identity_of_file(file->fd, &now);
        status = compare(file, known, &now, error);
    }
    return status;
}

hypura_status hypura_io_files_check(const hypura_io_table *table, hypura_error *error)
{
    return check_all(table, false, error);
}

hypura_status hypura_io_files_check_paths(const hypura_io_table *table, hypura_error *error)
{
    return check_all(table, true, error);
}
