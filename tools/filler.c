/*
 * filler.c - see filler.h.
 */
#include "filler.h"

#include <inttypes.h>
#include <stdlib.h>
#include <strings.h>

#include "mkmodel.h"
#include "rng.h"

enum { MAX_POOLS = 32, SMALLEST_UNIT = 32, POOL_VALUES = 1 << 21 };

/* Primes a little above powers of two: lengths of pools in units. */
static const uint32_t lengths[] = {1031, 2053, 4099, 8209, 16411, 32771, 65537, 131101, 262147, 524309, 1048583};

/* What ggml_quantize_chunk can make without an importance matrix. */
static const enum ggml_type types[] = {
    GGML_TYPE_F32,    GGML_TYPE_F16,     GGML_TYPE_BF16,  GGML_TYPE_Q4_0,  GGML_TYPE_Q4_1,
    GGML_TYPE_Q5_0,   GGML_TYPE_Q5_1,    GGML_TYPE_Q8_0,  GGML_TYPE_Q2_K,  GGML_TYPE_Q3_K,
    GGML_TYPE_Q4_K,   GGML_TYPE_Q5_K,    GGML_TYPE_Q6_K,  GGML_TYPE_MXFP4, GGML_TYPE_IQ4_NL,
    GGML_TYPE_IQ4_XS, GGML_TYPE_IQ3_XXS, GGML_TYPE_IQ3_S, GGML_TYPE_IQ2_S,
};

typedef struct pool {
    enum ggml_type type;
    float deviation;
    uint64_t largest_slice_bytes;
    uint64_t n_slices; /* reserved */
    uint64_t n_written;
    uint64_t unit_bytes;
    uint64_t n_units;
    uint8_t *data; /* n_units * unit_bytes, made on first use */
} pool;

struct filler {
    uint64_t seed;
    size_t n_pools;
    pool pools[MAX_POOLS];
};

filler *filler_open(uint64_t seed)
{
    filler *f = calloc(1, sizeof *f);
    if (!f) {
        mk_fail("out of memory (%zu bytes)", sizeof *f);
        return NULL;
    }
    f->seed = seed;
    return f;
}

void filler_close(filler *f)
{
    for (size_t i = 0; f && i < f->n_pools; i++) {
        free(f->pools[i].data);
    }
    free(f);
}

enum ggml_type filler_parse_type(const char *name)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcasecmp(ggml_type_name(types[i]), name) == 0) {
            return types[i];
        }
    }
    return GGML_TYPE_COUNT;
}

static pool *find_pool(filler *f, enum ggml_type type, float deviation)
{
    for (size_t i = 0; i < f->n_pools; i++) {
        /* deviations are computed from the same dimensions, hence equal bits */
        if (f->pools[i].type == type && f->pools[i].deviation == deviation) {
            return &f->pools[i];
        }
    }
    return NULL;
}

int filler_reserve(filler *f, enum ggml_type type, float deviation, uint64_t slice_bytes, uint64_t n_slices)
{
    pool *p = find_pool(f, type, deviation);
    if (!p) {
        if (f->n_pools == MAX_POOLS) {
            return mk_fail("more than %d kinds of random weights in one model", MAX_POOLS);
        }
        p = &f->pools[f->n_pools++];
        *p = (pool){.type = type, .deviation = deviation};
    }
    if (slice_bytes > p->largest_slice_bytes) {
        p->largest_slice_bytes = slice_bytes;
    }
    p->n_slices += n_slices;
    return MK_OK;
}

/* Long enough for a start of its own for every slice, and for a slice to be new
 * throughout as far as POOL_VALUES allows. */
static int size_pool(pool *p)
{
    int64_t block = ggml_blck_size(p->type);
    int64_t unit = block > SMALLEST_UNIT ? block : SMALLEST_UNIT;
    p->unit_bytes = ggml_row_size(p->type, unit);
    uint64_t wanted = p->largest_slice_bytes / p->unit_bytes;
    uint64_t most = (uint64_t)(POOL_VALUES / unit);
    wanted = wanted < most ? wanted : most;
    wanted = wanted > p->n_slices ? wanted : p->n_slices;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        if (lengths[i] >= wanted) {
            p->n_units = lengths[i];
            return MK_OK;
        }
    }
    return mk_fail("%" PRIu64 " slices of %s are more than a pool of random weights tells apart", p->n_slices,
                   ggml_type_name(p->type));
}

static int make_pool(const filler *f, pool *p)
{
    int rc = size_pool(p);
    if (rc != MK_OK) {
        return rc;
    }
    int64_t unit = ggml_blck_size(p->type) > SMALLEST_UNIT ? ggml_blck_size(p->type) : SMALLEST_UNIT;
    float *values = malloc((size_t)unit * sizeof *values);
    p->data = malloc((size_t)(p->n_units * p->unit_bytes));
    if (!values || !p->data) {
        free(values);
        return mk_fail("out of memory (%" PRIu64 " bytes for random weights)", p->n_units * p->unit_bytes);
    }
    rng r = rng_stream(f->seed, (uint64_t)p->type, (uint64_t)(p->deviation * 1e9f));
    for (uint64_t i = 0; i < p->n_units; i++) {
        for (int64_t j = 0; j < unit; j++) {
            values[j] = rng_normal(&r) * p->deviation;
        }
        ggml_quantize_chunk(p->type, values, p->data + i * p->unit_bytes, 0, 1, unit, NULL);
    }
    free(values);
    return MK_OK;
}

static int write_slice(const pool *p, gguf_out *out, uint64_t start, uint64_t slice_bytes)
{
    uint64_t pool_bytes = p->n_units * p->unit_bytes;
    uint64_t at = start * p->unit_bytes;
    while (slice_bytes > 0) {
        uint64_t n = pool_bytes - at < slice_bytes ? pool_bytes - at : slice_bytes;
        int rc = gguf_out_write(out, p->data + at, (size_t)n);
        if (rc != MK_OK) {
            return rc;
        }
        slice_bytes -= n;
        at = 0;
    }
    return MK_OK;
}

int filler_write(filler *f, gguf_out *out, enum ggml_type type, float deviation, uint64_t slice_bytes,
                 uint64_t n_slices)
{
    pool *p = find_pool(f, type, deviation);
    if (!p || p->n_written + n_slices > p->n_slices) {
        return mk_fail("random weights of type %s were not reserved", ggml_type_name(type));
    }
    int rc = p->data ? MK_OK : make_pool(f, p);
    /* about the golden section of the pool: neighbours in the file lie far apart in it */
    uint64_t stride = p->n_units * 618 / 1000;
    for (uint64_t i = 0; rc == MK_OK && i < n_slices; i++) {
        rc = write_slice(p, out, p->n_written++ * stride % p->n_units, slice_bytes);
    }
    return rc;
}
