/*
 * cmd_profile.c - `hypura profile`: measures the machine, or shows what was
 * measured before.
 */
#include "cli/command.h"

#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/output.h"
#include "cli/progress.h"

#include <time.h>

static json_t *device_json(const hypura_device *device)
{
    json_t *object = json_object();
    hypura_json_text(&object, "name", device->name);
    hypura_json_text(&object, "description", device->description);
    hypura_json_text(&object, "kind", device->kind);
    hypura_json_integer(&object, "free_bytes", device->free_bytes);
    hypura_json_integer(&object, "total_bytes", device->total_bytes);
    if (device->upload_bytes_per_s > 0.0) {
        hypura_json_bool(&object, "unified", device->unified);
        hypura_json_real(&object, "upload_bytes_per_s", device->upload_bytes_per_s);
        hypura_json_real(&object, "upload_pageable_bytes_per_s", device->upload_pageable_bytes_per_s);
        hypura_json_real(&object, "device_memory_bytes_per_s", device->device_memory_bytes_per_s);
        hypura_json_real(&object, "round_trip_us", device->round_trip_us);
        hypura_json_real(&object, "hand_over_us", device->hand_over_us);
        hypura_json_real(&object, "operation_us", device->operation_us);
    }
    return object;
}

static json_t *profile_json(const hypura_profile *profile)
{
    json_t *object = json_object();
    json_t *devices = json_array();
    json_t *io_rates = json_array();
    for (int i = 0; i < profile->n_devices; i++) {
        hypura_json_append(&devices, device_json(&profile->devices[i]));
    }
    for (int i = 0; i < profile->n_io_rates; i++) {
        json_t *rate = json_object();
        hypura_json_integer(&rate, "block_bytes", profile->io_rates[i].block_bytes);
        hypura_json_integer(&rate, "depth", profile->io_rates[i].depth);
        hypura_json_real(&rate, "bytes_per_s", profile->io_rates[i].bytes_per_s);
        hypura_json_append(&io_rates, rate);
    }
    hypura_json_integer(&object, "version", (uint64_t)profile->version);
    hypura_json_text(&object, "cpu", profile->cpu);
    hypura_json_integer(&object, "cpus", (uint64_t)profile->n_cpus);
    hypura_json_integer(&object, "ram_total_bytes", profile->ram_total_bytes);
    hypura_json_integer(&object, "ram_available_bytes", profile->ram_available_bytes);
    hypura_json_integer(&object, "ram_limit_bytes", profile->ram_limit_bytes);
    hypura_json_real(&object, "memory_bytes_per_s", profile->memory_bytes_per_s);
    hypura_json_text(&object, "storage_path", profile->storage_path);
    hypura_json_bool(&object, "provisional", profile->provisional);
    hypura_json_text(&object, "io_engine", profile->io_engine);
    hypura_json_bool(&object, "direct_io", profile->direct_io);
    hypura_json_integer(&object, "io_align_offset_bytes", profile->io_align_offset_bytes);
    hypura_json_integer(&object, "io_align_memory_bytes", profile->io_align_memory_bytes);
    hypura_json_integer(&object, "io_block_bytes", profile->io_block_bytes);
    hypura_json_integer(&object, "io_depth", profile->io_depth);
    hypura_json_real(&object, "direct_bytes_per_s", profile->direct_bytes_per_s);
    hypura_json_real(&object, "read_latency_us", profile->read_latency_us);
    hypura_json_set(&object, "io_rates", io_rates);
    hypura_json_set(&object, "measured_unix_s", json_integer(profile->measured_unix_s));
    hypura_json_set(&object, "disturbed", json_integer(profile->n_disturbed));
    hypura_json_set(&object, "devices", devices);
    return object;
}

