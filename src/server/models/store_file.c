/*
 * store_file.c - see store_internal.h: walking folders, reading small files,
 * linking and copying large ones.
 */
#include "server/models/store_internal.h"

#include "base/status.h"
#include "gguf/reader.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/fs.h>
#include <sys/ioctl.h>
#endif

enum { MAX_JSON_BYTES = 4 << 20, MAX_DEPTH = 5, COPY_BYTES = 1 << 20 };

typedef struct walk {
    const char *root;
    hypura_store_visit_fn visit;
    void *user;
    hypura_error *error;
} walk;

bool hypura_store_path(char *path, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(path, HYPURA_STORE_PATH_BYTES, format, arguments);
    va_end(arguments);
    return n > 0 && n < HYPURA_STORE_PATH_BYTES;
}

bool hypura_store_is_within(const char *root, const char *path, char *resolved)
{
    char full[PATH_MAX];
    char full_root[PATH_MAX];
    struct stat st;
    if (realpath(path, full) == NULL || realpath(root, full_root) == NULL || stat(full, &st) != 0 ||
        !S_ISREG(st.st_mode) || strlen(full) >= HYPURA_STORE_PATH_BYTES) {
        return false;
    }
    size_t n = strlen(full_root);
    if (strncmp(full, full_root, n) != 0 || (full[n] != '/' && full_root[n - 1] != '/')) {
        return false;
    }
    memcpy(resolved, full, strlen(full) + 1);
    return true;
}

char *hypura_store_read_text(const char *path, size_t most, size_t *bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    char *text = NULL;
    size_t n = 0;
    if (fd < 0) {
        return NULL;
    }
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= 0 && (uint64_t)st.st_size <= most) {
        size_t wanted = (size_t)st.st_size;
        text = malloc(wanted + 1);
        while (text != NULL && n < wanted) {
            ssize_t got = read(fd, text + n, wanted - n);
            if (got <= 0) {
                free(text);
                text = NULL;
            } else {
                n += (size_t)got;
            }
        }
    }
    (void)close(fd);
    if (text != NULL) {
        text[n] = '\0';
        *bytes = n;
    }
    return text;
}

json_t *hypura_store_read_json(const char *path)
{
    size_t bytes = 0;
    char *text = hypura_store_read_text(path, MAX_JSON_BYTES, &bytes);
    json_t *root = text == NULL ? NULL : json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    if (root != NULL && !json_is_object(root)) {
        json_decref(root);
        root = NULL;
    }
    return root;
}

hypura_status hypura_store_make_place(const char *path, hypura_error *error)
{
    char part[HYPURA_STORE_PATH_BYTES];
    if (!hypura_store_path(part, "%s", path)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a path is longer than %d bytes", HYPURA_STORE_PATH_BYTES - 1);
    }
    char *slash = strrchr(part, '/');
    if (slash == NULL || slash == part) {
        return HYPURA_OK;
    }
    *slash = '\0';
    return hypura_os_make_folders(part, 0755) ? HYPURA_OK
                                              : hypura_fail_errno(error, errno, "cannot make the folder %s", part);
}

static hypura_status walk_folder(const walk *w, const char *below, int depth);

static hypura_status walk_entry(const walk *w, const char *below, int depth)
{
    char path[HYPURA_STORE_PATH_BYTES];
    struct stat st;
    if (!hypura_store_path(path, "%s/%s", w->root, below) || lstat(path, &st) != 0) {
        return HYPURA_OK;
    }
    if (S_ISDIR(st.st_mode)) {
        return depth < MAX_DEPTH ? walk_folder(w, below, depth + 1) : HYPURA_OK;
    }
    return S_ISREG(st.st_mode) || S_ISLNK(st.st_mode) ? w->visit(w->user, below, w->error) : HYPURA_OK;
}

/* below is "" for the root itself. */
static hypura_status walk_folder(const walk *w, const char *below, int depth)
{
    char path[HYPURA_STORE_PATH_BYTES];
    hypura_status status = HYPURA_OK;
    if (!hypura_store_path(path, "%s/%s", w->root, below)) {
        return HYPURA_OK;
    }
    DIR *folder = opendir(path);
    if (folder == NULL) {
        const bool is_short = errno == EMFILE || errno == ENFILE || errno == ENOMEM; /* what is there is there */
        return is_short ? hypura_fail_errno(w->error, errno, "cannot read %s", path) : HYPURA_OK;
    }
    for (struct dirent *d = readdir(folder); d != NULL && status == HYPURA_OK; d = readdir(folder)) {
        const char *slash = below[0] != '\0' ? "/" : "";
        if (d->d_name[0] != '.' && hypura_gguf_is_printable(d->d_name, strlen(d->d_name)) &&
            hypura_store_path(path, "%s%s%s", below, slash, d->d_name)) {
            status = walk_entry(w, path, depth);
        }
    }
    (void)closedir(folder);
    return status;
}

