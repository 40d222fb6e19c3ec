/*
 * store_change.c - see store.h: copy, remove, create.
 *
 * Whatever is made gets ready in a staging folder and takes its name at the end.
 */
#include "server/models/store_internal.h"

#include "base/status.h"
#include "gguf/adapter.h"
#include "gguf/records.h"
#include "gguf/split.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The progress of several files as that of one. */
typedef struct copying {
    hypura_progress_fn progress;
    void *user;
    uint64_t before; /* bytes of the files that are done */
    uint64_t total;
} copying;

static bool on_copied(void *user, const char *what, uint64_t done, uint64_t total)
{
    const copying *c = user;
    uint64_t all = c->total > c->before + total ? c->total : c->before + total;
    return c->progress == NULL || c->progress(c->user, what, c->before + done, all);
}

/* ---- settings ------------------------------------------------------------------ */

static const struct {
    const char *key;
    json_type type;
    json_type or ;
} known_settings[] = {
    {"parameters", JSON_OBJECT, JSON_OBJECT}, {"system", JSON_STRING, JSON_STRING},
    {"template", JSON_STRING, JSON_STRING},   {"license", JSON_STRING, JSON_ARRAY},
    {"messages", JSON_ARRAY, JSON_ARRAY},     {"from", JSON_STRING, JSON_STRING},
    {"draft", JSON_STRING, JSON_STRING},
};

static hypura_status check_settings(const json_t *settings, hypura_error *error)
{
    const char *key;
    json_t *value;
    if (settings != NULL && !json_is_object(settings)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the settings of a model are an object");
    }
    json_object_foreach((json_t *)(uintptr_t)settings, key, value)
    {
        size_t i = 0;
        size_t n = sizeof known_settings / sizeof *known_settings;
        while (i < n && strcmp(known_settings[i].key, key) != 0) {
            i++;
        }
        if (i == n) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "a model has no such setting: '%.40s'", key);
        }
        if (json_typeof(value) != known_settings[i].type && json_typeof(value) != known_settings[i].or) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "the setting '%s' is of another type", key);
        }
    }
    return HYPURA_OK;
}

/* Writes model.json; nothing when there is nothing to say. Takes settings over. */
static hypura_status stage_json(const hypura_staging *staging, const char *alias, json_t *settings, hypura_error *error)
{
    char path[HYPURA_STORE_PATH_BYTES];
    hypura_status status = HYPURA_OK;
    if (settings == NULL || !hypura_store_path(path, "%s/model.json", staging->path)) {
        json_decref(settings);
        return hypura_store_out_of_memory(error);
    }
    if (alias != NULL || json_object_size(settings) > 0) {
        json_t *root = json_pack("{s:i, s:s*, s:O}", "version", 1, "alias", alias, "settings", settings);
        status = root == NULL ? hypura_store_out_of_memory(error) : hypura_store_write_json(path, root, error);
        json_decref(root);
    }
    json_decref(settings);
    return status;
}

/* ---- files --------------------------------------------------------------------- */

/* "/model.gguf", or "/model-00002-of-00003.gguf". */
static void staged_name(int part, int n_parts, char *name, size_t capacity)
{
    if (n_parts > 1) {
        (void)snprintf(name, capacity, "/model-%05d-of-%05d.gguf", part, n_parts);
    } else {
        (void)snprintf(name, capacity, "/model.gguf");
    }
}

static void staged_adapter(int i, char *name, size_t capacity)
{
    char ending[HYPURA_ADAPTER_ENDING_BYTES];
    hypura_store_adapter_ending(i, ending);
    (void)snprintf(name, capacity, "/model%s", ending);
}

/* Links a file into staging; with `copying`, clones or copies it if need be.
 * *linked tells whether a link would do: false, and OK, without copying. */
static hypura_status stage_file(const hypura_staging *staging, const char *from, const char *name, copying *copy,
                                bool *linked, hypura_error *error)
{
    char to[HYPURA_STORE_PATH_BYTES];
    hypura_os_identity identity;
    if (!hypura_store_path(to, "%s%s", staging->path, name)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the path of the models folder is too long");
    }
    if (copy == NULL) {
        *linked = hypura_store_link(from, to);
        return HYPURA_OK;
    }
    hypura_status status = hypura_store_transfer(from, to, on_copied, copy, error);
    if (status == HYPURA_OK && hypura_os_identity_of_path(to, &identity)) {
        copy->before += identity.bytes;
    }
    return status;
}

/* A model's files; what there is none of is NULL. */
typedef struct model_files {
    const char *path;
    int n_files;
    const char *projector;
    const char *const *adapters; /* ends with NULL */
} model_files;

