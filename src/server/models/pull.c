/*
 * pull.c - see pull.h.
 *
 *     plan --> .partial/sha256-HEX, each locked until the end --> staging --> name
 *
 * A part that is complete stays where it is until all are: a pull that is broken
 * off between two files fetches none of them twice.
 *
 * What always holds: parts are locked in the order of their digests, whatever the order
 * of the model's files. Two models that share two files would else wait for each other.
 */
#include "server/models/pull_internal.h"

#include "base/clock.h"
#include "base/status.h"
#include "server/models/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { REPORT_US = 100000, LOCK_POLL_US = 100000, ASK_US = 1000000, PAUSE_US = 500000 };

typedef struct pull {
    hypura_models *models;
    const hypura_pull_options *options;
    hypura_fetch *fetch;
    hypura_pull_plan plan;
    char name[HYPURA_NAME_BYTES];
    const hypura_pull_file **order; /* in which the files of the plan are fetched */
    /* the file under way */
    const hypura_pull_file *file;
    uint64_t before_bytes; /* of the files before it */
    char status[64];
    char digest[HYPURA_DIGEST_BYTES + 8];
    uint64_t reported_us;
} pull;

/* ---- plans ------------------------------------------------------------------- */

static void clear_plan(hypura_pull_plan *plan)
{
    for (size_t i = 0; i < plan->n_files; i++) {
        free(plan->files[i].url);
    }
    free(plan->files);
    json_decref(plan->settings);
    *plan = (hypura_pull_plan){0};
}

/* A file listed twice is one. Each part is locked while it is filled: one file in two roles would wait for itself. */
static hypura_status check_new(const hypura_pull_plan *plan, const char *url, const char *sha256, const char *staged,
                               bool *is_new, hypura_error *error)
{
    *is_new = true;
    for (size_t i = 0; i < plan->n_files; i++) {
        const bool same_file = strcmp(plan->files[i].sha256, sha256) == 0;
        const bool same_role = strcmp(plan->files[i].staged, staged) == 0;
        *is_new = *is_new && !(same_file && same_role);
        if (same_file != same_role) {
            return hypura_fail(error, HYPURA_ERR_FORMAT, "%s: is listed as %s, %s", url, staged,
                               same_file ? "and as another part of the model" : "as another file is");
        }
    }
    return HYPURA_OK;
}

hypura_status hypura_pull_plan_add(hypura_pull_plan *plan, char *url, const char *sha256, uint64_t bytes,
                                   const char *staged, hypura_error *error)
{
    bool is_new;
    const hypura_status status = check_new(plan, url, sha256, staged, &is_new, error);
    if (status != HYPURA_OK || !is_new) {
        free(url);
        return status;
    }
    hypura_pull_file *larger = realloc(plan->files, (plan->n_files + 1) * sizeof *larger);
    if (larger == NULL) {
        free(url);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to list what is to be pulled");
    }
    plan->files = larger;
    hypura_pull_file *file = &plan->files[plan->n_files++];
    *file = (hypura_pull_file){.url = url, .bytes = bytes};
    (void)snprintf(file->sha256, sizeof file->sha256, "%s", sha256);
    (void)snprintf(file->staged, sizeof file->staged, "%s", staged);
    return HYPURA_OK;
}

/* ---- reports ------------------------------------------------------------------ */

static hypura_status report(const pull *p, const char *status, hypura_error *error)
{
    const hypura_pull_step step = {.status = status};
    bool go_on = p->options->report == NULL || p->options->report(p->options->user, &step);
    return go_on ? HYPURA_OK : hypura_fail(error, HYPURA_ERR_CANCELLED, "pulling %s was stopped", p->name);
}

static bool report_file(pull *p, uint64_t completed)
{
    hypura_pull_step step = {.status = p->status,
                             .digest = p->digest,
                             .total_bytes = p->file->bytes,
                             .completed_bytes = completed,
                             .model_completed_bytes = p->before_bytes + completed};
    for (size_t i = 0; i < p->plan.n_files; i++) {
        step.model_bytes += p->plan.files[i].bytes;
    }
    p->reported_us = hypura_clock_us();
    return p->options->report == NULL || p->options->report(p->options->user, &step);
}

static bool on_fetch(void *user, uint64_t done)
{
    pull *p = user;
    if (p->file == NULL) {
        /* Before the plan there is nothing to tell; a report of what was told asks whether to go on. */
        const hypura_pull_step step = {.status = "pulling manifest"};
        if (hypura_clock_us() - p->reported_us < ASK_US) {
            return true;
        }
        p->reported_us = hypura_clock_us();
        return p->options->report == NULL || p->options->report(p->options->user, &step);
    }
    return hypura_clock_us() - p->reported_us < REPORT_US || report_file(p, done);
}

