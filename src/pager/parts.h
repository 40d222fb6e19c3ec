/*
 * parts.h - a matrix that is read in parts, and which of its rows are whole when one
 * of them arrives. Pure.
 *
 *     |  0  |    1    |    2    |    3    | 4 |    parts: begin and end at pages of the file
 *     |   u   |   u   |   u   |   u   |   u   |    units: rows that are repacked together
 *
 * Parts arrive in any order. A unit that lies in two of them is whole with the later
 * one, so each unit is handed out once, when no byte of it is to come.
 */
#ifndef HYPURA_PAGER_PARTS_H
#define HYPURA_PAGER_PARTS_H

#include <stdint.h>

#define PAGER_MAX_PARTS 64

typedef struct pager_parts {
    uint64_t offset; /* of the matrix, in its file */
    uint64_t bytes;
    uint64_t part_bytes; /* a multiple of the page */
    uint64_t unit_bytes; /* part_bytes - page at most; the last unit may be shorter */
} pager_parts;

typedef struct pager_units {
    uint64_t first;
    uint64_t n;
} pager_units;

/* Parts of cut_bytes, or longer where a unit is, or where there would be too many. */
pager_parts pager_parts_cut(uint64_t offset, uint64_t bytes, uint64_t unit_bytes, uint64_t cut_bytes);

uint32_t pager_parts_count(const pager_parts *parts);

/* First byte of a part in the matrix; the end of the matrix for the part after the last. */
uint64_t pager_parts_begin(const pager_parts *parts, uint32_t part);

/* A part is there: marks it, and returns the units that are whole by it. */
pager_units pager_parts_arrive(const pager_parts *parts, uint32_t part, uint64_t *arrived);

#endif
