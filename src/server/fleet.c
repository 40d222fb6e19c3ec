/*
 * fleet.c - see fleet.h.
 *
 * One lock for the list; it is given up while an engine starts, loads or ends, and `changed` tells everyone who waits.
 */
#include "server/fleet_internal.h"

#include "base/clock.h"
#include "base/size.h"
#include "base/status.h"
#include "base/thread.h"
#include "engine/speculation.h"
#include "server/log.h"
#include "server/ollama.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_PARALLEL  4
#define MAX_RESERVE_BYTES (UINT64_C(512) << 20)
#define RESERVE_SHARE     32 /* of the memory, for prompts that no conversation's cache holds */

/* ---- members: with the lock held --------------------------------------------------- */

static void remove_member(server_fleet *fleet, fleet_member *member)
{
    fleet_member **at = &fleet->members;
    while (*at != member) {
        at = &(*at)->next;
    }
    *at = member->next;
    hypura_model_entry_release(member->entry);
    free(member);
    pthread_cond_broadcast(&fleet->changed);
}

void fleet_end_member(server_fleet *fleet, fleet_member *member)
{
    member->state = MEMBER_ENDING;
    pthread_mutex_unlock(&fleet->lock);
    prefix_close(member->prefix);
    engine_stop(member->engine);
    server_log(LOG_INFO, "%s: unloaded", member->entry->name);
    pthread_mutex_lock(&fleet->lock);
    remove_member(fleet, member);
}

/* NULL: there is none. */
static bool same_path(const char *one, const char *other)
{
    return one && other ? strcmp(one, other) == 0 : one == other;
}

/* Models of one file may differ in their adapters. */
static bool same_model(const fleet_member *member, const hypura_model_entry *entry)
{
    bool same = same_path(member->entry->path, entry->path);
    for (int i = 0; i < HYPURA_MAX_ADAPTERS && same; i++) {
        same = same_path(member->entry->adapter_paths[i], entry->adapter_paths[i]);
    }
    return same;
}

/* Seen by its engine a moment before on_end comes here. */
static bool has_ended(const fleet_member *member)
{
    return member->ended || (member->engine && engine_ends_within(member->engine, 0));
}

static fleet_member *find_member(server_fleet *fleet, const hypura_model_entry *entry)
{
    for (fleet_member *member = fleet->members; member; member = member->next) {
        if (same_model(member, entry) && !(has_ended(member) && member->state != MEMBER_LOADING)) {
            return member;
        }
    }
    return NULL;
}

bool fleet_has(server_fleet *fleet, const hypura_model_entry *entry)
{
    pthread_mutex_lock(&fleet->lock);
    const fleet_member *member = find_member(fleet, entry);
    const bool has = member && member->state != MEMBER_ENDING;
    pthread_mutex_unlock(&fleet->lock);
    return has;
}

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

/* ---- loading --------------------------------------------------------------------------- */

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

/* With the lock held, given up meanwhile. member is in the list, LOADING. */
static hypura_status load_as(server_fleet *fleet, fleet_member *member, const char *defaults,
                             const hypura_speculation *speculation, bool (*cancelled)(void *user), void *user, hypura_error *error)
{
    engine_options options;
    engine_estimate estimate;
    char states[4096];
    fill_options(fleet, member, &options);
    options.defaults = defaults;
    options.speculation = *speculation;
    pthread_mutex_unlock(&fleet->lock);
    const char *root = fleet->options.state_folder;
    if (root && prefix_folder(root, member->entry, states, sizeof states)) {
        options.slots_folder = states;
    } else if (root) {
        server_log(LOG_WARN, "no folder for conversations can be made in %s: none are kept", root);
    }
    hypura_status status = engine_estimate_get(&options, &estimate, error);
    if (status == HYPURA_OK) {
        status = fleet_check_draft(member, &estimate, &options.speculation, error);
    }
    pthread_mutex_lock(&fleet->lock);
    if (status == HYPURA_OK) {
        member->wanted_bytes = estimate.memory_bytes;

        status = fleet_make_room(fleet, member, &estimate, cancelled, user, error);
    } else if (status == HYPURA_ERR_BUDGET) {
        char reason[sizeof(error->message)] = "";
        if (error) {
            memcpy(reason, error->message, sizeof reason);
        }
        (void)fleet_fail_too_large(fleet, member, reason, error);
    }
    if (status != HYPURA_OK) {
        return status;
    }
    options.memory_bytes = member->memory_bytes;
    options.n_parallel = estimate.n_parallel;
    options.waits = choose_waiting(fleet, member, &estimate, &options.speculation);
    pthread_mutex_unlock(&fleet->lock);
    const uint64_t begin_us = hypura_clock_us();
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
        fleet->n_loads++;
        fleet_describe_speculation(&options.speculation, member->speculation, sizeof(member->speculation));
        char memory[HYPURA_SIZE_TEXT];
        server_log(LOG_INFO, "%s: loaded in %.2f s, %s of memory%s%s%s%s", member->entry->name,
                   (double)(hypura_clock_us() - begin_us) / 1e6,
                   hypura_size_format(member->memory_bytes, memory, sizeof memory),
                   member->speculation[0] ? ", speculation: " : "", member->speculation,
                   options.speculation.draft ? " " : "", options.speculation.draft ? options.speculation.draft : "");
    }
    return status;
}

