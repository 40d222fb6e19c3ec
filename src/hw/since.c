/*
 * since.c - see since.h.
 */
#include "hw/since.h"

#include "os/os.h"

#include <math.h>
#include <unistd.h>

#define LEAST_US 1000000u

double hypura_since_others(const hypura_since *then)
{
    const hypura_since now = hypura_since_look(hypura_os_others_us);
    double share;
    if (!hypura_since_share(then, &now, &share) || now.at_us - then->at_us < LEAST_US) {
        return 0.0;
    }
    return fmax(share, 0.0) * (double)sysconf(_SC_NPROCESSORS_ONLN);
}
