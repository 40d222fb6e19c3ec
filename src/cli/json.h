/*
 * json.h - results for programs: building, printing and storing JSON.
 *
 * What always holds: keys come out in the order they were set. Building needs no
 * checks: when memory is short the object becomes NULL, later calls do nothing,
 * and printing or writing it fails.
 */
#ifndef HYPURA_CLI_JSON_H
#define HYPURA_CLI_JSON_H

#include "hypura.h"

#include <jansson.h>

/* ---- building -------------------------------------------------------------- */

/* Both take over the caller's reference to value; a NULL value counts as out of
 * memory. */
void hypura_json_set(json_t **object, const char *key, json_t *value);
void hypura_json_append(json_t **array, json_t *value);

/* Bytes that are no UTF-8, which JSON cannot hold, become U+FFFD. NULL when
 * memory is short. */
json_t *hypura_json_string(const char *text);

void hypura_json_text(json_t **object, const char *key, const char *text);
void hypura_json_integer(json_t **object, const char *key, uint64_t value);
/* What is no finite number becomes null. */
void hypura_json_real(json_t **object, const char *key, double value);
void hypura_json_bool(json_t **object, const char *key, bool value);

/* ---- writing --------------------------------------------------------------- */

/* Both drop the caller's reference to object. */

/* To standard output, two spaces of indentation. */
hypura_status hypura_json_print(json_t *object, hypura_error *error);
/* To a temporary file beside path that then takes its name; a path that is a
 * device, a pipe or a stream of this program is written to as it is. Fails naming
 * path. */
hypura_status hypura_json_write(json_t *object, const char *path, hypura_error *error);

#endif
