/*
 * cold.c - see cold.h.
 */
#include "hw/cold.h"

#include "os/os.h"

#define CACHES 2

uint64_t hypura_cold_bytes(uint64_t least_bytes, uint64_t least_unknown_bytes)
{
    hypura_os_memory memory;
    const uint64_t cache_bytes = hypura_os_shared_cache_bytes();
    const uint64_t least = cache_bytes == 0 && least_unknown_bytes > least_bytes ? least_unknown_bytes : least_bytes;
    const uint64_t bytes = CACHES * cache_bytes > least ? CACHES * cache_bytes : least;
    const bool is_known = hypura_os_memory_read(&memory, NULL) == HYPURA_OK;
    return is_known && bytes > memory.available_bytes / 4 ? memory.available_bytes / 4 : bytes;
}
