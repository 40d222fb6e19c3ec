/*
 * create.c - POST /api/create: a model made of another one, of a GGUF on this machine, or of files sent to
 * /api/blobs before.
 */
#include "server/dialect/go_template.h"
#include "server/dialect/ollama.h"
#include "server/endpoint/library.h"
#include "server/endpoint/routes.h"
#include "server/endpoint/server.h"
#include "server/endpoint/target.h"

#include <stdlib.h>
#include <string.h>

typedef struct creation {
    http_exchange *exchange;
    bool stream;
    unsigned percent; /* last told, so that lines are few */
} creation;

static bool tell(const creation *c, json_t *line)
{
    if (!c->stream) {
        json_decref(line);
        return !http_gone(c->exchange);
    }
    return http_write_line(c->exchange, line);
}

static bool on_copied(void *user, const char *what, uint64_t done, uint64_t total)
{
    creation *c = user;
    const unsigned percent = total > 0 ? (unsigned)(100.0 * (double)done / (double)total) : 100;
    (void)what;
    if (percent == c->percent) {
        return !http_gone(c->exchange);
    }
    c->percent = percent;
    return tell(c, json_pack("{s:s, s:I, s:I}", "status", "copying file", "total", (json_int_t)total, "completed",
                             (json_int_t)done));
}

/* What the request says about the model, as the store keeps it. */
static json_t *settings_of(const json_t *body, const char *from)
{
    static const char *const keys[] = {"parameters", "system", "template", "license", "messages", "draft"};
    json_t *settings = json_object();
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        json_t *value = json_object_get(body, keys[i]);
        if (value && !json_is_null(value)) {
            json_object_set(settings, keys[i], value);
        }
    }
    if (from) {
        json_object_set_new(settings, "from", json_string(from));
    }
    return settings;
}

/* The digests of "files": {"name.gguf": "sha256:..."}. Free the array. */
static const char **digests_of(const json_t *files, int *n)
{
    const char **digests = calloc(json_object_size(files) + 1, sizeof(*digests));
    const char *name;
    json_t *digest;
    *n = 0;
    json_object_foreach((json_t *)(uintptr_t)files, name, digest)
    {
        if (digests) {
            digests[(*n)++] = json_is_string(digest) ? json_string_value(digest) : "";
        }
    }
    return digests;
}

/* The digests of "adapters": {"name.gguf": "sha256:...", ...}, in their order; free the array. False when it was answered. */
static bool adapters_of(http_exchange *exchange, const json_t *body, const char ***digests, int *n)
{
    const json_t *adapters = json_object_get(body, "adapters");
    const bool none = !adapters || json_is_null(adapters);
    *digests = NULL;
    *n = 0;
    if (!none && !json_is_object(adapters)) {
        http_fail(exchange, 400, "adapters is an object of files and their digests, {\"adapter.gguf\": \"sha256:...\"}");
        return false;
    }
    *digests = digests_of(none ? NULL : adapters, n);
    return true;
}

/* Those that would be left out of every request without a word; false when it was answered. */
static bool check_types(http_exchange *exchange, const json_t *body)
{
    static const char *const texts[] = {"system", "template", "draft"};
    const json_t *parameters = json_object_get(body, "parameters");
    const json_t *messages = json_object_get(body, "messages");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const json_t *value = json_object_get(body, texts[i]);
        if (value && !json_is_null(value) && !json_is_string(value)) {
            http_fail(exchange, 400, "%s is no text", texts[i]);
            return false;
        }
    }
    if (parameters && !json_is_null(parameters) && !json_is_object(parameters)) {
        http_fail(exchange, 400, "parameters is no object");
        return false;
    }
    if (messages && !json_is_null(messages) && !json_is_array(messages)) {
        http_fail(exchange, 400, "messages is no array");
        return false;
    }
    return true;
}

/* Those that no request could be answered with; false when it was answered. */
static bool check_messages(http_exchange *exchange, const json_t *body)
{
    json_t *made = NULL;
    hypura_error error = {0};
    const hypura_status status = ollama_make_messages(json_object_get(body, "messages"), NULL, &made, &error);
    if (status != HYPURA_OK) {
        http_fail_error(exchange, &error);
    }
    json_decref(made);
    return status == HYPURA_OK;
}

/* The same. */
static bool check_parameters(http_exchange *exchange, const json_t *body)
{
    ollama_common common;
    hypura_error error = {0};
    json_t *parameters = json_object_get(body, "parameters");
    json_t *settings = json_is_object(parameters) ? json_pack("{s:O}", "parameters", parameters) : json_object();
    json_t *nothing = json_object();
    json_t *defaults = NULL;
    hypura_status status = ollama_defaults(settings, &defaults, &error);
    if (status == HYPURA_OK) {
        status = ollama_read_common(nothing, settings, &common, &error);
    }
    if (status != HYPURA_OK) {
        http_fail_error(exchange, &error);
    }
    json_decref(defaults);
    json_decref(nothing);
    json_decref(settings);
    return status == HYPURA_OK;
}

