/*
 * files.h - the files that an I/O engine reads: opened once, and later compared with
 * what they were then. Owned by io.c.
 */
#ifndef HYPURA_IO_FILES_H
#define HYPURA_IO_FILES_H

#include "io/io.h"

typedef struct hypura_io_table {
    hypura_io_file *files;
    int             n;
    uint64_t        step; /* the strictest alignment of all: a multiple of it suits every file */
} hypura_io_table;

/* Opens every path read-only, past the page cache when direct; fails naming the path.
 * Closed by hypura_io_files_close also after a failure. */
hypura_status hypura_io_files_open(hypura_io_table *table, const char *const *paths, int n, bool direct,
                                   hypura_error *error);
void          hypura_io_files_close(hypura_io_table *table);

/* The next reads go past the page cache, or through it. False when the system refuses. */
bool hypura_io_files_set_direct(hypura_io_table *table, bool direct);

/* Whether these n opened files are those of which sizes and, where it is not NULL, times were read before. */
hypura_status hypura_io_files_check_known(const hypura_io_file *files, int n, const uint64_t *bytes,
                                          const int64_t *modified_ns, hypura_error *error);

/* True when the file ends at or before that offset now. */
bool hypura_io_file_ends_before(const hypura_io_file *file, uint64_t offset);

/* See hypura_io_check_files and hypura_io_check_paths. Any thread. */
hypura_status hypura_io_files_check(const hypura_io_table *table, hypura_error *error);
hypura_status hypura_io_files_check_paths(const hypura_io_table *table, hypura_error *error);

#endif
