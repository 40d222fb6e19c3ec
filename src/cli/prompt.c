/*
 * prompt.c - see prompt.h.
 */
#include "cli/prompt.h"

#include "base/status.h"
#include "cli/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_BYTES       65536u
#define MAX_PROMPT_BYTES ((size_t)1 << 30)

static hypura_status read_part(int descriptor, const char *name, char **text, size_t *used, size_t *capacity,
                               bool *ended, hypura_error *error)
{
    if (*capacity - *used <= READ_BYTES) {
        size_t larger = *capacity + *capacity / 2 + READ_BYTES + 1;
        char *moved = larger > MAX_PROMPT_BYTES ? NULL : realloc(*text, larger);
        if (!moved && larger > MAX_PROMPT_BYTES) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "%s is too long for a prompt (over 1 GiB)", name);
        }
        if (!moved) {
            return hypura_fail(error, HYPURA_ERR_MEMORY, "out of memory while reading %s", name);
        }
        *text = moved;
        *capacity = larger;
    }
    if (!hypura_interrupt_wait(descriptor)) {
        return hypura_fail(error, HYPURA_ERR_CANCELLED, "interrupted");
    }
    ssize_t n = read(descriptor, *text + *used, READ_BYTES);
    if (n < 0 && errno != EINTR && errno != EAGAIN) {
        return hypura_fail_errno(error, errno, "cannot read %s", name);
    }
    *ended = n == 0;
    *used += n > 0 ? (size_t)n : 0;
    return HYPURA_OK;
}

hypura_status hypura_file_read(const char *path, char **data, size_t *bytes, hypura_error *error)
{
    bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    int descriptor = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) {
        return hypura_fail_errno(error, errno, "cannot open %s", path);
    }
    size_t capacity = 0;
    bool ended = false;
    hypura_status status = HYPURA_OK;
    *data = NULL;
    *bytes = 0;
    while (status == HYPURA_OK && !ended) {
        status = read_part(descriptor, name, data, bytes, &capacity, &ended, error);
    }
    if (!standard) {
        close(descriptor);
    }
    if (status != HYPURA_OK) {
        free(*data);
        *data = NULL;
    }
    return status;
}

hypura_status hypura_prompt_read(const char *path, char **text, hypura_error *error)
{
    const char *name = strcmp(path, "-") == 0 ? "standard input" : path;
    char *all = NULL;
    size_t used = 0;
    hypura_status status = hypura_file_read(path, &all, &used, error);
    if (status == HYPURA_OK && memchr(all, '\0', used)) {
        free(all);
        status = hypura_fail(error, HYPURA_ERR_FORMAT, "%s is no text: it has a NUL byte in it", name);
    }
    if (status != HYPURA_OK) {
        return status;
    }
    used -= used > 0 && all[used - 1] == '\n';
    all[used] = '\0'; /* read_part leaves room beyond what it read */
    *text = all;
    return HYPURA_OK;
}

hypura_line_event hypura_lines_next(hypura_lines *lines, const char **line, hypura_error *error)
{
    size_t searched = 0;
    if (lines->line > 0) {
        memmove(lines->buffer, lines->buffer + lines->line, lines->used - lines->line);
        lines->used -= lines->line;
        lines->line = 0;
    }
    for (;;) {
        char *newline = lines->used > searched ? memchr(lines->buffer + searched, '\n', lines->used - searched) : NULL;
        if (newline || (lines->ended && lines->used > 0)) {
            size_t length = newline ? (size_t)(newline - lines->buffer) : lines->used;
            lines->line = newline ? length + 1 : length;
            lines->buffer[length] = '\0';
            if (strlen(lines->buffer) != length) {
                hypura_fail(error, HYPURA_ERR_FORMAT, "standard input is no text: it has a NUL byte in it");
                return HYPURA_LINE_FAILED;
            }
            *line = lines->buffer;
            return HYPURA_LINE;
        }
        if (lines->ended) {
            return HYPURA_LINE_END;
        }
        searched = lines->used;
        hypura_status status = read_part(STDIN_FILENO, "standard input", &lines->buffer, &lines->used, &lines->capacity,
                                         &lines->ended, error);
        if (status == HYPURA_ERR_CANCELLED) {
            lines->used = 0;
            return HYPURA_LINE_INTERRUPTED;
        }
        if (status != HYPURA_OK) {
            return HYPURA_LINE_FAILED;
        }
    }
}

void hypura_lines_close(hypura_lines *lines)
{
    free(lines->buffer);
    *lines = (hypura_lines){.buffer = NULL};
}
