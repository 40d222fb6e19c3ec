/*
 * watch.h - how scarce memory is, again and again: cheap enough to ask ten times a
 * second, and without allocating. One implementation is compiled: watch_linux.c or
 * watch_darwin.c.
 */
#ifndef HYPURA_OS_WATCH_H
#define HYPURA_OS_WATCH_H

#include "hypura.h"

typedef struct hypura_os_watch hypura_os_watch;

typedef struct hypura_os_scarcity {
    uint64_t available_bytes; /* free or reclaimable now, within every limit on this process */
    uint64_t limit_bytes;     /* smallest of RAM and these limits */
    uint64_t rss_bytes;       /* that this process takes */
    uint64_t stall_us;        /* since open: some task stood still for lack of memory, in the own control group
                               * or, where that does not tell and sets no limit, on the machine */
    uint64_t n_faults;        /* total: pages of this process that had to be read */
} hypura_os_scarcity;

/* root is "" on a live system; tests give a folder. */
hypura_status hypura_os_watch_open(const char *root, hypura_os_watch **watch, hypura_error *error);
void          hypura_os_watch_close(hypura_os_watch *watch);

/* By one thread at a time. */
void hypura_os_watch_read(hypura_os_watch *watch, hypura_os_scarcity *scarcity);

#endif
