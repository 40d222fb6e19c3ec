/*
 * store_install.c - see store_internal.h: how a model gets its name, and loses it.
 *
 *     .staging/XXXXXX/names     both stems, and what is to be renamed      1
 *     .staging/XXXXXX/old*   <--  OLD STEM*                                2
 *     .staging/XXXXXX/model*  --> STEM*                                    3
 *     .staging/XXXXXX           removed                                    4
 *
 * What always holds:
 *  1. What is listed is whole: the file that the listing looks for leaves first and comes last.
 *  2. As long as any model* is staged, what had the name can be put back: by the install itself, where a step fails,
 *     else by whoever opens the folder, or has a turn, next. With the last one gone the new model is there, and the old files go.
 *  3. Installs and removals of a folder take turns, whatever process they are of (flock of .staging).
 */
#include "server/models/store_internal.h"

#include "base/status.h"
#include "gguf/records.h"
#include "gguf/split.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define STAGED "model"
#define OLD    "old"
#define NAMES  "/names"

enum { ENDING_BYTES = 64 };

/* ---- the files of a model ------------------------------------------------------ */

/* How the i-th of the files ends that it may have, the one that is listed first; false when there are no more. */
static bool file_ending(const hypura_entry *entry, int i, char *ending)
{
    hypura_split_name split;
    if (entry->is.origin == HYPURA_MODEL_ALIAS) {
        (void)snprintf(ending, ENDING_BYTES, ".json");
        return i == 0;
    }
    const char *listed = entry->below + strlen(entry->stem);
    const int n_parts = hypura_split_parse(entry->below, &split) ? split.n_parts : 1;
    if (i == 0) {
        (void)snprintf(ending, ENDING_BYTES, "%s", listed);
    } else if (i < n_parts) {
        (void)snprintf(ending, ENDING_BYTES, "-%05d-of-%05d.gguf", i + 1, n_parts);
    } else if (i == n_parts) { /* its experts, laid out anew (gguf/records.h): of no use without it */
        (void)snprintf(ending, ENDING_BYTES, "%s" HYPURA_RECORDS_SUFFIX, listed);
    } else if (i == n_parts + 1) {
        (void)snprintf(ending, ENDING_BYTES, ".mmproj.gguf");
    } else if (i == n_parts + 2) {
        (void)snprintf(ending, ENDING_BYTES, ".json");
    } else {
        hypura_store_adapter_ending(i - n_parts - 3, ending);
    }
    return i < n_parts + 3 + HYPURA_MAX_ADAPTERS;
}

/* Removes folders that became empty, up to the models folder. */
static void prune(const hypura_models *models, const char *below)
{
    char path[HYPURA_STORE_PATH_BYTES];
    size_t root = strlen(models->folder);
    if (!hypura_store_path(path, "%s/%s", models->folder, below)) {
        return;
    }
    for (char *slash = strrchr(path, '/'); slash != NULL && (size_t)(slash - path) > root; slash = strrchr(path, '/')) {
        *slash = '\0';
        if (rmdir(path) != 0) {
            return;
        }
    }
}

/* ---- moving ---------------------------------------------------------------------- */

/* Between the staging folder and the models folder: STAGING/PREFIX.ENDING, FOLDER/STEM.ENDING. False with errno. */
static bool move(const char *staging, const char *prefix, const char *folder, const char *stem, const char *ending, bool out)
{
    char inside[HYPURA_STORE_PATH_BYTES];
    char outside[HYPURA_STORE_PATH_BYTES];
    if (!hypura_store_path(inside, "%s/%s%s", staging, prefix, ending) ||
        !hypura_store_path(outside, "%s/%s%s", folder, stem, ending)) {
        errno = ENAMETOOLONG;
        return false;
    }
    return rename(out ? inside : outside, out ? outside : inside) == 0;
}

static bool is_listed(const char *ending)
{
    char name[ENDING_BYTES + sizeof STAGED];
    hypura_split_name split;
    (void)snprintf(name, sizeof name, STAGED "%s", ending);
    return hypura_split_parse(name, &split) ? split.part == 1 : strcasecmp(ending, ".gguf") == 0;
}

/* Endings of the files of that prefix in a staging folder, the listed one last; a new array. NULL with errno where the folder
 * cannot be read to its end, which says nothing of what it has. */
