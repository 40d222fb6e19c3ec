/*
 * layout.h - how weights lie in the slots that the plan charges for. The plan
 * computes sizes with it and the pager addresses with it: neither may do its own.
 *
 * A slot is a row of regions, one for each matrix (a ring slot has one, for its
 * chunk). Direct reads begin and end at multiples of an alignment, weights do not,
 * so each region has room around its bytes:
 *
 *      begin      begin + unit                               begin + region_bytes
 *        |            |  phase  |<------ bytes ------>|             |
 *        +------------+---------+---------------------+-------------+
 *        |    unit    |      round_up(bytes, unit) + unit           |
 *        +------------+---------+---------------------+-------------+
 *
 * phase is the file offset modulo the unit. With begin at a multiple of the unit
 * and the unit a multiple of the drive's alignment, memory and file are then
 * congruent, and the read, widened to whole units on both sides, stays in its
 * region and needs no copy.
 */
#ifndef HYPURA_PLAN_LAYOUT_H
#define HYPURA_PLAN_LAYOUT_H

#include "hypura.h"

/* Unit of ring slots; that of expert slots may be less. */
#define HYPURA_LAYOUT_PAGE_BYTES 4096u

/* Pinned rows of a tensor begin at a multiple of this. */
#define HYPURA_LAYOUT_PINNED_ALIGN_BYTES 64u

/* Unit of the expert slots of a plan: a power of two from 512 to 4096. Small
 * matrices have a small unit, whatever the drive asks for: reading them through
 * a staging block costs less than the padding would. */
static inline uint64_t hypura_layout_unit(const hypura_plan *plan)
{
    return plan->slot_align_bytes;
}

/* Bytes of the region of a matrix; a multiple of the unit. The caller keeps
 * bytes below UINT64_MAX / 2. */
static inline uint64_t hypura_layout_region_bytes(uint64_t unit, uint64_t bytes)
{
    return unit + (bytes + unit - 1) / unit * unit + unit;
}

/* Where in its region a matrix read from this file offset begins: less than two
 * units. Slots of one pool that a kernel indexes as one tensor all take the
 * offset of the first. */
static inline uint64_t hypura_layout_data_offset(uint64_t unit, uint64_t file_offset)
{
    return unit + file_offset % unit;
}

/* Bytes that the pinned rows of a tensor take, the next one's alignment included. */
static inline uint64_t hypura_layout_pinned_bytes(uint64_t bytes)
{
    return (bytes + HYPURA_LAYOUT_PINNED_ALIGN_BYTES - 1) / HYPURA_LAYOUT_PINNED_ALIGN_BYTES *
           HYPURA_LAYOUT_PINNED_ALIGN_BYTES;
}

#endif
