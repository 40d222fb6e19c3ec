/*
 * cold.c - see cold.h.
 */
#include "hw/cold.h"

#include "os/os.h"

#define CACHES 2

uint64_t hypura_cold_bytes(uint64_t least_bytes)
{
    hypura_os_memory memory;
    const uint64_t cache_bytes = CACHES * hypura_os_shared_cache_bytes();
    const uint64_t bytes = cache_bytes > least_bytes ? cache_bytes : least_bytes;
    const bool is_known = hypura_os_memory_read(&memory, NULL) == HYPURA_OK;
    return is_known && bytes > memory.available_bytes / 4 ? memory.available_bytes / 4 : bytes;
}