static hypura_status print_profile(const hypura_profile *profile, hypura_error *error)
{
    static const char *const titles[] = {"device", "kind", "description", "free", "total"};
    char when[32] = "unknown";
    time_t measured = (time_t)profile->measured_unix_s;
    struct tm local;
    hypura_table devices;
    if (localtime_r(&measured, &local)) {
        strftime(when, sizeof when, "%Y-%m-%d %H:%M", &local);
    }
    hypura_output_printf("cpu        %s, %d processors\n", profile->cpu, profile->n_cpus);
    hypura_output_printf("memory     %s, %s available now, %s allowed, read at %s\n",
                         hypura_output_size(profile->ram_total_bytes), hypura_output_size(profile->ram_available_bytes),
                         hypura_output_size(profile->ram_limit_bytes), hypura_output_rate(profile->memory_bytes_per_s));
    hypura_output_printf("storage    %s%s\n", profile->storage_path,
                         profile->provisional ? " (small: provisional, measured anew next time)" : "");
    hypura_output_printf("reads      %s with %u x %s in flight (%s, %s), 4 KiB in %.0f us\n",
                         hypura_output_rate(profile->direct_bytes_per_s), profile->io_depth,
                         hypura_output_size(profile->io_block_bytes), profile->io_engine,
                         profile->direct_io ? "direct" : "through the page cache", profile->read_latency_us);
    hypura_output_printf("alignment  %u bytes in the file, %u bytes in memory\n", profile->io_align_offset_bytes,
                         profile->io_align_memory_bytes);
    hypura_output_printf("measured   %s%s\n", when, profile->n_disturbed > 0 ? ", while other programs were busy" : "");
    if (profile->n_devices == 0) {
        return HYPURA_OK;
    }
    hypura_table_open(&devices, "lllrr", titles);
    for (int i = 0; i < profile->n_devices; i++) {
        const hypura_device *device = &profile->devices[i];
        hypura_table_cell(&devices, "%s", device->name);
        hypura_table_cell(&devices, "%s", device->kind);
        hypura_table_cell(&devices, "%s", device->description);
        hypura_table_size(&devices, device->free_bytes);
        hypura_table_size(&devices, device->total_bytes);
    }
    hypura_output_printf("\n");
    hypura_status status = hypura_table_print(&devices, error);
    for (int i = 0; i < profile->n_devices && status == HYPURA_OK; i++) {
        const hypura_device *device = &profile->devices[i];
        if (device->upload_bytes_per_s > 0.0) {
            hypura_output_printf("%s: %s from pinned memory, %s from other, %s within its own%s; a result is back in "
                                 "%.0f us, a graph behind others in %.0f, an operation in %.1f\n",
                                 device->name, hypura_output_rate(device->upload_bytes_per_s),
                                 hypura_output_rate(device->upload_pageable_bytes_per_s),
                                 hypura_output_rate(device->device_memory_bytes_per_s),
                                 device->unified ? " (the host's)" : "", device->round_trip_us, device->hand_over_us,
                                 device->operation_us);
        }
    }
    return status;
}

int hypura_command_profile(const hypura_environment *environment, int argc, char *const *argv)
{
    bool force = false;
    bool json = false;
    const char *gpu = NULL;
    const hypura_option options[] = {
        {"force", NULL, "measure again although a stored profile fits", HYPURA_OPTION_FLAG, .to.flag = &force},
        {"gpu", "NAME,...", "measure these GPUs alone; none: look at no GPU (default: all)", HYPURA_OPTION_STRING,
         .to.string = &gpu},
        hypura_option_json(&json),
    };
    const hypura_syntax syntax = {
        .command = "profile",
        .operands = "",
        .about = "Measures memory, processors, devices and the drive of the cache folder, and stores\n"
                 "the result there. Later calls show the stored profile with memory taken anew; one\n"
                 "of a busy machine is measured again once it is not, twice at most.\n",
        .options = options,
        .n_options = sizeof options / sizeof *options,
    };
    hypura_arguments arguments;
    hypura_error error;
    int code;
    if (!hypura_command_begin(&syntax, argc, argv, &arguments, &error, &code)) {
        return code;
    }
    if (hypura_interrupt_open(&error) != HYPURA_OK) {
        return hypura_command_fail(&error);
    }
    if (!hypura_command_cache_dir(environment)) {
        hypura_output_error("there is no folder to measure and to store the result in: set HOME, XDG_CACHE_HOME or "
                            "HYPURA_CACHE_DIR");
        return HYPURA_EXIT_USAGE;
    }
    hypura_progress progress;
    hypura_progress_open(&progress, environment);
    hypura_profile_options measure = {
        .cache_dir = hypura_command_cache_dir(environment),
        .force = force,
        .every_driver = true,
        .gpu = gpu,
        .progress = hypura_progress_update,
        .progress_user = &progress,
    };
    hypura_profile profile;
    hypura_status status = hypura_profile_get(&measure, &profile, &error);
    hypura_progress_close(&progress);
    if (status == HYPURA_OK) {
        status = json ? hypura_json_print(profile_json(&profile), &error) : print_profile(&profile, &error);
        if (profile.not_stored[0] != '\0') {
            hypura_output_note("not stored: %s", profile.not_stored);
        }
    }
    return hypura_command_end(status, &error);
}
