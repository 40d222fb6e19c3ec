/*
 * limit.c - see limit.h.
 */
#include "io/limit.h"

uint64_t hypura_io_limit_add(hypura_io_limit *limit, uint64_t now_ns, uint64_t bytes)
{
    const uint64_t begin = limit->free_ns > now_ns ? limit->free_ns : now_ns;
    limit->free_ns = begin + (uint64_t)((double)bytes * 1e9 / (double)limit->bytes_per_s);
    return limit->free_ns;
}

void hypura_io_limit_hold(hypura_io_limit *limit, hypura_io_raw raw, uint64_t due_ns)
{
    limit->held[limit->n_held++] = (hypura_io_held){raw, due_ns};
}

bool hypura_io_limit_take(hypura_io_limit *limit, uint64_t now_ns, hypura_io_raw *raw)
{
    for (uint32_t i = 0; i < limit->n_held; i++) {
        if (limit->held[i].due_ns <= now_ns) {
            *raw = limit->held[i].raw;
            limit->held[i] = limit->held[--limit->n_held];
            return true;
        }
    }
    return false;
}

uint64_t hypura_io_limit_wait_us(const hypura_io_limit *limit, uint64_t now_ns)
{
    uint64_t first_ns = UINT64_MAX;
    for (uint32_t i = 0; i < limit->n_held; i++) {
        first_ns = limit->held[i].due_ns < first_ns ? limit->held[i].due_ns : first_ns;
    }
    if (first_ns == UINT64_MAX) {
        return UINT64_MAX;
    }
    return first_ns > now_ns ? (first_ns - now_ns + 999) / 1000 : 0;
}