static json_t *endings_of(const char *staging, const char *prefix)
{
    json_t *endings = json_array();
    char last[ENDING_BYTES] = "";
    DIR *folder = opendir(staging);
    int problem = folder == NULL ? errno : endings == NULL ? ENOMEM : 0;
    while (problem == 0) {
        errno = 0;
        const struct dirent *d = readdir(folder);
        if (d == NULL) {
            problem = errno;
            break;
        }
        const char *ending = d->d_name + strlen(prefix);
        if (strncmp(d->d_name, prefix, strlen(prefix)) != 0 || strlen(ending) >= sizeof last) {
            continue;
        }
        if (is_listed(ending)) {
            (void)strcpy(last, ending);
        } else if (json_array_append_new(endings, json_string(ending)) != 0) {
            problem = ENOMEM;
        }
    }
    if (folder != NULL) {
        (void)closedir(folder);
    }
    if (problem == 0 && last[0] != '\0' && json_array_append_new(endings, json_string(last)) != 0) {
        problem = ENOMEM;
    }
    if (problem != 0) {
        json_decref(endings);
        endings = NULL;
    }
    errno = problem;
    return endings;
}

static bool is_staged(const char *staging, const char *ending)
{
    char path[HYPURA_STORE_PATH_BYTES];
    return hypura_store_path(path, "%s/" STAGED "%s", staging, ending) && access(path, F_OK) == 0;
}

/* From here on nothing is put back. */
static void end_names(const char *staging)
{
    char path[HYPURA_STORE_PATH_BYTES];
    if (hypura_store_path(path, "%s" NAMES, staging)) {
        (void)unlink(path);
    }
}

/* As this file writes them: no path leads anywhere else. */
static bool are_names(const json_t *names)
{
    const char *stem = json_string_value(json_object_get(names, "stem"));
    const json_t *old = json_object_get(names, "old");
    const json_t *files = json_object_get(names, "files");
    bool good = stem != NULL && strstr(stem, "..") == NULL && json_is_array(files) &&
                (old == NULL || (json_is_string(old) && strstr(json_string_value(old), "..") == NULL));
    size_t i;
    const json_t *ending;
    json_array_foreach(files, i, ending)
    {
        good = good && json_is_string(ending) && strchr(json_string_value(ending), '/') == NULL;
    }
    return good;
}

/* What was to be renamed, a new reference; NULL where nothing was begun, as before the file is whole, or all of it done; and
 * where it cannot be read. staged: the endings of what is there still. */
static json_t *read_names(const char *staging, const json_t *staged)
{
    char path[HYPURA_STORE_PATH_BYTES];
    const bool may = json_array_size(staged) > 0 && hypura_store_path(path, "%s" NAMES, staging);
    json_t *names = may ? hypura_store_read_json(path) : NULL;
    if (names != NULL && !are_names(names)) {
        json_decref(names);
        names = NULL;
    }
    return names;
}

bool hypura_store_is_broken(const char *staging)
{
    json_t *staged = endings_of(staging, STAGED);
    json_t *old = endings_of(staging, OLD);
    json_t *names = read_names(staging, staged);
    const bool is_known = staged != NULL && old != NULL;
    const bool broken = !is_known || names != NULL || (json_array_size(staged) > 0 && json_array_size(old) > 0);
    json_decref(names);
    json_decref(old);
    json_decref(staged);
    return broken;
}

/* ---- putting back ------------------------------------------------------------------ */

/* What had the name gets its files back, where an install did not come to its end. False when these are still in the staging
 * folder, which is nobody else's, with error, which may be NULL. */
static bool put_back(const hypura_models *models, const char *staging, hypura_error *error)
{
    json_t *staged = endings_of(staging, STAGED);
    json_t *old = endings_of(staging, OLD);
    json_t *names = read_names(staging, staged);
    const bool is_known = staged != NULL && old != NULL;
    const char *stem = json_string_value(json_object_get(names, "stem"));
    const char *old_stem = json_string_value(json_object_get(names, "old"));
    size_t i;
    const json_t *ending;
    bool back = is_known && (names != NULL || json_array_size(old) == 0); /* else nobody knows whose these are */
    errno = EIO;
    json_array_foreach(json_object_get(names, "files"), i, ending)
    {
        const char *text = json_string_value(ending);
        if (back && !is_staged(staging, text)) {
            back = move(staging, STAGED, models->folder, stem, text, false) || errno == ENOENT;
        }
    }
    json_array_foreach(old_stem != NULL ? old : NULL, i, ending)
    {
        back = back && move(staging, OLD, models->folder, old_stem, json_string_value(ending), true);
    }
    if (!back) {
        (void)hypura_fail_errno(error, errno,
                                "cannot put back %s/%s.*: its files are in %s, and are put back when the folder is opened next",
                                models->folder, old_stem != NULL ? old_stem : stem != NULL ? stem : "", staging);
    } else {
        end_names(staging);
    }
    json_decref(names);
    json_decref(old);
    json_decref(staged);
    return back;
}