/* All parts of a model, and what goes with it. */
static hypura_status stage_files(const hypura_staging *staging, const model_files *files, copying *copy, bool *linked,
                                 hypura_error *error)
{
    const char *path = files->path;
    const int n_files = files->n_files;
    hypura_split_name split;
    hypura_arena arena = {0};
    hypura_status status = HYPURA_OK;
    bool is_split = n_files > 1 && hypura_split_parse(path, &split);
    *linked = true;
    for (int i = 1; i <= n_files && status == HYPURA_OK && *linked; i++) {
        char name[64];
        const char *part = is_split ? hypura_split_path(&arena, path, &split, i) : path;
        staged_name(i, n_files, name, sizeof name);
        status =
            part == NULL ? hypura_store_out_of_memory(error) : stage_file(staging, part, name, copy, linked, error);
    }
    if (status == HYPURA_OK && *linked && files->projector != NULL) {
        status = stage_file(staging, files->projector, "/model.mmproj.gguf", copy, linked, error);
    }
    for (int i = 0; status == HYPURA_OK && *linked && files->adapters != NULL && files->adapters[i] != NULL; i++) {
        char name[64];
        staged_adapter(i, name, sizeof name);
        status = stage_file(staging, files->adapters[i], name, copy, linked, error);
    }
    hypura_arena_free(&arena);
    return status;
}

/* ---- copy and remove ----------------------------------------------------------- */

static const hypura_entry *inner(const hypura_model_entry *entry)
{
    return (const hypura_entry *)entry;
}

/* The model that another name stands for. */
static const char *origin_name(const hypura_model_entry *from)
{
    return from->origin == HYPURA_MODEL_ALIAS ? inner(from)->alias_of : from->name;
}

/* What was linked before one could not be: an alias has no files. */
static void unstage_files(const hypura_staging *staging, const hypura_model_entry *from)
{
    char path[HYPURA_STORE_PATH_BYTES];
    char name[64];
    for (int i = 1; i <= from->n_files; i++) {
        staged_name(i, from->n_files, name, sizeof name);
        if (hypura_store_path(path, "%s%s", staging->path, name)) {
            (void)remove(path);
        }
    }
    for (int i = -1; i < from->n_adapters; i++) {
        (void)snprintf(name, sizeof name, "/model.mmproj.gguf");
        if (i >= 0) {
            staged_adapter(i, name, sizeof name);
        }
        if (hypura_store_path(path, "%s%s", staging->path, name)) {
            (void)remove(path);
        }
    }
}

/* Its experts, laid out anew (gguf/records.h), where the file is the same one. Nothing is missing without them. */
static void stage_records(const hypura_staging *staging, const hypura_model_entry *from)
{
    char name[64];
    char model[HYPURA_STORE_PATH_BYTES];
    char records[HYPURA_STORE_PATH_BYTES];
    char to[HYPURA_STORE_PATH_BYTES];
    hypura_os_identity staged;
    hypura_os_identity own;
    staged_name(1, from->n_files, name, sizeof name);
    if (hypura_store_path(model, "%s%s", staging->path, name) && hypura_os_identity_of_path(model, &staged) &&
        hypura_os_identity_of_path(from->path, &own) && staged.device == own.device && staged.inode == own.inode &&
        hypura_store_path(records, "%s" HYPURA_RECORDS_SUFFIX, from->path) &&
        hypura_store_path(to, "%s" HYPURA_RECORDS_SUFFIX, model)) {
        (void)hypura_store_link(records, to);
    }
}

/* The model as `name`, with settings over its own: linked, or where that cannot be another name for it. Where its files
 * have to be there they are copied then: with_files, and where the name is the model's own, which would stand for itself. */
static hypura_status stage_shared(const hypura_staging *staging, const hypura_model_entry *from, const char *name,
                                  const json_t *settings, bool with_files, copying *copy, hypura_error *error)
{
    bool linked = false;
    const model_files files = {
        .path = from->path, .n_files = from->n_files, .projector = from->projector_path, .adapters = from->adapter_paths};
    if (inner(from)->problem != NULL) {
        return hypura_fail(error, HYPURA_ERR_FORMAT, "%s cannot be used: %s", from->name, inner(from)->problem);
    }
    const bool copies = with_files || hypura_name_equal(name, origin_name(from));
    const hypura_status status = stage_files(staging, &files, copies ? copy : NULL, &linked, error);
    if (status != HYPURA_OK) {
        return status;
    }
    if (linked) {
        stage_records(staging, from);
        return stage_json(staging, NULL, hypura_settings_merge(from->settings, settings), error);
    }
    unstage_files(staging, from);
    return stage_json(staging, origin_name(from),
                      hypura_settings_merge(from->origin == HYPURA_MODEL_ALIAS ? from->settings : NULL, settings), error);
}

