/*
 * store.c - cache_dir/profile.json: {"version":2, "profiles":[{...}, ...]}.
 *
 * What always holds: the file is replaced by rename and never written in place.
 * Whatever is wrong with it is treated as "nothing stored": measuring again is
 * cheap, a wrong profile is not. Writers take turns (kept.h).
 */
#include "hw/store.h"

#include "base/path.h"
#include "base/status.h"
#include "hw/kept.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 4096, MAX_PROFILES = 64 };

/* Four times what is ever tried (probe_storage.c): more is memory that nobody asked for. */
#define MOST_FLIGHT_BYTES (UINT64_C(64) << 20)

/* The stored list, a new reference; NULL when there is none. */
static json_t *read_list(const char *cache_dir)
{
    char path[PATH_BYTES];
    if (!hypura_path_join(path, sizeof path, cache_dir, "profile.json")) {
        return NULL;
    }
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
    json_t *list = NULL;
    if (json_integer_value(json_object_get(root, "version")) == HYPURA_PROFILE_VERSION) {
        list = json_object_get(root, "profiles");
    }
    list = json_is_array(list) ? json_incref(list) : NULL;
    json_decref(root);
    return list;
}

static bool is_of(const json_t *entry, const char *drive, const hypura_profile *profile)
{
    const char *stored_cpu = json_string_value(json_object_get(entry, "cpu"));
    const char *stored_drive = json_string_value(json_object_get(entry, "drive"));
    return stored_cpu != NULL && stored_drive != NULL && strcmp(stored_cpu, profile->cpu) == 0 &&
           strcmp(stored_drive, drive) == 0 && json_integer_value(json_object_get(entry, "n_cpus")) == profile->n_cpus;
}

/* ---- load --------------------------------------------------------------- */

static bool get_text(const json_t *entry, const char *key, char *text, size_t capacity)
{
    const char *value = json_string_value(json_object_get(entry, key));
    if (value == NULL || strlen(value) >= capacity) {
        return false;
    }
    memcpy(text, value, strlen(value) + 1);
    return true;
}

static bool get_integer(const json_t *entry, const char *key, json_int_t low, json_int_t high, json_int_t *value)
{
    const json_t *number = json_object_get(entry, key);
    *value = json_integer_value(number);
    return json_is_integer(number) && *value >= low && *value <= high;
}

static bool get_rate(const json_t *entry, const char *key, double *value)
{
    const json_t *number = json_object_get(entry, key);
    *value = json_number_value(number);
    return json_is_number(number) && isfinite(*value) && *value > 0;
}

static bool is_power_of_two(json_int_t value)
{
    return value > 0 && (value & (value - 1)) == 0;
}

/* GPUs and their rates; an older entry has none. What it cannot mean is left out. */
static void decode_gpus(const json_t *entry, hypura_profile *profile)
{
    const json_t *list = json_object_get(entry, "gpus");
    profile->n_devices = 0;
    for (size_t i = 0; i < json_array_size(list) && profile->n_devices < HYPURA_MAX_DEVICES; i++) {
        const json_t *gpu = json_array_get(list, i);
        hypura_device device = {.unified = json_is_true(json_object_get(gpu, "unified"))};
        if (get_text(gpu, "name", device.name, sizeof device.name) &&
            get_text(gpu, "description", device.description, sizeof device.description) &&
            get_rate(gpu, "upload_bytes_per_s", &device.upload_bytes_per_s) &&
            get_rate(gpu, "upload_pageable_bytes_per_s", &device.upload_pageable_bytes_per_s) &&
            get_rate(gpu, "device_memory_bytes_per_s", &device.device_memory_bytes_per_s) &&
            get_rate(gpu, "round_trip_us", &device.round_trip_us) && get_rate(gpu, "hand_over_us", &device.hand_over_us) &&
            get_rate(gpu, "operation_us", &device.operation_us)) {
            profile->devices[profile->n_devices++] = device;
        }
    }
}

static bool decode_io_rates(const json_t *entry, hypura_profile *profile)
{
    const json_t *list = json_object_get(entry, "io_rates");
    profile->n_io_rates = 0;
    for (size_t i = 0; i < json_array_size(list) && i < HYPURA_MAX_IO_RATES; i++) {
        const json_t *at = json_array_get(list, i);
        json_int_t block;
        json_int_t depth;
        double rate;
        if (!get_integer(at, "block_bytes", 4096, 1 << 30, &block) || !get_integer(at, "depth", 1, 1024, &depth) ||
            !get_rate(at, "bytes_per_s", &rate)) {
            return false;
        }
        profile->io_rates[profile->n_io_rates++] =
            (hypura_io_rate){.block_bytes = (uint64_t)block, .depth = (uint32_t)depth, .bytes_per_s = rate};
    }
    return json_is_array(list);
}