/* ---- what is there already ------------------------------------------------------- */

static hypura_status partial_path(const pull *p, const hypura_pull_file *file, char *path, hypura_error *error)
{
    bool fits = hypura_store_path(path, "%s" HYPURA_STORE_PARTIAL "/sha256-%s", p->models->folder, file->sha256);
    return fits ? HYPURA_OK : hypura_fail(error, HYPURA_ERR_USAGE, "the path of the models folder is too long");
}

/* What STEM.json says of the files that a model came in. */
static json_t *source_of(const pull *p)
{
    json_t *source = json_array();
    for (size_t i = 0; i < p->plan.n_files; i++) {
        (void)json_array_append_new(source, json_pack("{s:s, s:I}", "sha256", p->plan.files[i].sha256, "bytes",
                                                      (json_int_t)p->plan.files[i].bytes));
    }
    return source;
}

/* True when the model is in the folder as it is published now. */
static bool is_current(const pull *p)
{
    char stem[HYPURA_NAME_BYTES];
    char path[HYPURA_STORE_PATH_BYTES];
    const hypura_model_entry *entry = NULL;
    uint64_t bytes = 0;
    if (hypura_models_find(p->models, p->name, HYPURA_FIND_EXACT, &entry, NULL) != HYPURA_OK || entry == NULL) {
        return false;
    }
    hypura_name_stem(entry->name, stem);
    json_t *root = hypura_store_path(path, "%s/%s.json", p->models->folder, stem) ? hypura_store_read_json(path) : NULL;
    json_t *source = source_of(p);
    for (size_t i = 0; i < p->plan.n_files; i++) {
        bytes += p->plan.files[i].bytes;
    }
    bool same = entry->origin == HYPURA_MODEL_FOLDER && entry->bytes == bytes &&
                json_equal(source, json_object_get(root, "source"));
    json_decref(source);
    json_decref(root);
    hypura_model_entry_release(entry);
    return same;
}

/* From here on what is there of the parts is this pull's, whoever clears the folder. */
static hypura_status hold_parts(const pull *p, int *held, hypura_error *error)
{
    char path[HYPURA_STORE_PATH_BYTES];
    hypura_status status = partial_path(p, &p->plan.files[0], path, error);
    status = status == HYPURA_OK ? hypura_store_make_place(path, error) : status;
    *held = status == HYPURA_OK ? hypura_store_hold(p->models, HYPURA_STORE_PARTIAL) : -1;
    return status == HYPURA_OK && *held < 0 ? hypura_fail_errno(error, errno, "cannot lock the folder of %s", path) : status;
}

/* Tells what is to come. It has to fit, rather now than when the drive is full. */
static hypura_status check_room(const pull *p, hypura_error *error)
{
    uint64_t missing = 0;
    uint64_t bytes = 0;
    char path[HYPURA_STORE_PATH_BYTES];
    hypura_os_drive drive;
    for (size_t i = 0; i < p->plan.n_files; i++) {
        hypura_status status = partial_path(p, &p->plan.files[i], path, error);
        struct stat st;
        if (status != HYPURA_OK) {
            return status;
        }
        uint64_t there = stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
        missing += p->plan.files[i].bytes > there ? p->plan.files[i].bytes - there : 0;
        bytes += p->plan.files[i].bytes;
    }
    if (p->options->planned != NULL) {
        p->options->planned(p->options->user, p->plan.n_files, bytes, bytes - missing);
    }
    const bool known = hypura_os_drive_read(p->models->folder, &drive, NULL) == HYPURA_OK;
    return known && drive.free_bytes < missing ? hypura_os_fail_write(ENOSPC, path, missing, error) : HYPURA_OK;
}

/* ---- fetching ----------------------------------------------------------------- */

