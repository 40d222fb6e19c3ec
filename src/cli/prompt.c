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

static hypura_status read_part(int descriptor, const char *name, hypura_buffer *all, bool *ended, hypura_error *error)
{
    char part[READ_BYTES];
    if (!hypura_interrupt_wait(descriptor)) {
        return hypura_fail(error, HYPURA_ERR_CANCELLED, "interrupted");
    }
    const ssize_t n = read(descriptor, part, sizeof part);
    if (n < 0 && errno != EINTR && errno != EAGAIN) {
        return hypura_fail_errno(error, errno, "cannot read %s", name);
    }
    *ended = n == 0;
    if (all->bytes + sizeof part > MAX_PROMPT_BYTES) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s is too long for a prompt (over 1 GiB)", name);
    }
    return hypura_buffer_add(all, part, n > 0 ? (size_t)n : 0)
               ? HYPURA_OK
               : hypura_fail(error, HYPURA_ERR_MEMORY, "out of memory while reading %s", name);
}

hypura_status hypura_file_read(const char *path, char **data, size_t *bytes, hypura_error *error)
{
    bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    int descriptor = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) {
        return hypura_fail_errno(error, errno, "cannot open %s", path);
    }
    hypura_buffer all = {0};
    bool ended = false;
    hypura_status status = HYPURA_OK;
    while (status == HYPURA_OK && !ended) {
        status = read_part(descriptor, name, &all, &ended, error);
    }
    if (!standard) {
        close(descriptor);
    }
    if (status != HYPURA_OK) {
        hypura_buffer_clear(&all);
    }
    *data = all.data;
    *bytes = all.bytes;
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
    all[used] = '\0';
    *text = all;
    return HYPURA_OK;
}

hypura_line_event hypura_lines_next(hypura_lines *lines, const char **line, hypura_error *error)
{
    hypura_buffer *input = &lines->read;
    size_t searched = 0;
    hypura_buffer_drop(input, lines->line);
    lines->line = 0;
    for (;;) {
        char *newline = input->bytes > searched ? memchr(input->data + searched, '\n', input->bytes - searched) : NULL;
        if (newline || (lines->ended && input->bytes > 0)) {
            size_t length = newline ? (size_t)(newline - input->data) : input->bytes;
            lines->line = newline ? length + 1 : length;
            input->data[length] = '\0';
            if (strlen(input->data) != length) {
                hypura_fail(error, HYPURA_ERR_FORMAT, "standard input is no text: it has a NUL byte in it");
                return HYPURA_LINE_FAILED;
            }
            *line = input->data;
            return HYPURA_LINE;
        }
        if (lines->ended) {
            return HYPURA_LINE_END;
        }
        searched = input->bytes;
        hypura_status status = read_part(STDIN_FILENO, "standard input", input, &lines->ended, error);
        if (status == HYPURA_ERR_CANCELLED) {
            hypura_buffer_drop(input, input->bytes);
            return HYPURA_LINE_INTERRUPTED;
        }
        if (status != HYPURA_OK) {
            return HYPURA_LINE_FAILED;
        }
    }
}

void hypura_lines_close(hypura_lines *lines)
{
    hypura_buffer_clear(&lines->read);
    *lines = (hypura_lines){0};
}
