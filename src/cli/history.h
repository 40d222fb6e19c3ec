/*
 * history.h - what was said in a conversation, kept in a file: a JSON array of
 * {"role", "content"}, as requests to servers have it in `messages`. What was shown is
 * named there, in "images", by its absolute path, and read again; what a model thought is its "reasoning_content".
 *
 * What always holds: a file is written whole, after each answer, and holds a system
 * text at most, then prompts and answers. What somebody else wrote to it since it was read is not replaced.
 */
#ifndef HYPURA_CLI_HISTORY_H
#define HYPURA_CLI_HISTORY_H

#include "cli/json.h"
#include "cli/shown.h"

#include <sys/stat.h>

/* Zero-initialise; close frees. */
typedef struct hypura_history {
    const char *path;     /* NULL: it is kept here alone */
    json_t *messages;     /* all of them */
    hypura_message *said; /* those that were in the file; point into messages */
    int n_said;
    hypura_shown_files *shown; /* of each of them */
    const char *system;   /* of a conversation that begins; NULL: none */
    struct stat kept;     /* of the file, as it was read or written last; all 0: there was none */
} hypura_history;

/* Reads the file, where there is one. Fails naming the file: not readable, not writable, no
 * conversation. */
hypura_status hypura_history_open(const char *path, hypura_history *history, hypura_error *error);
void hypura_history_close(hypura_history *history);

/* The same of a file that has to be there, and is not written to. */
hypura_status hypura_history_read(const char *path, hypura_history *history, hypura_error *error);

/* These messages in place of those that it holds. After a failure it is as it was. */
hypura_status hypura_history_begin(hypura_history *history, json_t *messages, hypura_error *error);

/* Whether anything was shown in what was said before. */
bool hypura_history_shows(const hypura_history *history);
/* A prompt, what was shown with it, and its answer; writes the file, where there is one. HYPURA_ERR_IO also where it is not as
 * it was read or written last. */
hypura_status hypura_history_add(hypura_history *history, const hypura_generate_options *asked, const hypura_result *answer,
                                 hypura_error *error);
/* A conversation begins; the next answer replaces the file. */
void hypura_history_clear(hypura_history *history);

#endif
