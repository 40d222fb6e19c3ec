/*
 * pictures.c - see pictures.h. Where the address is:
 *
 *     /v1/chat/completions    {"type": "image_url", "image_url": {"url": ..}}
 *     /v1/responses           {"type": "input_image", "image_url": ..}
 *     /v1/messages            {"type": "image", "source": {"type": "url", "url": ..}}
 */
#include "server/pictures.h"

#include "base/status.h"
#include "server/fetch.h"
#include "server/guard.h"
#include "server/text.h"

#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_BYTES    ((size_t)64 << 20) /* of all */
#define MOST_PICTURES 64

typedef struct fetching {
    hypura_fetch *fetch; /* NULL: none was needed yet */
    int n;
    size_t bytes; /* so far */
    bool outside;
    bool (*gone)(void *user);
    void *user;
    hypura_error *error;
} fetching;

/* By its first bytes. llama.cpp's server looks again. */
static const char *type_of(const char *base64)
{
    return strncmp(base64, "/9j/", 4) == 0 ? "jpeg" : strncmp(base64, "UklGR", 5) == 0 ? "webp" : "png";
}

static bool go_on(void *user, uint64_t done_bytes)
{
    const fetching *f = user;
    (void)done_bytes;
    return !f->gone(f->user);
}

static bool is_address(const json_t *value)
{
    const char *text = json_string_value(value);
    return text && (strncmp(text, "http://", 7) == 0 || strncmp(text, "https://", 8) == 0);
}

char *pictures_base64(const void *bytes, size_t n)
{
    char *base64 = n <= (size_t)1 << 30 ? malloc((n + 2) / 3 * 4 + 1) : NULL;
    if (base64) {
        (void)EVP_EncodeBlock((unsigned char *)base64, bytes, (int)n);
    }
    return base64;
}

/* *base64: to be freed. */
static hypura_status fetch_one(fetching *f, const char *address, char **base64)
{
    hypura_error why = {0};
    char *bytes = NULL;
    size_t n = 0;
    *base64 = NULL;
    if (f->n++ >= MOST_PICTURES) {
        return hypura_fail(f->error, HYPURA_ERR_USAGE, "more than %d pictures are named", MOST_PICTURES);
    }
    hypura_status status = f->fetch ? HYPURA_OK : hypura_fetch_open(NULL, 0, go_on, f, &f->fetch, &why);
    if (status == HYPURA_OK) {
        hypura_fetch_keep_to(f->fetch, f->outside ? guard_is_outside : NULL);
        status = hypura_fetch_text(f->fetch, address, "image/*", MOST_BYTES - f->bytes, &bytes, &n, NULL, &why);
    }
    if (status == HYPURA_ERR_CANCELLED || status == HYPURA_ERR_MEMORY) {
        return hypura_fail(f->error, status, "%s", why.message);
    }
    if (status != HYPURA_OK) {
        return hypura_fail(f->error, HYPURA_ERR_USAGE, "a picture cannot be fetched: %s", why.message);
    }
    f->bytes += n;
    *base64 = pictures_base64(bytes, n);
    free(bytes);
    return *base64 ? HYPURA_OK : hypura_fail(f->error, HYPURA_ERR_MEMORY, "no memory for a picture");
}

json_t *pictures_address(const char *base64)
{
    const size_t bytes = strlen(base64) + 32;
    char *text = malloc(bytes);
    if (text) {
        snprintf(text, bytes, "data:image/%s;base64,%s", type_of(base64), base64);
    }
    json_t *address = text ? json_string_nocheck(text) : NULL;
    free(text);
    return address;
}

static json_t *data_source(const char *base64)
{
    char type[24];
    snprintf(type, sizeof type, "image/%s", type_of(base64));
    return json_pack("{s:s, s:s, s:s}", "type", "base64", "media_type", type, "data", base64);
}

static hypura_status change(fetching *f, const json_t *value, json_t **made);

