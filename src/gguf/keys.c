/*
 * keys.c - finding keys and reading them as what they have to be.
 */
#include "gguf/reader.h"

#include "base/status.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int compare_keys(const void *a, const void *b)
{
    return strcmp(((const hypura_gguf_key *)a)->name, ((const hypura_gguf_key *)b)->name);
}

hypura_status hypura_gguf_sort_keys(hypura_gguf *gguf, hypura_error *error)
{
    if (gguf->n_keys > 1) {
        qsort(gguf->keys, (size_t)gguf->n_keys, sizeof(gguf->keys[0]), compare_keys);
    }
    for (int i = 1; i < gguf->n_keys; i++) {
        if (strcmp(gguf->keys[i - 1].name, gguf->keys[i].name) == 0) {
            return hypura_fail(error, HYPURA_ERR_FORMAT, "%s: key '%.96s' occurs twice", gguf->path,
                               gguf->keys[i].name);
        }
    }
    return HYPURA_OK;
}

/* NULL when the file has no such key. */
static const hypura_gguf_key *find_key(const hypura_gguf *gguf, const char *name)
{
    if (gguf->n_keys == 0) {
        return NULL;
    }
    hypura_gguf_key wanted = {.name = name};
    return bsearch(&wanted, gguf->keys, (size_t)gguf->n_keys, sizeof(gguf->keys[0]), compare_keys);
}

static hypura_status fail_type(const hypura_gguf *gguf, const hypura_gguf_key *key, const char *expected,
                               hypura_error *error)
{
    if (key->type == HYPURA_GGUF_ARRAY) {
        return hypura_fail(error, HYPURA_ERR_FORMAT, "%s: key '%.96s' is an array of %" PRIu64 " %s, expected %s",
                           gguf->path, key->name, key->n, hypura_gguf_type_name(key->element_type), expected);
    }
    return hypura_fail(error, HYPURA_ERR_FORMAT, "%s: key '%.96s' is a %s, expected %s", gguf->path, key->name,
                       hypura_gguf_type_name(key->type), expected);
}

uint64_t hypura_gguf_count(const hypura_gguf *gguf, const char *name)
{
    const hypura_gguf_key *key = find_key(gguf, name);
    return key != NULL && key->type == HYPURA_GGUF_ARRAY ? key->n : 0;
}

hypura_status hypura_gguf_greatest(const hypura_gguf *gguf, const char *name, uint64_t fallback, uint64_t max,
                                   uint64_t *value, hypura_error *error)
{
    const hypura_gguf_key *key = find_key(gguf, name);
    if (key == NULL) {
        *value = fallback;
        return HYPURA_OK;
    }
    if (!key->has_integer) {
        return fail_type(gguf, key, "an integer", error);
    }
    if (key->negative) {
        return hypura_fail(error, HYPURA_ERR_FORMAT, "%s: key '%.96s' is negative", gguf->path, name);
    }
    if (key->integer > max) {
        return hypura_fail(error, HYPURA_ERR_FORMAT, "%s: key '%.96s' is %" PRIu64 ", at most %" PRIu64 " is possible",
                           gguf->path, name, key->integer, max);
    }
    *value = key->integer;
    return HYPURA_OK;
}

hypura_status hypura_gguf_integer(const hypura_gguf *gguf, const char *name, uint64_t fallback, uint64_t max,
                                  uint64_t *value, hypura_error *error)
{
    const hypura_gguf_key *key = find_key(gguf, name);
    if (key != NULL && key->type == HYPURA_GGUF_ARRAY) {
        return fail_type(gguf, key, "an integer", error);
    }
    return hypura_gguf_greatest(gguf, name, fallback, max, value, error);
}

hypura_status hypura_gguf_text(const hypura_gguf *gguf, const char *name, const char **text, hypura_error *error)
{
    const hypura_gguf_key *key = find_key(gguf, name);
    *text = NULL;
    if (key == NULL) {
        return HYPURA_OK;
    }
    if (key->type != HYPURA_GGUF_STRING) {
        return fail_type(gguf, key, "a string", error);
    }
    if (key->text == NULL) {
        return hypura_fail(error, HYPURA_ERR_FORMAT, "%s: key '%.96s' is too long (%" PRIu64 " bytes)", gguf->path,
                           name, key->n);
    }
    *text = key->text;
    return HYPURA_OK;
}

bool hypura_gguf_is_printable(const char *text, size_t n)
{
    const unsigned char *bytes = (const unsigned char *)text;
    for (size_t i = 0; i < n;) {
        const int length = hypura_utf8_character(text + i, n - i);
        bool c1_control = length == 2 && bytes[i] == 0xc2 && bytes[i + 1] < 0xa0;
        if (length <= 0 || bytes[i] < 0x20 || bytes[i] == 0x7f || c1_control) {
            return false;
        }
        i += (size_t)length;
    }
    return true;
}
