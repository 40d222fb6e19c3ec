/*
 * profile.c - hypura_profile_get: stored where it fits, measured where not, and
 * the memory figures and devices always taken now.
 *
 *     cpu, drive --> stored? --no--> probe memory, probe storage --+
 *                      |yes           ^                            |
 *                      |              +-- where others disturbed that, and do not now
 *                      +--> devices, those GPUs probed that are new --> store --> memory, limits
 */
#include "hypura.h"

#include "base/status.h"
#include "hw/modules.h"
#include "hw/probe.h"
#include "hw/since.h"
#include "hw/kept.h"
#include "hw/store.h"
#include "io/io.h"
#include "os/os.h"

#include <ggml-backend.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Others had this part of all processors while it was measured: it says little about the machine. It is measured so often
 * at the most, as a start waits for it, and only where they have left some time to this process lately. */
#define DISTURBED_SHARE 0.2
#define MOST_DISTURBED  3
#define LOOK_US         200000u

static const char *device_kind(enum ggml_backend_dev_type type)
{
    switch (type) {
    case GGML_BACKEND_DEVICE_TYPE_CPU:
        return "cpu";
    case GGML_BACKEND_DEVICE_TYPE_GPU:
        return "gpu";
    case GGML_BACKEND_DEVICE_TYPE_IGPU:
        return "igpu";
    case GGML_BACKEND_DEVICE_TYPE_ACCEL:
    case GGML_BACKEND_DEVICE_TYPE_META:
        break;
    }
    return "accel";
}

static bool is_none(const char *gpus)
{
    return gpus && strcmp(gpus, "none") == 0;
}

/* What ggml knows of, with the GPU backends that this machine has drivers for. A GPU that
 * two of them know is listed once. */
static void list_devices(const hypura_profile_options *options, hypura_patience *patience, hypura_profile *profile)
{
    const bool no_gpus = is_none(options->gpu);
    if (options->every_driver && !no_gpus) {
        (void)hypura_modules_load(NULL);
    } else if (!no_gpus) {
        hypura_modules_load_present();
    }
    profile->n_devices = 0;
    size_t n = ggml_backend_dev_count();
    for (size_t i = 0; i < n && profile->n_devices < HYPURA_MAX_DEVICES; i++) {
        ggml_backend_dev_t ggml_device = ggml_backend_dev_get(i);
        const bool gpu = hypura_modules_is_gpu(ggml_device);
        if (gpu) {
            hypura_patience_turn(patience, ggml_backend_dev_name(ggml_device), "for what it says of itself");
        }
        if ((gpu && no_gpus) || hypura_modules_first_of(ggml_device) != ggml_device) {
            continue;
        }
        hypura_device *device = &profile->devices[profile->n_devices++];
        *device = (hypura_device){.free_bytes = 0}; /* the stored profile had another one in this place */
        size_t free_bytes = 0;
        size_t total_bytes = 0;
        ggml_backend_dev_memory(ggml_device, &free_bytes, &total_bytes);
        (void)snprintf(device->name, sizeof device->name, "%s", ggml_backend_dev_name(ggml_device));
        (void)snprintf(device->description, sizeof device->description, "%s",
                       ggml_backend_dev_description(ggml_device));
        (void)snprintf(device->kind, sizeof device->kind, "%s", device_kind(ggml_backend_dev_type(ggml_device)));
        device->free_bytes = free_bytes;
        device->total_bytes = total_bytes;
    }
}

static bool is_gpu(const hypura_device *device)
{
    return strcmp(device->kind, "gpu") == 0 || strcmp(device->kind, "igpu") == 0;
}

/* Under this name, or under the one that another driver has for it. */
static bool is_among(const char *gpus, const char *listed)
{
    bool found = false;
    while (gpus && !found) {
        const ggml_backend_dev_t device = hypura_modules_take_named(&gpus, NULL);
        if (!device) {
            break;
        }
        found = strcmp(ggml_backend_dev_name(hypura_modules_first_of(device)), listed) == 0;
    }
    return found;
}

static hypura_status check_names(const char *gpus, hypura_error *error)
{
    while (gpus) {
        if (!hypura_modules_take_named(&gpus, error)) {
            return HYPURA_ERR_USAGE;
        }
    }
    return HYPURA_OK;
}

