/*
 * probe_compute.h - how fast this machine's processor computes: products of a weight
 * with one row of activations, as in decoding, or with many, as in a prompt, by the
 * CPU backend. Blocking, some tenths of a second each; nothing is stored.
 */
#ifndef HYPURA_HW_PROBE_COMPUTE_H
#define HYPURA_HW_PROBE_COMPUTE_H

#include "hypura.h"

typedef struct hypura_product_shape {
    int     type;    /* enum ggml_type of the weight */
    int64_t columns;
    int64_t rows;
    int     n_used;  /* experts that a node multiplies with at once; 0: a plain product */
    int     n_rows;  /* of activations that the weight, or each of the experts, is multiplied with */
    bool    repack;  /* in the processor's own layout, where the type has one */
} hypura_product_shape;

/* Of the weights that one such product reads. */
double hypura_product_bytes(const hypura_product_shape *shape);

/* Bytes of weights per second, of each row of activations anew; with one row they come
 * from memory, not from a processor's cache. disturbed: other work took processors all the
 * while, so it may be more; for a moment without it is waited as long as most_us. */
hypura_status hypura_probe_products(const hypura_product_shape *shape, int n_threads, uint64_t most_us,
                                    double *bytes_per_s, bool *disturbed, hypura_error *error);

/* Bytes of weights per second that one thread brings into the processor's own layout;
 * 0 where the type has none. */
hypura_status hypura_probe_repack(const hypura_product_shape *shape, double *bytes_per_s, hypura_error *error);

#endif
