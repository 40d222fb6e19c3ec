/*
 * store.c - the state of the store: what the last scan found, and who holds it.
 *
 * One mutex guards all of it. Entries are immutable and counted, so that callers
 * keep what they were given while later scans replace the list. Headers are read
 * once for each state of a file; a scan is then folders and stat alone.
 */
#include "server/models/store_internal.h"

#include "base/clock.h"
#include "base/date.h"
#include "base/status.h"
#include "server/dialect/go_template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Finding a name that the last scan had does not scan again within this time. */
enum { FRESH_US = 1000000 };

hypura_status hypura_store_out_of_memory(hypura_error *error)
{
    return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to list the models");
}

/* ---- entries ------------------------------------------------------------- */

static hypura_entry *owner(const hypura_model_entry *entry)
{
    return (hypura_entry *)(uintptr_t)entry;
}

const hypura_model_entry *hypura_model_entry_hold(const hypura_model_entry *entry)
{
    (void)atomic_fetch_add(&owner(entry)->n_holders, 1);
    return entry;
}

void hypura_model_entry_release(const hypura_model_entry *entry)
{
    if (entry != NULL && atomic_fetch_sub(&owner(entry)->n_holders, 1) == 1) {
        hypura_entry *e = owner(entry);
        json_decref(e->is.settings);
        hypura_arena_free(&e->arena);
        free(e);
    }
}

const char *hypura_model_entry_jinja(const hypura_model_entry *entry)
{
    const char *template = json_string_value(json_object_get(entry->settings, "template"));
    return template != NULL && go_template_is_jinja(template) ? template : NULL;
}

static bool grow(void **array, size_t n, size_t *capacity, size_t bytes)
{
    if (n < *capacity) {
        return true;
    }
    size_t wanted = *capacity == 0 ? 32 : *capacity * 2;
    void *larger = realloc(*array, wanted * bytes);
    if (larger != NULL) {
        *array = larger;
        *capacity = wanted;
    }
    return larger != NULL;
}

hypura_entry *hypura_entries_find(const hypura_entries *entries, const char *name)
{
    for (size_t i = 0; i < entries->n; i++) {
        if (hypura_name_equal(entries->all[i]->is.name, name)) {
            return entries->all[i];
        }
    }
    return NULL;
}

hypura_entry *hypura_entries_add(hypura_entries *entries, const char *name, bool *added, hypura_error *error)
{
    *added = hypura_entries_find(entries, name) == NULL;
    if (!*added) {
        return NULL;
    }
    hypura_entry *entry = calloc(1, sizeof *entry);
    if (entry == NULL || !grow((void **)&entries->all, entries->n, &entries->capacity, sizeof *entries->all)) {
        free(entry);
        (void)hypura_store_out_of_memory(error);
        return NULL;
    }
    atomic_init(&entry->n_holders, 1);
    entries->all[entries->n++] = entry;
    entry->is.name = hypura_arena_text(&entry->arena, name, strlen(name));
    entry->is.settings = json_object();
    entry->is.path = "";
    entry->is.format = "gguf";
    entry->is.family = "";
    if (entry->is.name == NULL || entry->is.settings == NULL) {
        entries->n--;
        hypura_model_entry_release(&entry->is);
        (void)hypura_store_out_of_memory(error);
        return NULL;
    }
    return entry;
}

void hypura_entries_clear(hypura_entries *entries)
{
    for (size_t i = 0; i < entries->n; i++) {
        hypura_model_entry_release(&entries->all[i]->is);
    }
    free(entries->all);
    *entries = (hypura_entries){0};
}

void hypura_entry_set_modified(hypura_entry *entry, int64_t modified_ns)
{
    char date[HYPURA_DATE_BYTES];
    const struct timespec modified = {.tv_sec = (time_t)(modified_ns / 1000000000), .tv_nsec = (long)(modified_ns % 1000000000)};
    entry->is.modified_ns = modified_ns;
    (void)snprintf(entry->is.modified, sizeof entry->is.modified, "%s", hypura_date_format(modified, 9, date));
}