static const hypura_device *find_device(const hypura_profile *profile, const hypura_device *like)
{
    for (int i = 0; i < profile->n_devices; i++) {
        const hypura_device *device = &profile->devices[i];
        if (strcmp(device->name, like->name) == 0 && strcmp(device->description, like->description) == 0) {
            return device;
        }
    }
    return NULL;
}

/* Rates of GPUs that the stored profile knows; the others are measured, of those that are named. True when one
 * was. */
static bool rate_gpus(const char *gpus, hypura_patience *patience, hypura_profile *profile, const hypura_profile *stored)
{
    bool measured = false;
    for (int i = 0; i < profile->n_devices; i++) {
        hypura_device *device = &profile->devices[i];
        const hypura_device *known = find_device(stored, device);
        if (!is_gpu(device)) {
            continue;
        }
        if (known) {
            device->unified = known->unified;
            device->upload_bytes_per_s = known->upload_bytes_per_s;
            device->upload_pageable_bytes_per_s = known->upload_pageable_bytes_per_s;
            device->device_memory_bytes_per_s = known->device_memory_bytes_per_s;
            device->round_trip_us = known->round_trip_us;
            device->hand_over_us = known->hand_over_us;
            device->operation_us = known->operation_us;
        } else if (!gpus || is_among(gpus, device->name)) {
            hypura_probe_gpu(patience, device);
            measured = true;
        }
    }
    return measured;
}

static hypura_status look_at_devices(const hypura_profile_options *options, const hypura_profile *known, hypura_profile *profile,
                                     bool *rated, hypura_error *error)
{
    hypura_patience patience;
    const bool any = !is_none(options->gpu) && (options->every_driver || hypura_modules_are_wanted());
    hypura_status status = hypura_patience_open(&patience, any, NULL, "for the drivers of GPUs to be loaded", error);
    if (status == HYPURA_OK) {
        list_devices(options, &patience, profile);
        status = options->every_driver && !is_none(options->gpu) ? check_names(options->gpu, error) : HYPURA_OK;
    }
    if (status == HYPURA_OK) {
        *rated = rate_gpus(options->gpu, &patience, profile, known);
    }
    hypura_patience_close(&patience);
    return status;
}

/* What is known of GPUs that were not looked at, or under the name of another driver, stays known. */
static void keep_unlisted(const hypura_profile *known, hypura_profile *stored)
{
    for (int i = 0; i < known->n_devices && stored->n_devices < HYPURA_MAX_DEVICES; i++) {
        if (known->devices[i].upload_bytes_per_s > 0.0 && !find_device(stored, &known->devices[i])) {
            stored->devices[stored->n_devices++] = known->devices[i];
        }
    }
}

static hypura_status save(const hypura_profile_options *options, const char *drive, const hypura_profile *known,
                          const hypura_profile *profile, hypura_error *error)
{
    hypura_profile stored = *profile;
    keep_unlisted(known, &stored);
    return hypura_store_save(options->cache_dir, drive, &stored, error);
}

/* Others have had much of the processors since then. False where it is not known. */
static bool are_busy(const hypura_since *then)
{
    const hypura_since now = hypura_since_look(hypura_os_others_us);
    double share;
    return hypura_since_share(then, &now, &share) && share > DISTURBED_SHARE;
}

/* Whether it would be disturbed at present. */
static bool is_machine_busy(void)
{
    static const struct timespec look = {0, LOOK_US * 1000};
    const hypura_since now = hypura_since_look(hypura_os_others_us);
    (void)nanosleep(&look, NULL);
    return are_busy(&now);
}

static hypura_status measure(const hypura_profile_options *options, const char *storage, hypura_profile *profile,
                             hypura_error *error)
{
    if (options->progress != NULL && !options->progress(options->progress_user, "measuring memory", 0, 1)) {
        return hypura_fail(error, HYPURA_ERR_CANCELLED, "measuring was stopped");
    }
    const hypura_since before = hypura_since_look(hypura_os_others_us);
    hypura_status status = hypura_probe_memory(profile->n_cpus, &profile->memory_bytes_per_s, error);
    if (status == HYPURA_OK) {
        status = hypura_probe_storage(storage, options->progress, options->progress_user, profile, error);
    }
    profile->n_disturbed = are_busy(&before);
    profile->measured_unix_s = (int64_t)time(NULL);
    return status;
}