static hypura_status load(server_fleet *fleet, fleet_member *member, bool (*cancelled)(void *user), void *user,
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

/* What nobody asks for is what the model was made with. */
static fleet_settings with_own(const fleet_wish *wish)
{
    fleet_settings settings = wish->settings;
    ollama_common own;
    if (ollama_read_common(NULL, wish->entry->settings, &own, NULL) == HYPURA_OK) {
        settings.n_context = settings.n_context > 0 ? settings.n_context : own.n_context;
        settings.n_batch = settings.n_batch > 0 ? settings.n_batch : own.n_batch;
        settings.n_threads = settings.n_threads > 0 ? settings.n_threads : own.n_threads;
    }
    return settings;
}

static fleet_member *add_member(server_fleet *fleet, const fleet_wish *wish)
{
    fleet_member *member = calloc(1, sizeof(*member));
    if (member) {
        member->fleet = fleet;
        member->entry = hypura_model_entry_hold(wish->entry);
        member->settings = with_own(wish);
        member->adapter_scales = adapter_scales_whole(wish->entry->n_adapters);
        member->expires_us = UINT64_MAX;
        member->next = fleet->members;
        fleet->members = member;
    }
    return member;
}

/* ---- acquiring ----------------------------------------------------------------------------- */

static bool accepts(uint32_t runs, uint32_t wished)
{
    return wished == 0 || wished == runs;
}

/* What an engine is started with, of a model that was made anew under its name: the file may be the same one. */
static bool same_settings(const hypura_model_entry *one, const hypura_model_entry *other)
{
    static const char *const keys[] = {"parameters", "template", "draft"};
    bool same = one->modified_ns == other->modified_ns && one->adapter_id == other->adapter_id &&
                same_path(one->projector_path, other->projector_path);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *own = json_object_get(one->settings, keys[i]);
        const json_t *its = json_object_get(other->settings, keys[i]);
        same = same && (own && its ? json_equal(own, its) : own == its);
    }
    return same;
}

static bool fits(const fleet_member *member, const fleet_wish *wish)
{
    const fleet_settings *runs = &member->settings;
    const fleet_settings *wished = &wish->settings;
    return !member->retiring && accepts(runs->n_context, wished->n_context) &&
           accepts(runs->n_batch, wished->n_batch) && accepts(runs->n_threads, wished->n_threads) &&
           (!wished->embeddings || runs->embeddings) && (!wished->reranking || runs->reranking) &&
           same_settings(member->entry, wish->entry);
}

/* What is wished for, and what runs where nothing is. */
static fleet_settings merge(const fleet_settings *runs, const fleet_settings *wished)
{
    return (fleet_settings){.n_context = wished->n_context > 0 ? wished->n_context : runs->n_context,
                            .n_batch = wished->n_batch > 0 ? wished->n_batch : runs->n_batch,
                            .n_threads = wished->n_threads > 0 ? wished->n_threads : runs->n_threads,
                            .embeddings = wished->embeddings || (runs->embeddings && !wished->reranking),
                            .reranking = wished->reranking || (runs->reranking && !wished->embeddings)};
}

static fleet_lease lease_of(fleet_member *member)
{
    return (fleet_lease){
        .member = member, .engine = member->engine, .socket = engine_socket(member->engine), .prefix = member->prefix};
}

