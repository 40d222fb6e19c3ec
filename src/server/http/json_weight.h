/*
 * json_weight.h - the memory that a text of JSON takes once it is read, told before that: "{}," is three bytes, and a
 * hundred times as many as an object. Pure.
 */
#ifndef HYPURA_SERVER_HTTP_JSON_WEIGHT_H
#define HYPURA_SERVER_HTTP_JSON_WEIGHT_H

#include <stddef.h>
#include <stdint.h>

/* About as many bytes as jansson takes, strings aside, which take what their text does. */
uint64_t json_weight(const char *text, size_t bytes);

#endif
