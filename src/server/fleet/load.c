/*
 * load.c - how a member of a fleet is loaded, see fleet.h: an estimate, room on GPUs and in memory, an engine.
 *
 * With the fleet's lock held, which is given up while an engine is asked, starts or loads.
 */
#include "server/fleet/internal.h"

#include "base/clock.h"
#include "base/size.h"
#include "engine/prepare/speculation.h"
#include "server/base/log.h"
#include "server/dialect/ollama.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_PARALLEL  4
#define MAX_RESERVE_BYTES (UINT64_C(512) << 20)
#define RESERVE_SHARE     32 /* of the memory, for prompts that no conversation's cache holds */

/* On the engine's own thread. */
static void on_end(void *user)
{
    fleet_member *member = user;
    server_fleet *fleet = member->fleet;
    pthread_mutex_lock(&fleet->lock);
    member->ended = true;
    if (member->state == MEMBER_READY) {
        char end[ENGINE_END_BYTES];
        engine_describe_end(member->engine, end, sizeof end);
        server_log(LOG_ERROR, "%s: its engine %s", member->entry->name, end);
        fleet->n_deaths++;
    }
    pthread_cond_broadcast(&fleet->changed);
    pthread_mutex_unlock(&fleet->lock);
}

static void fill_options(const server_fleet *fleet, const fleet_member *member, engine_options *options)
{
    const hypura_server_options *server = &fleet->options;
    const hypura_model_entry *entry = member->entry;
    const fleet_settings *settings = &member->settings;
    const uint64_t share = fleet->memory_bytes / RESERVE_SHARE;
    *options = (engine_options){.program = server->engine,
                                .run_folder = fleet->run_folder.path,
                                .name = entry->name,
                                .path = entry->path,
                                .projector_path = entry->projector_path,
                                .adapter_paths = entry->adapter_paths,
                                .chat_template = hypura_model_entry_jinja(entry),
                                .io_engine = server->io_engine,
                                .gpu = server->gpu,
                                .rpc = server->rpc,
                                .rpc_bytes = server->rpc_bytes,
                                .cache_dir = server->cache_dir,
                                .log_path = server->child_log,
                                .memory_bytes = fleet->memory_bytes,
                                .weights_bytes = server->weights_bytes,
                                .reserve_bytes = share < MAX_RESERVE_BYTES ? share : MAX_RESERVE_BYTES,
                                .io_limit_bytes_per_s = server->io_limit_bytes_per_s,
                                .vram_bytes = server->vram_bytes,
                                .gpu_misses = server->gpu_misses,
                                .n_context = settings->n_context > 0 ? settings->n_context : server->n_context,
                                .kv_cache = server->kv_cache,
                                .n_batch = settings->n_batch > 0 ? settings->n_batch : server->n_ubatch,
                                .n_parallel = server->n_parallel > 0 ? server->n_parallel : DEFAULT_PARALLEL,
                                .n_threads = settings->n_threads > 0 ? (int)settings->n_threads : server->n_threads,
                                .context_shift = server->context_shift,
                                .embeddings = settings->embeddings,
                                .reranking = settings->reranking};
    memcpy(options->gpu_vram_bytes, server->gpu_vram_bytes, sizeof(options->gpu_vram_bytes));
    if (server->weights_percent > 0) {
        options->weights_bytes = (uint64_t)((double)entry->bytes * server->weights_percent / 100.0);
    }
    if (entry->context_length > 0 && options->n_context > (uint64_t)entry->context_length) {
        options->n_context = (uint32_t)entry->context_length;
    }
}

/* No other engine computes. If all of it is held as well, threads that look for each other hold processors from nobody. */
static hypura_waiting choose_waiting(const server_fleet *fleet, const fleet_member *member, const engine_estimate *estimate,
                         const hypura_speculation *speculation)
{
    if (fleet->members != member || member->next) {
        return HYPURA_WAITING_SHORT;
    }
    return estimate->computes_alone && member->memory_bytes >= estimate->memory_bytes &&
                   !hypura_speculation_wanted(speculation)
               ? HYPURA_WAITING_LONG
               : hypura_waiting_usual();
}

