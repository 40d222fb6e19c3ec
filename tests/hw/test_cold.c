/*
 * test_cold.c - how much is read to measure memory and not a cache, on machines made up here.
 */
#include "hw/cold.h"
#include "os/os.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define MIB ((uint64_t)1 << 20)

static uint64_t cache_mib;
static uint64_t free_mib; /* 0: not known */

uint64_t __wrap_hypura_os_shared_cache_bytes(void);
hypura_status __wrap_hypura_os_memory_read(hypura_os_memory *memory, hypura_error *error);

uint64_t __wrap_hypura_os_shared_cache_bytes(void)
{
    return cache_mib * MIB;
}

hypura_status __wrap_hypura_os_memory_read(hypura_os_memory *memory, hypura_error *error)
{
    (void)error;
    *memory = (hypura_os_memory){.available_bytes = free_mib * MIB};
    return free_mib > 0 ? HYPURA_OK : HYPURA_ERR_IO;
}

static void twice_the_cache_is_cold(void **state)
{
    (void)state;
    static const struct {
        uint64_t cache;
        uint64_t available;
        uint64_t least;
        uint64_t cold;
    } machines[] = {
        {32, 16384, 128, 128}, {300, 131072, 128, 600}, {300, 1024, 128, 256}, {300, 0, 128, 600}, {0, 16384, 128, 128}, {0, 256, 128, 64},
    };
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        cache_mib = machines[i].cache;
        free_mib = machines[i].available;
        assert_int_equal(hypura_cold_bytes(machines[i].least * MIB), machines[i].cold * MIB);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(twice_the_cache_is_cold)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
