/*
 * library.c - Ollama's routes about the models there are: list, show, copy, delete.
 */
#include "server/dialect/text.h"
#include "server/endpoint/library.h"
#include "server/endpoint/routes.h"
#include "server/endpoint/server.h"
#include "server/endpoint/target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *details(const hypura_model_entry *entry)
{
    const json_t *from = json_object_get(entry->settings, "from");
    return json_pack("{s:s, s:s, s:s, s:[s], s:s, s:s}", "parent_model",
                     json_is_string(from) ? json_string_value(from) : "", "format", entry->format, "family",
                     entry->family, "families", entry->family, "parameter_size", entry->parameter_size,
                     "quantization_level", entry->quantization_level);
}

json_t *library_line(const hypura_model_entry *entry)
{
    return json_pack("{s:s, s:s, s:s, s:I, s:s, s:o}", "name", entry->name, "model", entry->name, "modified_at",
                     entry->modified, "size", (json_int_t)entry->bytes, "digest", entry->digest, "details",
                     details(entry));
}

void endpoint_ollama_tags(http_exchange *exchange)
{
    hypura_model_list list;
    hypura_error error = {0};
    if (hypura_models_list(http_server(exchange)->models, &list, &error) != HYPURA_OK) {
        http_fail_error(exchange, &error);
        return;
    }
    json_t *models = json_array();
    for (size_t i = 0; i < list.n; i++) {
        json_array_append_new(models, library_line(list.entries[i]));
    }
    hypura_model_list_clear(&list);
    http_reply_json(exchange, 200, json_pack("{s:o}", "models", models));
}

/* ---- show ------------------------------------------------------------------------ */

/* "temperature    0.7", one line for each value, as a Modelfile has them; each line begins with `before`. */
static void print_parameters(FILE *to, const json_t *parameters, const char *before, int width)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)parameters, name, value)
    {
        const size_t n = json_is_array(value) ? json_array_size(value) : 1;
        for (size_t i = 0; i < n; i++) {
            char *shown = json_dumps(json_is_array(value) ? json_array_get(value, i) : value,
                                     JSON_ENCODE_ANY | JSON_REAL_PRECISION(15)); /* 0.1 is 0.1 */
            fprintf(to, "%s%s%-*s %s", ftell(to) > 0 ? "\n" : "", before, width, name, shown ? shown : "");
            free(shown);
        }
    }
}

static void print_text(FILE *to, const char *keyword, const json_t *text)
{
    if (json_is_string(text)) {
        fprintf(to, "\n%s \"\"\"%s\"\"\"", keyword, json_string_value(text));
    }
}

/* What would make this model again. */
static void print_modelfile(FILE *to, const hypura_model_entry *entry, const json_t *template)
{
    const json_t *license = json_object_get(entry->settings, "license");
    size_t i;
    const json_t *message;
    fprintf(to, "# Modelfile of %s\nFROM %s", entry->name, entry->path);
    for (int n = 0; n < entry->n_adapters; n++) {
        fprintf(to, "\nADAPTER %s", entry->adapter_paths[n]);
    }
    print_text(to, "TEMPLATE", template);
    print_text(to, "SYSTEM", json_object_get(entry->settings, "system"));
    print_parameters(to, json_object_get(entry->settings, "parameters"), "PARAMETER ", 0);
    json_array_foreach(json_object_get(entry->settings, "messages"), i, message)
    {
        const char *role = json_string_value(json_object_get(message, "role"));
        const char *content = json_string_value(json_object_get(message, "content"));
        fprintf(to, "\nMESSAGE %s \"\"\"%s\"\"\"", role ? role : "", content ? content : "");
    }
    for (i = 0; i < (json_is_array(license) ? json_array_size(license) : 1); i++) {
        print_text(to, "LICENSE", json_is_array(license) ? json_array_get(license, i) : license);
    }
    fprintf(to, "\n");
}

/* What was printed there, as a string. */
static json_t *take_printed(FILE *to, char **text, const size_t *bytes)
{
    const bool good = fclose(to) == 0;
    json_t *string = good ? json_stringn(*text, *bytes) : NULL;
    free(*text);
    return string ? string : json_string("");
}

static json_t *parameters_text(const json_t *parameters)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    if (!to) {
        return json_string("");
    }
    print_parameters(to, parameters, "", 30);
    return take_printed(to, &text, &bytes);
}

static json_t *modelfile_text(const hypura_model_entry *entry, const json_t *template)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    if (!to) {
        return json_string("");
    }
    print_modelfile(to, entry, template);
    return take_printed(to, &text, &bytes);
}

/* One text, whatever there is. A new reference, or NULL. */
static json_t *license_text(const json_t *license)
{
    json_t *text = NULL;
    size_t i;
    const json_t *one;
    text_join(&text, "\n", license);
    json_array_foreach(license, i, one)
    {
        text_join(&text, "\n", one);
    }
    return text;
}

static void set_if(json_t *to, const char *key, const json_t *value)
{
    if (value) {
        json_object_set(to, key, (json_t *)(uintptr_t)value);
    }
}

