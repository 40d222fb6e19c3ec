/*
 * source.h - read past the page cache, or through it? A file that was just written,
 * copied or used by somebody else lies in the page cache already; reading it from there
 * costs the drive nothing and the processor a copy. Which is faster is measured by the
 * decode itself. Pure.
 *
 *     file not cached ------------------------------------------> PAST
 *     cached: PAST and THROUGH in turns, some windows each -----> the faster one
 *     THROUGH, and the file is cached no longer ----------------> PAST for good
 *
 * Reading past it is the rule: it leaves memory to others, and keeps it so.
 */
#ifndef HYPURA_PLAN_SOURCE_H
#define HYPURA_PLAN_SOURCE_H

#include "hypura.h"

typedef struct hypura_source {
    hypura_reads reads; /* what is known, as statistics tell it */
    bool     through;   /* now */
    int      n_windows; /* of both kinds */
    double   speed[2];  /* past, through: sums over the windows, bytes computed with a second */
    uint64_t window_us; /* when it began */
    uint64_t needed_bytes;
    uint64_t checked_us;
} hypura_source;

/* cached_share: of what would be read, 0 to 1. */
void hypura_source_begin(hypura_source *source, double cached_share);

/* True when it is time to look again how much is cached. */
bool hypura_source_asks(const hypura_source *source, uint64_t now_us);

/* needed_bytes: total of weights that computing asked for; cached_share as above where
 * it was asked for, else below 0. Returns true when source->through has changed. */
bool hypura_source_decide(hypura_source *source, uint64_t now_us, uint64_t needed_bytes, double cached_share);

#endif
