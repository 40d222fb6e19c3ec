/*
 * idle.c - see idle.h.
 */
#include "engine/prepare/idle.h"

#include "engine/llama/gpu.h"
#include "engine/prepare/speculation.h"
#include "os/os.h"

#define MANY_CPUS 8

/* Before anything is planned: so much more than weights take is beyond doubt. */
#define ROOM_SHARE         4 /* one part of so many of the weights, beside: for what is computed */
#define ROOM_BYTES         (UINT64_C(8) << 30) /* for a context, and what a plan leaves to others */
#define MOST_CONTEXT       8192u

bool hypura_plan_computes_alone(const hypura_plan *plan, int n_cpus)
{
    return n_cpus >= MANY_CPUS && plan->mode == HYPURA_MODE_RESIDENT && plan->n_gpus == 0;
}

static bool fits_with_room(const char *path)
{
    hypura_os_memory memory;
    hypura_map *map = NULL;
    bool fits = false;
    if (hypura_os_memory_read(&memory, NULL) == HYPURA_OK && hypura_map_open(path, &map, NULL) == HYPURA_OK) {
        fits = map->tensor_bytes < memory.available_bytes &&
               memory.available_bytes - map->tensor_bytes > map->tensor_bytes / ROOM_SHARE + ROOM_BYTES;
    }
    hypura_map_close(map);
    return fits;
}

static bool uses_gpus(const char *names)
{
    hypura_gpus_found found;
    return hypura_gpus_find(names, &found, NULL) != HYPURA_OK || found.n > 0;
}

bool hypura_computes_alone(const hypura_model_options *options)
{
    const bool limited = options->memory_bytes > 0 || options->weights_bytes > 0 || options->force_paging ||
                         options->n_context > MOST_CONTEXT;
    if (hypura_os_cpu_count() < MANY_CPUS || !options->path) {
        return false;
    }
    return (options->plain || (!limited && !hypura_speculation_wanted(&options->speculation) && fits_with_room(options->path))) &&
           !uses_gpus(options->gpu);
}
