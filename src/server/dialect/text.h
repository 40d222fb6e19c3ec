/*
 * text.h - texts of requests and answers in JSON: asked for, and joined. Pure.
 */
#ifndef HYPURA_SERVER_DIALECT_TEXT_H
#define HYPURA_SERVER_DIALECT_TEXT_H

#include <jansson.h>
#include <stdbool.h>

/* Whether object[key] is this text. */
bool text_is(const json_t *object, const char *key, const char *text);

/* *joined, NULL for nothing yet: with more behind it, and that between the two. More that is empty, or no text, adds nothing. */
void text_join(json_t **joined, const char *between, const json_t *more);

#endif
