/*
 * store_file.c - see store_internal.h: reading what lies in the folders.
 */
#include "server/store_internal.h"

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

enum { MAX_JSON_BYTES = 4 << 20, MAX_DEPTH = 5 };

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
    for (char *at = strchr(part + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        if (mkdir(part, 0755) != 0 && errno != EEXIST) {
            return hypura_fail_errno(error, errno, "cannot make the folder %s", part);
        }
        *at = '/';
    }
    return HYPURA_OK;
}

static hypura_status walk_folder(const walk *w, const char *below, int depth);

static hypura_status walk_entry(const walk *w, const char *below, int depth)
{
    char path[HYPURA_STORE_PATH_BYTES];
    char resolved[HYPURA_STORE_PATH_BYTES];
    struct stat st;
    if (!hypura_store_path(path, "%s/%s", w->root, below) || lstat(path, &st) != 0) {
        return HYPURA_OK;
    }
    if (S_ISDIR(st.st_mode)) {
        return depth < MAX_DEPTH ? walk_folder(w, below, depth + 1) : HYPURA_OK;
    }
    bool is_file = S_ISREG(st.st_mode) || (S_ISLNK(st.st_mode) && hypura_store_is_within(w->root, path, resolved));
    return is_file ? w->visit(w->user, below, w->error) : HYPURA_OK;
}

/* below is "" for the root itself. */
static hypura_status walk_folder(const walk *w, const char *below, int depth)
{
    char path[HYPURA_STORE_PATH_BYTES];
    DIR *folder = hypura_store_path(path, "%s/%s", w->root, below) ? opendir(path) : NULL;
    hypura_status status = HYPURA_OK;
    if (folder == NULL) {
        return HYPURA_OK;
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
