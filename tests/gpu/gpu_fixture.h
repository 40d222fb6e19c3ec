/* What tests over stand-ins for GPUs share: rates that are the same in every run, as
 * what is measured of stand-ins is noise, and plans without their lists. */
#ifndef HYPURA_GPU_FIXTURE_H
#define HYPURA_GPU_FIXTURE_H

#include "../engine/engine_fixture.h"

#include "backend/internal.h"
#include "engine/prepare/estimate.h"
#include "hw/kept.h"
#include "hw/store.h"
#include "hypura_measure.h"
#include "leases.h"
#include "os/os.h"
#include "standin.h"

#include <stdio.h>
#include <string.h>

static char gpu_cache_dir[1024];

/* Twelve layers of 16 experts, of which a token uses 4. */
static inline const char *gpu_mixture(void)
{
    return HYPURA_TINY "/moe-deep-q8_0.gguf";
}

/* Everything paged, in short parts. */
static inline hypura_model_options gpu_options(const char *path, const char *gpu)
{
    return (hypura_model_options){.path = path,
                                  .gpu = gpu,
                                  .force_paging = true,
                                  .n_context = 64,
                                  .n_ubatch = 32,
                                  .n_threads = 1,
                                  .no_repack = true,
                                  .cache_dir = gpu_cache_dir};
}

static hypura_profile gpu_profile; /* of this machine, without GPUs */

/* What runs from now on has a second GPU whose link is so many times slower than the first one's. */
static inline void gpu_store_rates(double slower)
{
    hypura_os_drive drive;
    hypura_error error;
    standin_set_rates(&gpu_profile, slower);
    fixture_ok(hypura_os_drive_read(gpu_mixture(), &drive, &error), &error);
    fixture_ok(hypura_store_save(gpu_cache_dir, drive.id, &gpu_profile, &error), &error);
}

/* Of a group of tests over the stand-ins. */
static inline int gpu_setup(void **state)
{
    const int result = fixture_setup(state);
    const hypura_profile_options where = {.cache_dir = fixture_cache_dir(), .storage_path = gpu_mixture()};
    hypura_error error;
    fixture_ok(hypura_profile_get(&where, &gpu_profile, &error), &error);
    gpu_profile.n_disturbed = 0; /* or it would be measured */
    gpu_profile.memory_bytes_per_s = 50e9;
    gpu_profile.direct_bytes_per_s = 4e9;
    snprintf(gpu_cache_dir, sizeof(gpu_cache_dir), "%s", fixture_path("cache"));
    fixture_ok(hypura_kept_make_folder(gpu_cache_dir, &error), &error);
    gpu_store_rates(1.0);
    standin_register();
    backend_set_poll(false); /* the stand-ins copy when they are waited for */
    return result;
}

/* What the plan says, without its lists. */
static inline hypura_plan gpu_plan_of(const hypura_model_options *options)
{
    hypura_preparation prepared; /* an estimate would measure the processor */
    hypura_error error;
    fixture_ok(hypura_prepare(options, NULL, true, &prepared, &error), &error);
    hypura_plan plan = *prepared.plan;
    hypura_prepare_clear(&prepared);
    plan.placements = NULL;
    plan.order = NULL;
    return plan;
}

/* Prompts through both ways, and the same bits as plain llama.cpp in each of n_cases. The
 * caller clears the report. */
static inline void gpu_verify(hypura_verify_options options, int n_cases, hypura_verify_report *report)
{
    static const char *const engine = "pool";
    hypura_error error;
    options.io_engines = &engine;
    options.n_io_engines = 1;
    options.tokens = 3;
    options.model.n_threads = 1;
    options.model.cache_dir = gpu_cache_dir;
    fixture_ok(hypura_verify(&options, report, &error), &error);
    assert_true(report->identical);
    assert_int_equal(report->n_cases, n_cases);
    for (int i = 0; i < report->n_cases; i++) {
        assert_int_equal(report->cases[i].differing, 0);
    }
}

/* Behind each test: what it wanted to go wrong no longer does, and no copy read of a slot in RAM that was given back. */
static inline int gpu_no_faults(void **state)
{
    (void)state;
    standin_set_faults(&(standin_faults){0});
#ifdef HYPURA_TEST_LEASES
    assert_int_equal(leases_n_early(), 0);
#endif
    return 0;
}

#endif
