/*
 * filler.h - random weights at the speed of copying.
 *
 * Quantising takes longer than writing, so a pool of a few megabytes is quantised
 * once for each (type, deviation), and every slice of every tensor is a stretch of
 * it, starting at a place of its own and wrapping around. A pool is a prime number
 * of units long and each slice starts a fixed stride after the last, so that no two
 * slices of a file are alike as long as there are no more of them than units:
 *
 *     reserve every tensor once -> write them, in any order -> close
 */
#ifndef HYPURA_TOOLS_FILLER_H
#define HYPURA_TOOLS_FILLER_H

#include <stdint.h>

#include "gguf_out.h"

typedef struct filler filler;

/* NULL after printing. */
filler *filler_open(uint64_t seed);
void filler_close(filler *f);

/* The type's name as ggml spells it, in any case; COUNT when mkmodel cannot make it. */
enum ggml_type filler_parse_type(const char *name);

/* n_slices stretches of slice_bytes each, of normal values of that deviation.
 * Return exit codes of mkmodel.h. */
int filler_reserve(filler *f, enum ggml_type type, float deviation, uint64_t slice_bytes, uint64_t n_slices);
int filler_write(filler *f, gguf_out *out, enum ggml_type type, float deviation, uint64_t slice_bytes,
                 uint64_t n_slices);

#endif
