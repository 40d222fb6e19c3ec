/*
 * cut.c - see cut.h.
 */
#include "plan/cut.h"

/* Shorter requests are not made; the length where no rates are known. */
#define LEAST_BYTES (UINT64_C(256) << 10)

/* What the processor takes for a request; how long the place of one that ended stays
 * empty, until a thread is awake that asks for the next; and in about what time use is
 * made of what arrived last: repacked by a few helpers, computed with. */
#define REQUEST_S       5e-6
#define REFILL_S        150e-6
#define USE_BYTES_PER_S 8e9

/* Rate of n such requests at once: measured, or between the two measured beside it. A
 * drive that has more to do is taken for no slower: where it looks so, that is noise. */
static double rate_of(const hypura_plan *plan, uint64_t block_bytes, double n)
{
    double depth = 0;
    double rate = 0;
    for (int i = 0; i < plan->n_io_rates; i++) { /* by depth for each size */
        const hypura_io_rate *at = &plan->io_rates[i];
        if (at->block_bytes != block_bytes || at->bytes_per_s <= rate) {
            continue;
        }
        if (at->depth > n) {
            return depth > 0 ? rate + (at->bytes_per_s - rate) * (n - depth) / (at->depth - depth) : 0;
        }
        depth = at->depth;
        rate = at->bytes_per_s;
    }
    return rate;
}

double hypura_cut_seconds(const hypura_plan *plan, uint64_t bytes, hypura_cut cut)
{
    const double n = (double)((bytes + cut.block_bytes - 1) / cut.block_bytes);
    const double most = (double)(cut.window_bytes / cut.block_bytes);
    const double at_once = n < most ? n : most > 1 ? most : 1;
    const double rate = rate_of(plan, cut.block_bytes, at_once);
    const double last_bytes = at_once < n ? at_once * (double)cut.block_bytes : (double)bytes;
    const double n_refills = n / at_once - 1;
    return rate > 0 ? (double)bytes / rate + n * REQUEST_S + n_refills * REFILL_S + last_bytes / USE_BYTES_PER_S : 0;
}

hypura_cut hypura_cut_choose(const hypura_plan *plan, uint64_t bytes)
{
    const uint64_t window_bytes = plan->io_block_bytes * plan->io_depth;
    const uint64_t least = plan->io_block_bytes < LEAST_BYTES ? plan->io_block_bytes : LEAST_BYTES;
    double         best_s = 0;
    hypura_cut     best = {.block_bytes = least, .window_bytes = window_bytes};
    for (int i = 0; i < plan->n_io_rates; i++) {
        const hypura_io_rate *at = &plan->io_rates[i];
        const hypura_cut      cut = {.block_bytes = at->block_bytes, .window_bytes = at->block_bytes * at->depth};
        if (cut.block_bytes >= least && cut.block_bytes <= plan->io_block_bytes && cut.window_bytes <= window_bytes) {
            const double s = hypura_cut_seconds(plan, bytes, cut);
            if (s > 0 && (best_s == 0 || s < best_s)) {
                best_s = s;
                best = cut;
            }
        }
    }
    return best;
}