/* One look at the list, with the lock held. True when it decided: *status is OK and lease filled, or a failure. */
static bool try_acquire(server_fleet *fleet, const fleet_wish *wish, bool (*cancelled)(void *user), void *user,
                        fleet_lease *lease, hypura_status *status, hypura_error *error)
{
    fleet_member *member = find_member(fleet, wish->entry);
    if (fleet->closing) {
        *status = hypura_fail(error, HYPURA_ERR_CANCELLED, "the server is shutting down");
        return true;
    }
    if (member && member->state == MEMBER_READY && !fits(member, wish)) {
        fleet_wish merged = *wish;
        if (member->n_users > 0) {
            member->retiring = true;
            member->awaited_us = hypura_clock_us();
            return false;
        }
        if (same_settings(member->entry, wish->entry)) {
            merged.settings = merge(&member->settings, &wish->settings);
        }
        const bool same_adapter = member->entry->adapter_id == wish->entry->adapter_id;
        const adapter_scales scales = same_adapter ? adapter_scale_get(engine_adapter_scale(member->engine))
                                                   : adapter_scales_whole(wish->entry->n_adapters);
        fleet_end_member(fleet, member);
        member = NULL;
        if (find_member(fleet, wish->entry)) {
            return false; /* somebody was faster */
        }
        member = add_member(fleet, &merged);
        if (member) {
            member->adapter_scales = scales;
        }
    } else if (!member) {
        member = add_member(fleet, wish);
    } else if (member->state != MEMBER_READY || fleet_somebody_waits(fleet)) {
        return false;
    } else {
        member->n_users++;
        *lease = lease_of(member);
        *status = HYPURA_OK;
        return true;
    }
    if (!member) {
        *status = hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for another model");
        return true;
    }
    *status = load(fleet, member, cancelled, user, error);
    if (*status != HYPURA_OK) {
        remove_member(fleet, member);
        return true;
    }
    member->state = MEMBER_READY;
    member->n_users = 1;
    *lease = lease_of(member);
    pthread_cond_broadcast(&fleet->changed);
    return true;
}

hypura_status fleet_acquire(server_fleet *fleet, const fleet_wish *wish, bool (*cancelled)(void *user), void *user,
                            fleet_lease *lease, hypura_error *error)
{
    const uint64_t begin_us = hypura_clock_us();
    hypura_status status = HYPURA_OK;
    *lease = (fleet_lease){0};
    pthread_mutex_lock(&fleet->lock);
    fleet->n_waiting++;
    while (!try_acquire(fleet, wish, cancelled, user, lease, &status, error)) {
        (void)hypura_cond_wait(&fleet->changed, &fleet->lock, FLEET_WAIT_US);
        pthread_mutex_unlock(&fleet->lock);
        const bool given_up = cancelled(user);
        pthread_mutex_lock(&fleet->lock);
        if (given_up) {
            status = hypura_fail(error, HYPURA_ERR_CANCELLED, "%s: nobody waits for it any more", wish->entry->name);
            break;
        }
    }
    fleet->n_waiting--;
    pthread_mutex_unlock(&fleet->lock);
    lease->load_us = hypura_clock_us() - begin_us;
    return status;
}

void fleet_release(server_fleet *fleet, fleet_lease *lease, double keep_alive_s)
{
    fleet_member *member = lease->member;
    if (!member) {
        return;
    }
    const double stay_s = isnan(keep_alive_s) ? fleet->options.keep_alive_s : keep_alive_s;
    pthread_mutex_lock(&fleet->lock);
    member->n_users--;
    member->used_us = hypura_clock_us();
    member->expires_us = stay_s < 0 || stay_s > 1e9 ? UINT64_MAX : member->used_us + (uint64_t)(stay_s * 1e6);
    pthread_cond_broadcast(&fleet->changed);
    pthread_mutex_unlock(&fleet->lock);
    *lease = (fleet_lease){0};
}

void fleet_unload(server_fleet *fleet, const hypura_model_entry *entry)
{
    pthread_mutex_lock(&fleet->lock);
    fleet_member *member = find_member(fleet, entry);
    if (member && fleet_is_idle(member)) {
        fleet_end_member(fleet, member);
    } else if (member) {
        member->retiring = true;
    }
    pthread_mutex_unlock(&fleet->lock);
}

/* ---- keeping ---------------------------------------------------------------------------------- */

static fleet_member *find_expired(server_fleet *fleet)
{
    const uint64_t now_us = hypura_clock_us();
    for (fleet_member *member = fleet->members; member; member = member->next) {
        const bool taken_over = now_us - member->awaited_us < FLEET_TAKEOVER_US;
        if (fleet_is_idle(member) &&
            (member->ended || (member->retiring && !taken_over) || member->expires_us <= now_us)) {
            return member;
        }
    }
    return NULL;
}

