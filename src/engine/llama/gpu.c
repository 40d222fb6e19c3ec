/*
 * gpu.c - see gpu.h.
 */
#include "engine/llama/gpu.h"

#include "base/size.h"
#include "base/status.h"
#include "hw/modules.h"
#include "hw/patience.h"
#include "hw/remote.h"

#include <stdio.h>
#include <string.h>

/* What drivers, pipelines and scratch of ggml's own backends take beside what we
 * place, where nobody gave a limit. */
#define MARGIN_BYTES   (UINT64_C(768) << 20)
#define MARGIN_PERCENT 4
/* Whoever lends memory of another machine has thought of what that takes, and may lend little. */
#define MARGIN_PERCENT_REMOTE 10

#define SAYS "for what it says of itself"

static size_t free_bytes_of(ggml_backend_dev_t device)
{
    size_t free_bytes = 0;
    size_t total_bytes;
    ggml_backend_dev_memory(device, &free_bytes, &total_bytes);
    return free_bytes;
}

/* Among those that nobody named: one with memory of its own, then the one with more of it
 * free. About as much says nothing. */
static bool is_better(ggml_backend_dev_t one, ggml_backend_dev_t than)
{
    const bool unified = hypura_modules_is_unified(one);
    if (unified != hypura_modules_is_unified(than)) {
        return !unified;
    }
    return free_bytes_of(one) / 9 > free_bytes_of(than) / 8;
}

/* The first of names, which are behind it then. */
static hypura_status add_named(const char **names, hypura_patience *patience, hypura_gpus_found *found, hypura_error *error)
{
    ggml_backend_dev_t device = hypura_modules_take_named(names, error);
    if (!device) {
        return HYPURA_ERR_USAGE;
    }
    const char *name = ggml_backend_dev_name(device);
    hypura_patience_turn(patience, name, SAYS);
    for (int g = 0; g < found->n; g++) {
        if (hypura_modules_first_of(found->devices[g]) == hypura_modules_first_of(device)) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "GPU %s is named twice, once as %s", name,
                               ggml_backend_dev_name(found->devices[g]));
        }
    }
    if (found->n == HYPURA_MAX_GPUS) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "more than %d GPUs are named", HYPURA_MAX_GPUS);
    }
    found->devices[found->n++] = device;
    return HYPURA_OK;
}

static void find_best(hypura_patience *patience, hypura_gpus_found *found)
{
    ggml_backend_dev_t best = NULL;
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        if (!hypura_modules_is_gpu(device)) {
            continue;
        }
        hypura_patience_turn(patience, ggml_backend_dev_name(device), SAYS);
        if (hypura_modules_first_of(device) == device && (!best || is_better(device, best))) {
            best = device;
        }
    }
    for (size_t i = 0; best && i < ggml_backend_dev_count() && found->n < HYPURA_MAX_GPUS; i++) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        if (ggml_backend_dev_type(device) != ggml_backend_dev_type(best) ||
            ggml_backend_dev_backend_reg(device) != ggml_backend_dev_backend_reg(best) ||
            hypura_modules_first_of(device) != device) {
            continue;
        }
        int at = found->n++; /* before those with clearly less */
        while (at > 0 && is_better(device, found->devices[at - 1])) {
            found->devices[at] = found->devices[at - 1];
            at--;
        }
        found->devices[at] = device;
    }
}

static bool are_discrete(hypura_patience *patience, const hypura_gpus_found *found)
{
    bool discrete = found->n > 0;
    for (int g = 0; g < found->n && discrete; g++) {
        hypura_patience_turn(patience, ggml_backend_dev_name(found->devices[g]), SAYS);
        discrete = !hypura_modules_is_unified(found->devices[g]);
    }
    return discrete;
}

hypura_status hypura_gpus_find(const char *names, hypura_gpus_found *found, hypura_error *error)
{
    *found = (hypura_gpus_found){.named = names != NULL};
    if (names && strcmp(names, "none") == 0) {
        return HYPURA_OK;
    }
    hypura_patience patience;
    hypura_status status = hypura_patience_open(&patience, names || hypura_modules_are_wanted(), NULL,
                                                "for the drivers of GPUs to be loaded", error);
    if (status != HYPURA_OK) {
        hypura_patience_close(&patience);
        return status;
    }
    if (names) {
        (void)hypura_modules_load(NULL);
    } else {
        hypura_modules_load_present();
        find_best(&patience, found);
    }
    while (names && status == HYPURA_OK) {
        status = add_named(&names, &patience, found, error);
    }
    found->discrete = are_discrete(&patience, found);
    found->n_here = found->n;
    hypura_patience_close(&patience);
    return status;
}

hypura_status hypura_gpus_find_remote(const char *servers, hypura_gpus_found *found, hypura_error *error)
{
    return hypura_remote_find(servers, found->devices, &found->n, error);
}

