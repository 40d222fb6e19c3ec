/*
 * size.h - sizes as people write them: 4096, 512K, 1.5 GiB.
 */
#ifndef HYPURA_BASE_SIZE_H
#define HYPURA_BASE_SIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads a decimal number with an optional unit K, M, G or T, in either case,
 * powers of 1024, itself followed by an optional "B" or "iB"; a lone "B" means
 * bytes. A fraction ("1.5G") is allowed with a unit and rounded down to a byte.
 * The whole text has to be used. False, leaving *bytes alone, when it is not a
 * size or does not fit 64 bits. */
bool hypura_size_parse(const char *text, uint64_t *bytes);

/* Enough for any size formatted below. */
#define HYPURA_SIZE_TEXT 24

/* "17 B", "1.5 GiB": at most one decimal, none when it would be zero. Returns
 * text, which is always terminated when capacity > 0. */
const char *hypura_size_format(uint64_t bytes, char *text, size_t capacity);

/* The two operations that every size computed from outside input goes through:
 * false, leaving *result alone, when the true result does not fit. */
static inline bool hypura_size_add(uint64_t a, uint64_t b, uint64_t *result)
{
    if (a > UINT64_MAX - b) {
        return false;
    }
    *result = a + b;
    return true;
}

static inline bool hypura_size_mul(uint64_t a, uint64_t b, uint64_t *result)
{
    if (b != 0 && a > UINT64_MAX / b) {
        return false;
    }
    *result = a * b;
    return true;
}

/* align is a power of two. The caller knows that round_up does not overflow. */
static inline uint64_t hypura_round_down(uint64_t value, uint64_t align)
{
    return value & ~(align - 1);
}

static inline uint64_t hypura_round_up(uint64_t value, uint64_t align)
{
    return (value + align - 1) & ~(align - 1);
}

#endif