/* ---- turns ------------------------------------------------------------------------- */

/* In a turn: of an install whose process was killed. */
static void put_back_left(const hypura_models *models, const char *left)
{
    if (hypura_store_is_broken(left)) {
        (void)put_back(models, left, NULL);
    }
}

int hypura_store_take_turn(const hypura_models *models)
{
    char path[HYPURA_STORE_PATH_BYTES];
    const int turn = hypura_store_path(path, "%s" HYPURA_STORE_STAGING, models->folder)
                         ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                         : -1;
    while (turn >= 0 && flock(turn, LOCK_EX) != 0 && errno == EINTR) {
    }
    hypura_staging_each_left(models, put_back_left);
    return turn;
}

hypura_status hypura_store_unlink(hypura_models *models, const hypura_entry *entry, hypura_error *error)
{
    char path[HYPURA_STORE_PATH_BYTES];
    char ending[ENDING_BYTES];
    const int turn = hypura_store_take_turn(models);
    hypura_status status = HYPURA_OK;
    hypura_store_forget(models);
    for (int i = 0; status == HYPURA_OK && file_ending(entry, i, ending); i++) {
        if (!hypura_store_path(path, "%s/%s%s", models->folder, entry->stem, ending)) {
            status = hypura_fail(error, HYPURA_ERR_USAGE, "the path of the model is too long");
        } else if (unlink(path) != 0 && errno != ENOENT) {
            status = hypura_fail_errno(error, errno, "cannot remove %s", path);
        }
    }
    if (status == HYPURA_OK) {
        prune(models, entry->stem);
    }
    hypura_store_let_go(turn);
    return status;
}

/* ---- installing -------------------------------------------------------------------- */

/* Says what is to be renamed, on the drive before anything is. */
static hypura_status write_names(const hypura_staging *staging, const char *stem, const hypura_entry *before,
                                 json_t *endings, hypura_error *error)
{
    char path[HYPURA_STORE_PATH_BYTES];
    json_t *names = json_pack("{s:s, s:s*, s:O}", "stem", stem, "old", before != NULL ? before->stem : NULL, "files", endings);
    const hypura_status status = names == NULL || !hypura_store_path(path, "%s" NAMES, staging->path)
                                     ? hypura_store_out_of_memory(error)
                                     : hypura_store_write_json(path, names, error);
    json_decref(names);
    return status;
}

static hypura_status fail_move(const hypura_models *models, const char *stem, const char *ending, hypura_error *error)
{
    char path[HYPURA_STORE_PATH_BYTES];
    const int problem = errno;
    return hypura_store_path(path, "%s/%s%s", models->folder, stem, ending)
               ? hypura_os_fail_write(problem, path, 0, error)
               : hypura_fail(error, HYPURA_ERR_USAGE, "the path of the model is too long");
}

static hypura_status move_old(const hypura_models *models, const hypura_staging *staging, const hypura_entry *before,
                              hypura_error *error)
{
    char ending[ENDING_BYTES];
    for (int i = 0; before != NULL && file_ending(before, i, ending); i++) {
        if (!move(staging->path, OLD, models->folder, before->stem, ending, false) && errno != ENOENT) {
            return fail_move(models, before->stem, ending, error);
        }
    }
    return HYPURA_OK;
}

static hypura_status move_new(const hypura_models *models, const hypura_staging *staging, const char *stem,
                              const json_t *endings, hypura_error *error)
{
    size_t i;
    const json_t *ending;
    json_array_foreach(endings, i, ending)
    {
        if (!move(staging->path, STAGED, models->folder, stem, json_string_value(ending), true)) {
            return fail_move(models, stem, json_string_value(ending), error);
        }
    }
    return HYPURA_OK;
}

/* What was staged of another model is one version of it: somebody may have given the name to another one meanwhile. */
static hypura_status check_source(const hypura_models *models, const hypura_staging *staging, const hypura_model_entry *from,
                                  const json_t *endings, hypura_error *error)
{
    char path[HYPURA_STORE_PATH_BYTES];
    struct stat staged;
    const hypura_os_identity *file = &((const hypura_entry *)from)->file;
    const hypura_entry *now = hypura_entries_find(&models->entries, from->name);
    bool same = now != NULL && strcmp(now->is.digest, from->digest) == 0 && now->file.inode == file->inode;
    const char *listed = json_string_value(json_array_get(endings, json_array_size(endings) - 1));
    if (same && listed != NULL && is_listed(listed)) {
        same = hypura_store_path(path, "%s/" STAGED "%s", staging->path, listed) && stat(path, &staged) == 0 &&
               (uint64_t)staged.st_size == file->bytes && (staged.st_nlink == 1 || (uint64_t)staged.st_ino == file->inode);
    }
    return same ? HYPURA_OK
                : hypura_fail(error, HYPURA_ERR_IO, "%s became another model meanwhile: try again", from->name);
}

