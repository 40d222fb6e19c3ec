/*
 * invented.h - a profile of this processor, with rates that no machine has, and the place where the next one is looked for.
 */
#ifndef HYPURA_TESTS_INVENTED_H
#define HYPURA_TESTS_INVENTED_H

#include "hw/store.h"
#include "os/os.h"

#include "hw_fixture.h"

/* Memory and drive give as much. */
static inline hypura_profile invented_profile(double bytes_per_s)
{
    hypura_profile p = {.version = HYPURA_PROFILE_VERSION,
                        .memory_bytes_per_s = bytes_per_s,
                        .storage_path = "/invented",
                        .io_engine = "pool",
                        .io_align_offset_bytes = 1,
                        .io_align_memory_bytes = 1,
                        .io_block_bytes = 1 << 16,
                        .io_depth = 3,
                        .direct_bytes_per_s = bytes_per_s,
                        .read_latency_us = 9};
    hypura_os_cpu_name(p.cpu, sizeof p.cpu);
    p.n_cpus = hypura_os_cpu_count();
    return p;
}

/* A GPU that is not here, with all its rates. */
static inline void invented_gpu(hypura_profile *p)
{
    p->n_devices = 1;
    p->devices[0] = (hypura_device){.name = "Elsewhere0",
                                    .description = "a GPU that is not here",
                                    .kind = "gpu",
                                    .upload_bytes_per_s = 1e9,
                                    .upload_pageable_bytes_per_s = 1e9,
                                    .device_memory_bytes_per_s = 1e9,
                                    .round_trip_us = 10,
                                    .hand_over_us = 5,
                                    .operation_us = 1};
}

/* As that of the drive that the test's folder lies on. */
static inline void invented_store(const hypura_profile *profile)
{
    hypura_os_drive drive;
    hypura_error error;
    assert_int_equal(hypura_os_drive_read(fixture_folder, &drive, &error), HYPURA_OK);
    assert_int_equal(hypura_store_save(fixture_folder, drive.id, profile, &error), HYPURA_OK);
}

#endif