void hypura_entry_identify(hypura_entry *entry)
{
    char text[HYPURA_NAME_BYTES + 96];
    hypura_digest *digest = hypura_digest_begin();
    char *settings = json_dumps(entry->is.settings, JSON_COMPACT | JSON_SORT_KEYS);
    if (digest != NULL) {
        int n = snprintf(text, sizeof text, "%s\n%llu\n%lld\n", entry->is.name, (unsigned long long)entry->is.bytes,
                         (long long)entry->is.modified_ns);
        hypura_digest_add(digest, text, (size_t)n);
        for (int i = 0; i < entry->is.n_adapters; i++) { /* what was computed with one is of no use with another */
            const hypura_os_identity *adapter = &entry->adapters[i];
            n = snprintf(text, sizeof text, "adapter\n%llu\n%lld\n%llu\n", (unsigned long long)adapter->bytes,
                         (long long)adapter->modified_ns, (unsigned long long)adapter->inode);
            hypura_digest_add(digest, text, (size_t)n);
        }
        hypura_digest_add(digest, settings != NULL ? settings : "", settings != NULL ? strlen(settings) : 0);
    }
    hypura_digest_end(digest, entry->is.digest);
    free(settings);
}

/* ---- settings -------------------------------------------------------------- */

json_t *hypura_settings_merge(const json_t *base, const json_t *over)
{
    json_t *merged = base != NULL ? json_deep_copy(base) : json_object();
    json_t *parameters = json_object_get(merged, "parameters");
    json_t *new_parameters = json_object_get(over, "parameters");
    json_t *both = json_is_object(parameters) ? json_deep_copy(parameters) : json_object();
    if (merged == NULL || both == NULL ||
        (over != NULL && json_object_update(merged, (json_t *)(uintptr_t)over) != 0) ||
        (new_parameters != NULL && json_object_update(both, new_parameters) != 0)) {
        json_decref(merged);
        json_decref(both);
        return NULL;
    }
    if (json_object_size(both) > 0) {
        (void)json_object_set(merged, "parameters", both);
    }
    json_decref(both);
    return merged;
}

/* ---- headers --------------------------------------------------------------- */

static bool same_file(const hypura_os_identity *a, const hypura_os_identity *b)
{
    return a->device == b->device && a->inode == b->inode && a->bytes == b->bytes && a->modified_ns == b->modified_ns;
}

hypura_known_card *hypura_store_known(hypura_models *models, const char *path, hypura_os_identity *identity)
{
    if (!hypura_os_identity_of_path(path, identity)) {
        *identity = (hypura_os_identity){0};
    }
    hypura_known_card *known = NULL;
    for (size_t i = 0; i < models->n_cards && known == NULL; i++) {
        known = strcmp(models->cards[i].path, path) == 0 ? &models->cards[i] : NULL;
    }
    if (known == NULL) {
        char *copy = strdup(path);
        if (copy == NULL ||
            !grow((void **)&models->cards, models->n_cards, &models->cards_capacity, sizeof *models->cards)) {
            free(copy);
            return NULL;
        }
        known = &models->cards[models->n_cards++];
        *known = (hypura_known_card){.path = copy};
    }
    /* A damaged file may be one whose other parts are still to come. */
    if (!same_file(&known->identity, identity) || known->card.kind == HYPURA_CARD_BROKEN) {
        hypura_card_read(path, &known->card);
        known->identity = *identity;
        known->capabilities = 0;
    }
    known->seen = true;
    return known;
}

const hypura_card *hypura_store_card(hypura_models *models, const char *path, hypura_os_identity *identity)
{
    const hypura_known_card *known = hypura_store_known(models, path, identity);
    return known != NULL ? &known->card : NULL;
}

static void drop_unseen_cards(hypura_models *models)
{
    size_t n = 0;
    for (size_t i = 0; i < models->n_cards; i++) {
        if (models->cards[i].seen) {
            models->cards[n] = models->cards[i];
            models->cards[n++].seen = false;
        } else {
            free(models->cards[i].path);
        }
    }
    models->n_cards = n;
}