/* Opens the part and locks it. While someone else fills it, tells how far that is. */
static hypura_status open_part(pull *p, const char *path, int *fd, hypura_error *error)
{
    for (;;) {
        struct stat st;
        struct stat named;
        *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (*fd < 0) {
            return hypura_os_fail_write(errno, path, p->file->bytes, error);
        }
        bool locked = flock(*fd, LOCK_EX | LOCK_NB) == 0;
        bool known = fstat(*fd, &st) == 0;
        /* It may have been given its name between opening and locking. */
        if (locked && known && stat(path, &named) == 0 && named.st_ino == st.st_ino) {
            return HYPURA_OK;
        }
        (void)close(*fd);
        if (!locked) {
            if (!report_file(p, known && (uint64_t)st.st_size < p->file->bytes ? (uint64_t)st.st_size : 0)) {
                return hypura_fail(error, HYPURA_ERR_CANCELLED, "pulling %s was stopped", p->name);
            }
            (void)usleep(LOCK_POLL_US);
        }
    }
}

/* Opens one part, which stays locked in *fd, and fills it; when another pull has
 * given the model its name meanwhile, *current is set instead. */
static hypura_status fetch_part(pull *p, const hypura_pull_file *file, int *fd, bool *current, hypura_error *error)
{
    char path[HYPURA_STORE_PATH_BYTES];
    p->file = file;
    (void)snprintf(p->status, sizeof p->status, "pulling %.12s", file->sha256);
    (void)snprintf(p->digest, sizeof p->digest, "sha256:%s", file->sha256);
    hypura_status status = partial_path(p, file, path, error);
    status = status == HYPURA_OK ? open_part(p, path, fd, error) : status;
    *current = status == HYPURA_OK && is_current(p);
    if (status == HYPURA_OK && !*current) {
        status = hypura_fetch_file(p->fetch, file->url, file->bytes, file->sha256, *fd, path, error);
        if (status == HYPURA_ERR_FORMAT) {
            (void)unlink(path);
        }
    }
    if (status == HYPURA_OK && !report_file(p, file->bytes)) {
        status = hypura_fail(error, HYPURA_ERR_CANCELLED, "pulling %s was stopped", p->name);
    }
    return status;
}

/* Gives the files their name. */
static hypura_status install(const pull *p, hypura_error *error)
{
    char from[HYPURA_STORE_PATH_BYTES];
    char to[HYPURA_STORE_PATH_BYTES];
    hypura_staging staging;
    hypura_status status = hypura_staging_begin(p->models, &staging, error);
    for (size_t i = 0; i < p->plan.n_files && status == HYPURA_OK; i++) {
        status = partial_path(p, &p->plan.files[i], from, error);
        if (status == HYPURA_OK && hypura_store_path(to, "%s/%s", staging.path, p->plan.files[i].staged) &&
            !hypura_store_link(from, to) && rename(from, to) != 0) {
            status = hypura_fail_errno(error, errno, "cannot move %s", from);
        }
    }
    json_t *root = json_pack("{s:i, s:o, s:O}", "version", 1, "source", source_of(p), "settings", p->plan.settings);
    if (status == HYPURA_OK && hypura_store_path(to, "%s/model.json", staging.path)) {
        status = root == NULL ? hypura_store_out_of_memory(error) : hypura_store_write_json(to, root, error);
    }
    json_decref(root);
    status = status == HYPURA_OK ? hypura_staging_install(p->models, &staging, p->name, NULL, error) : status;
    for (size_t i = 0; i < p->plan.n_files && status != HYPURA_OK && staging.path[0] != '\0'; i++) {
        if (hypura_store_path(to, "%s/%s", staging.path, p->plan.files[i].staged) &&
            partial_path(p, &p->plan.files[i], from, NULL) == HYPURA_OK) {
            (void)rename(to, from); /* where it was moved and not linked it would go with the folder */
        }
    }
    hypura_staging_end(&staging);
    return status;
}

/* The first ones, that are locked here: of another model, some of the others may be under way. */
static void remove_parts(const pull *p, size_t n)
{
    char path[HYPURA_STORE_PATH_BYTES];
    for (size_t i = 0; i < n; i++) {
        if (partial_path(p, p->order[i], path, NULL) == HYPURA_OK) {
            (void)remove(path);
        }
    }
}

static int by_digest(const void *a, const void *b)
{
    const hypura_pull_file *const *x = a;
    const hypura_pull_file *const *y = b;
    return strcmp((*x)->sha256, (*y)->sha256);
}

static hypura_status order_files(pull *p, hypura_error *error)
{
    p->order = malloc((p->plan.n_files + 1) * sizeof *p->order);
    if (p->order == NULL) {
        return hypura_store_out_of_memory(error);
    }
    for (size_t i = 0; i < p->plan.n_files; i++) {
        p->order[i] = &p->plan.files[i];
    }
    qsort(p->order, p->plan.n_files, sizeof *p->order, by_digest);
    return HYPURA_OK;
}

