/*
 * pictures.h - pictures that requests of OpenAI's and Anthropic's APIs name by address, put into them: llama.cpp's server
 * fetches from http alone.
 */
#ifndef HYPURA_SERVER_PICTURES_H
#define HYPURA_SERVER_PICTURES_H

#include "hypura.h"

#include <jansson.h>

/* Bytes in base64; NULL: memory is short, or they are over 1 GiB. Free it. */
char *pictures_base64(const void *bytes, size_t n);
/* A picture, in base64, as an address that holds it: "data:image/png;base64,...". A new reference, or NULL: memory is short. */
json_t *pictures_address(const char *base64);

/* Whether messages of these APIs show pictures or sound. */
bool pictures_are_shown(const json_t *body);

/* *made: the body with them in it, a new reference; NULL: it names none. outside: from the open network alone, as who asks
 * may be of another machine, and is not to reach with us what he could not without. gone: ends it with
 * HYPURA_ERR_CANCELLED. What cannot be fetched is HYPURA_ERR_USAGE. */
hypura_status pictures_fetch(const json_t *body, bool outside, bool (*gone)(void *user), void *user, json_t **made,
                             hypura_error *error);

#endif