/* Of what is free. */
static uint64_t usable_bytes(uint64_t free_bytes)
{
    const uint64_t part = free_bytes / 100 * MARGIN_PERCENT;
    const uint64_t margin = part > MARGIN_BYTES ? part : MARGIN_BYTES;
    return free_bytes > margin ? free_bytes - margin : 0;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static const hypura_gpu_share *share_of(const hypura_gpu_shares *shares, const char *name)
{
    for (int i = 0; shares && i < shares->n; i++) {
        if (strcmp(shares->list[i].name, name) == 0) {
            return &shares->list[i];
        }
    }
    return NULL;
}

/* now_bytes: free of its memory; share: NULL: there is none. */
static void describe(ggml_backend_dev_t device, uint64_t now_bytes, const hypura_profile *profile, uint64_t limit_bytes,
                     const hypura_gpu_share *share, hypura_plan_gpu *described)
{
    const uint64_t usable = usable_bytes(now_bytes + (share ? share->lent_bytes : 0));
    const size_t most = ggml_backend_buft_get_max_size(ggml_backend_dev_buffer_type(device));
    *described = (hypura_plan_gpu){
        .name = ggml_backend_dev_name(device),
        .bytes = limit_bytes > 0 ? limit_bytes : share && share->bytes > 0 ? share->bytes : usable,
        .free_bytes = least(usable, limit_bytes > 0 ? limit_bytes : UINT64_MAX),
        .max_buffer_bytes = most < SIZE_MAX ? most : 0,
        .addressable = hypura_modules_is_addressable(device),
        .unified = hypura_modules_is_unified(device),
    };
    const char *listed = ggml_backend_dev_name(hypura_modules_first_of(device));
    for (int i = 0; i < profile->n_devices; i++) {
        const hypura_device *measured = &profile->devices[i];
        if (strcmp(measured->name, listed) == 0) {
            described->upload_bytes_per_s = measured->upload_bytes_per_s;
            described->memory_bytes_per_s = measured->device_memory_bytes_per_s;
            described->round_trip_us = measured->round_trip_us;
            described->hand_over_us = measured->hand_over_us;
            described->operation_us = measured->operation_us;
        }
    }
    if (share && share->most_bytes > 0) { /* who is no server's may have come since */
        const uint64_t left = usable_bytes(now_bytes);
        described->most_bytes = least(share->most_bytes, left > 0 ? left : 1);
    }
}

static hypura_status describe_here(const hypura_gpus_found *found, const hypura_profile *profile,
                                   const hypura_model_options *options, const hypura_gpu_shares *shares, hypura_plan_gpu *described,
                                   hypura_error *error)
{
    hypura_patience patience;
    const hypura_status status = hypura_patience_open(&patience, found->n_here > 0, NULL, SAYS, error);
    for (int g = 0; g < found->n_here && status == HYPURA_OK; g++) {
        const ggml_backend_dev_t device = found->devices[g];
        const char *name = ggml_backend_dev_name(device);
        hypura_patience_turn(&patience, name, SAYS);
        describe(device, free_bytes_of(device), profile, options->gpu_vram_bytes[g], share_of(shares, name), &described[g]);
    }
    hypura_patience_close(&patience);
    return status;
}

static hypura_status describe_remote(ggml_backend_dev_t device, uint64_t limit_bytes, hypura_plan_gpu *described,
                                     hypura_error *error)
{
    hypura_profile none = {.n_devices = 0};
    hypura_device measured;
    uint64_t free_bytes = 0;
    const hypura_status status = hypura_remote_memory(device, &free_bytes, error);
    const uint64_t most_of_it = free_bytes - free_bytes / 100 * MARGIN_PERCENT_REMOTE;
    describe(device, free_bytes, &none, limit_bytes, NULL, described);
    hypura_probe_remote(device, &measured);
    described->name = hypura_remote_name(device);
    described->remote = true;
    described->unified = described->addressable = false;
    described->upload_bytes_per_s = measured.upload_bytes_per_s;
    described->memory_bytes_per_s = measured.device_memory_bytes_per_s;
    described->round_trip_us = measured.round_trip_us;
    if (limit_bytes == 0 && described->bytes < most_of_it) {
        described->bytes = most_of_it;
    }
    if (status == HYPURA_OK && limit_bytes > free_bytes) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the server %s has %llu bytes of memory free, fewer than the %llu of "
                           "--rpc-memory: give less", described->name, (unsigned long long)free_bytes,
                           (unsigned long long)limit_bytes);
    }
    return status;
}

