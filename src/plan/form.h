/*
 * form.h - weights as in the file, or in the layout that the processor computes fastest
 * with? The latter has to be made from what is read, which takes processor time from
 * computing: it is worth it where most of what a token needs is held. Pure.
 */
#ifndef HYPURA_PLAN_FORM_H
#define HYPURA_PLAN_FORM_H

#include "hypura.h"

typedef struct hypura_form_costs {
    double repacked_compute_s; /* of a token, with all weights repacked */
    double plain_compute_s;
    double read_bytes;           /* of a token */
    double read_bytes_per_s;     /* of the drive */
    double repack_bytes_per_s;   /* of one thread */
    int    n_threads;            /* that compute */
    int    n_cpus;
} hypura_form_costs;

/* What a token takes in either form. */
double hypura_form_repacked_s(const hypura_form_costs *costs);
double hypura_form_plain_s(const hypura_form_costs *costs);

/* True when the file's form is clearly faster. Near each other, weights are repacked,
 * so that the choice, and with it the last bits of a result, rests on no small
 * difference of two measurements. */
bool hypura_form_prefers_plain(const hypura_form_costs *costs);

#endif
