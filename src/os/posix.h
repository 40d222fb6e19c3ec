/*
 * posix.h - what linux.c and darwin.c share, beside the functions of os.h that posix.c
 * has for both.
 */
#ifndef HYPURA_OS_POSIX_H
#define HYPURA_OS_POSIX_H

#include "os/os.h"

size_t hypura_posix_whole_pages(size_t bytes);

/* PROT_ flags for HYPURA_OS_MAP_ flags. */
int hypura_posix_protection(unsigned flags);

/* Takes the pages of a page-aligned range and loses no byte that another thread stores
 * meanwhile. Where memory runs out, the process ends. */
void hypura_posix_touch(uintptr_t first, size_t bytes);

/* Opens for reading, with these flags besides; -1 with errno set. */
int hypura_posix_open(const char *path, int flags);

/* Fills size and identity of file->fd, which was opened from path, or -1 with errno
 * set. Closes it and fails unless it is a regular file. */
hypura_status hypura_posix_take_file(const char *path, hypura_os_file *file, hypura_error *error);

/* How long threads of this process together have had a processor. False: not known. */
bool hypura_posix_own(uint64_t *us);

/* hypura_os_others_us, of what all programs had of all processors. */
bool hypura_posix_others(uint64_t all_us, uint64_t *us);

#endif
