/*
 * test_cold.c - how much is read to measure memory and not a cache, on machines made up here.
 */
#include "hw/cold.h"
#include "hw/probe_compute.h"
#include "os/os.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define MIB ((uint64_t)1 << 20)

static uint64_t cache_mib;
static int64_t free_mib; /* -1: not known */

uint64_t __wrap_hypura_os_shared_cache_bytes(void);
hypura_status __wrap_hypura_os_memory_read(hypura_os_memory *memory, hypura_error *error);

uint64_t __wrap_hypura_os_shared_cache_bytes(void)
{
    return cache_mib * MIB;
}

hypura_status __wrap_hypura_os_memory_read(hypura_os_memory *memory, hypura_error *error)
{
    (void)error;
    *memory = (hypura_os_memory){.available_bytes = free_mib > 0 ? (uint64_t)free_mib * MIB : 0};
    return free_mib >= 0 ? HYPURA_OK : HYPURA_ERR_IO;
}

static void twice_the_cache_is_cold(void **state)
{
    (void)state;
    static const struct {
        uint64_t cache;
        int64_t available;
        uint64_t least;
        uint64_t least_unknown;
        uint64_t cold;
    } machines[] = {
        {32, 16384, 128, 256, 128}, {300, 131072, 128, 256, 600}, {300, 1024, 128, 256, 256}, {300, -1, 128, 256, 600},
        {0, 16384, 128, 128, 128},  {0, 16384, 128, 256, 256},    {0, 16384, 512, 256, 512},  {0, 256, 128, 128, 64},
        {300, 0, 128, 256, 0},
    };
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        cache_mib = machines[i].cache;
        free_mib = machines[i].available;
        assert_int_equal(hypura_cold_bytes(machines[i].least * MIB, machines[i].least_unknown * MIB),
                         machines[i].cold * MIB);
    }
}

static void where_no_memory_is_free_one_product_is_measured(void **state)
{
    (void)state;
    const hypura_product_shape shape = {.type = 0 /* F32 */, .columns = 256, .rows = 64, .n_rows = 1};
    double rate = 0.0;
    bool disturbed;
    cache_mib = 32;
    free_mib = 0;
    assert_int_equal(hypura_probe_products(&shape, 1, 1000, &rate, &disturbed, NULL), HYPURA_OK);
    assert_true(rate > 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(twice_the_cache_is_cold),
                                       cmocka_unit_test(where_no_memory_is_free_one_product_is_measured)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
