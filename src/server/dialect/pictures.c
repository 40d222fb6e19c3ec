/*
 * pictures.c - see pictures.h. Where the address is:
 *
 *     /v1/chat/completions    {"type": "image_url", "image_url": {"url": ..}}
 *     /v1/responses           {"type": "input_image", "image_url": ..}
 *     /v1/messages            {"type": "image", "source": {"type": "url", "url": ..}}
 */
#include "server/dialect/pictures.h"

#include "server/dialect/text.h"

#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct replacing {
    pictures_get get;
    void *user;
} replacing;

/* By its first bytes. llama.cpp's server looks again. */
static const char *type_of(const char *base64)
{
    return strncmp(base64, "/9j/", 4) == 0 ? "jpeg" : strncmp(base64, "UklGR", 5) == 0 ? "webp" : "png";
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

static hypura_status change(const replacing *r, const json_t *value, json_t **made);

/* holder[key]: what takes its place, where that is a picture named by its address. *other: a new reference, or NULL. */
static hypura_status change_picture(const replacing *r, const char *key, const json_t *value, json_t **other)
{
    char *base64;
    const bool is_source = strcmp(key, "source") == 0 && text_is(value, "type", "url");
    const bool is_url = strcmp(key, "image_url") == 0;
    const json_t *address = json_is_object(value) ? json_object_get(value, "url") : value;
    *other = NULL;
    if ((!is_source && !is_url) || !is_address(address)) {
        return change(r, value, other);
    }
    const hypura_status status = r->get(r->user, json_string_value(address), &base64);
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

static hypura_status change_object(const replacing *r, const json_t *object, json_t **made)
{
    hypura_status status = HYPURA_OK;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        json_t *other = NULL;
        status = status == HYPURA_OK ? change_picture(r, key, value, &other) : status;
        if (other) {
            *made = *made ? *made : json_copy((json_t *)(uintptr_t)object);
            json_object_set_new(*made, key, other);
        }
    }
    return status;
}

static hypura_status change_array(const replacing *r, const json_t *array, json_t **made)
{
    hypura_status status = HYPURA_OK;
    size_t i;
    json_t *value;
    json_array_foreach(array, i, value)
    {
        json_t *other = NULL;
        status = status == HYPURA_OK ? change(r, value, &other) : status;
        if (other) {
            *made = *made ? *made : json_copy((json_t *)(uintptr_t)array);
            json_array_set_new(*made, i, other);
        }
    }
    return status;
}

static hypura_status change(const replacing *r, const json_t *value, json_t **made)
{
    return json_is_object(value)  ? change_object(r, value, made)
           : json_is_array(value) ? change_array(r, value, made)
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

hypura_status pictures_replace(const json_t *body, pictures_get get, void *user, json_t **made)
{
    static const char *const keys[] = {"messages", "input"};
    const replacing r = {get, user};
    hypura_status status = HYPURA_OK;
    *made = NULL;
    for (size_t i = 0; i < sizeof keys / sizeof *keys && status == HYPURA_OK; i++) {
        json_t *other = NULL;
        status = change(&r, json_object_get(body, keys[i]), &other);
        if (other) {
            *made = *made ? *made : json_copy((json_t *)(uintptr_t)body);
            json_object_set_new(*made, keys[i], other);
        }
    }
    if (status != HYPURA_OK) {
        json_decref(*made);
        *made = NULL;
    }
    return status;
}
