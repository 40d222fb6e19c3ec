/*
 * parts.c - see parts.h. As a part is no shorter than a unit, but for the last one, no
 * unit lies in more than two parts.
 */
#include "pager/parts.h"

#include "base/size.h"
#include "plan/layout.h"

#define PAGE_BYTES ((uint64_t)HYPURA_LAYOUT_PAGE_BYTES)

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

pager_parts pager_parts_cut(uint64_t offset, uint64_t bytes, uint64_t unit_bytes, uint64_t cut_bytes)
{
    const uint64_t fewest = bytes / (PAGER_MAX_PARTS - 1);
    const uint64_t least = larger(larger(cut_bytes, fewest), unit_bytes + PAGE_BYTES);
    return (pager_parts){
        .offset = offset,
        .bytes = bytes,
        .part_bytes = hypura_round_up(least, PAGE_BYTES),
        .unit_bytes = unit_bytes,
    };
}

uint32_t pager_parts_count(const pager_parts *parts)
{
    const uint64_t end = parts->offset % PAGE_BYTES + parts->bytes;
    return (uint32_t)((end + parts->part_bytes - 1) / parts->part_bytes);
}

uint64_t pager_parts_begin(const pager_parts *parts, uint32_t part)
{
    const uint64_t at = part * parts->part_bytes;
    const uint64_t phase = parts->offset % PAGE_BYTES;
    const uint64_t begin = at > phase ? at - phase : 0;
    return begin < parts->bytes ? begin : parts->bytes;
}

pager_units pager_parts_arrive(const pager_parts *parts, uint32_t part, uint64_t *arrived)
{
    const uint64_t before = *arrived;
    const uint64_t begin = pager_parts_begin(parts, part);
    const uint64_t end = pager_parts_begin(parts, part + 1);
    *arrived |= UINT64_C(1) << part;

    uint64_t first = begin / parts->unit_bytes;
    if (begin % parts->unit_bytes > 0 && (before >> (part - 1) & 1) == 0) {
        first++; /* its begin is to come */
    }
    uint64_t last = (end + parts->unit_bytes - 1) / parts->unit_bytes;
    if (end < parts->bytes && end % parts->unit_bytes > 0 && (before >> (part + 1) & 1) == 0) {
        last--; /* its end is to come */
    }
    return (pager_units){.first = first, .n = last > first ? last - first : 0};
}
