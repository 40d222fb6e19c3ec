/*
 * alone.c - see alone.h.
 */
#include "predict/alone.h"

bool hypura_alone_fits(hypura_alone *alone, uint64_t bytes, uint64_t pending_us)
{
    if (pending_us == 0) {
        return false;
    }
    if ((double)bytes * alone->us_per_byte <= ALONE_SHARE * (double)pending_us) {
        return true;
    }
    alone->us_per_byte *= 1.0 - ALONE_FORGET;
    return false;
}

void hypura_alone_took(hypura_alone *alone, uint64_t bytes, uint64_t us)
{
    if (bytes == 0) {
        return;
    }
    const double now = (double)us / (double)bytes;
    const double weight = alone->us_per_byte > 0 ? ALONE_WEIGHT : 1.0;
    alone->us_per_byte += (now - alone->us_per_byte) * weight;
}