hypura_status hypura_entry_fill(hypura_models *models, hypura_entry *entry, const char *path, hypura_error *error)
{
    hypura_os_identity identity;
    const hypura_card *card = hypura_store_card(models, path, &identity);
    entry->is.path = hypura_arena_text(&entry->arena, path, strlen(path));
    if (card == NULL || entry->is.path == NULL) {
        return hypura_store_out_of_memory(error);
    }
    const char *problem = card->kind == HYPURA_CARD_PROJECTOR ? "the file is a projector, no model"
                          : card->kind == HYPURA_CARD_ADAPTER ? "the file is an adapter, no model"
                                                              : card->problem;
    if (card->kind != HYPURA_CARD_MODEL) {
        entry->problem = hypura_arena_text(&entry->arena, problem, strlen(problem));
        return entry->problem == NULL ? hypura_store_out_of_memory(error) : HYPURA_OK;
    }
    entry->file = identity;
    entry->is.family = hypura_arena_text(&entry->arena, card->family, strlen(card->family));
    if (entry->is.family == NULL) {
        return hypura_store_out_of_memory(error);
    }
    entry->is.n_files = card->n_files;
    entry->is.bytes = card->bytes;
    entry->is.context_length = card->context_length;
    memcpy(entry->is.parameter_size, card->parameter_size, sizeof entry->is.parameter_size);
    memcpy(entry->is.quantization_level, card->quantization_level, sizeof entry->is.quantization_level);
    hypura_entry_set_modified(entry, identity.modified_ns);
    return HYPURA_OK;
}

hypura_status hypura_entry_add_adapter(hypura_models *models, hypura_entry *entry, const char *path, hypura_error *error)
{
    const int n = entry->is.n_adapters;
    if (n == HYPURA_MAX_ADAPTERS) {
        entry->problem = "it has more than 8 adapters (LoRA), the most that can be applied: merge some";
        return HYPURA_OK;
    }
    hypura_os_identity *adapter = &entry->adapters[n];
    const hypura_card *card = hypura_store_card(models, path, adapter);
    entry->is.adapter_paths[n] = hypura_arena_text(&entry->arena, path, strlen(path));
    if (card == NULL || entry->is.adapter_paths[n] == NULL) {
        return hypura_store_out_of_memory(error);
    }
    entry->is.n_adapters++;
    if (card->kind != HYPURA_CARD_ADAPTER && entry->problem == NULL) {
        char text[sizeof card->problem + 32];
        (void)snprintf(text, sizeof text, "its adapter: %s",
                       card->kind == HYPURA_CARD_BROKEN ? card->problem : "the file is no adapter");
        entry->problem = hypura_arena_text(&entry->arena, text, strlen(text));
        return entry->problem == NULL ? hypura_store_out_of_memory(error) : HYPURA_OK;
    }
    entry->is.bytes += adapter->bytes;
    entry->is.adapter_id = entry->is.adapter_id * 1000003 +
                           (((adapter->bytes * 1000003 + adapter->inode) * 1000003 + (uint64_t)adapter->modified_ns) | 1);
    entry->is.adapter_id += entry->is.adapter_id == 0; /* which is none */
    return HYPURA_OK;
}

/* ---- scanning -------------------------------------------------------------- */

static int last_modified_first(const void *a, const void *b)
{
    const hypura_entry *const *left = a;
    const hypura_entry *const *right = b;
    int64_t x = (*left)->is.modified_ns;
    int64_t y = (*right)->is.modified_ns;
    return x != y ? (x < y) - (x > y) : strcmp((*left)->is.name, (*right)->is.name);
}

/* What an alias says of the model behind it, once that is known. */
static hypura_status resolve_alias(const hypura_entries *entries, hypura_entry *alias, hypura_error *error)
{
    const hypura_entry *target = hypura_entries_find(entries, alias->alias_of);
    if (target == NULL || target->is.origin == HYPURA_MODEL_ALIAS || target->problem != NULL) {
        alias->problem = "it is another name for a model that is not there";
        return HYPURA_OK;
    }
    const hypura_model_entry was = alias->is;
    json_t *settings = hypura_settings_merge(target->is.settings, was.settings);
    if (settings == NULL) {
        return hypura_store_out_of_memory(error);
    }
    json_decref(was.settings);
    alias->is = target->is;
    alias->is.name = was.name;
    alias->is.origin = HYPURA_MODEL_ALIAS;
    alias->is.settings = settings;
    alias->file = target->file;
    memcpy(alias->adapters, target->adapters, sizeof alias->adapters);
    hypura_entry_set_modified(alias, was.modified_ns);
    /* The strings are the target's, which may go before this one does. */
    const char **texts[3 + HYPURA_MAX_ADAPTERS] = {&alias->is.path, &alias->is.projector_path, &alias->is.family};
    for (int i = 0; i < HYPURA_MAX_ADAPTERS; i++) {
        texts[3 + i] = &alias->is.adapter_paths[i];
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (*texts[i] != NULL) {
            *texts[i] = hypura_arena_text(&alias->arena, *texts[i], strlen(*texts[i]));
            if (*texts[i] == NULL) {
                return hypura_store_out_of_memory(error);
            }
        }
    }
    hypura_entry_identify(alias);
    return HYPURA_OK;
}