/* Answers and returns false for what is not served. */
static bool check(http_exchange *exchange, const json_t *body)
{
    static const char *const refused[] = {"quantize", "quantization", "modelfile", "path"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const json_t *value = json_object_get(body, refused[i]);
        if (value && !json_is_null(value) && !(json_is_string(value) && json_string_length(value) == 0)) {
            http_fail(exchange, 400,
                      "'%s' is not served: models are made with from, files, adapters, parameters, system, "
                      "template, license, messages and draft",
                      refused[i]);
            return false;
        }
    }
    if (!check_types(exchange, body)) {
        return false;
    }
    hypura_error error = {0};
    const char *template = json_string_value(json_object_get(body, "template"));
    const bool is_jinja = template && go_template_is_jinja(template); /* which llama.cpp reads */
    const hypura_status status = is_jinja  ? engine_check_template(http_server(exchange)->options.engine, template, &error)
                                 : template ? go_template_check(template, &error)
                                            : HYPURA_OK;
    if (status != HYPURA_OK) {
        http_fail_error(exchange, &error);
        return false;
    }
    return check_messages(exchange, body) && check_parameters(exchange, body);
}

static void create(http_exchange *exchange, const json_t *body, const char *name)
{
    hypura_server *server = http_server(exchange);
    const char *from = json_string_value(json_object_get(body, "from"));
    const json_t *files = json_object_get(body, "files");
    creation c = {.exchange = exchange, .stream = !json_is_false(json_object_get(body, "stream")), .percent = 101};
    hypura_models_create_options options = {.name = name, .progress = on_copied, .progress_user = &c};
    hypura_error error = {0};
    const bool is_path = from && from[0] == '/';
    if (from && from[0] != '\0' && json_object_size(files) > 0) {
        http_fail(exchange, 400, "a model is made either from another or of files: from and files are both given");
        return;
    }
    if (is_path) {
        options.path = from;
    } else if (from && from[0] != '\0') {
        options.from = target_find(exchange, from);
        if (!options.from) {
            return;
        }
    }
    const char **adapters = NULL;
    if (!adapters_of(exchange, body, &adapters, &options.n_adapters)) {
        hypura_model_entry_release(options.from);
        return;
    }
    options.adapters = adapters;
    const char **digests = digests_of(files, &options.n_blobs);
    json_t *settings = settings_of(body, options.from ? options.from->name : NULL);
    options.blobs = digests;
    options.settings = settings;
    const hypura_status status = hypura_models_create(server->models, &options, &error);
    if (status == HYPURA_OK) {
        (void)tell(&c, json_pack("{s:s}", "status", "writing manifest"));
        (void)tell(&c, json_pack("{s:s}", "status", "success"));
    }
    library_end_steps(exchange, status == HYPURA_OK ? NULL : &error);
    json_decref(settings);
    free(digests);
    free(adapters);
    hypura_model_entry_release(options.from);
}

void endpoint_ollama_create(http_exchange *exchange)
{
    json_t *body = http_json(exchange);
    const char *name = body ? library_need_name(exchange, body, "model", "name") : NULL;
    if (name && check(exchange, body)) {
        create(exchange, body, name);
    }
    json_decref(body);
}

/* ---- blobs --------------------------------------------------------------------------- */

void endpoint_ollama_blob_head(http_exchange *exchange)
{
    const bool there = hypura_models_has_blob(http_server(exchange)->models, http_rest(exchange));
    http_reply(exchange, there ? 200 : 404, "", "", 0);
}

void endpoint_ollama_blob(http_exchange *exchange)
{
    hypura_blob *blob = NULL;
    hypura_buffer piece = {0};
    hypura_error error = {0};
    http_part part = HTTP_PART_BYTES;
    hypura_status status = hypura_blob_begin(http_server(exchange)->models, http_rest(exchange), &blob, &error);
    while (status == HYPURA_OK && (part = http_read(exchange, &piece)) == HTTP_PART_BYTES) {
        status = hypura_blob_write(blob, piece.data, piece.bytes, &error);
    }
    hypura_buffer_clear(&piece);
    if (status == HYPURA_OK && part == HTTP_PART_END) {
        status = hypura_blob_commit(blob, &error);
    } else {
        hypura_blob_abandon(blob);
    }
    if (status != HYPURA_OK) {
        library_end_steps(exchange, &error);
    } else if (part == HTTP_PART_END) {
        http_reply(exchange, 201, "", "", 0);
    }
}
