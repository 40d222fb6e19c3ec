/*
 * prompt.h - text that goes in: whole prompts from a file or from standard
 * input, and the lines of a conversation.
 */
#ifndef HYPURA_CLI_PROMPT_H
#define HYPURA_CLI_PROMPT_H

#include "base/buffer.h"
#include "hypura.h"

/* Reads the whole of path ("-": standard input) without its last newline into
 * *text, to be freed. Fails naming the file: not readable, over 1 GiB, a NUL byte
 * in it, or HYPURA_ERR_CANCELLED when a signal came first. */
hypura_status hypura_prompt_read(const char *path, char **text, hypura_error *error);

/* The same, byte for byte. */
hypura_status hypura_file_read(const char *path, char **data, size_t *bytes, hypura_error *error);

/* Lines of standard input, read past stdio so that waiting for one can be
 * interrupted. Zero-initialise; close frees. */
typedef struct hypura_lines {
    hypura_buffer read;
    size_t line; /* bytes of it that are the line last returned, its newline included */
    bool ended;
} hypura_lines;

typedef enum hypura_line_event {
    HYPURA_LINE,             /* *line is the next one, without its newline */
    HYPURA_LINE_END,         /* end of input */
    HYPURA_LINE_INTERRUPTED, /* a signal came; what was typed of the line is dropped */
    HYPURA_LINE_FAILED,      /* error says why */
} hypura_line_event;

/* *line stays valid until the next call. */
hypura_line_event hypura_lines_next(hypura_lines *lines, const char **line, hypura_error *error);
void hypura_lines_close(hypura_lines *lines);

#endif
