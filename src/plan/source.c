/*
 * source.c - see source.h. Windows alternate, so that a change of the work (a prompt,
 * then an answer) or of the machine's load meets both kinds.
 */
#include "plan/source.h"

#define WINDOW_US  UINT64_C(400000)
#define N_WINDOWS  8
#define CHECK_US   UINT64_C(3000000)
#define MOST       0.9 /* cached: worth a trial */
#define FASTER     1.05

const char *hypura_reads_name(hypura_reads reads)
{
    switch (reads) {
    case HYPURA_READS_FIXED:
        return "fixed";
    case HYPURA_READS_NOT_CACHED:
        return "direct: not cached";
    case HYPURA_READS_ON_TRIAL:
        return "on trial";
    case HYPURA_READS_DIRECT_FASTER:
        return "direct: faster";
    case HYPURA_READS_CACHED_FASTER:
        return "cached: faster";
    }
    return "unknown";
}

void hypura_source_begin(hypura_source *source, double cached_share)
{
    *source = (hypura_source){.reads = cached_share >= MOST ? HYPURA_READS_ON_TRIAL : HYPURA_READS_NOT_CACHED};
}

bool hypura_source_asks(const hypura_source *source, uint64_t now_us)
{
    return source->through && now_us - source->checked_us >= CHECK_US;
}

static bool change(hypura_source *source, bool through, hypura_reads reads)
{
    const bool changed = source->through != through;
    source->through = through;
    source->reads = reads;
    return changed;
}

/* A window that nothing was computed in does not count. */
static bool end_window(hypura_source *source, uint64_t now_us, uint64_t needed_bytes)
{
    const uint64_t us = now_us - source->window_us;
    const bool     counts = source->window_us > 0 && us < 2 * WINDOW_US && needed_bytes > source->needed_bytes;
    if (source->window_us > 0 && us < WINDOW_US) {
        return false;
    }
    if (counts) {
        source->speed[source->through] += (double)(needed_bytes - source->needed_bytes) / (double)us;
        source->n_windows++;
    }
    source->window_us = now_us;
    source->needed_bytes = needed_bytes;
    return counts;
}

bool hypura_source_decide(hypura_source *source, uint64_t now_us, uint64_t needed_bytes, double cached_share)
{
    if (cached_share >= 0) {
        source->checked_us = now_us;
        if (cached_share < MOST) {
            return change(source, false, HYPURA_READS_NOT_CACHED);
        }
    }
    if (source->reads != HYPURA_READS_ON_TRIAL || !end_window(source, now_us, needed_bytes)) {
        return false;
    }
    if (source->n_windows < N_WINDOWS) {
        return change(source, !source->through, HYPURA_READS_ON_TRIAL);
    }
    return source->speed[1] > FASTER * source->speed[0] ? change(source, true, HYPURA_READS_CACHED_FASTER)
                                                         : change(source, false, HYPURA_READS_DIRECT_FASTER);
}