static bool decode(const json_t *entry, hypura_profile *profile)
{
    hypura_profile p = *profile;
    json_int_t align_offset;
    json_int_t align_memory;
    json_int_t block;
    json_int_t depth;
    json_int_t when;
    json_int_t disturbed = 0; /* older profiles do not tell */
    const json_t *direct = json_object_get(entry, "direct_io");
    bool ok = get_text(entry, "storage_path", p.storage_path, sizeof p.storage_path) &&
              get_text(entry, "io_engine", p.io_engine, sizeof p.io_engine) && json_is_boolean(direct) &&
              get_integer(entry, "io_align_offset_bytes", 1, 1 << 20, &align_offset) &&
              get_integer(entry, "io_align_memory_bytes", 1, 1 << 20, &align_memory) &&
              get_integer(entry, "io_block_bytes", 4096, 1 << 30, &block) &&
              get_integer(entry, "io_depth", 1, 1024, &depth) &&
              get_integer(entry, "measured_unix_s", 0, INT64_MAX, &when) &&
              (json_object_get(entry, "disturbed") == NULL || get_integer(entry, "disturbed", 0, 1000, &disturbed)) &&
              get_rate(entry, "memory_bytes_per_s", &p.memory_bytes_per_s) &&
              get_rate(entry, "direct_bytes_per_s", &p.direct_bytes_per_s) &&
              get_rate(entry, "read_latency_us", &p.read_latency_us) && decode_io_rates(entry, &p);
    ok = ok && (uint64_t)block * (uint64_t)depth <= MOST_FLIGHT_BYTES;
    if (!ok || !is_power_of_two(align_offset) || !is_power_of_two(align_memory) || !is_power_of_two(block)) {
        return false;
    }
    p.version = HYPURA_PROFILE_VERSION;
    p.direct_io = json_boolean_value(direct);
    p.io_align_offset_bytes = (uint32_t)align_offset;
    p.io_align_memory_bytes = (uint32_t)align_memory;
    p.io_block_bytes = (uint64_t)block;
    p.io_depth = (uint32_t)depth;
    p.measured_unix_s = when;
    p.n_disturbed = (int)disturbed;
    decode_gpus(entry, &p);
    *profile = p;
    return true;
}

bool hypura_store_load(const char *cache_dir, const char *drive, hypura_profile *profile)
{
    json_t *list = read_list(cache_dir);
    bool found = false;
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry)
    {
        if (is_of(entry, drive, profile)) {
            found = decode(entry, profile);
            break;
        }
    }
    json_decref(list);
    return found;
}

/* ---- save --------------------------------------------------------------- */

static json_t *encode_gpus(const hypura_profile *p)
{
    json_t *list = json_array();
    for (int i = 0; i < p->n_devices; i++) {
        const hypura_device *d = &p->devices[i];
        if (d->upload_bytes_per_s > 0) {
            (void)json_array_append_new(
                list, json_pack("{s:s, s:s, s:b, s:f, s:f, s:f, s:f, s:f, s:f}", "name", d->name, "description", d->description,
                                "unified", (int)d->unified, "upload_bytes_per_s", d->upload_bytes_per_s,
                                "upload_pageable_bytes_per_s", d->upload_pageable_bytes_per_s,
                                "device_memory_bytes_per_s", d->device_memory_bytes_per_s, "round_trip_us",
                                d->round_trip_us, "hand_over_us", d->hand_over_us, "operation_us", d->operation_us));
        }
    }
    return list;
}

static json_t *encode_io_rates(const hypura_profile *p)
{
    json_t *list = json_array();
    for (int i = 0; i < p->n_io_rates; i++) {
        const hypura_io_rate *at = &p->io_rates[i];
        (void)json_array_append_new(list, json_pack("{s:I, s:I, s:f}", "block_bytes", (json_int_t)at->block_bytes,
                                                    "depth", (json_int_t)at->depth, "bytes_per_s", at->bytes_per_s));
    }
    return list;
}

static json_t *encode(const char *drive, const hypura_profile *p)
{
    return json_pack("{s:s, s:s, s:i, s:o, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:o, s:o}", "drive", drive,
                     "cpu", p->cpu, "n_cpus", p->n_cpus, "storage_path", hypura_kept_text(p->storage_path), "io_engine",
                     p->io_engine, "direct_io", (int)p->direct_io, "io_align_offset_bytes", (json_int_t)p->io_align_offset_bytes,
                     "io_align_memory_bytes", (json_int_t)p->io_align_memory_bytes, "io_block_bytes",
                     (json_int_t)p->io_block_bytes, "io_depth", (json_int_t)p->io_depth, "measured_unix_s",
                     (json_int_t)p->measured_unix_s, "disturbed", (json_int_t)p->n_disturbed, "memory_bytes_per_s",
                     p->memory_bytes_per_s, "direct_bytes_per_s", p->direct_bytes_per_s, "read_latency_us",
                     p->read_latency_us, "io_rates", encode_io_rates(p), "gpus", encode_gpus(p));
}

/* The stored list with this profile in it, NULL when memory ran out. */
static json_t *merged_list(const char *cache_dir, const char *drive, const hypura_profile *profile)
{
    json_t *list = read_list(cache_dir);
    if (list == NULL) {
        list = json_array();
    }
    for (size_t i = json_array_size(list); i-- > 0;) {
        if (is_of(json_array_get(list, i), drive, profile)) {
            (void)json_array_remove(list, i);
        }
    }
    while (json_array_size(list) >= MAX_PROFILES) {
        (void)json_array_remove(list, 0);
    }
    if (json_array_append_new(list, encode(drive, profile)) != 0) {
        json_decref(list);
        return NULL;
    }
    return list;
}

hypura_status hypura_store_save(const char *cache_dir, const char *drive, const hypura_profile *profile,
                                hypura_error *error)
{
    char path[PATH_BYTES];
    if (!hypura_path_join(path, sizeof path, cache_dir, "profile.json")) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the path of the cache folder is too long: %s", cache_dir);
    }
    int turn;
    if (!hypura_kept_begin(cache_dir, &turn)) {
        return hypura_fail(error, HYPURA_ERR_IO, "other processes keep changing files of %s", cache_dir);
    }
    json_t *list = merged_list(cache_dir, drive, profile);
    json_t *root = list == NULL ? NULL : json_pack("{s:i, s:o}", "version", HYPURA_PROFILE_VERSION, "profiles", list);
    char *text = root == NULL ? NULL : json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    const hypura_status status =
        text == NULL ? hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to store the profile in %s", path)
                     : hypura_kept_write(path, text, error);
    hypura_kept_end(turn);
    free(text);
    return status;
}