static void *keep(void *user)
{
    server_fleet *fleet = user;
    pthread_mutex_lock(&fleet->lock);
    while (!fleet->closing) {
        fleet_member *expired = find_expired(fleet);
        if (expired) {
            fleet_end_member(fleet, expired);
        } else if (!fleet_grow_one(fleet)) {
            (void)hypura_cond_wait(&fleet->changed, &fleet->lock, FLEET_WAIT_US);
        }
    }
    pthread_mutex_unlock(&fleet->lock);
    return NULL;
}

size_t fleet_list(server_fleet *fleet, fleet_info **infos)
{
    size_t n = 0;
    pthread_mutex_lock(&fleet->lock);
    for (const fleet_member *member = fleet->members; member; member = member->next) {
        n++;
    }
    *infos = calloc(n + 1, sizeof(**infos));
    n = 0;
    const uint64_t now_us = hypura_clock_us();
    for (const fleet_member *member = fleet->members; member && *infos; member = member->next) {
        if (member->ended || member->state == MEMBER_ENDING) {
            continue;
        }
        fleet_info *info = &(*infos)[n++];
        *info = (fleet_info){.entry = hypura_model_entry_hold(member->entry),
                             .ready = member->state == MEMBER_READY,
                             .n_users = member->n_users,
                             .memory_bytes = member->memory_bytes};
        snprintf(info->speculation, sizeof info->speculation, "%s", member->speculation);
        info->expires_s = member->n_users > 0 || !info->ready ? (double)NAN
                          : member->expires_us == UINT64_MAX  ? -1
                          : member->expires_us > now_us       ? (double)(member->expires_us - now_us) / 1e6
                                                              : 0;
        if (member->engine) {
            info->pid = engine_pid(member->engine);
            snprintf(info->socket, sizeof info->socket, "%s", engine_socket(member->engine));
            info->has_live = engine_live(member->engine, &info->live);
        }
    }
    pthread_mutex_unlock(&fleet->lock);
    return n;
}

void fleet_list_clear(fleet_info *infos, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        hypura_model_entry_release(infos[i].entry);
    }
    free(infos);
}

void fleet_count(server_fleet *fleet, fleet_counts *counts)
{
    pthread_mutex_lock(&fleet->lock);
    *counts = (fleet_counts){.memory_bytes = fleet->memory_bytes,
                             .used_bytes = fleet->memory_bytes - fleet_free_bytes(fleet),
                             .n_loads = fleet->n_loads,
                             .n_deaths = fleet->n_deaths,
                             .n_waiting = fleet->n_waiting};
    pthread_mutex_unlock(&fleet->lock);
}

/* ---- opening and closing ------------------------------------------------------------------------ */

hypura_status fleet_open(const hypura_server_options *options, hypura_models *models, server_fleet **opened,
                         hypura_error *error)
{
    server_fleet *fleet = calloc(1, sizeof(*fleet));
    *opened = NULL;
    if (!fleet) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a server");
    }
    fleet->options = *options;
    fleet->models = models;
    fleet->memory_bytes = options->memory_bytes;
    pthread_mutex_init(&fleet->lock, NULL);
    hypura_cond_init(&fleet->changed);
    hypura_status status = run_folder_open("/tmp", &fleet->run_folder, error);
    if (status == HYPURA_OK && pthread_create(&fleet->keeper, NULL, keep, fleet) != 0) {
        run_folder_close(&fleet->run_folder);
        status = hypura_fail(error, HYPURA_ERR_MEMORY, "no thread for a server");
    }
    if (status != HYPURA_OK) {
        free(fleet);
        return status;
    }
    *opened = fleet;
    return HYPURA_OK;
}

void fleet_close(server_fleet *fleet)
{
    if (!fleet) {
        return;
    }
    hypura_thread_end(fleet->keeper, &fleet->lock, &fleet->changed, &fleet->closing);
    pthread_mutex_lock(&fleet->lock);
    while (fleet->members) {
        fleet_end_member(fleet, fleet->members);
    }
    pthread_mutex_unlock(&fleet->lock);
    run_folder_close(&fleet->run_folder);
    pthread_cond_destroy(&fleet->changed);
    pthread_mutex_destroy(&fleet->lock);
    free(fleet);
}
