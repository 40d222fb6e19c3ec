/*
 * rng.h - the random numbers of mkmodel: same seed, same numbers, on any machine.
 *
 * SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
 * generators", OOPSLA 2014). Streams for different purposes come from mixing the
 * seed with tags rather than from one long sequence, so that adding a tensor does
 * not change the others.
 */
#ifndef HYPURA_TOOLS_RNG_H
#define HYPURA_TOOLS_RNG_H

#include <stdint.h>

typedef struct rng {
    uint64_t state;
} rng;

static inline uint64_t rng_next(rng *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* A stream of its own for (seed, a, b). */
static inline rng rng_stream(uint64_t seed, uint64_t a, uint64_t b)
{
    rng r = {seed};
    r.state = rng_next(&r) ^ a;
    r.state = rng_next(&r) ^ b;
    r.state = rng_next(&r);
    return r;
}

/* Uniform in [0, n), n > 0; the bias of n / 2^64 does not matter here. */
static inline uint64_t rng_below(rng *r, uint64_t n)
{
    return rng_next(r) % n;
}

/* Near-normal, mean 0, deviation 1: the sum of eight 16-bit uniforms. Integers
 * up to the last step, so that no libm decides the bytes of a file. */
static inline float rng_normal(rng *r)
{
    int64_t sum = 0;
    for (int i = 0; i < 2; i++) {
        uint64_t bits = rng_next(r);
        for (int j = 0; j < 4; j++) {
            sum += (int64_t)((bits >> (16 * j)) & 0xffff);
        }
    }
    /* deviation of the sum: 65536 * sqrt(8 / 12) */
    return (float)(sum - 8 * 65535 / 2) * (1.0f / 53510.0f);
}

#endif
