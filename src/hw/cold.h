/*
 * cold.h - how much has to be read by turns to come from memory and not from a processor's caches.
 */
#ifndef HYPURA_HW_COLD_H
#define HYPURA_HW_COLD_H

#include <stdint.h>

/* Twice the last-level caches that processors share, and so many bytes at least, or where no cache is known so many at least;
 * a quarter of the memory that is free at most. */
uint64_t hypura_cold_bytes(uint64_t least_bytes, uint64_t least_unknown_bytes);

#endif
