/*
 * json.c - see json.h.
 */
#include "cli/json.h"

#include "base/new_file.h"
#include "base/status.h"
#include "base/utf8.h"
#include "cli/output.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JSON_STYLE (JSON_INDENT(2) | JSON_REAL_PRECISION(15))

/* ---- building -------------------------------------------------------------- */

json_t *hypura_json_string(const char *text)
{
    size_t length = strlen(text);
    if (length > (SIZE_MAX - 1) / 3) {
        return NULL;
    }
    char *clean = malloc(3 * length + 1); /* each byte may become the three of U+FFFD */
    if (!clean) {
        return NULL;
    }
    size_t used = 0;
    for (const char *at = text, *end = text + length; at < end;) {
        const int n = hypura_utf8_character(at, (size_t)(end - at));
        memcpy(clean + used, n > 0 ? at : "\xef\xbf\xbd", n > 0 ? (size_t)n : 3);
        used += n > 0 ? (size_t)n : 3;
        at += n > 0 ? n : 1;
    }
    json_t *string = json_stringn(clean, used);
    free(clean);
    return string;
}

void hypura_json_set(json_t **object, const char *key, json_t *value)
{
    if (!*object) {
        json_decref(value);
    } else if (json_object_set_new(*object, key, value) != 0) {
        json_decref(*object);
        *object = NULL;
    }
}

void hypura_json_append(json_t **array, json_t *value)
{
    if (!*array) {
        json_decref(value);
    } else if (json_array_append_new(*array, value) != 0) {
        json_decref(*array);
        *array = NULL;
    }
}

void hypura_json_text(json_t **object, const char *key, const char *text)
{
    hypura_json_set(object, key, hypura_json_string(text));
}

void hypura_json_integer(json_t **object, const char *key, uint64_t value)
{
    hypura_json_set(object, key, json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value));
}

void hypura_json_real(json_t **object, const char *key, double value)
{
    hypura_json_set(object, key, isfinite(value) ? json_real(value) : json_null());
}

void hypura_json_bool(json_t **object, const char *key, bool value)
{
    hypura_json_set(object, key, json_boolean(value));
}

/* ---- writing --------------------------------------------------------------- */

static int dump_to_output(const char *text, size_t bytes, void *user)
{
    (void)user;
    /* A write that failed is told at the end of the program; -1 means memory here. */
    (void)hypura_output_write(text, bytes);
    return 0;
}

hypura_status hypura_json_print(json_t *object, hypura_error *error)
{
    int failed = object ? json_dump_callback(object, dump_to_output, NULL, JSON_STYLE) : -1;
    json_decref(object);
    if (failed) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "out of memory while writing JSON");
    }
    hypura_output_write("\n", 1);
    return HYPURA_OK;
}

hypura_status hypura_json_write(json_t *object, const char *path, hypura_error *error)
{
    char *text = object ? json_dumps(object, JSON_STYLE) : NULL;
    json_decref(object);
    if (!text) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "out of memory while writing %s", path);
    }
    hypura_new_file file;
    (void)hypura_output_flush(); /* which may be the same file */
    hypura_status status = hypura_new_file_open(&file, path, error);
    if (status == HYPURA_OK) {
        (void)fputs(text, file.to);
        (void)fputc('\n', file.to);
        status = hypura_new_file_close(&file, error);
    }
    free(text);
    return status;
}
