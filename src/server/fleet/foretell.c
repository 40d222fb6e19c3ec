/*
 * foretell.c - models that were named when the server was started, and that its memory cannot run: that is told then, and
 * not by the first request for each, which may come when nobody looks.
 *
 * On a thread of its own, as it takes an engine's look at each file that may be concerned. Models of folders are not looked
 * at: there may be many, and nobody may want those.
 */
#include "server/fleet/internal.h"

#include "server/base/log.h"

#include <string.h>

/* Context, computing and what an engine takes by itself are clearly less: with that and its files a model is held whole. */
#define BESIDE_BYTES (UINT64_C(512) << 20)

static bool was_named(const hypura_model_entry *entry, const hypura_model_entry *by_default)
{
    return entry->origin == HYPURA_MODEL_PATH || (by_default && strcmp(entry->name, by_default->name) == 0);
}

static void look_at(server_fleet *fleet, const hypura_model_entry *entry)
{
    hypura_error error = {0};
    if (fleet->memory_bytes < entry->bytes + BESIDE_BYTES &&
        fleet_check_floor(fleet, entry, &error) == HYPURA_ERR_BUDGET) {
        server_log(LOG_WARN, "%s", error.message);
    }
}

static bool is_closing(server_fleet *fleet)
{
    pthread_mutex_lock(&fleet->lock);
    const bool closing = fleet->closing;
    pthread_mutex_unlock(&fleet->lock);
    return closing;
}

static void *foretell(void *user)
{
    server_fleet *fleet = user;
    const char *name = fleet->options.default_model;
    const hypura_model_entry *by_default = NULL;
    hypura_model_list list;
    if (hypura_models_list(fleet->models, &list, NULL) != HYPURA_OK) {
        return NULL; /* a request will tell */
    }
    if (name && hypura_models_find(fleet->models, name, HYPURA_FIND_TYPED, &by_default, NULL) != HYPURA_OK) {
        by_default = NULL;
    }
    for (size_t i = 0; i < list.n && !is_closing(fleet); i++) {
        if (was_named(list.entries[i], by_default)) {
            look_at(fleet, list.entries[i]);
        }
    }
    hypura_model_entry_release(by_default);
    hypura_model_list_clear(&list);
    return NULL;
}

void fleet_foretell(server_fleet *fleet)
{
    fleet->foretells = pthread_create(&fleet->foreteller, NULL, foretell, fleet) == 0;
}
