/*
 * new_file.h - a file that takes its name when it is whole: results, and what is kept for later runs.
 *
 * It is written beside, in the same folder, and renamed: until then a file of that name stays as it was, and what cannot be
 * written to the end (a full disk) leaves nothing. It has the permissions of the one before, and its owner where that may be
 * given. A link stays a link, and its file is replaced. What is no plain file (a device, a pipe), and a file that is this
 * process's standard output or error, is written to where it is.
 */
#ifndef HYPURA_BASE_NEW_FILE_H
#define HYPURA_BASE_NEW_FILE_H

#include "hypura.h"

#include <stdio.h>

typedef struct hypura_new_file {
    FILE *to;      /* what is written goes there */
    char *path;    /* as it was named */
    char *target;  /* that it will have; NULL: it is written to where it is */
    char *written; /* until then */
} hypura_new_file;

/* Fails naming path. */
hypura_status hypura_new_file_open(hypura_new_file *file, const char *path, hypura_error *error);
/* Gives it its name, unless a write failed. Ends with file closed either way. */
hypura_status hypura_new_file_close(hypura_new_file *file, hypura_error *error);
/* The same, but the drive has all of it before it gets its name: where power is lost, the old file is there or the new one,
 * whole. Takes some milliseconds, and is for files alone. */
hypura_status hypura_new_file_close_synced(hypura_new_file *file, hypura_error *error);

#endif