hypura_status hypura_store_scan(hypura_models *models, hypura_error *error)
{
    hypura_entries entries = {0};
    hypura_status status = hypura_store_scan_paths(models, &entries, error);
    status = status == HYPURA_OK ? hypura_store_scan_folder(models, &entries, error) : status;
    status = status == HYPURA_OK ? hypura_store_scan_ollama(models, &entries, error) : status;
    for (size_t i = 0; status == HYPURA_OK && i < entries.n; i++) {
        if (entries.all[i]->alias_of != NULL) {
            status = resolve_alias(&entries, entries.all[i], error);
        }
    }
    if (status != HYPURA_OK) {
        hypura_entries_clear(&entries);
        return status;
    }
    if (entries.n > 1) {
        qsort(entries.all, entries.n, sizeof *entries.all, last_modified_first);
    }
    drop_unseen_cards(models);
    hypura_entries_clear(&models->entries);
    models->entries = entries;
    models->scanned_us = hypura_clock_us();
    models->scanned = true;
    return HYPURA_OK;
}

void hypura_store_forget(hypura_models *models)
{
    models->scanned = false;
}

/* ---- open and close --------------------------------------------------------- */

static char *copy_path(const char *path)
{
    char *absolute = path == NULL ? NULL : realpath(path, NULL);
    return absolute != NULL ? absolute : strdup(path != NULL ? path : "");
}

/* Before the first model there need not be one. */
static hypura_status check_folder(const char *path, hypura_error *error)
{
    struct stat st;
    if (path[0] != '\0' && stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s: a folder of models is wanted, and this is none", path);
    }
    return HYPURA_OK;
}

hypura_status hypura_models_open(const hypura_models_options *options, hypura_models **models, hypura_error *error)
{
    hypura_models *m = calloc(1, sizeof *m);
    if (m == NULL || pthread_mutex_init(&m->mutex, NULL) != 0) {
        free(m);
        return hypura_store_out_of_memory(error);
    }
    hypura_status status = HYPURA_OK;
    m->keep_unused = options->keep_unused;
    m->folder = strdup(options->folder != NULL ? options->folder : "");
    m->ollama = strdup(options->ollama_folder != NULL ? options->ollama_folder : "");
    m->import = strdup(options->import_folder != NULL ? options->import_folder : "");
    m->paths = calloc((size_t)options->n_paths + 1, sizeof *m->paths);
    m->names = calloc((size_t)options->n_paths + 1, sizeof *m->names);
    if (m->folder == NULL || m->ollama == NULL || m->import == NULL || m->paths == NULL || m->names == NULL) {
        status = hypura_store_out_of_memory(error);
    } else {
        status = check_folder(m->folder, error);
    }
    for (int i = 0; status == HYPURA_OK && i < options->n_paths; i++) {
        m->paths[i] = copy_path(options->paths[i]);
        m->names[i] = strdup(options->paths[i]);
        m->n_paths++;
        hypura_card card;
        hypura_card_read(options->paths[i], &card);
        if (m->paths[i] == NULL || m->names[i] == NULL) {
            status = hypura_store_out_of_memory(error);
        } else if (card.kind == HYPURA_CARD_BROKEN) {
            status = hypura_fail(error, HYPURA_ERR_FORMAT, "%s", card.problem);
        } else if (card.kind == HYPURA_CARD_ADAPTER) {
            status = hypura_fail(error, HYPURA_ERR_FORMAT, "%s is an adapter, no model: run takes it with --lora, a model's of the "
                                                           "folder is called NAME.adapter.gguf", options->paths[i]);
        } else if (card.kind == HYPURA_CARD_PROJECTOR) {
            status = hypura_fail(error, HYPURA_ERR_FORMAT,
                                 "%s: is a projector, no model: it is found by itself "
                                 "beside the model that it belongs to",
                                 options->paths[i]);
        }
    }
    if (status == HYPURA_OK) {
        hypura_staging_sweep(m);
        status = hypura_store_scan(m, error);
    }
    if (status != HYPURA_OK) {
        hypura_models_close(m);
        m = NULL;
    }
    *models = m;
    return status;
}

