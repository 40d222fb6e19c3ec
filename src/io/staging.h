/*
 * staging.h - which part of the staging memory a request reads through. Ranges of one
 * ring: given out in order, taken back in any, reused once the oldest is back. So the
 * memory that is ever touched is the ring, whatever mix of long and short requests
 * passes through it. Pure: offsets alone.
 *
 *        0        first                     last          bytes
 *        |         |#####|..back..|#########|               |
 *                  '-- oldest                '-- the next begins here, or at 0
 */
#ifndef HYPURA_IO_STAGING_H
#define HYPURA_IO_STAGING_H

#include <stdbool.h>
#include <stdint.h>

typedef struct hypura_io_range {
    uint64_t begin;
    uint64_t end;
    bool     back;
} hypura_io_range;

typedef struct hypura_io_staging {
    uint64_t         bytes;    /* of the ring */
    uint32_t         capacity; /* of ranges: never more are given out */
    hypura_io_range *ranges;   /* n of them from first on, oldest first, around the end */
    uint32_t         first;
    uint32_t         n;
} hypura_io_staging;

/* The number of a range of so many bytes, not above the ring's; false when there is no
 * room for it until others are back. With none out there always is. */
bool hypura_io_staging_take(hypura_io_staging *staging, uint64_t bytes, uint32_t *range);

void hypura_io_staging_give_back(hypura_io_staging *staging, uint32_t range);

#endif
