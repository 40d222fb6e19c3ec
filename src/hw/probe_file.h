/*
 * probe_file.h - a file to measure a drive with, for folders that hold none.
 *
 * What always holds: after close, and on Linux after open already, the file has no
 * name: nothing is left behind however the process ends.
 */
#ifndef HYPURA_HW_PROBE_FILE_H
#define HYPURA_HW_PROBE_FILE_H

#include "hypura.h"

typedef struct hypura_probe_file {
    char path[1088]; /* leads to it until close */
    int fd;
    bool named; /* still in the folder */
} hypura_probe_file;

/* Writes bytes (a multiple of 4 MiB) of random contents, and waits until they are
 * on the drive. HYPURA_ERR_IO, naming the folder, when there is no room. */
hypura_status hypura_probe_file_open(const char *folder, uint64_t bytes, hypura_progress_fn progress,
                                     void *progress_user, hypura_probe_file *file, hypura_error *error);
void hypura_probe_file_close(hypura_probe_file *file);

#endif
