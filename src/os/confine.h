/*
 * confine.h - what a comparison needs from the system: a process with less memory
 * than the machine has, a drive with another read-ahead, a file out of the page
 * cache. Linux; elsewhere everything is refused.
 *
 * What always holds: a group made here is removed at close, once its processes
 * have ended; the caller who sets a read-ahead puts the old one back.
 */
#ifndef HYPURA_OS_CONFINE_H
#define HYPURA_OS_CONFINE_H

#include "hypura.h"

/* A control group below this process's own with a memory limit (v1 or v2); page
 * cache counts, swap is not given where the kernel can account for it. */
typedef struct hypura_os_group {
    char dir[4096]; /* empty: none */
} hypura_os_group;

/* HYPURA_ERR_UNSUPPORTED where it is not permitted or there is no such thing. */
hypura_status hypura_os_group_open(uint64_t limit_bytes, hypura_os_group *group, hypura_error *error);
/* Moves the calling process into the group; between fork and exec too. False
 * with errno set. */
bool hypura_os_group_enter(const hypura_os_group *group);
/* Every process of it has been waited for. */
void hypura_os_group_close(hypura_os_group *group);

/* Read-ahead of the drive that a file lies on, for every user of that drive.
 * Counts for files opened from then on. */
hypura_status hypura_os_read_ahead_get(const char *path, uint32_t *kib, hypura_error *error);
hypura_status hypura_os_read_ahead_set(const char *path, uint32_t kib, hypura_error *error);

/* Drops a file's clean pages from the page cache, as far as nobody maps them. */
void hypura_os_cache_drop(const char *path);

/* Bytes that this process made the drives read so far, faults of mapped files
 * included; false where the system does not tell. */
bool hypura_os_drive_bytes(uint64_t *bytes);

#endif