/* Checks the name and begins; the caller ends the staging in any case. */
static hypura_status begin(hypura_models *models, const char *text, char *name, hypura_staging *staging,
                           hypura_error *error)
{
    *staging = (hypura_staging){.fd = -1};
    hypura_status status = hypura_name_check(text, name, error);
    return status == HYPURA_OK ? hypura_staging_begin(models, staging, error) : status;
}

hypura_status hypura_models_copy(hypura_models *models, const hypura_model_entry *from, const char *name,
                                 hypura_error *error)
{
    char normal[HYPURA_NAME_BYTES];
    hypura_staging staging;
    hypura_status status = begin(models, name, normal, &staging, error);
    if (status == HYPURA_OK && !hypura_name_equal(normal, from->name)) {
        copying copy = {.total = from->bytes};
        status = stage_shared(&staging, from, normal, NULL, false, &copy, error);
        status = status == HYPURA_OK ? hypura_staging_install(models, &staging, normal, from, error) : status;
    }
    hypura_staging_end(&staging);
    return status;
}

hypura_status hypura_models_remove(hypura_models *models, const hypura_model_entry *entry, hypura_error *error)
{
    if (entry->origin == HYPURA_MODEL_PATH || entry->origin == HYPURA_MODEL_OLLAMA) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%s is not in the models folder: %s", entry->name,
                           entry->origin == HYPURA_MODEL_PATH ? "it was named on the command line and is not removed"
                                                              : "it belongs to Ollama, remove it with ollama rm");
    }
    hypura_status status = HYPURA_OK;
    (void)pthread_mutex_lock(&models->mutex);
    for (size_t i = 0; i < models->entries.n; i++) {
        const hypura_entry *other = models->entries.all[i];
        if (other->alias_of != NULL && hypura_name_equal(other->alias_of, entry->name)) {
            status = hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%s is another name for %s: remove that first",
                                 other->is.name, entry->name);
        }
    }
    status = status == HYPURA_OK ? hypura_store_unlink(models, inner(entry), error) : status;
    (void)pthread_mutex_unlock(&models->mutex);
    if (status == HYPURA_OK && !models->keep_unused) {
        (void)hypura_models_unused(models, HYPURA_UNUSED_LONG, true);
    }
    return status;
}

/* ---- create -------------------------------------------------------------------- */

/* A GGUF somewhere on this machine. */
static hypura_status stage_path(const hypura_models *models, const hypura_staging *staging,
                                const hypura_models_create_options *options, hypura_error *error)
{
    char path[HYPURA_STORE_PATH_BYTES];
    hypura_card card;
    bool linked;
    bool may = hypura_store_is_within(models->folder, options->path, path) ||
               (models->import[0] != '\0' && hypura_store_is_within(models->import, options->path, path));
    if (!may) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "there is no such file where models may be taken from (%s)",
                           models->import[0] != '\0' ? models->import : models->folder);
    }
    hypura_card_read(path, &card);
    if (card.kind != HYPURA_CARD_MODEL) {
        return hypura_fail(error, HYPURA_ERR_FORMAT, "%s",
                           card.kind == HYPURA_CARD_BROKEN    ? card.problem
                           : card.kind == HYPURA_CARD_ADAPTER ? "an adapter is no model"
                                                              : "a projector is no model");
    }
    copying copy = {.progress = options->progress, .user = options->progress_user, .total = card.bytes};
    return stage_files(staging, &(model_files){.path = path, .n_files = card.n_files}, &copy, &linked, error);
}

/* Files that were sent: one model, and at most one projector. */
static hypura_status stage_blobs(const hypura_models *models, const hypura_staging *staging,
                                 const hypura_models_create_options *options, hypura_error *error)
{
    int n_models = 0;
    int n_projectors = 0;
    hypura_status status = HYPURA_OK;
    copying copy = {.progress = options->progress, .user = options->progress_user};
    for (int i = 0; i < options->n_blobs && status == HYPURA_OK; i++) {
        char path[HYPURA_STORE_PATH_BYTES];
        hypura_card card;
        bool linked;
        status = hypura_store_blob(models, options->blobs[i], path, error);
        if (status != HYPURA_OK) {
            return status;
        }
        hypura_card_read(path, &card);
        if (card.kind == HYPURA_CARD_BROKEN) {
            return hypura_fail(error, HYPURA_ERR_FORMAT, "the file sent as %.80s: %.300s", options->blobs[i], card.problem);
        }
        if (card.kind == HYPURA_CARD_ADAPTER) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "the file sent as %.80s is an adapter: name it in 'adapters'",
                               options->blobs[i]);
        }
        const bool is_model = card.kind == HYPURA_CARD_MODEL;
        const int n_before = is_model ? n_models++ : n_projectors++;
        if (n_before == 0) { /* of further ones it is only told how many there are */
            status = stage_file(staging, path, is_model ? "/model.gguf" : "/model.mmproj.gguf", &copy, &linked, error);
        }
    }
    if (status == HYPURA_OK && n_models != 1) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%d of the files sent are models: exactly one has to be", n_models);
    }
    if (status == HYPURA_OK && n_projectors > 1) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%d of the files sent are projectors: one can be", n_projectors);
    }
    return status;
}

