/*
 * store_scan.c - see store_internal.h: the models folder, and files named on the
 * command line.
 *
 * A scan first gathers the names of all files, then makes entries: a model of
 * each GGUF (the first part alone of a split one), a projector of each that is
 * one, an alias of each STEM.json that says so.
 */
#include "server/models/store_internal.h"

#include "base/path.h"
#include "gguf/split.h"
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char gguf_ending[] = ".gguf";

/* Bytes of a path without ".gguf" and without "-00001-of-00003"; 0 for a part that
 * is not the first. */
static size_t stem_bytes(const char *path)
{
    hypura_split_name split;
    if (hypura_split_parse(path, &split)) {
        return split.part == 1 ? split.prefix_bytes : 0;
    }
    return strlen(path) - (sizeof gguf_ending - 1);
}

/* ---- projectors ---------------------------------------------------------- */

/* Files below a folder, by paths below it, in order. */
typedef struct files {
    char **below;
    size_t n;
    size_t capacity;
} files;

static hypura_status gather(void *user, const char *below, hypura_error *error)
{
    files *all = user;
    if (!hypura_ends_with_any_case(below, gguf_ending) && !hypura_ends_with_any_case(below, ".json")) {
        return HYPURA_OK;
    }
    if (all->n == all->capacity) {
        size_t wanted = all->capacity * 2 + 64;
        char **larger = realloc(all->below, wanted * sizeof *larger);
        if (larger == NULL) {
            return hypura_store_out_of_memory(error);
        }
        all->below = larger;
        all->capacity = wanted;
    }
    all->below[all->n] = strdup(below);
    return all->below[all->n++] == NULL ? hypura_store_out_of_memory(error) : HYPURA_OK;
}

static void files_clear(files *all)
{
    for (size_t i = 0; i < all->n; i++) {
        free(all->below[i]);
    }
    free(all->below);
}

