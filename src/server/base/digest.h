/*
 * digest.h - SHA-256, by libcrypto.
 */
#ifndef HYPURA_SERVER_BASE_DIGEST_H
#define HYPURA_SERVER_BASE_DIGEST_H

#include "hypura.h"

/* Lower-case hexadecimal digits with an end. */
#define HYPURA_DIGEST_BYTES 65

typedef struct hypura_digest hypura_digest;

/* NULL when memory is short. */
hypura_digest *hypura_digest_begin(void);
void           hypura_digest_add(hypura_digest *digest, const void *data, size_t bytes);
/* Writes the digits and frees. hex may be NULL. */
void hypura_digest_end(hypura_digest *digest, char *hex);

/* The digits of "sha256:HEX", "sha256-HEX" or "HEX", in lower case; false unless
 * there are 64 of them and nothing else. */
bool hypura_digest_parse(const char *text, char *hex);

#endif
