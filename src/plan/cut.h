/*
 * cut.h - how long the requests are to be that a read is cut into. Pure.
 *
 * Most drives give their rate only to several requests at once. When all that is to be
 * read is one expert of a few MB, the longest request that the drive likes in a steady
 * stream leaves it with two or three under way, and soon with the last one alone. So
 * the length follows from how much there is to be read, by the rates that the profile
 * measured at every size and depth.
 */
#ifndef HYPURA_PLAN_CUT_H
#define HYPURA_PLAN_CUT_H

#include "hypura.h"

/* Time that the drive takes for bytes of reads cut this way, with at most window_bytes
 * under way; 0 where no rate of such requests is known. */
double hypura_cut_seconds(const hypura_plan *plan, uint64_t bytes, uint64_t block_bytes, uint64_t window_bytes);

/* Length of requests for so many bytes; not above the plan's block. */
uint64_t hypura_cut_bytes(const hypura_plan *plan, uint64_t bytes);

#endif