static int compare_files(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static hypura_status match_projector(hypura_models *models, hypura_entry *entry, const files *projectors,
                                     const char *model, int64_t embedding_length, hypura_error *error)
{
    size_t best = 0;
    uint64_t bytes = 0;
    char path[HYPURA_STORE_PATH_BYTES];
    char resolved[HYPURA_STORE_PATH_BYTES];
    for (size_t i = 0; i < projectors->n; i++) {
        size_t fits = hypura_store_projector_fits(projectors->below[i], model, stem_bytes(model));
        hypura_os_identity identity;
        if (fits <= best || !hypura_store_path(path, "%s/%s", models->folder, projectors->below[i]) ||
            !hypura_store_is_within(models->folder, path, resolved)) {
            continue;
        }
        const hypura_card *card = hypura_store_card(models, resolved, &identity);
        if (card == NULL) {
            return hypura_store_out_of_memory(error);
        }
        if (fits != SIZE_MAX && !hypura_store_projector_is_wide(card, embedding_length)) {
            continue;
        }
        best = fits;
        bytes = card->bytes;
        entry->is.projector_path = hypura_arena_text(&entry->arena, resolved, strlen(resolved));
        if (entry->is.projector_path == NULL) {
            return hypura_store_out_of_memory(error);
        }
    }
    entry->is.bytes += bytes;
    return HYPURA_OK;
}

/* ---- entries --------------------------------------------------------------- */

static hypura_status match_adapters(hypura_models *models, hypura_entry *entry, hypura_error *error)
{
    char link[HYPURA_STORE_PATH_BYTES];
    char path[HYPURA_STORE_PATH_BYTES];
    char ending[HYPURA_ADAPTER_ENDING_BYTES];
    hypura_status status = HYPURA_OK;
    for (int i = 0; i <= HYPURA_MAX_ADAPTERS && status == HYPURA_OK; i++) {
        hypura_store_adapter_ending(i, ending);
        if (!hypura_store_path(link, "%s/%s%s", models->folder, entry->stem, ending) ||
            !hypura_store_is_within(models->folder, link, path)) {
            break;
        }
        status = hypura_entry_add_adapter(models, entry, path, error);
    }
    return status;
}

/* Settings of STEM.json, if there is one. */
static void read_settings(const hypura_models *models, hypura_entry *entry)
{
    char link[HYPURA_STORE_PATH_BYTES];
    char path[HYPURA_STORE_PATH_BYTES];
    bool is_there = hypura_store_path(link, "%s/%s.json", models->folder, entry->stem) &&
                    hypura_store_is_within(models->folder, link, path);
    json_t *root = is_there ? hypura_store_read_json(path) : NULL;
    json_t *settings = json_object_get(root, "settings");
    if (is_there && (root == NULL || (settings != NULL && !json_is_object(settings)))) {
        /* Without them its answers would be another model's. */
        entry->problem = "its settings cannot be read: the file .json beside it is no JSON object with an object \"settings\"";
    }
    if (json_is_object(settings)) {
        json_decref(entry->is.settings);
        entry->is.settings = json_incref(settings);
    }
    json_decref(root);
}

static hypura_status add_model(hypura_models *models, hypura_entries *entries, const files *projectors,
                               const char *below, hypura_error *error)
{
    char stem[HYPURA_STORE_PATH_BYTES];
    char name[HYPURA_NAME_BYTES];
    char path[HYPURA_STORE_PATH_BYTES];
    char resolved[HYPURA_STORE_PATH_BYTES];
    size_t bytes = stem_bytes(below);
    bool added = false;
    if (!hypura_store_path(stem, "%.*s", (int)bytes, below) || !hypura_name_of_stem(stem, name) ||
        !hypura_store_path(path, "%s/%s", models->folder, below)) {
        return HYPURA_OK;
    }
    hypura_entry *entry = hypura_entries_add(entries, name, &added, error);
    if (entry == NULL) {
        return added ? HYPURA_ERR_MEMORY : HYPURA_OK;
    }
    entry->is.origin = HYPURA_MODEL_FOLDER;
    entry->stem = hypura_arena_text(&entry->arena, stem, strlen(stem));
    entry->below = hypura_arena_text(&entry->arena, below, strlen(below));
    if (entry->stem == NULL || entry->below == NULL) {
        return hypura_store_out_of_memory(error);
    }
    if (!hypura_store_is_within(models->folder, path, resolved)) {
        entry->problem = "the file is a link that leads out of the models folder, or nowhere: move the model here, or "
                         "name it on the command line";
        return HYPURA_OK;
    }
    read_settings(models, entry);
    hypura_status status = hypura_entry_fill(models, entry, resolved, error);
    if (status == HYPURA_OK && entry->problem == NULL) {
        hypura_os_identity identity;
        const hypura_card *card = hypura_store_card(models, resolved, &identity);
        int64_t embedding_length = card != NULL ? card->embedding_length : 0;
        status = match_projector(models, entry, projectors, below, embedding_length, error);
    }
    status = status == HYPURA_OK ? match_adapters(models, entry, error) : status;
    hypura_entry_identify(entry);
    return status;
}

/* STEM.json with "alias": the name of another model. */
static hypura_status add_alias(const hypura_models *models, hypura_entries *entries, const char *below,
                               hypura_error *error)
{
    char link[HYPURA_STORE_PATH_BYTES];
    char path[HYPURA_STORE_PATH_BYTES];
    char stem[HYPURA_STORE_PATH_BYTES];
    char name[HYPURA_NAME_BYTES];
    char target[HYPURA_NAME_BYTES];
    hypura_os_identity identity;
    bool added = false;
    if (!hypura_store_path(link, "%s/%s", models->folder, below) ||
        !hypura_store_is_within(models->folder, link, path) || !hypura_os_identity_of_path(path, &identity) ||
        !hypura_store_path(stem, "%.*s", (int)(strlen(below) - (sizeof ".json" - 1)), below) ||
        !hypura_name_of_stem(stem, name)) {
        return HYPURA_OK;
    }
    json_t *root = hypura_store_read_json(path);
    const char *of = json_string_value(json_object_get(root, "alias"));
    hypura_status status = HYPURA_OK;
    if (of != NULL && hypura_name_normalize(of, target)) {
        hypura_entry *entry = hypura_entries_add(entries, name, &added, error);
        if (entry != NULL) {
            entry->is.origin = HYPURA_MODEL_ALIAS;
            entry->stem = hypura_arena_text(&entry->arena, stem, strlen(stem));
            entry->alias_of = hypura_arena_text(&entry->arena, target, strlen(target));
            read_settings(models, entry);
            hypura_entry_set_modified(entry, identity.modified_ns);
            status = entry->stem == NULL || entry->alias_of == NULL ? hypura_store_out_of_memory(error) : HYPURA_OK;
        } else {
            status = added ? HYPURA_ERR_MEMORY : HYPURA_OK;
        }
    }
    json_decref(root);
    return status;
}

/* Moves the GGUFs that are projectors from all to projectors; adapters are no models either. */
static hypura_status part_projectors(hypura_models *models, files *all, files *projectors, hypura_error *error)
{
    size_t n = 0;
    hypura_status status = HYPURA_OK;
    for (size_t i = 0; i < all->n; i++) {
        char path[HYPURA_STORE_PATH_BYTES];
        char resolved[HYPURA_STORE_PATH_BYTES];
        hypura_os_identity identity;
        const hypura_card *card = NULL;
        bool is_gguf = hypura_ends_with_any_case(all->below[i], gguf_ending) && stem_bytes(all->below[i]) > 0 &&
                       hypura_store_path(path, "%s/%s", models->folder, all->below[i]) &&
                       hypura_store_is_within(models->folder, path, resolved);
        if (is_gguf && status == HYPURA_OK) {
            card = hypura_store_card(models, resolved, &identity);
            status = card == NULL ? hypura_store_out_of_memory(error) : HYPURA_OK;
        }
        if (card != NULL && card->kind == HYPURA_CARD_PROJECTOR && status == HYPURA_OK) {
            status = gather(projectors, all->below[i], error);
            free(all->below[i]);
        } else if (card != NULL && card->kind == HYPURA_CARD_ADAPTER) {
            free(all->below[i]);
        } else {
            all->below[n++] = all->below[i];
        }
    }
    all->n = n;
    return status;
}

hypura_status hypura_store_scan_folder(hypura_models *models, hypura_entries *entries, hypura_error *error)
{
    files all = {0};
    files projectors = {0};
    hypura_status status = hypura_store_walk(models->folder, gather, &all, error);
    if (status == HYPURA_OK && all.n > 1) {
        qsort(all.below, all.n, sizeof *all.below, compare_files);
    }
    status = status == HYPURA_OK ? part_projectors(models, &all, &projectors, error) : status;
    for (size_t i = 0; i < all.n && status == HYPURA_OK; i++) {
        if (hypura_ends_with_any_case(all.below[i], gguf_ending) && stem_bytes(all.below[i]) > 0) {
            status = add_model(models, entries, &projectors, all.below[i], error);
        }
    }
    for (size_t i = 0; i < all.n && status == HYPURA_OK; i++) {
        if (hypura_ends_with_any_case(all.below[i], ".json")) {
            status = add_alias(models, entries, all.below[i], error);
        }
    }
    files_clear(&all);
    files_clear(&projectors);
    return status;
}

/* The projector beside a file named on the command line. */
static hypura_status add_beside(hypura_models *models, hypura_entry *entry, const char *path, hypura_error *error)
{
    hypura_os_identity identity;
    const hypura_card *card = hypura_store_card(models, path, &identity);
    const int64_t embedding_length = card != NULL ? card->embedding_length : 0;
    char *projector = hypura_store_projector_beside(path, embedding_length);
    if (projector == NULL) {
        return HYPURA_OK;
    }
    card = hypura_store_card(models, projector, &identity);
    entry->is.bytes += card != NULL ? card->bytes : 0;
    entry->is.projector_path = hypura_arena_text(&entry->arena, projector, strlen(projector));
    free(projector);
    return card != NULL && entry->is.projector_path != NULL ? HYPURA_OK : hypura_store_out_of_memory(error);
}

hypura_status hypura_store_scan_paths(hypura_models *models, hypura_entries *entries, hypura_error *error)
{
    hypura_status status = HYPURA_OK;
    for (int i = 0; i < models->n_paths && status == HYPURA_OK; i++) {
        char name[HYPURA_NAME_BYTES];
        bool added = false;
        if (!hypura_name_normalize(hypura_path_name(models->names[i]), name)) {
            continue;
        }
        hypura_entry *entry = hypura_entries_add(entries, name, &added, error);
        if (entry == NULL) {
            status = added ? HYPURA_ERR_MEMORY : HYPURA_OK;
            continue;
        }
        entry->is.origin = HYPURA_MODEL_PATH;
        status = hypura_entry_fill(models, entry, models->paths[i], error);
        if (status == HYPURA_OK && entry->problem == NULL) {
            status = add_beside(models, entry, models->paths[i], error);
        }
        hypura_entry_identify(entry);
    }
    return status;
}