/* The file of that ending beside one stem is that beside the other: where names differ by case alone, and the drive does not
 * tell these apart. */
static bool is_same_file(const hypura_models *models, const char *stem, const char *other, const char *ending)
{
    char path[HYPURA_STORE_PATH_BYTES];
    char other_path[HYPURA_STORE_PATH_BYTES];
    hypura_os_identity one;
    hypura_os_identity two;
    return hypura_store_path(path, "%s/%s%s", models->folder, stem, ending) && hypura_os_identity_of_path(path, &one) &&
           hypura_store_path(other_path, "%s/%s%s", models->folder, other, ending) &&
           hypura_os_identity_of_path(other_path, &two) && one.device == two.device && one.inode == two.inode;
}

/* What is beside the name and of no model, as a removal leaves it that is broken off, would be taken for this one's: its
 * answers would be another model's. */
static hypura_status check_beside(const hypura_models *models, const hypura_staging *staging, const char *stem,
                                  const hypura_entry *before, hypura_error *error)
{
    char path[HYPURA_STORE_PATH_BYTES];
    char ending[ENDING_BYTES] = ".json";
    for (int i = 0; i <= HYPURA_MAX_ADAPTERS; i++) {
        const bool is_its_own = before != NULL && is_same_file(models, stem, before->stem, ending);
        if (!is_its_own && hypura_store_path(path, "%s/%s%s", models->folder, stem, ending) && access(path, F_OK) == 0 &&
            !is_staged(staging->path, ending)) {
            return hypura_fail(error, HYPURA_ERR_USAGE,
                               "%s is of no model, and would be part of this one: remove it, or choose another name", path);
        }
        hypura_store_adapter_ending(i, ending);
    }
    return HYPURA_OK;
}

/* `before` is what has the name in the folder; NULL: nothing. */
static hypura_status install(const hypura_models *models, hypura_staging *staging, const char *stem,
                             const hypura_entry *before, const hypura_model_entry *from, hypura_error *error)
{
    char target[HYPURA_STORE_PATH_BYTES];
    json_t *endings = endings_of(staging->path, STAGED);
    hypura_status status = HYPURA_OK;
    if (endings == NULL) {
        status = hypura_fail_errno(error, errno, "cannot read %s", staging->path);
    } else if (json_array_size(endings) == 0) {
        status = hypura_fail(error, HYPURA_ERR_IO, "what was in %s was removed meanwhile: try again", staging->path);
    } else if (!hypura_store_path(target, "%s/%s", models->folder, stem)) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "the path of the models folder is too long");
    }
    status = status == HYPURA_OK && from != NULL ? check_source(models, staging, from, endings, error) : status;
    status = status == HYPURA_OK ? hypura_store_make_place(target, error) : status;
    status = status == HYPURA_OK ? check_beside(models, staging, stem, before, error) : status;
    status = status == HYPURA_OK ? write_names(staging, stem, before, endings, error) : status;
    if (status == HYPURA_OK) {
        status = move_old(models, staging, before, error);
        status = status == HYPURA_OK ? move_new(models, staging, stem, endings, error) : status;
        if (status == HYPURA_OK) {
            end_names(staging->path);
        } else if (!put_back(models, staging->path, error)) {
            staging->path[0] = '\0'; /* it stays as it is */
        }
    }
    if (status == HYPURA_OK && before != NULL) {
        prune(models, before->stem);
    }
    json_decref(endings);
    return status;
}

hypura_status hypura_staging_install(hypura_models *models, hypura_staging *staging, const char *name,
                                     const hypura_model_entry *from, hypura_error *error)
{
    char stem[HYPURA_NAME_BYTES];
    hypura_name_stem(name, stem);
    (void)pthread_mutex_lock(&models->mutex);
    const int turn = hypura_store_take_turn(models);
    hypura_status status = hypura_store_scan(models, error);
    const hypura_entry *before = status == HYPURA_OK ? hypura_entries_find(&models->entries, name) : NULL;
    if (before != NULL && before->is.origin == HYPURA_MODEL_PATH) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "%s is a file named on the command line: choose another name",
                             before->is.name);
    }
    if (before != NULL && before->is.origin == HYPURA_MODEL_OLLAMA) {
        before = NULL;
    }
    status = status == HYPURA_OK ? install(models, staging, stem, before, from, error) : status;
    hypura_store_forget(models);
    hypura_store_let_go(turn);
    (void)pthread_mutex_unlock(&models->mutex);
    return status;
}
