/*
 * pictures.h - pictures in requests of OpenAI's and Anthropic's APIs: held in an address, or named by one. Pure.
 */
#ifndef HYPURA_SERVER_DIALECT_PICTURES_H
#define HYPURA_SERVER_DIALECT_PICTURES_H

#include "hypura.h"

#include <jansson.h>

/* Bytes in base64; NULL: memory is short, or they are over 1 GiB. Free it. */
char *pictures_base64(const void *bytes, size_t n);
/* A picture, in base64, as an address that holds it: "data:image/png;base64,...". A new reference, or NULL: memory is short. */
json_t *pictures_address(const char *base64);

/* Whether messages of these APIs show pictures or sound. */
bool pictures_are_shown(const json_t *body);

/* *base64: what lies at that address; to be freed. */
typedef hypura_status (*pictures_get)(void *user, const char *address, char **base64);
/* *made: the body with its pictures in place of their addresses, a new reference; NULL: it names none. Fails as get does. */
hypura_status pictures_replace(const json_t *body, pictures_get get, void *user, json_t **made);

#endif
