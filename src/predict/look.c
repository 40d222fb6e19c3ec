/*
 * look.c - see look.h.
 */
#include "predict/look.h"

bool hypura_look_has_room(int n_cpus, int n_compute, int n_other)
{
    return 2 * (n_cpus - n_compute - n_other) >= n_compute;
}

bool hypura_look_needs_places(int n_processors, int n_compute)
{
    return n_compute == n_processors && n_compute >= LOOK_PLACES_LEAST;
}

bool hypura_look_gives_places_up(uint64_t elapsed_us, uint64_t others_us)
{
    return (double)others_us > LOOK_OTHERS_MOST * (double)elapsed_us;
}

hypura_look hypura_look_for(uint64_t pending_us)
{
    const double sleep_us = LOOK_AFTER * (double)pending_us - LOOK_EARLY_US;
    hypura_look  look = {.look_us = LOOK_US};
    if (sleep_us >= (double)UINT32_MAX) {
        look.sleep_us = UINT32_MAX;
    } else if (sleep_us >= LOOK_SLEEP_US) {
        look.sleep_us = (uint32_t)sleep_us;
    }
    return look;
}
