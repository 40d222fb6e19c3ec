/*
 * alone.h - whether the thread that waits for reads computes what is there by itself,
 * and lets the others of its team sleep. Pure: it is told how long that took.
 *
 * Waking a team costs 0.1 to 0.5 ms, and what is computed before the last read has come
 * need not be done soon: one thread that is done with it by then is as good as all. Where
 * the team looks for what it waits for (look.h) it computes together.
 */
#ifndef HYPURA_PREDICT_ALONE_H
#define HYPURA_PREDICT_ALONE_H

#include <stdbool.h>
#include <stdint.h>

#define ALONE_SHARE  0.5   /* of the time that is left, for it at most: both times are guesses */
#define ALONE_WEIGHT 0.125 /* of the newest time in the mean */
#define ALONE_FORGET 0.01  /* of the mean, for each work that was too long: so it is tried again some day */

typedef struct hypura_alone {
    double us_per_byte; /* of weights; 0: unknown */
} hypura_alone;

/* Whether one thread computes with so many bytes of weights well before all is there, which
 * takes so many us more; true while it is not known how long it takes. 0: all is there. */
bool hypura_alone_fits(hypura_alone *alone, uint64_t bytes, uint64_t pending_us);

/* It took one thread so long. */
void hypura_alone_took(hypura_alone *alone, uint64_t bytes, uint64_t us);

#endif
