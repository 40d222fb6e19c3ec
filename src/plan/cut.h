/*
 * cut.h - how long the requests are to be that a read is cut into, and how many of them
 * are to be under way. Pure.
 *
 * Most drives give their rate only to several requests at once. When all that is to be
 * read is one expert of a few MB, the longest request that the drive likes in a steady
 * stream leaves it with two or three under way, and soon with the last one alone. On
 * the other hand, what is under way together arrives together: only then is it repacked
 * and computed with, while the drive has nothing to do. So both follow from how much
 * there is to be read, by the rates that the profile measured at every size and depth.
 */
#ifndef HYPURA_PLAN_CUT_H
#define HYPURA_PLAN_CUT_H

#include "hypura.h"

typedef struct hypura_cut {
    uint64_t block_bytes;  /* of a request; not above the plan's, 256 KiB or the plan's at least */
    uint64_t window_bytes; /* under way together at most; not above the plan's block x depth */
} hypura_cut;

/* Until so many bytes are there and of use; 0 where no rate of such requests is known. */
double hypura_cut_seconds(const hypura_plan *plan, uint64_t bytes, hypura_cut cut);

/* The cut that takes the least time. */
hypura_cut hypura_cut_choose(const hypura_plan *plan, uint64_t bytes);

#endif
