/*
 * limit.h - a drive of a given rate, emulated: when it would be done with each
 * request, and what came from the real one before that. Owned by io.c. Pure; times
 * are nanoseconds of one clock, as a fast drive is done within a microsecond or so of
 * the next request.
 *
 * One request after the other takes bytes / rate; the drive is idle when the last
 * one is done, and idle time is not saved up. So a slower real drive is never made
 * to look faster, and no second moves more than the rate.
 *
 * What always holds: a result is handed out once, and not before it is due.
 */
#ifndef HYPURA_IO_LIMIT_H
#define HYPURA_IO_LIMIT_H

#include "io/engine.h"

typedef struct hypura_io_held {
    hypura_io_raw raw;
    uint64_t due_ns;
} hypura_io_held;

typedef struct hypura_io_limit {
    uint64_t bytes_per_s; /* 0: no limit */
    uint64_t free_ns;     /* when the emulated drive is done with what it was given */
    hypura_io_held *held; /* the caller's, one for each request in flight; too early results in no order */
    uint32_t n_held;
} hypura_io_limit;

/* A request of so many bytes is given to the drive now; returns when it is done. */
uint64_t hypura_io_limit_add(hypura_io_limit *limit, uint64_t now_ns, uint64_t bytes);

/* Keeps a result that is due later. */
void hypura_io_limit_hold(hypura_io_limit *limit, hypura_io_raw raw, uint64_t due_ns);

/* Hands out one that is due; false when none is. */
bool hypura_io_limit_take(hypura_io_limit *limit, uint64_t now_ns, hypura_io_raw *raw);

/* Microseconds, rounded up, until the first one is due; UINT64_MAX when none is held. */
uint64_t hypura_io_limit_wait_us(const hypura_io_limit *limit, uint64_t now_ns);

#endif
