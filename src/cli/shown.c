/*
 * shown.c - see shown.h.
 */
#include "cli/shown.h"

#include "base/buffer.h"
#include "base/status.h"
#include "cli/prompt.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static const char *const endings[] = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".wav", ".mp3", ".flac"};

#define MOST_PATH_BYTES 4096

hypura_status hypura_shown_add(hypura_shown_files *files, const char *path, hypura_error *error)
{
    hypura_medium *media = realloc(files->media, (size_t)(files->n + 1) * sizeof *media);
    char *name = strdup(path);
    char *data = NULL;
    size_t bytes = 0;
    if (media) {
        files->media = media;
    }
    hypura_status status = media && name ? hypura_file_read(path, &data, &bytes, error)
                                         : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %s", path);
    if (status != HYPURA_OK) {
        free(name);
        return status;
    }
    files->media[files->n++] = (hypura_medium){.name = name, .data = data, .bytes = bytes};
    return HYPURA_OK;
}

void hypura_shown_cut(hypura_shown_files *files, int n)
{
    while (files->n > n) {
        files->n--;
        free((char *)(uintptr_t)files->media[files->n].name);
        free((void *)(uintptr_t)files->media[files->n].data);
    }
}

void hypura_shown_clear(hypura_shown_files *files)
{
    hypura_shown_cut(files, 0);
    free(files->media);
    *files = (hypura_shown_files){.media = NULL};
}

/* ---- names in a text ----------------------------------------------------------- */

static bool goes_on(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-';
}

static bool is_ending(const char *at, size_t *bytes)
{
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        *bytes = strlen(endings[i]);
        if (strncasecmp(at, endings[i], *bytes) == 0 && !goes_on(at[*bytes])) {
            return true;
        }
    }
    return false;
}

static bool is_file(const char *path)
{
    struct stat file;
    return stat(path, &file) == 0 && S_ISREG(file.st_mode);
}

/* A path that begins at text: bytes of it there, quotes included; 0: there is none. */
static size_t path_at(const char *text, char *path)
{
    const char quote = text[0] == '\'' || text[0] == '"' || text[0] == '`' ? text[0] : '\0';
    const char *at = text + (quote != '\0');
    size_t n = 0;
    while (*at != '\0' && *at != '\n' && n + 6 < MOST_PATH_BYTES) {
        size_t bytes = 0;
        if (quote != '\0' ? *at == quote : strchr(" \t\r", *at) != NULL) {
            return 0;
        }
        if (is_ending(at, &bytes) && (quote == '\0' || at[bytes] == quote) && n > 0) {
            memcpy(path + n, at, bytes);
            path[n + bytes] = '\0';
            return is_file(path) ? (size_t)(at - text) + bytes + (quote != '\0') : 0;
        }
        at += quote == '\0' && at[0] == '\\' && at[1] != '\0' && at[1] != '\n';
        path[n++] = *at++;
    }
    return 0;
}

/* The next path in the text, from *begin on; its bytes, 0: there is none. */
static size_t next_path(const char **begin, char *path)
{
    bool starts = true; /* a word */
    for (const char *at = *begin; *at != '\0'; at++) {
        const size_t bytes = starts ? path_at(at, path) : 0;
        if (bytes > 0) {
            *begin = at;
            return bytes;
        }
        starts = strchr(" \t\r\n([{<:,;", *at) != NULL;
    }
    return 0;
}

bool hypura_shown_named(const char *text)
{
    char path[MOST_PATH_BYTES];
    return next_path(&text, path) > 0;
}

/* Blanks that the names left at both ends. */
static void trim(char *text)
{
    size_t n = strlen(text);
    while (n > 0 && strchr(" \t\r\n", text[n - 1])) {
        text[--n] = '\0';
    }
    const size_t blank = strspn(text, " \t\r\n");
    memmove(text, text + blank, n - blank + 1);
}

hypura_status hypura_shown_take(hypura_shown_files *files, const char *text, char **rest, hypura_error *error)
{
    char path[MOST_PATH_BYTES];
    hypura_buffer left = {0};
    hypura_status status = HYPURA_OK;
    *rest = NULL;
    for (const char *at = text;;) {
        const char *begin = at;
        const size_t bytes = next_path(&begin, path);
        if (!hypura_buffer_add(&left, at, bytes > 0 ? (size_t)(begin - at) : strlen(at) + 1)) {
            status = hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a message of %zu bytes", strlen(text));
        }
        if (status == HYPURA_OK && bytes > 0) {
            status = hypura_shown_add(files, path, error);
        }
        if (bytes == 0 || status != HYPURA_OK) {
            break;
        }
        at = begin + bytes;
    }
    if (status != HYPURA_OK) {
        hypura_buffer_clear(&left);
        return status;
    }
    trim(left.data);
    *rest = left.data;
    return HYPURA_OK;
}
