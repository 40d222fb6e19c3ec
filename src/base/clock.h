/*
 * clock.h - the one clock that durations are taken from.
 */
#ifndef HYPURA_BASE_CLOCK_H
#define HYPURA_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Microseconds on a clock that never steps; only differences mean anything. */
static inline uint64_t hypura_clock_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

#endif
