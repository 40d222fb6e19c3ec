/*
 * cut.c - see cut.h.
 */
#include "plan/cut.h"

/* Shorter ones cost the processor more than they save, unless much is saved. */
#define LEAST_BYTES (UINT64_C(256) << 10)

/* Of lengths as good as that, the shortest: its bytes can be used the soonest. */
#define AS_GOOD 1.05

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

double hypura_cut_seconds(const hypura_plan *plan, uint64_t bytes, uint64_t block_bytes, uint64_t window_bytes)
{
    const uint64_t n = (bytes + block_bytes - 1) / block_bytes;
    const uint64_t most = window_bytes > block_bytes ? window_bytes / block_bytes : 1;
    const double   rate = rate_of(plan, block_bytes, (double)(n < most ? n : most));
    return rate > 0 ? (double)bytes / rate : 0;
}

uint64_t hypura_cut_bytes(const hypura_plan *plan, uint64_t bytes)
{
    const uint64_t window_bytes = plan->io_block_bytes * plan->io_depth;
    double         best_s = 0;
    uint64_t       best = plan->io_block_bytes < LEAST_BYTES ? plan->io_block_bytes : LEAST_BYTES;
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < plan->n_io_rates; i++) {
            const uint64_t block = plan->io_rates[i].block_bytes;
            const double   s = block > plan->io_block_bytes ? 0 : hypura_cut_seconds(plan, bytes, block, window_bytes);
            if (pass == 0 && s > 0 && (best_s == 0 || s < best_s)) {
                best_s = s;
                best = block;
            } else if (pass == 1 && s > 0 && block >= LEAST_BYTES && s <= best_s * AS_GOOD) {
                return block;
            }
        }
    }
    return best;
}