/* The one of that number among those sent, against the model that is staged already. */
static hypura_status stage_adapter(const hypura_models *models, const hypura_staging *staging,
                                   const hypura_models_create_options *options, int number, hypura_error *error)
{
    const int n_before = options->from != NULL ? options->from->n_adapters : 0;
    char from[HYPURA_STORE_PATH_BYTES];
    char model[HYPURA_STORE_PATH_BYTES];
    const int n_files = options->from != NULL ? options->from->n_files : 1;
    char name[64];
    hypura_map *map = NULL;
    copying copy = {.progress = options->progress, .user = options->progress_user};
    bool linked;
    if (n_before + number >= HYPURA_MAX_ADAPTERS) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "more than %d adapters cannot be applied to a model",
                           HYPURA_MAX_ADAPTERS);
    }
    staged_name(1, n_files, name, sizeof name);
    hypura_status status = hypura_store_blob(models, options->adapters[number], from, error);
    if (status != HYPURA_OK) {
        return status;
    }
    if (access(from, R_OK) != 0) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "no file was sent as %.80s", options->adapters[number]);
    }
    if (!hypura_store_path(model, "%s%s", staging->path, name)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the path of the models folder is too long");
    }
    status = hypura_map_open(model, &map, error);
    if (status == HYPURA_OK) {
        status = hypura_adapter_check_file(from, map, error);
    }
    hypura_map_close(map);
    staged_adapter(n_before + number, name, sizeof name);
    return status == HYPURA_OK ? stage_file(staging, from, name, &copy, &linked, error) : status;
}

/* What was sent has its name now, and is not kept twice. */
static void forget_blobs(const hypura_models *models, const hypura_models_create_options *options)
{
    char path[HYPURA_STORE_PATH_BYTES];
    for (int i = 0; i < options->n_blobs + options->n_adapters; i++) {
        const char *digest = i < options->n_blobs ? options->blobs[i] : options->adapters[i - options->n_blobs];
        if (hypura_store_blob(models, digest, path, NULL) == HYPURA_OK) {
            (void)remove(path);
        }
    }
}

static hypura_status create(hypura_models *models, const hypura_models_create_options *options, hypura_error *error)
{
    char name[HYPURA_NAME_BYTES];
    hypura_staging staging;
    hypura_status status = begin(models, options->name, name, &staging, error);
    status = status == HYPURA_OK ? check_settings(options->settings, error) : status;
    if (status != HYPURA_OK) {
        hypura_staging_end(&staging);
        return status;
    }
    if (options->from != NULL) {
        copying copy = {.progress = options->progress, .user = options->progress_user, .total = options->from->bytes};
        status = stage_shared(&staging, options->from, name, options->settings, options->n_adapters > 0, &copy, error);
    } else if (options->path == NULL && options->n_blobs == 0) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "a model is made from another one, a path or files sent before");
    } else {
        status = options->path != NULL ? stage_path(models, &staging, options, error)
                                       : stage_blobs(models, &staging, options, error);
        if (status == HYPURA_OK) {
            status = stage_json(&staging, NULL, hypura_settings_merge(NULL, options->settings), error);
        }
    }
    for (int i = 0; i < options->n_adapters && status == HYPURA_OK; i++) {
        status = stage_adapter(models, &staging, options, i, error);
    }
    status = status == HYPURA_OK ? hypura_staging_install(models, &staging, name, options->from, error) : status;
    if (status == HYPURA_OK) {
        forget_blobs(models, options);
    }
    hypura_staging_end(&staging);
    return status;
}

hypura_status hypura_models_create(hypura_models *models, const hypura_models_create_options *options,
                                   hypura_error *error)
{
    const int held = hypura_store_hold(models, HYPURA_STORE_BLOBS);
    const hypura_status status = create(models, options, error);
    hypura_store_let_go(held);
    return status;
}
