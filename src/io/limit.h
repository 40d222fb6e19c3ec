/*
 * limit.h - a drive of a given rate, emulated: when it would be done with each
 * request. Pure; the caller holds results back until then.
 *
 * One request after the other takes bytes / rate; the drive is idle when the last
 * one is done, and idle time is not saved up. So a slower real drive is never made
 * to look faster, and no second moves more than the rate.
 */
#ifndef HYPURA_IO_LIMIT_H
#define HYPURA_IO_LIMIT_H

#include <stdint.h>

typedef struct hypura_io_limit {
    uint64_t bytes_per_s; /* 0: no limit */
    uint64_t free_ns;     /* when the emulated drive is done with what it was given */
} hypura_io_limit;

/* A request of so many bytes is given to the drive now; returns when it is done,
 * on the same clock. Nanoseconds, as a fast drive is done within a microsecond
 * or so of the next one. */
static inline uint64_t hypura_io_limit_add(hypura_io_limit *limit, uint64_t now_ns, uint64_t bytes)
{
    const uint64_t begin = limit->free_ns > now_ns ? limit->free_ns : now_ns;
    limit->free_ns = begin + (uint64_t)((double)bytes * 1e9 / (double)limit->bytes_per_s);
    return limit->free_ns;
}

#endif
