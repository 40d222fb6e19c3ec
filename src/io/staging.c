/*
 * staging.c - see staging.h.
 *
 * What always holds: ranges do not overlap; going around the ring from the oldest, they
 * come in the order in which they were given out, and pass the ring's end at most once.
 */
#include "io/staging.h"

static hypura_io_range *range_at(const hypura_io_staging *staging, uint32_t i)
{
    return &staging->ranges[(staging->first + i) % staging->capacity];
}

static bool find_room(const hypura_io_staging *staging, uint64_t bytes, uint64_t *begin)
{
    if (staging->n == 0) {
        *begin = 0;
        return bytes <= staging->bytes;
    }
    const hypura_io_range *oldest = range_at(staging, 0);
    const hypura_io_range *newest = range_at(staging, staging->n - 1);
    const bool             is_around = newest->begin < oldest->begin;
    *begin = newest->end;
    if (is_around) {
        return bytes <= oldest->begin - newest->end;
    }
    if (bytes <= staging->bytes - newest->end) {
        return true;
    }
    *begin = 0;
    return bytes <= oldest->begin;
}

bool hypura_io_staging_take(hypura_io_staging *staging, uint64_t bytes, uint32_t *range)
{
    uint64_t begin;
    if (staging->n == staging->capacity || !find_room(staging, bytes, &begin)) {
        return false;
    }
    *range = (staging->first + staging->n++) % staging->capacity;
    staging->ranges[*range] = (hypura_io_range){.begin = begin, .end = begin + bytes};
    return true;
}

void hypura_io_staging_give_back(hypura_io_staging *staging, uint32_t range)
{
    staging->ranges[range].back = true;
    while (staging->n > 0 && range_at(staging, 0)->back) {
        staging->first = (staging->first + 1) % staging->capacity;
        staging->n--;
    }
}
