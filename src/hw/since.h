/*
 * since.h - by how much one of the system's counters of time rose since some moment, as a share of the time that has
 * passed.
 */
#ifndef HYPURA_HW_SINCE_H
#define HYPURA_HW_SINCE_H

#include "base/clock.h"

#include <stdbool.h>

/* A counter at some moment. */
typedef struct hypura_since {
    uint64_t at_us;
    uint64_t counted_us;
    bool     known;
} hypura_since;

/* count: of os/os.h; false where the system does not tell. */
static inline hypura_since hypura_since_look(bool (*count)(uint64_t *us))
{
    hypura_since now = {.at_us = hypura_clock_us()};
    now.known = count(&now.counted_us);
    return now;
}

/* Of several processors, or threads, more than 1. A counter that fell gives a share below 0. False where it is not known. */
static inline bool hypura_since_share(const hypura_since *then, const hypura_since *now, double *share)
{
    const double passed_us = (double)(now->at_us - then->at_us);
    *share = passed_us > 0.0 ? ((double)now->counted_us - (double)then->counted_us) / passed_us : 0.0;
    return then->known && now->known;
}

/* How many processors other programs had in the mean since hypura_os_others_us was looked at; 0: less than a second ago, or not
 * known. */
double hypura_since_others(const hypura_since *then);

#endif