/* Without the lock. */
static hypura_status ask_estimate(const server_fleet *fleet, const fleet_member *member, engine_options *options,
                                  engine_estimate *estimate, hypura_error *error)
{
    const hypura_status status = engine_estimate_get(options, estimate, error);
    if (status == HYPURA_OK) {
        return fleet_check_draft(member, estimate, &options->speculation, error);
    }
    if (status == HYPURA_ERR_BUDGET) {
        char reason[sizeof(error->message)] = "";
        if (error) {
            memcpy(reason, error->message, sizeof reason);
        }
        (void)fleet_fail_too_large(fleet, member, reason, error);
    }
    return status;
}

/* What it would take, and of GPUs as they are: others that change meanwhile what they hold there make it look again. With the
 * lock held, given up meanwhile. */
static hypura_status estimate_now(server_fleet *fleet, fleet_member *member, engine_options *options, engine_estimate *estimate,
                                  bool (*cancelled)(void *user), void *user, hypura_error *error)
{
    for (;;) {
        hypura_status status = fleet_gpus_lend(fleet, member, cancelled, user, &options->shares, error);
        if (status != HYPURA_OK) {
            return status;
        }
        const uint64_t n_changes = fleet->n_gpu_changes;
        pthread_mutex_unlock(&fleet->lock);
        status = ask_estimate(fleet, member, options, estimate, error);
        pthread_mutex_lock(&fleet->lock);
        if (status != HYPURA_OK || estimate->n_gpus == 0 || n_changes == fleet->n_gpu_changes) {
            return status;
        }
    }
}

/* Room on GPUs, and then in memory, of which more is wanted where these hold less. names: see fleet_gpus_tell. With the lock
 * held, given up meanwhile. */
static hypura_status make_room(server_fleet *fleet, fleet_member *member, char *names, size_t capacity, engine_options *options,
                               engine_estimate *estimate, bool (*cancelled)(void *user), void *user, hypura_error *error)
{
    hypura_status status = fleet_gpus_make_room(fleet, member, estimate, cancelled, user, error);
    if (status == HYPURA_OK && estimate->n_gpus > 0) {
        fleet_gpus_tell(fleet, member, names, capacity, options);
    }
    if (status == HYPURA_OK && fleet_gpus_squeezed(member)) {
        pthread_mutex_unlock(&fleet->lock);
        status = ask_estimate(fleet, member, options, estimate, error);
        pthread_mutex_lock(&fleet->lock);
    }
    if (status == HYPURA_OK) {
        member->wanted_bytes = estimate->memory_bytes;
        status = fleet_make_room(fleet, member, estimate, cancelled, user, error);
    }
    return status;
}

