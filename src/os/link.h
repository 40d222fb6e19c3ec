/*
 * link.h - the link between the machine and a drive: what no drive can exceed.
 */
#ifndef HYPURA_OS_LINK_H
#define HYPURA_OS_LINK_H

#include "hypura.h"

typedef struct hypura_os_link {
    double bytes_per_s; /* what it can carry of anything, encoding taken off */
    char name[64];      /* "PCIe 16.0 GT/s x4" */
} hypura_os_link;

/* Of the drive that an existing file or folder lies on. False where it is not known:
 * virtual drives, network file systems, other systems than Linux. */
bool hypura_os_link_read(const char *path, hypura_os_link *link);

/* The same below other roots than "/sys/dev/block" (for tests): device is
 * MAJOR:MINOR there. */
bool hypura_os_link_read_at(const char *block_folder, const char *device, hypura_os_link *link);

#endif