static hypura_status fetch_all(pull *p, hypura_error *error)
{
    size_t n = p->plan.n_files;
    int *fds = malloc((n + 1) * sizeof *fds);
    if (fds == NULL) {
        return hypura_store_out_of_memory(error);
    }
    hypura_status status = HYPURA_OK;
    bool current = false;
    size_t n_open = 0;
    for (size_t i = 0; i < n && status == HYPURA_OK && !current; i++) {
        fds[n_open] = -1;
        status = fetch_part(p, p->order[i], &fds[n_open++], &current, error);
        p->before_bytes += p->order[i]->bytes;
    }
    p->file = NULL;
    status = status == HYPURA_OK ? report(p, "verifying sha256 digest", error) : status;
    status = status == HYPURA_OK ? report(p, "writing manifest", error) : status;
    status = status == HYPURA_OK && !current ? install(p, error) : status;
    if (status == HYPURA_OK) {
        remove_parts(p, n_open);
    }
    for (size_t i = 0; i < n_open; i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
    }
    free(fds);
    return status;
}

/* ---- the pull -------------------------------------------------------------------- */

static bool is_of_hub(const char *name)
{
    return strncasecmp(name, "hf.co/", 6) == 0;
}

/* A file of the command line keeps its name: told before anything is fetched. */
static hypura_status refuse_fixed(const pull *p, hypura_error *error)
{
    const hypura_model_entry *entry = NULL;
    hypura_status status = hypura_models_find(p->models, p->name, HYPURA_FIND_EXACT, &entry, error);
    if (entry != NULL && entry->origin == HYPURA_MODEL_PATH) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "%s is a file named on the command line: it is not pulled",
                             entry->name);
    }
    hypura_model_entry_release(entry);
    return status;
}

/* True when the first word is a host: it has a dot. */
static bool has_host(const char *name)
{
    const char *slash = strchr(name, '/');
    const char *dot = strchr(name, '.');
    return slash != NULL && dot != NULL && dot < slash;
}

static hypura_status make_plan(pull *p, hypura_error *error)
{
    const hypura_pull_options *o = p->options;
    p->plan.settings = json_object();
    if (p->plan.settings == NULL) {
        return hypura_store_out_of_memory(error);
    }
    if (is_of_hub(p->name)) {
        return hypura_pull_plan_hub(p->fetch, o->hub_url != NULL ? o->hub_url : "https://huggingface.co", p->name,
                                    &p->plan, error);
    }
    if (has_host(p->name)) {
        return hypura_fail(
            error, HYPURA_ERR_UNSUPPORTED,
            "models are pulled from hf.co/USER/REPOSITORY and from Ollama's registry, from no other host");
    }
    return hypura_pull_plan_registry(p->fetch, o->registry_url != NULL ? o->registry_url : "https://registry.ollama.ai",
                                     p->name, &p->plan, error);
}

hypura_status hypura_models_pull(hypura_models *models, const hypura_pull_options *options, hypura_error *error)
{
    pull p = {.models = models, .options = options};
    hypura_status status = hypura_name_check(options->name, p.name, error);
    if (status == HYPURA_OK && models->folder[0] == '\0') {
        status = hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                             "there is no models folder to pull into: name one with --models DIR or HYPURA_MODELS");
    }
    status = status == HYPURA_OK ? refuse_fixed(&p, error) : status;
    status = status == HYPURA_OK ? report(&p, "pulling manifest", error) : status;
    p.reported_us = hypura_clock_us();
    if (status == HYPURA_OK) {
        /* The token is the hub's, and nobody else's to see. */
        const char *token = is_of_hub(p.name) ? options->hub_token : NULL;
        status = hypura_fetch_open(token, options->pause_us != 0 ? options->pause_us : PAUSE_US, on_fetch, &p, &p.fetch,
                                   error);
    }
    status = status == HYPURA_OK ? make_plan(&p, error) : status;
    if (status == HYPURA_OK && !is_current(&p)) {
        int held = -1;
        status = hold_parts(&p, &held, error);
        status = status == HYPURA_OK ? check_room(&p, error) : status;
        status = status == HYPURA_OK ? order_files(&p, error) : status;
        status = status == HYPURA_OK ? fetch_all(&p, error) : status;
        hypura_store_let_go(held);
    }
    status = status == HYPURA_OK ? report(&p, "success", error) : status;
    hypura_fetch_close(p.fetch);
    free(p.order);
    clear_plan(&p.plan);
    return status;
}