/* With the lock held, given up meanwhile. member is in the list, LOADING. */
static hypura_status load_as(server_fleet *fleet, fleet_member *member, const char *defaults,
                             const hypura_speculation *speculation, bool (*cancelled)(void *user), void *user, hypura_error *error)
{
    engine_options options;
    engine_estimate estimate;
    char states[4096];
    char names[sizeof(((hypura_plan *)0)->gpu)];
    fill_options(fleet, member, &options);
    options.defaults = defaults;
    options.speculation = *speculation;
    pthread_mutex_unlock(&fleet->lock);
    /* Whoever asked waits from here on: for an estimate, which may have to measure the machine first, for room, and to load. */
    const uint64_t begin_us = hypura_clock_us();
    server_log(LOG_INFO, "%s: loading", member->entry->name);
    const char *root = fleet->options.state_folder;
    if (root && prefix_folder(root, member->entry, states, sizeof states)) {
        options.slots_folder = states;
    } else if (root) {
        server_log(LOG_WARN, "no folder for conversations can be made in %s: none are kept", root);
    }
    pthread_mutex_lock(&fleet->lock);
    hypura_status status = estimate_now(fleet, member, &options, &estimate, cancelled, user, error);
    if (status == HYPURA_OK) {
        status = make_room(fleet, member, names, sizeof names, &options, &estimate, cancelled, user, error);
    }
    if (status != HYPURA_OK) {
        return status;
    }
    options.memory_bytes = member->memory_bytes;
    options.n_parallel = estimate.n_parallel;
    options.waits = choose_waiting(fleet, member, &estimate, &options.speculation);
    pthread_mutex_unlock(&fleet->lock);
    server_engine *started = NULL;
    status = engine_start(&options, on_end, member, &started, error);
    if (status == HYPURA_OK) {
        status = engine_wait_ready(started, cancelled, user, error);
        if (status != HYPURA_OK) {
            engine_stop(started);
        } else if (options.slots_folder) {
            member->prefix = prefix_open(root, fleet->options.state_bytes, states, engine_socket(started));
        }
    }
    pthread_mutex_lock(&fleet->lock);
    if (status == HYPURA_OK) {
        adapter_scale_set(engine_adapter_scale(started), &member->adapter_scales);
        member->engine = started;
        member->memory_bytes = fleet_taken_bytes(started, member->memory_bytes);
        fleet_gpus_taken(fleet, member);
        fleet->n_loads++;
        fleet_describe_speculation(&options.speculation, member->speculation, sizeof(member->speculation));
        char memory[HYPURA_SIZE_TEXT];
        char on_gpus[HYPURA_SIZE_TEXT];
        server_log(LOG_INFO, "%s: loaded in %.2f s, %s of memory%s%s%s%s%s%s", member->entry->name,
                   (double)(hypura_clock_us() - begin_us) / 1e6,
                   hypura_size_format(member->memory_bytes, memory, sizeof memory),
                   member->n_gpus > 0 ? ", of GPUs " : "",
                   member->n_gpus > 0 ? hypura_size_format(fleet_gpus_bytes(member), on_gpus, sizeof on_gpus) : "",
                   member->speculation[0] ? ", speculation: " : "", member->speculation,
                   options.speculation.draft ? " " : "", options.speculation.draft ? options.speculation.draft : "");
    }
    return status;
}

hypura_status fleet_load(server_fleet *fleet, fleet_member *member, bool (*cancelled)(void *user), void *user,
                         hypura_error *error)
{
    const hypura_model_entry *draft = NULL;
    hypura_speculation speculation;
    json_t *defaults = NULL;
    pthread_mutex_unlock(&fleet->lock);
    hypura_status status = ollama_defaults(member->entry->settings, &defaults, error);
    if (status == HYPURA_OK) {
        status = fleet_choose_speculation(fleet, member, &speculation, &draft, error);
    }
    char *text = defaults ? json_dumps(defaults, JSON_COMPACT) : NULL;
    pthread_mutex_lock(&fleet->lock);
    if (status == HYPURA_OK) {
        status = load_as(fleet, member, text, &speculation, cancelled, user, error);
    }
    free(text);
    json_decref(defaults);
    if (draft) {
        hypura_model_entry_release(draft);
    }
    return status;
}

hypura_status fleet_check_floor(server_fleet *fleet, const hypura_model_entry *entry, hypura_error *error)
{
    const fleet_wish wish = {.entry = entry};
    const fleet_member member = {.fleet = fleet, .entry = entry, .settings = fleet_settings_of(&wish)};
    engine_options options;
    engine_estimate estimate;
    fill_options(fleet, &member, &options);
    const hypura_status status = ask_estimate(fleet, &member, &options, &estimate, error);
    return status == HYPURA_OK && estimate.floor_bytes > fleet->memory_bytes
               ? fleet_fail_below_floor(fleet, &member, &estimate, error)
               : status;
}
