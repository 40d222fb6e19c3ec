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

static double read_s(const hypura_form_costs *costs)
{
    return costs->read_bytes_per_s > 0 ? costs->read_bytes / costs->read_bytes_per_s : 0;
}

double hypura_form_repacked_s(const hypura_form_costs *costs)
{
    const double repack_s = costs->repack_bytes_per_s > 0 ? costs->read_bytes / costs->repack_bytes_per_s : 0;
    const int    n_cpus = costs->n_cpus > costs->n_threads ? costs->n_cpus : costs->n_threads;
    const double busy_s = (costs->n_threads * costs->repacked_compute_s + repack_s) / n_cpus;
    return fmax(read_s(costs), fmax(costs->repacked_compute_s, busy_s));
}

double hypura_form_plain_s(const hypura_form_costs *costs)
{
    return fmax(read_s(costs), costs->plain_compute_s);
}

bool hypura_form_prefers_plain(const hypura_form_costs *costs)
{
    return hypura_form_plain_s(costs) < CLEARLY * hypura_form_repacked_s(costs);
}
