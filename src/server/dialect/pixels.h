/*
 * pixels.h - how large the pictures of a request become: llama.cpp holds each of them whole, with three bytes a pixel and
 * twice while it shrinks it, and a file of some kilobytes may stand for gigabytes.
 */
#ifndef HYPURA_SERVER_DIALECT_PIXELS_H
#define HYPURA_SERVER_DIALECT_PIXELS_H

#include "hypura.h"

#include <jansson.h>

#define PIXELS_MOST_EACH     (UINT64_C(64) << 20)
#define PIXELS_MOST_TOGETHER (UINT64_C(128) << 20)

/* What the head of a PNG, JPEG, GIF, BMP or PSD in base64, perhaps behind "data:...;base64,", tells; 0: it is none. */
uint64_t pixels_of(const char *text, size_t n);

/* HYPURA_ERR_USAGE: a picture anywhere in the body is too large, or all of them are. */
hypura_status pixels_check(const json_t *body, hypura_error *error);

#endif
