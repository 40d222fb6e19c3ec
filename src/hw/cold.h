/*
 * cold.h - how much has to be read by turns to come from memory and not from a processor's caches.
 */
#ifndef HYPURA_HW_COLD_H
#define HYPURA_HW_COLD_H

#include <stdint.h>

/* Twice the last-level caches that processors share, and least_bytes at least; where no cache is known least_unknown_bytes too.
 * A quarter of the memory that is free at most. */
uint64_t hypura_cold_bytes(uint64_t least_bytes, uint64_t least_unknown_bytes);

#endif
