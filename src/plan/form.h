/*
 * form.h - weights as in the file, or in the layout that the processor decodes fastest
 * with? The latter has to be made from what is read, which takes processor time from
 * computing; and it is not always the better one for prompts, where products with many
 * rows have kernels of their own. Pure.
 */
#ifndef HYPURA_PLAN_FORM_H
#define HYPURA_PLAN_FORM_H

#include "hypura.h"

/* A token's part, in either form. */
typedef struct hypura_form_work {
    double repacked_compute_s; /* with all weights repacked */
    double plain_compute_s;
    double read_bytes;
} hypura_form_work;

typedef struct hypura_form_costs {
    hypura_form_work decode;
    hypura_form_work prompt;     /* of a token among many; computing 0: not known */
    double read_bytes_per_s;     /* of the drive */
    double repack_bytes_per_s;   /* of one thread */
    int    n_threads;            /* that compute */
    int    n_cpus;
} hypura_form_costs;

/* What a token takes in either form. */
double hypura_form_repacked_s(const hypura_form_costs *costs, const hypura_form_work *work);
double hypura_form_plain_s(const hypura_form_costs *costs, const hypura_form_work *work);

/* True when the file's form is clearly better: decoding and prompts count alike, each by
 * the factor by which one form is faster. Near each other, weights are repacked, so that
 * the choice, and with it the last bits of a result, rests on no small difference of two
 * measurements. */
bool hypura_form_prefers_plain(const hypura_form_costs *costs);

/* Where all other weights stay as in the file: whether the output matrix is repacked all the same. It makes the logits
 * of one row, of a prompt too, so the rate of one row alone counts. As above the file's form has to be clearly better. */
bool hypura_form_repacks_output(double plain_bytes_per_s, double repacked_bytes_per_s);

#endif
