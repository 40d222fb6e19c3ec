/*
 * clock.h - the one clock that durations are taken from, and durations as text.
 */
#ifndef HYPURA_BASE_CLOCK_H
#define HYPURA_BASE_CLOCK_H

#include <stdint.h>
#include <stdlib.h>
#include <time.h>

/* Microseconds on a clock that never steps; only differences mean anything. */
static inline uint64_t hypura_clock_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

/* Seconds such as "2.5"; 0: text is NULL, or no number of seconds that anybody waits. */
static inline double hypura_seconds_parse(const char *text)
{
    char *end = NULL;
    const double seconds = text ? strtod(text, &end) : 0.0;
    return text && end != text && *end == '\0' && seconds > 0.0 && seconds < 1e9 ? seconds : 0.0;
}

#endif
