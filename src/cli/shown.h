/*
 * shown.h - pictures and sound beside a prompt: files that an option names, or the text itself.
 */
#ifndef HYPURA_CLI_SHOWN_H
#define HYPURA_CLI_SHOWN_H

#include "hypura.h"

/* Zero-initialise; clear frees. */
typedef struct hypura_shown_files {
    hypura_medium *media; /* names and data are owned */
    int n;
} hypura_shown_files;

/* Reads a file. Fails naming it. */
hypura_status hypura_shown_add(hypura_shown_files *files, const char *path, hypura_error *error);

/* Whether the text names a file that is there, as a picture or a sound is called: a path, in quotes perhaps, or with
 * backslashes before blanks, as terminals write one that is dropped on them. */
bool hypura_shown_named(const char *text);
/* Reads those files. *rest: the text without their names, to be freed. */
hypura_status hypura_shown_take(hypura_shown_files *files, const char *text, char **rest, hypura_error *error);

/* Forgets all but the first n. */
void hypura_shown_cut(hypura_shown_files *files, int n);
void hypura_shown_clear(hypura_shown_files *files);

#endif