hypura_status hypura_gpus_describe(const hypura_gpus_found *found, const hypura_profile *profile,
                                   const hypura_model_options *options, const hypura_gpu_shares *shares,
                                   hypura_plan_gpus *described, hypura_error *error)
{
    int n_limits = 0;
    while (n_limits < HYPURA_MAX_GPUS && options->gpu_vram_bytes[n_limits] > 0) {
        n_limits++;
    }
    if (n_limits > 0 && (!found->named || n_limits != found->n_here)) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "%d limits on GPU memory for %d named GPUs: name as many, in the order of the limits",
                           n_limits, found->named ? found->n_here : 0);
    }
    *described = (hypura_plan_gpus){.n = found->n, .named = found->named, .total_bytes = options->vram_bytes};
    hypura_status status = describe_here(found, profile, options, shares, described->list, error);
    for (int g = found->n_here; g < found->n && status == HYPURA_OK; g++) {
        status = describe_remote(found->devices[g], options->rpc_bytes, &described->list[g], error);
    }
    return status;
}

void hypura_gpus_take(const hypura_gpus_found *found, const hypura_plan *plan, hypura_load_gpu *taken)
{
    *taken = (hypura_load_gpu){.n_layers = plan->n_gpu_layers};
    for (int g = 0; g < plan->n_gpus; g++) {
        for (int i = 0; i < found->n; i++) {
            if (strcmp(plan->gpus[g].name, hypura_remote_name(found->devices[i])) == 0) {
                taken->devices[taken->n] = found->devices[i];
                taken->layers[taken->n++] = plan->gpus[g].n_layers;
                taken->n_here += !plan->gpus[g].remote;
            }
        }
    }
}

static bool is_used(const hypura_plan *plan, const char *name)
{
    bool used = false;
    for (int g = 0; g < plan->n_gpus; g++) {
        used = used || strcmp(plan->gpus[g].name, name) == 0;
    }
    return used;
}

static void list_unused(const hypura_plan_gpus *described, const hypura_plan *plan, bool remote, char *text, size_t capacity)
{
    size_t used = 0;
    for (int d = 0; d < described->n && used < capacity; d++) {
        const hypura_plan_gpu *device = &described->list[d];
        char offered[HYPURA_SIZE_TEXT];
        if (device->remote == remote && !is_used(plan, device->name)) {
            (void)hypura_size_format(device->bytes, offered, sizeof(offered));
            used += (size_t)snprintf(text + used, capacity - used, "%s%s (%s)", used > 0 ? ", " : "", device->name, offered);
        }
    }
}

void hypura_gpus_tell_left_out(const hypura_plan_gpus *described, hypura_plan *plan)
{
    bool any_here = false;
    for (int g = 0; g < plan->n_gpus; g++) {
        any_here = any_here || !plan->gpus[g].remote;
    }
    if (!any_here) {
        list_unused(described, plan, false, plan->gpus_left_out, sizeof(plan->gpus_left_out));
    }
    list_unused(described, plan, true, plan->remotes_left_out, sizeof(plan->remotes_left_out));
}

hypura_status hypura_gpus_check(const hypura_load_gpu *gpus, hypura_error *error)
{
    hypura_status status = HYPURA_OK;
    for (int g = gpus->n_here; g < gpus->n && status == HYPURA_OK; g++) {
        status = hypura_remote_check(gpus->devices[g], error);
    }
    return status;
}

void hypura_gpus_take_plain(const hypura_gpus_found *found, uint64_t bytes, hypura_load_gpu *taken)
{
    uint64_t there = 0;
    *taken = (hypura_load_gpu){.n = 0};
    while (taken->n < found->n && (found->named || there < bytes || taken->n == 0)) {
        there += free_bytes_of(found->devices[taken->n]);
        taken->devices[taken->n] = found->devices[taken->n];
        taken->n++;
        taken->n_here = taken->n < found->n_here ? taken->n : found->n_here;
    }
}

void hypura_gpus_name(const hypura_load_gpu *gpus, const hypura_map *map, char *text, size_t capacity)
{
    const int n_all = map->n_layers + 1;
    int layer = gpus->n_layers < n_all ? n_all - gpus->n_layers : 0;
    size_t used = 0;
    text[0] = '\0';
    for (int g = 0; g < gpus->n; g++) {
        const int n = snprintf(text + used, capacity - used, "%s%s %d-%d", g > 0 ? ", " : "",
                               hypura_remote_name(gpus->devices[g]), layer, layer + gpus->layers[g] - 1);
        used = used + (size_t)n < capacity ? used + (size_t)n : capacity - 1;
        layer += gpus->layers[g];
    }
}

/* What was planned was taken when the model was opened; drivers take more for each new shape of graph. */
void hypura_gpus_explain(const char *names, bool lost, hypura_error *error)
{
    names = names[0] != '\0' ? names : "the GPU";
    if (error && strstr(error->message, "out of memory")) {
        hypura_fail_prefix(error,
                           "%s has no memory left, which another program may have taken: end that one, or try again with less "
                           "--vram",
                           names);
    } else if (lost) {
        hypura_fail_prefix(error, "%s is lost, of which the system's log may tell the reason: try again, or with --gpu none",
                           names);
    }
}
