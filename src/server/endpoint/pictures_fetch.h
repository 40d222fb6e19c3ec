/*
 * pictures_fetch.h - pictures that a request names by address, put into it: llama.cpp's server fetches from http alone.
 */
#ifndef HYPURA_SERVER_ENDPOINT_PICTURES_FETCH_H
#define HYPURA_SERVER_ENDPOINT_PICTURES_FETCH_H

#include "hypura.h"

#include <jansson.h>

/* *made: the body with them in it, a new reference; NULL: it names none. outside: from the open network alone, as who asks
 * may be of another machine, and is not to reach with us what he could not without. gone: ends it with
 * HYPURA_ERR_CANCELLED. What cannot be fetched is HYPURA_ERR_USAGE. */
hypura_status pictures_fetch(const json_t *body, bool outside, bool (*gone)(void *user), void *user, json_t **made,
                             hypura_error *error);

#endif
