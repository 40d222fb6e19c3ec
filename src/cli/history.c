/*
 * history.c - see history.h.
 */
#include "cli/history.h"

#include "base/status.h"
#include "cli/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_role(const char *role)
{
    return role && (strcmp(role, "system") == 0 || strcmp(role, "user") == 0 || strcmp(role, "assistant") == 0);
}

static hypura_status take_shown(hypura_shown_files *shown, const json_t *message, hypura_error *error)
{
    const json_t *images = json_object_get(message, "images");
    size_t i;
    const json_t *path;
    json_array_foreach(images, i, path)
    {
        if (!json_is_string(path)) {
            return hypura_fail(error, HYPURA_ERR_FORMAT, "\"images\" has to be an array of paths");
        }
        if (hypura_shown_add(shown, json_string_value(path), error) != HYPURA_OK) {
            return error->status;
        }
    }
    return HYPURA_OK;
}

/* Of what was read. */
static hypura_status take_messages(hypura_history *history, hypura_error *error)
{
    const size_t n = json_array_size(history->messages);
    if (!json_is_array(history->messages) || n > INT32_MAX) {
        return hypura_fail(error, HYPURA_ERR_FORMAT, "%s is no conversation: an array of messages is wanted",
                           history->path);
    }
    history->said = calloc(n + 1, sizeof *history->said);
    history->shown = calloc(n + 1, sizeof *history->shown);
    if (!history->said || !history->shown) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %zu messages", n);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *message = json_array_get(history->messages, i);
        const char *role = json_string_value(json_object_get(message, "role"));
        const char *text = json_string_value(json_object_get(message, "content"));
        if (!is_role(role) || !text) {
            return hypura_fail(error, HYPURA_ERR_FORMAT,
                               "%s: message %zu needs a \"role\" (system, user or assistant) and a text as \"content\"",
                               history->path, i + 1);
        }
        history->n_said = (int)i + 1;
        if (take_shown(&history->shown[i], message, error) != HYPURA_OK) {
            hypura_fail_prefix(error, "%s: message %zu", history->path, i + 1);
            return error->status;
        }
        history->said[i] = (hypura_message){.role = role,
                                            .text = text,
                                            .thought = json_string_value(json_object_get(message, "reasoning_content")),
                                            .media = history->shown[i].media,
                                            .n_media = history->shown[i].n};
    }
    return HYPURA_OK;
}

hypura_status hypura_history_begin(hypura_history *history, json_t *messages, hypura_error *error)
{
    hypura_history begun = {
        .path = history->path, .system = history->system, .kept = history->kept, .messages = json_incref(messages)};
    const hypura_status status = take_messages(&begun, error);
    hypura_history_close(status == HYPURA_OK ? history : &begun);
    if (status == HYPURA_OK) {
        *history = begun;
    }
    return status;
}

hypura_status hypura_history_read(const char *path, hypura_history *history, hypura_error *error)
{
    json_error_t reason;
    *history = (hypura_history){.path = path, .messages = json_load_file(path, 0, &reason)};
    const int problem = errno;
    hypura_status status = HYPURA_OK;
    if (!history->messages && json_error_code(&reason) == json_error_cannot_open_file) {
        status = hypura_fail_errno(error, problem, "cannot open %s", path);
    } else if (!history->messages) {
        status = hypura_fail(error, HYPURA_ERR_FORMAT, "%s is no conversation: line %d: %s", path, reason.line, reason.text);
    }
    status = status == HYPURA_OK ? take_messages(history, error) : status;
    if (status != HYPURA_OK) {
        hypura_history_close(history);
    }
    return status;
}

