/*
 * form.c - see form.h.
 *
 *     repacked = max(read, computing repacked, (threads * computing + repacking) / processors)
 *     plain    = max(read, computing plain)
 *
 * Repacking runs beside computing: on processors that compute nothing it is free, on the
 * others it takes their time.
 */
#include "plan/form.h"

#include <math.h>

#define CLEARLY 0.87 /* 15 % faster */

static double read_s(const hypura_form_costs *costs, const hypura_form_work *work)
{
    return costs->read_bytes_per_s > 0 ? work->read_bytes / costs->read_bytes_per_s : 0;
}

double hypura_form_repacked_s(const hypura_form_costs *costs, const hypura_form_work *work)
{
    const double repack_s = costs->repack_bytes_per_s > 0 ? work->read_bytes / costs->repack_bytes_per_s : 0;
    const int    n_cpus = costs->n_cpus > costs->n_threads ? costs->n_cpus : costs->n_threads;
    const double busy_s = (costs->n_threads * work->repacked_compute_s + repack_s) / n_cpus;
    return fmax(read_s(costs, work), fmax(work->repacked_compute_s, busy_s));
}

double hypura_form_plain_s(const hypura_form_costs *costs, const hypura_form_work *work)
{
    return fmax(read_s(costs, work), work->plain_compute_s);
}

static bool is_known(const hypura_form_work *work)
{
    return work->repacked_compute_s > 0 && work->plain_compute_s > 0;
}

bool hypura_form_prefers_plain(const hypura_form_costs *costs)
{
    double plain = 1;
    double repacked = 1;
    const hypura_form_work *const works[] = {&costs->decode, &costs->prompt};
    for (int i = 0; i < 2; i++) {
        if (is_known(works[i])) {
            plain *= hypura_form_plain_s(costs, works[i]);
            repacked *= hypura_form_repacked_s(costs, works[i]);
        }
    }
    return plain < CLEARLY * repacked;
}

bool hypura_form_repacks_output(double plain_bytes_per_s, double repacked_bytes_per_s)
{
    return repacked_bytes_per_s > 0 && repacked_bytes_per_s >= CLEARLY * plain_bytes_per_s;
}

const char *hypura_form_name(hypura_form form)
{
    switch (form) {
    case HYPURA_FORM_FILE:
        return "file";
    case HYPURA_FORM_REPACKED:
        return "repacked";
    case HYPURA_FORM_OUTPUT:
        return "output";
    }
    return "unknown";
}