hypura_status hypura_store_walk(const char *root, hypura_store_visit_fn visit, void *user, hypura_error *error)
{
    walk w = {.root = root, .visit = visit, .user = user, .error = error};
    return root[0] != '\0' ? walk_folder(&w, "", 0) : HYPURA_OK;
}

/* ---- writing ---------------------------------------------------------------- */

bool hypura_store_link(const char *from, const char *to)
{
    return link(from, to) == 0;
}

static bool clone_file(int from, int to)
{
#ifdef FICLONE
    return ioctl(to, FICLONE, from) == 0;
#else
    (void)from;
    (void)to;
    return false;
#endif
}

/* Copies by reading and writing. 0, or the errno of what failed; ECANCELED; ESTALE: the file is longer or shorter now. */
static int copy_bytes(int from, int to, const char *what, uint64_t total, hypura_progress_fn progress, void *user)
{
    char *buffer = malloc(COPY_BYTES);
    int e = buffer == NULL ? ENOMEM : 0;
    uint64_t done = 0;
    while (e == 0) {
        ssize_t n = read(from, buffer, COPY_BYTES);
        if (n <= 0) {
            e = n < 0 ? errno : 0;
            break;
        }
        for (ssize_t at = 0; at < n && e == 0;) {
            ssize_t written = write(to, buffer + at, (size_t)(n - at));
            e = written < 0 ? errno : 0;
            at += written;
        }
        done += (uint64_t)n;
        e = e == 0 && done > total ? ESTALE : e;
        if (e == 0 && progress != NULL && !progress(user, what, done, total)) {
            e = ECANCELED;
        }
    }
    free(buffer);
    return e == 0 && done < total ? ESTALE : e;
}

static hypura_status copy_file(int from, const char *to, uint64_t bytes, hypura_progress_fn progress, void *user,
                               hypura_error *error)
{
    int fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    int e = fd < 0 ? errno : 0;
    if (fd >= 0 && !clone_file(from, fd)) {
        /* Rather now than when the drive is full. */
        hypura_os_drive drive;
        bool known = hypura_os_drive_read(to, &drive, NULL) == HYPURA_OK;
        e = known && drive.free_bytes < bytes ? ENOSPC : copy_bytes(from, fd, to, bytes, progress, user);
        if (e == 0 && fsync(fd) != 0) {
            e = errno;
        }
    }
    if (fd >= 0 && close(fd) != 0 && e == 0) {
        e = errno;
    }
    if (e == 0) {
        return HYPURA_OK;
    }
    if (fd >= 0) {
        (void)unlink(to);
    }
    return e == ECANCELED ? hypura_fail(error, HYPURA_ERR_CANCELLED, "%s: copying was stopped", to)
           : e == ESTALE  ? hypura_fail(error, HYPURA_ERR_IO, "%s: what it is a copy of was written to meanwhile: try again", to)
                          : hypura_os_fail_write(e, to, bytes, error);
}

hypura_status hypura_store_transfer(const char *from, const char *to, hypura_progress_fn progress, void *progress_user,
                                    hypura_error *error)
{
    struct stat st;
    int fd = open(from, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        int e = fd < 0 ? errno : EINVAL;
        if (fd >= 0) {
            (void)close(fd);
        }
        return hypura_fail_errno(error, e, "cannot read %s", from);
    }
    hypura_status status = HYPURA_OK;
    if (!hypura_store_link(from, to)) {
        status = copy_file(fd, to, (uint64_t)st.st_size, progress, progress_user, error);
    }
    (void)close(fd);
    return status;
}

hypura_status hypura_store_write_json(const char *path, const json_t *object, hypura_error *error)
{
    char *text = json_dumps(object, JSON_INDENT(2));
    if (text == NULL) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to write %s", path);
    }
    int e = 0;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    if (file == NULL) {
        e = errno;
        if (fd >= 0) {
            (void)close(fd);
        }
    } else {
        if (fputs(text, file) == EOF || fputc('\n', file) == EOF || fflush(file) != 0 || fsync(fd) != 0) {
            e = errno;
        }
        if (fclose(file) != 0 && e == 0) {
            e = errno;
        }
    }
    uint64_t bytes = strlen(text) + 1;
    free(text);
    if (e != 0) {
        if (fd >= 0) {
            (void)unlink(path);
        }
        return hypura_os_fail_write(e, path, bytes, error);
    }
    return HYPURA_OK;
}

void hypura_store_adapter_ending(int i, char *ending)
{
    if (i == 0) {
        (void)snprintf(ending, HYPURA_ADAPTER_ENDING_BYTES, ".adapter.gguf");
    } else {
        (void)snprintf(ending, HYPURA_ADAPTER_ENDING_BYTES, ".adapter-%d.gguf", i + 1);
    }
}
