/*
 * local.c - the models of this machine for programs that serve none: hypura_server.h over store.h and pull.h, with a
 * store that is open for one call.
 */
#include "hypura_server.h"

#include "base/status.h"
#include "server/models/pull.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static hypura_status open_models(const hypura_local_options *options, hypura_models **models, hypura_error *error)
{
    const hypura_models_options places = {.folder = options->models_folder,
                                          .ollama_folder = options->ollama_folder,
                                          .keep_unused = options->keep_unused};
    hypura_error_clear(error);
    return hypura_models_open(&places, models, error);
}

static bool copy(const char *text, char **to)
{
    *to = text ? strdup(text) : NULL;
    return *to || !text;
}

/* What `run` has a use for. A template in Go's language is for Ollama's routes alone. */
static bool copy_settings(const hypura_model_entry *entry, char **text)
{
    static const char *const kept[] = {"parameters", "system", "messages"};
    const char *jinja = hypura_model_entry_jinja(entry);
    json_t *settings = json_object();
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        json_t *value = json_object_get(entry->settings, kept[i]);
        if (value) {
            json_object_set(settings, kept[i], value);
        }
    }
    if (jinja) {
        json_object_set_new(settings, "template", json_string(jinja));
    }
    *text = json_object_size(settings) > 0 ? json_dumps(settings, JSON_COMPACT) : NULL;
    const bool copied = *text || json_object_size(settings) == 0;
    json_decref(settings);
    return copied;
}

static hypura_status take(const hypura_model_entry *entry, hypura_local_files *files, hypura_error *error)
{
    bool copied = copy(entry->path, &files->path) && copy(entry->projector_path, &files->projector) &&
                  copy_settings(entry, &files->settings);
    for (int i = 0; i < entry->n_adapters && copied; i++) {
        copied = copy(entry->adapter_paths[i], &files->adapters[i]);
    }
    if (!copied) {
        hypura_local_files_clear(files);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the paths of %s", entry->name);
    }
    return HYPURA_OK;
}

static hypura_status find(hypura_models *models, const char *name, hypura_find how, hypura_local_files *files,
                          hypura_error *error)
{
    const hypura_model_entry *entry = NULL;
    hypura_status status = hypura_models_find(models, name, how, &entry, error);
    if (entry && status == HYPURA_OK) {
        status = take(entry, files, error);
    }
    hypura_model_entry_release(entry);
    return status;
}

hypura_status hypura_local_find(const hypura_local_options *options, const char *name, hypura_local_files *files,
                                hypura_error *error)
{
    hypura_models *models = NULL;
    *files = (hypura_local_files){.path = NULL};
    hypura_status status = open_models(options, &models, error);
    if (status == HYPURA_OK) {
        status = find(models, name, HYPURA_FIND_TYPED, files, error);
    }
    hypura_models_close(models);
    return status;
}

void hypura_local_files_clear(hypura_local_files *files)
{
    free(files->path);
    free(files->projector);
    for (int i = 0; i < HYPURA_MAX_ADAPTERS; i++) {
        free(files->adapters[i]);
    }
    free(files->settings);
    *files = (hypura_local_files){.path = NULL};
}

hypura_status hypura_local_list(const hypura_local_options *options, hypura_local_fn visit, void *user,
                                hypura_error *error)
{
    hypura_models *models = NULL;
    hypura_model_list list = {0};
    hypura_status status = open_models(options, &models, error);
    if (status == HYPURA_OK) {
        status = hypura_models_list(models, &list, error);
    }
    bool more = true;
    for (size_t i = 0; status == HYPURA_OK && more && i < list.n; i++) {
        const hypura_model_entry *entry = list.entries[i];
        const hypura_local_model model = {.name = entry->name,
                                          .path = entry->path,
                                          .bytes = entry->bytes,
                                          .architecture = entry->family,
                                          .parameters = entry->parameter_size,
                                          .quantization = entry->quantization_level,
                                          .modified = entry->modified};
        more = visit(user, &model);
    }
    hypura_model_list_clear(&list);
    hypura_models_close(models);
    return status;
}

