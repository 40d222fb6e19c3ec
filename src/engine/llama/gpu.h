/*
 * gpu.h - which GPUs a model may use, and what libllama is told about them.
 */
#ifndef HYPURA_ENGINE_LLAMA_GPU_H
#define HYPURA_ENGINE_LLAMA_GPU_H

#include "backend/gpu.h"
#include "engine/llama/gpu_share.h"
#include "engine/llama/load.h"
#include "plan/plan.h"

/* GPUs that may be used, the first one first; devices of other machines last. */
typedef struct hypura_gpus_found {
    int                n;
    int                n_here; /* the first ones, which are not remote */
    bool               named; /* by the caller */
    bool               discrete; /* there are some here, and all have memory of their own, behind a link */
    ggml_backend_dev_t devices[HYPURA_MAX_GPUS];
} hypura_gpus_found;

/* Those that ggml knows by these names, parted by commas, in any case, of any driver; NULL as names:
 * of the system's best one and all others of its driver and kind, those with more free
 * memory first, integrated ones only where there is no other; "none": none. */
hypura_status hypura_gpus_find(const char *names, hypura_gpus_found *found, hypura_error *error);
/* Adds those of the servers HOST:PORT, by comma; NULL: none. */
hypura_status hypura_gpus_find_remote(const char *servers, hypura_gpus_found *found, hypura_error *error);

/* What the plan has to know of them: rates from the profile, memory as it is now, and
 * the limits of options. shares: NULL: nobody shares them. Fails when limits and names do not match. */
hypura_status hypura_gpus_describe(const hypura_gpus_found *found, const hypura_profile *profile,
                                   const hypura_model_options *options, const hypura_gpu_shares *shares,
                                   hypura_plan_gpus *described, hypura_error *error);

/* Those of a plan and the layers of each, as libllama is told. */
void hypura_gpus_take(const hypura_gpus_found *found, const hypura_plan *plan, hypura_load_gpu *taken);
/* Names in the plan those that are remote and have no layers; those here where none of them has any. */
void hypura_gpus_tell_left_out(const hypura_plan_gpus *described, hypura_plan *plan);
/* For plain libllama, which divides the layers by itself: those named, or as many as have so
 * much memory free. */
void hypura_gpus_take_plain(const hypura_gpus_found *found, uint64_t bytes, hypura_load_gpu *taken);
/* Fails where the server of one was lost: what was computed since is no result. */
hypura_status hypura_gpus_check(const hypura_load_gpu *gpus, hypura_error *error);
/* For people: "Vulkan0 0-11, Vulkan1 12-24"; "" without any. */
void hypura_gpus_name(const hypura_load_gpu *gpus, const hypura_map *map, char *text, size_t capacity);

/* Puts before an error of what GPUs computed what it means and what to try. names: as the plan has them, "" for plain
 * libllama; lost: they cannot be waited for any more. error: NULL is allowed. */
void hypura_gpus_explain(const char *names, bool lost, hypura_error *error);

#endif