hypura_status hypura_history_open(const char *path, hypura_history *history, hypura_error *error)
{
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    const int problem = errno;
    json_error_t reason;
    *history = (hypura_history){.path = path};
    hypura_status status = hypura_output_check(path, error);
    if (status == HYPURA_OK && descriptor < 0 && problem != ENOENT) {
        status = hypura_fail_errno(error, problem, "cannot read %s", path);
    }
    if (status == HYPURA_OK) {
        struct stat file = {.st_size = 0};
        const bool empty = descriptor < 0 || (fstat(descriptor, &file) == 0 && file.st_size == 0);
        history->messages = empty ? json_array() : json_loadfd(descriptor, 0, &reason);
        status = history->messages ? take_messages(history, error)
                                   : hypura_fail(error, HYPURA_ERR_FORMAT, "%s is no conversation: line %d: %s", path,
                                                 reason.line, reason.text);
    }
    if (status != HYPURA_OK) {
        hypura_history_close(history);
    } else if (descriptor >= 0) {
        (void)fstat(descriptor, &history->kept);
    }
    if (descriptor >= 0) {
        close(descriptor);
    }
    return status;
}

/* By absolute paths: the next run may begin in another folder. */
static json_t *paths_of(const hypura_generate_options *asked)
{
    json_t *paths = json_array();
    for (int i = 0; i < asked->n_media; i++) {
        char *real = realpath(asked->media[i].name, NULL);
        hypura_json_append(&paths, hypura_json_string(real ? real : asked->media[i].name));
        free(real);
    }
    return paths;
}

static void add(json_t **messages, const char *role, const char *text, const char *thought,
                const hypura_generate_options *asked)
{
    json_t *message = json_object();
    hypura_json_text(&message, "role", role);
    hypura_json_text(&message, "content", text);
    if (thought && thought[0] != '\0') {
        hypura_json_text(&message, "reasoning_content", thought);
    }
    if (asked && asked->n_media > 0) {
        hypura_json_set(&message, "images", paths_of(asked));
    }
    hypura_json_append(messages, message);
}

bool hypura_history_shows(const hypura_history *history)
{
    for (int i = 0; i < history->n_said; i++) {
        if (history->said[i].n_media > 0) {
            return true;
        }
    }
    return false;
}

/* Two runs with one file, or somebody who edits it: what is there now was not read. */
static bool is_changed(const hypura_history *history)
{
    const struct stat *kept = &history->kept;
    struct stat now;
    return stat(history->path, &now) == 0 && S_ISREG(now.st_mode) &&
           (now.st_dev != kept->st_dev || now.st_ino != kept->st_ino || now.st_size != kept->st_size ||
            now.st_mtime != kept->st_mtime);
}

static hypura_status write_messages(hypura_history *history, hypura_error *error)
{
    if (is_changed(history)) {
        return hypura_fail(error, HYPURA_ERR_IO,
                           "%s was changed by somebody else since it was read, and is left as it is: this answer is not kept "
                           "there (give each run a file of its own)",
                           history->path);
    }
    const hypura_status status = hypura_json_write(json_incref(history->messages), history->path, error);
    if (status == HYPURA_OK && stat(history->path, &history->kept) != 0) {
        history->kept = (struct stat){.st_size = 0};
    }
    return status;
}

hypura_status hypura_history_add(hypura_history *history, const hypura_generate_options *asked, const hypura_result *answer,
                                 hypura_error *error)
{
    history->messages = history->messages ? history->messages : json_array();
    if (history->system && json_array_size(history->messages) == 0) {
        add(&history->messages, "system", history->system, NULL, NULL);
    }
    add(&history->messages, "user", asked->prompt, NULL, asked);
    add(&history->messages, "assistant", answer->text, answer->thought, NULL);
    if (!history->messages) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to keep what is said");
    }
    return history->path ? write_messages(history, error) : HYPURA_OK;
}

void hypura_history_clear(hypura_history *history)
{
    for (int i = 0; i < history->n_said; i++) {
        hypura_shown_clear(&history->shown[i]);
    }
    history->n_said = 0;
    (void)json_array_clear(history->messages);
}

void hypura_history_close(hypura_history *history)
{
    for (int i = 0; history->shown && i < history->n_said; i++) {
        hypura_shown_clear(&history->shown[i]);
    }
    free(history->shown);
    json_decref(history->messages);
    free(history->said);
    *history = (hypura_history){.path = NULL};
}
