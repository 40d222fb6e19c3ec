/*
 * fleet.c - see fleet.h.
 *
 * One lock for the list; it is given up while an engine starts, loads or ends, and `changed` tells everyone who waits.
 */
#include "server/fleet/internal.h"

#include "base/clock.h"
#include "base/status.h"
#include "base/thread.h"
#include "server/base/log.h"
#include "server/dialect/ollama.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- members: with the lock held --------------------------------------------------- */

static void remove_member(server_fleet *fleet, fleet_member *member)
{
    fleet_member **at = &fleet->members;
    while (*at != member) {
        at = &(*at)->next;
    }
    *at = member->next;
    fleet->n_gpu_changes += member->n_gpus > 0;
    hypura_model_entry_release(member->entry);
    free(member);
    pthread_cond_broadcast(&fleet->changed);
}

fleet_member *fleet_longest_idle(server_fleet *fleet, bool (*of_these)(const fleet_member *member, const void *user),
                                 const void *user)
{
    fleet_member *found = NULL;
    for (fleet_member *member = fleet->members; member; member = member->next) {
        if (fleet_is_idle(member) && (!of_these || of_these(member, user)) && (!found || member->used_us < found->used_us)) {
            found = member;
        }
    }
    return found;
}

hypura_status fleet_wait(server_fleet *fleet, fleet_member *self, bool (*cancelled)(void *user), void *user, hypura_error *error)
{
    (void)hypura_cond_wait(&fleet->changed, &fleet->lock, FLEET_WAIT_US);
    pthread_mutex_unlock(&fleet->lock);
    const bool given_up = cancelled(user);
    pthread_mutex_lock(&fleet->lock);
    return given_up || fleet->closing
               ? hypura_fail(error, HYPURA_ERR_CANCELLED, "%s: loading was given up", self->entry->name)
               : HYPURA_OK;
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

fleet_settings fleet_settings_of(const fleet_wish *wish)
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
        member->settings = fleet_settings_of(wish);
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
    return accepts(runs->n_context, wished->n_context) && accepts(runs->n_batch, wished->n_batch) &&
           accepts(runs->n_threads, wished->n_threads) &&
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

/* Somebody waits for it to be idle, to load it in another way. */
static bool is_awaited(const fleet_member *member)
{
    return hypura_clock_us() - member->awaited_us < FLEET_TAKEOVER_US;
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
    if (member && member->state == MEMBER_READY && (member->retiring || !fits(member, wish))) {
        fleet_wish merged = *wish;
        if (member->n_users > 0) {
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
    } else if (member->state != MEMBER_READY || is_awaited(member) || fleet_somebody_waits(fleet)) {
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
    *status = fleet_load(fleet, member, cancelled, user, error);
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
        if (fleet_is_idle(member) &&
            (member->ended || (member->retiring && !is_awaited(member)) || member->expires_us <= now_us)) {
            return member;
        }
    }
    return NULL;
}

static bool is_closing(void *user)
{
    server_fleet *fleet = user;
    pthread_mutex_lock(&fleet->lock);
    const bool closing = fleet->closing;
    pthread_mutex_unlock(&fleet->lock);
    return closing;
}

/* With what is free now, as if nobody had looked. */
static void load_anew(server_fleet *fleet, fleet_member *cramped)
{
    const fleet_wish wish = {.entry = hypura_model_entry_hold(cramped->entry), .settings = cramped->settings};
    const fleet_member was = *cramped;
    const adapter_scales scales = adapter_scale_get(engine_adapter_scale(cramped->engine));
    hypura_error error = {0};
    server_log(LOG_INFO, "%s: loaded anew, as there is more memory for it", cramped->entry->name);
    fleet_end_member(fleet, cramped);
    fleet_member *member = find_member(fleet, wish.entry) || fleet->closing ? NULL : add_member(fleet, &wish);
    if (member) {
        member->adapter_scales = scales;
        member->modest = true;
        const hypura_status status = fleet_load(fleet, member, is_closing, fleet, &error);
        if (status == HYPURA_OK) {
            member->modest = false;
            member->used_us = was.used_us;
            member->expires_us = was.expires_us;
            member->state = MEMBER_READY;
            pthread_cond_broadcast(&fleet->changed);
        } else {
            server_log(LOG_WARN, "%s: is not loaded any more: %s", wish.entry->name, error.message);
            remove_member(fleet, member);
        }
    }
    hypura_model_entry_release(wish.entry);
}

static void *keep(void *user)
{
    server_fleet *fleet = user;
    pthread_mutex_lock(&fleet->lock);
    while (!fleet->closing) {
        fleet_member *expired = find_expired(fleet);
        fleet_member *cramped = expired ? NULL : fleet_find_cramped(fleet);
        if (expired) {
            fleet_end_member(fleet, expired);
        } else if (cramped) {
            load_anew(fleet, cramped);
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
    if (fleet->foretells) {
        pthread_join(fleet->foreteller, NULL);
    }
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