hypura_status hypura_local_save(const hypura_local_options *options, const char *from, const char *name,
                                const char *settings, hypura_error *error)
{
    hypura_models *models = NULL;
    const hypura_model_entry *entry = NULL;
    json_t *over = json_loads(settings, 0, NULL);
    hypura_status status = open_models(options, &models, error);
    if (status == HYPURA_OK && !over) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "the settings are no JSON");
    }
    if (status == HYPURA_OK) {
        status = hypura_models_find(models, from, HYPURA_FIND_TYPED, &entry, error);
    }
    if (status == HYPURA_OK && !entry) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "%s is not known by a name, so that no model can be made of it", from);
    }
    if (status == HYPURA_OK) {
        status = hypura_models_create(
            models, &(hypura_models_create_options){.name = name, .from = entry, .settings = over}, error);
    }
    hypura_model_entry_release(entry);
    json_decref(over);
    hypura_models_close(models);
    return status;
}

hypura_status hypura_local_remove(const hypura_local_options *options, const char *name, hypura_error *error)
{
    hypura_models *models = NULL;
    const hypura_model_entry *entry = NULL;
    hypura_status status = open_models(options, &models, error);
    if (status == HYPURA_OK) {
        status = hypura_models_find(models, name, HYPURA_FIND_EXACT, &entry, error);
    }
    if (status == HYPURA_OK && !entry) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "there is no model '%.200s'", name);
    }
    if (status == HYPURA_OK) {
        status = hypura_models_remove(models, entry, error);
    }
    hypura_model_entry_release(entry);
    hypura_models_close(models);
    return status;
}

hypura_status hypura_local_unused(const hypura_local_options *options, bool remove, hypura_local_files_unused *unused,
                                  hypura_error *error)
{
    hypura_models *models = NULL;
    *unused = (hypura_local_files_unused){.n_files = 0};
    const hypura_status status = open_models(options, &models, error);
    if (status == HYPURA_OK) {
        const hypura_unused found = hypura_models_unused(models, HYPURA_UNUSED_ANY, remove);
        *unused = (hypura_local_files_unused){.n_files = found.n_files, .bytes = found.bytes};
    }
    hypura_models_close(models);
    return status;
}

/* ---- pulling --------------------------------------------------------------------- */

static bool on_step(void *user, const hypura_pull_step *step)
{
    const hypura_local_watch *to = user;
    return !to->progress || to->progress(to->user, step->status, step->model_completed_bytes, step->model_bytes);
}

static void on_planned(void *user, size_t n_files, uint64_t bytes, uint64_t there_bytes)
{
    const hypura_local_watch *to = user;
    if (to->plan) {
        to->plan(to->user, &(hypura_local_plan){.n_files = n_files, .bytes = bytes, .there_bytes = there_bytes});
    }
}

hypura_status hypura_local_pull(const hypura_local_options *options, const char *name, const hypura_local_watch *watch,
                                char *path, size_t path_bytes, hypura_error *error)
{
    hypura_local_watch to = *watch;
    const hypura_pull_options pull = {.name = name,
                                      .hub_url = options->hub_url,
                                      .hub_token = options->hub_token,
                                      .registry_url = options->registry_url,
                                      .report = on_step,
                                      .planned = on_planned,
                                      .user = &to};
    hypura_models *models = NULL;
    path[0] = '\0';
    hypura_status status = open_models(options, &models, error);
    if (status == HYPURA_OK) {
        status = hypura_models_pull(models, &pull, error);
    }
    hypura_local_files files = {.path = NULL};
    if (status == HYPURA_OK) {
        status = find(models, name, HYPURA_FIND_EXACT, &files, error);
    }
    if (files.path && (size_t)snprintf(path, path_bytes, "%s", files.path) >= path_bytes) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "%s: its path is too long", name);
    }
    hypura_local_files_clear(&files);
    hypura_models_close(models);
    return status;
}