static void show(http_exchange *exchange, const hypura_model_entry *entry, bool verbose)
{
    json_t *described = NULL;
    hypura_error error = {0};
    if (hypura_model_describe(entry, verbose, &described, &error) != HYPURA_OK) {
        http_fail_error(exchange, &error);
        return;
    }
    const json_t *own_template = json_object_get(entry->settings, "template");
    const json_t *template = own_template ? own_template : json_object_get(described, "template");
    json_t *shown = json_pack("{s:o, s:o, s:s, s:o}", "modelfile", modelfile_text(entry, template), "details",
                              details(entry), "modified_at", entry->modified, "parameters",
                              parameters_text(json_object_get(entry->settings, "parameters")));
    set_if(shown, "template", template);
    set_if(shown, "system", json_object_get(entry->settings, "system"));
    json_t *license = license_text(json_object_get(entry->settings, "license"));
    set_if(shown, "license", license);
    json_decref(license);
    set_if(shown, "messages", json_object_get(entry->settings, "messages"));
    set_if(shown, "draft", json_object_get(entry->settings, "draft"));
    set_if(shown, "model_info", json_object_get(described, "model_info"));
    set_if(shown, "projector_info", json_object_get(described, "projector_info"));
    set_if(shown, "tensors", json_object_get(described, "tensors"));
    set_if(shown, "capabilities", json_object_get(described, "capabilities"));
    json_decref(described);
    http_reply_json(exchange, 200, shown);
}

const char *library_need_name(http_exchange *exchange, const json_t *body, const char *field, const char *older)
{
    const char *name = json_string_value(json_object_get(body, field));
    if (!name || name[0] == '\0') {
        name = json_string_value(json_object_get(body, older));
    }
    if (!name || name[0] == '\0') {
        http_fail(exchange, 400, "%s is required", field);
        return NULL;
    }
    return name;
}

/* What was asked for cannot be, or failed here. */
static int code_of_step(hypura_status status)
{
    const bool is_theirs =
        status == HYPURA_ERR_USAGE || status == HYPURA_ERR_FORMAT || status == HYPURA_ERR_UNSUPPORTED;
    return is_theirs ? 400 : 500;
}

void library_end_steps(http_exchange *exchange, const hypura_error *error)
{
    if (!http_begun(exchange) && error) {
        http_fail(exchange, code_of_step(error->status), "%s", error->message);
    } else if (!http_begun(exchange)) {
        http_reply_json(exchange, 200, json_pack("{s:s}", "status", "success"));
    } else {
        if (error) {
            json_t *text = json_string(error->message);
            (void)http_write_line(exchange, json_pack("{s:o}", "error", text ? text : json_string("failed")));
        }
        http_end(exchange, true);
    }
}

void endpoint_ollama_show(http_exchange *exchange)
{
    json_t *body = http_json(exchange);
    const char *name = body ? library_need_name(exchange, body, "model", "name") : NULL;
    const hypura_model_entry *entry = name ? target_find(exchange, name) : NULL;
    if (entry) {
        show(exchange, entry, json_is_true(json_object_get(body, "verbose")));
        hypura_model_entry_release(entry);
    }
    json_decref(body);
}

/* ---- changes ----------------------------------------------------------------------- */

/* As target_find, by the whole name alone: what changes something must not guess. */
static const hypura_model_entry *find_exact(http_exchange *exchange, const char *name)
{
    const hypura_model_entry *entry = NULL;
    hypura_error error = {0};
    if (hypura_models_find(http_server(exchange)->models, name, HYPURA_FIND_EXACT, &entry, &error) != HYPURA_OK) {
        http_fail_error(exchange, &error);
    } else if (!entry) {
        http_fail(exchange, 404, "model '%.200s' not found", name);
    }
    return entry;
}

void endpoint_ollama_copy(http_exchange *exchange)
{
    json_t *body = http_json(exchange);
    const char *source = body ? library_need_name(exchange, body, "source", "source") : NULL;
    const char *destination = source ? library_need_name(exchange, body, "destination", "destination") : NULL;
    const hypura_model_entry *entry = destination ? find_exact(exchange, source) : NULL;
    hypura_error error = {0};
    if (entry) {
        if (hypura_models_copy(http_server(exchange)->models, entry, destination, &error) == HYPURA_OK) {
            http_reply(exchange, 200, "text/plain; charset=utf-8", "", 0);
        } else {
            http_fail_error(exchange, &error);
        }
        hypura_model_entry_release(entry);
    }
    json_decref(body);
}

void endpoint_ollama_delete(http_exchange *exchange)
{
    json_t *body = http_json(exchange);
    const char *name = body ? library_need_name(exchange, body, "model", "name") : NULL;
    const hypura_model_entry *entry = name ? find_exact(exchange, name) : NULL;
    hypura_error error = {0};
    if (entry) {
        if (hypura_models_remove(http_server(exchange)->models, entry, &error) == HYPURA_OK) {
            fleet_unload(http_server(exchange)->fleet, entry); /* what it has open stays readable until then */
            http_reply(exchange, 200, "text/plain; charset=utf-8", "", 0);
        } else {
            http_fail_error(exchange, &error);
        }
        hypura_model_entry_release(entry);
    }
    json_decref(body);
}