/* holder[key]: what takes its place, where that is a picture named by its address. *other: a new reference, or NULL. */
static hypura_status change_picture(fetching *f, const char *key, const json_t *value, json_t **other)
{
    char *base64;
    const bool is_source = strcmp(key, "source") == 0 && text_is(value, "type", "url");
    const bool is_url = strcmp(key, "image_url") == 0;
    const json_t *address = json_is_object(value) ? json_object_get(value, "url") : value;
    *other = NULL;
    if ((!is_source && !is_url) || !is_address(address)) {
        return change(f, value, other);
    }
    const hypura_status status = fetch_one(f, json_string_value(address), &base64);
    if (status == HYPURA_OK && is_source) {
        *other = data_source(base64);
    } else if (status == HYPURA_OK && json_is_object(value)) {
        *other = json_copy((json_t *)(uintptr_t)value);
        json_object_set_new(*other, "url", pictures_address(base64));
    } else if (status == HYPURA_OK) {
        *other = pictures_address(base64);
    }
    free(base64);
    return status;
}

static hypura_status change_object(fetching *f, const json_t *object, json_t **made)
{
    hypura_status status = HYPURA_OK;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        json_t *other = NULL;
        status = status == HYPURA_OK ? change_picture(f, key, value, &other) : status;
        if (other) {
            *made = *made ? *made : json_copy((json_t *)(uintptr_t)object);
            json_object_set_new(*made, key, other);
        }
    }
    return status;
}

static hypura_status change_array(fetching *f, const json_t *array, json_t **made)
{
    hypura_status status = HYPURA_OK;
    size_t i;
    json_t *value;
    json_array_foreach(array, i, value)
    {
        json_t *other = NULL;
        status = status == HYPURA_OK ? change(f, value, &other) : status;
        if (other) {
            *made = *made ? *made : json_copy((json_t *)(uintptr_t)array);
            json_array_set_new(*made, i, other);
        }
    }
    return status;
}

static hypura_status change(fetching *f, const json_t *value, json_t **made)
{
    return json_is_object(value)  ? change_object(f, value, made)
           : json_is_array(value) ? change_array(f, value, made)
                                  : HYPURA_OK;
}

/* A part of a message, or what has such parts in it. */
static bool shows(const json_t *value)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    const char *key;
    const json_t *item;
    size_t i;
    if (type && ((strcmp(type, "image_url") == 0 || strcmp(type, "input_image") == 0) || strcmp(type, "input_audio") == 0 ||
                 (strcmp(type, "image") == 0 && json_object_get(value, "source")))) {
        return true;
    }
    json_array_foreach(value, i, item)
    {
        if (shows(item)) {
            return true;
        }
    }
    json_object_foreach((json_t *)(uintptr_t)value, key, item)
    {
        if (strcmp(key, "content") == 0 && shows(item)) {
            return true;
        }
    }
    return false;
}

bool pictures_are_shown(const json_t *body)
{
    return shows(json_object_get(body, "messages")) || shows(json_object_get(body, "input"));
}

hypura_status pictures_fetch(const json_t *body, bool outside, bool (*gone)(void *user), void *user, json_t **made,
                             hypura_error *error)
{
    static const char *const keys[] = {"messages", "input"};
    fetching f = {.outside = outside, .gone = gone, .user = user, .error = error};
    hypura_status status = HYPURA_OK;
    *made = NULL;
    for (size_t i = 0; i < sizeof keys / sizeof *keys && status == HYPURA_OK; i++) {
        json_t *other = NULL;
        status = change(&f, json_object_get(body, keys[i]), &other);
        if (other) {
            *made = *made ? *made : json_copy((json_t *)(uintptr_t)body);
            json_object_set_new(*made, keys[i], other);
        }
    }
    hypura_fetch_close(f.fetch);
    if (status != HYPURA_OK) {
        json_decref(*made);
        *made = NULL;
    }
    return status;
}