void hypura_models_close(hypura_models *models)
{
    if (models == NULL) {
        return;
    }
    hypura_entries_clear(&models->entries);
    for (size_t i = 0; i < models->n_cards; i++) {
        free(models->cards[i].path);
    }
    for (int i = 0; i < models->n_paths; i++) {
        free(models->paths[i]);
        free(models->names[i]);
    }
    free(models->cards);
    free(models->paths);
    free(models->names);
    free(models->folder);
    free(models->ollama);
    free(models->import);
    (void)pthread_mutex_destroy(&models->mutex);
    free(models);
}

/* ---- list and find ---------------------------------------------------------- */

hypura_status hypura_models_list(hypura_models *models, hypura_model_list *list, hypura_error *error)
{
    *list = (hypura_model_list){0};
    (void)pthread_mutex_lock(&models->mutex);
    hypura_status status = hypura_store_scan(models, error);
    if (status == HYPURA_OK) {
        list->entries = calloc(models->entries.n + 1, sizeof *list->entries);
        status = list->entries == NULL ? hypura_store_out_of_memory(error) : HYPURA_OK;
    }
    for (size_t i = 0; status == HYPURA_OK && i < models->entries.n; i++) {
        if (models->entries.all[i]->problem == NULL) {
            list->entries[list->n++] = hypura_model_entry_hold(&models->entries.all[i]->is);
        }
    }
    (void)pthread_mutex_unlock(&models->mutex);
    return status;
}

void hypura_model_list_clear(hypura_model_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        hypura_model_entry_release(list->entries[i]);
    }
    free(list->entries);
    *list = (hypura_model_list){0};
}

/* The only model whose name continues this one; NULL when there is none, or, with
 * status and error set, when there are several. */
static hypura_entry *find_beginning(const hypura_entries *entries, const char *name, hypura_status *status,
                                    hypura_error *error)
{
    hypura_entry *found = NULL;
    for (size_t i = 0; i < entries->n; i++) {
        hypura_entry *e = entries->all[i];
        if (e->problem != NULL || !hypura_name_begins(name, e->is.name)) {
            continue;
        }
        if (found != NULL) {
            *status = hypura_fail(error, HYPURA_ERR_USAGE, "the name may mean %s or %s, among others: give it whole",
                                  found->is.name, e->is.name);
            return NULL;
        }
        found = e;
    }
    return found;
}

static hypura_entry *find(hypura_models *models, const char *name, hypura_find how, hypura_status *status,
                          hypura_error *error)
{
    hypura_entry *found = NULL;
    bool fresh = models->scanned && hypura_clock_us() - models->scanned_us < FRESH_US;
    if (fresh) {
        found = hypura_entries_find(&models->entries, name);
        if (found != NULL && found->problem == NULL && access(found->is.path, R_OK) == 0) {
            return found;
        }
    }
    *status = hypura_store_scan(models, error);
    found = *status == HYPURA_OK ? hypura_entries_find(&models->entries, name) : NULL;
    if (*status == HYPURA_OK && found == NULL && how == HYPURA_FIND_TYPED) {
        found = find_beginning(&models->entries, name, status, error);
    }
    return found;
}

hypura_status hypura_models_find(hypura_models *models, const char *name, hypura_find how,
                                 const hypura_model_entry **entry, hypura_error *error)
{
    char normal[HYPURA_NAME_BYTES];
    hypura_status status = HYPURA_OK;
    *entry = NULL;
    if (!hypura_name_normalize(name, normal)) {
        return HYPURA_OK;
    }
    (void)pthread_mutex_lock(&models->mutex);
    const hypura_entry *found = find(models, normal, how, &status, error);
    if (found != NULL && found->problem != NULL && how == HYPURA_FIND_TYPED) {
        status = hypura_fail(error, HYPURA_ERR_FORMAT, "%s cannot be used: %s", found->is.name, found->problem);
    } else if (found != NULL) {
        *entry = hypura_model_entry_hold(&found->is);
    }
    (void)pthread_mutex_unlock(&models->mutex);
    return status;
}