/* What was measured beside other work is measured once more: the faster one is nearer to the truth, unless this one was
 * not disturbed. What cannot be measured now, or on a small file alone, stays as it is. */
static hypura_status measure_again(const hypura_profile_options *options, const char *storage, hypura_profile *profile,
                                   hypura_error *error)
{
    hypura_profile now = *profile;
    const hypura_status status = measure(options, storage, &now, error);
    if (status == HYPURA_ERR_CANCELLED) {
        return status;
    }
    if (status != HYPURA_OK || now.provisional) {
        hypura_error_clear(error);
        return HYPURA_OK;
    }
    const hypura_profile before = *profile;
    const bool disturbed = now.n_disturbed > 0;
    *profile = disturbed && before.direct_bytes_per_s > now.direct_bytes_per_s ? before : now;
    if (disturbed) {
        profile->memory_bytes_per_s = fmax(before.memory_bytes_per_s, now.memory_bytes_per_s);
        profile->n_disturbed = before.n_disturbed + 1;
    }
    return HYPURA_OK;
}

hypura_status hypura_profile_get(const hypura_profile_options *options, hypura_profile *profile, hypura_error *error)
{
    const char *storage = options->storage_path != NULL ? options->storage_path : options->cache_dir;
    hypura_error local;
    if (error == NULL) {
        error = &local;
    }
    if (storage == NULL) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "name a cache folder, or a folder or file to measure");
    }
    *profile = (hypura_profile){.version = HYPURA_PROFILE_VERSION};
    hypura_os_cpu_name(profile->cpu, sizeof profile->cpu);
    profile->n_cpus = hypura_os_cpu_count();

    /* What is measured serves without being stored: a full disk or a folder of somebody
     * else's is no reason to do nothing. */
    char not_stored[sizeof profile->not_stored] = "";
    if (options->cache_dir != NULL && hypura_kept_make_folder(options->cache_dir, error) != HYPURA_OK) {
        (void)snprintf(not_stored, sizeof not_stored, "%.255s", error->message);
    }
    hypura_os_drive drive;
    hypura_status status = hypura_os_drive_read(storage, &drive, error);
    if (status != HYPURA_OK && storage == options->cache_dir && not_stored[0] != '\0') {
        return hypura_fail(error, HYPURA_ERR_IO, "the drive is measured in the cache folder, and there is none: %s", not_stored);
    }
    if (status != HYPURA_OK) {
        return status;
    }
    bool stored = options->cache_dir != NULL && !options->force &&
                  hypura_store_load(options->cache_dir, drive.id, profile) &&
                  hypura_io_engine_available(profile->io_engine);
    const bool again =
        stored && profile->n_disturbed > 0 && profile->n_disturbed < MOST_DISTURBED && !is_machine_busy();
    if (!stored) {
        profile->n_devices = 0;
        status = measure(options, storage, profile, error);
    } else if (again) {
        status = measure_again(options, storage, profile, error);
    }
    const hypura_profile known = *profile;
    bool rated = false;
    if (status == HYPURA_OK) {
        status = look_at_devices(options, &known, profile, &rated, error);
    }
    if (status == HYPURA_OK && options->cache_dir != NULL && (!stored || again || rated) && !profile->provisional &&
        not_stored[0] == '\0' && save(options, drive.id, &known, profile, error) != HYPURA_OK) {
        (void)snprintf(not_stored, sizeof not_stored, "%.255s", error->message);
    }
    (void)snprintf(profile->not_stored, sizeof profile->not_stored, "%s", not_stored);
    if (status != HYPURA_OK) {
        return status;
    }
    hypura_os_memory memory;
    status = hypura_os_memory_read(&memory, error);
    if (status != HYPURA_OK) {
        return status;
    }
    profile->ram_total_bytes = memory.total_bytes;
    profile->ram_limit_bytes = memory.limit_bytes;
    profile->ram_available_bytes = memory.available_bytes;
    for (int i = 0; i < profile->n_devices; i++) { /* ggml tells all memory of the host as free */
        hypura_device *device = &profile->devices[i];
        device->free_bytes = strcmp(device->kind, "cpu") == 0 ? memory.available_bytes : device->free_bytes;
    }
    return HYPURA_OK;
}
