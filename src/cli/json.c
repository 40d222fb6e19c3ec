/*
 * json.c - see json.h.
 */
#include "cli/json.h"

#include "base/status.h"
#include "base/utf8.h"
#include "cli/environment.h"
#include "cli/output.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define JSON_STYLE (JSON_INDENT(2) | JSON_REAL_PRECISION(15))

/* ---- building -------------------------------------------------------------- */

json_t *hypura_json_string(const char *text)
{
    size_t length = strlen(text);
    if (length > (SIZE_MAX - 1) / 3) {
        return NULL;
    }
    char *clean = malloc(3 * length + 1); /* each byte may become the three of U+FFFD */
    if (!clean) {
        return NULL;
    }
    size_t used = 0;
    for (const char *at = text, *end = text + length; at < end;) {
        const int n = hypura_utf8_character(at, (size_t)(end - at));
        memcpy(clean + used, n > 0 ? at : "\xef\xbf\xbd", n > 0 ? (size_t)n : 3);
        used += n > 0 ? (size_t)n : 3;
        at += n > 0 ? n : 1;
    }
    json_t *string = json_stringn(clean, used);
    free(clean);
    return string;
}

void hypura_json_set(json_t **object, const char *key, json_t *value)
{
    if (!*object) {
        json_decref(value);
    } else if (json_object_set_new(*object, key, value) != 0) {
        json_decref(*object);
        *object = NULL;
    }
}

void hypura_json_append(json_t **array, json_t *value)
{
    if (!*array) {
        json_decref(value);
    } else if (json_array_append_new(*array, value) != 0) {
        json_decref(*array);
        *array = NULL;
    }
}

void hypura_json_text(json_t **object, const char *key, const char *text)
{
    hypura_json_set(object, key, hypura_json_string(text));
}

void hypura_json_integer(json_t **object, const char *key, uint64_t value)
{
    hypura_json_set(object, key, json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value));
}

void hypura_json_real(json_t **object, const char *key, double value)
{
    hypura_json_set(object, key, isfinite(value) ? json_real(value) : json_null());
}

void hypura_json_bool(json_t **object, const char *key, bool value)
{
    hypura_json_set(object, key, json_boolean(value));
}

/* ---- writing --------------------------------------------------------------- */

static int dump_to_output(const char *text, size_t bytes, void *user)
{
    (void)user;
    /* A write that failed is told at the end of the program; -1 means memory here. */
    (void)hypura_output_write(text, bytes);
    return 0;
}

hypura_status hypura_json_print(json_t *object, hypura_error *error)
{
    int failed = object ? json_dump_callback(object, dump_to_output, NULL, JSON_STYLE) : -1;
    json_decref(object);
    if (failed) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "out of memory while writing JSON");
    }
    hypura_output_write("\n", 1);
    return HYPURA_OK;
}

static bool dump_to_stream(const json_t *object, FILE *file)
{
    bool wrote = json_dumpf(object, file, JSON_STYLE) == 0 && fputc('\n', file) != EOF && fflush(file) == 0;
    int saved = errno;
    bool closed = fclose(file) == 0;
    if (!wrote) {
        errno = saved;
    }
    return wrote && closed;
}

/* A new file in the folder of path; its name is written to temporary. */
static FILE *open_temporary(const char *path, char *temporary, size_t capacity)
{
    int n = snprintf(temporary, capacity, "%s.XXXXXX", path);
    if (n < 0 || (size_t)n >= capacity) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    int descriptor = mkstemp(temporary);
    if (descriptor < 0) {
        return NULL;
    }
    /* mkstemp keeps others out; a result file has the permissions of any new file. */
    mode_t mask = umask(0);
    umask(mask);
    FILE *file = fchmod(descriptor, 0666 & ~mask) == 0 ? fdopen(descriptor, "w") : NULL;
    if (!file) {
        int saved = errno;
        close(descriptor);
        unlink(temporary);
        errno = saved;
    }
    return file;
}

static bool replace_file(const json_t *object, const char *path)
{
    char temporary[HYPURA_PATH_BYTES];
    FILE *file = open_temporary(path, temporary, sizeof temporary);
    if (!file) {
        return false;
    }
    if (!dump_to_stream(object, file) || rename(temporary, path) != 0) {
        int saved = errno;
        unlink(temporary);
        errno = saved;
        return false;
    }
    return true;
}

/* Standard output or error when that is the file, as /dev/stdout names it: it is
 * continued where it is, as replacing it would lose what it holds. Else -1. */
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

hypura_status hypura_json_write(json_t *object, const char *path, hypura_error *error)
{
    if (!object) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "out of memory while writing %s", path);
    }
    struct stat kind;
    const bool exists = stat(path, &kind) == 0;
    const int own = exists ? own_stream(&kind) : -1;
    bool wrote = false;
    if (exists && S_ISDIR(kind.st_mode)) {
        errno = EISDIR;
    } else if (own >= 0) {
        FILE *file = fdopen(dup(own), "w");
        wrote = hypura_output_flush() && file && dump_to_stream(object, file);
    } else if (exists && !S_ISREG(kind.st_mode)) {
        FILE *file = fopen(path, "w");
        wrote = file && dump_to_stream(object, file);
    } else {
        /* Renaming over a link would replace the link instead of its file. */
        char *target = exists ? realpath(path, NULL) : NULL;
        wrote = replace_file(object, target ? target : path);
        int saved = errno;
        free(target);
        errno = saved;
    }
    int saved = errno;
    json_decref(object);
    return wrote ? HYPURA_OK : hypura_fail_errno(error, saved, "cannot write %s", path);
}
