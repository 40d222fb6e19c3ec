/*
 * knee.h - how many bytes of paged weights to hold, decided again and again while a
 * model runs. Pure: no I/O, no clock, no allocation; samples are handed in.
 *
 *     speed
 *       |            .-^-.            more is held: more hits, until what is held
 *       |        .-'      \           takes the memory that the rest of the machine
 *       |     .-'          \          works with, this process's own code included
 *       |   .'              \
 *       +--------------------+-----> bytes held
 *              hit rate rises all along: it does not show the knee
 *
 * So the size follows from memory that others leave, and goes back when stalls or
 * pages read back show that a larger one made the model slower.
 */
#ifndef HYPURA_PLAN_KNEE_H
#define HYPURA_PLAN_KNEE_H

#include "hypura.h"

/* What was seen at one moment. Totals only ever grow. */
typedef struct hypura_knee_sample {
    uint64_t now_us;
    uint64_t held_bytes;      /* what is held now */
    uint64_t available_bytes; /* free or reclaimable, beside what is held */
    uint64_t promised_bytes;  /* that this process has yet to take for other things */
    uint64_t stall_us;        /* total: some task stood still for lack of memory */
    uint64_t n_faults;        /* total: pages of this process that were read back */
    uint64_t needed_bytes;    /* total: weights that computing asked for */
    uint64_t missed_bytes;    /* total: of these, not held when asked for */
} hypura_knee_sample;

typedef struct hypura_knee_window {
    uint64_t begin_us;
    uint64_t stall_us;
    uint64_t n_faults;
    uint64_t needed_bytes;
    uint64_t missed_bytes;
} hypura_knee_window;

typedef struct hypura_knee {
    uint64_t least_bytes;
    uint64_t most_bytes;
    uint64_t total_bytes; /* of memory that this process may ever take */
    uint64_t unit_bytes;  /* what is held grows by so much, or not at all */
    /* memory: what could be held if all of it were taken */
    uint64_t room_bytes;        /* at the last sample; UINT64_MAX: there was none */
    uint64_t calm_since_us;     /* nobody took much since then */
    uint64_t last_us;           /* of the last sample */
    double   late_us;           /* longest time between two samples, as seen lately */
    uint64_t low_bytes[2];      /* least room in this period and the one before */
    uint64_t period_begin_us;
    /* speed */
    hypura_knee_window window;
    double   before_bytes_per_s; /* in the window before the last growth; 0: not known */
    uint64_t before_bytes;       /* held then */
    uint64_t cap_bytes;          /* found to be enough, until */
    uint64_t cap_until_us;
    double   pressed_stalled; /* share of the time when stalls last made it shrink */
    uint64_t pressed_us;
    uint64_t deaf_until_us; /* to stalls that shrinking did not cure */
} hypura_knee;

/* Between least and most bytes held, on a machine or in a group of total bytes. unit: the largest slot, or chunk. */
void hypura_knee_begin(hypura_knee *knee, uint64_t least_bytes, uint64_t most_bytes, uint64_t total_bytes,
                       uint64_t unit_bytes);

/* Bytes to hold from now on; sample->held_bytes when nothing is to change. Several
 * samples a second are right: what others take is seen by comparing two. */
uint64_t hypura_knee_decide(hypura_knee *knee, const hypura_knee_sample *sample, hypura_budget_reason *reason);

/* While memory is being taken for what was decided: a sample between two pieces, with those taken so far in held_bytes.
 * False: others want it, and no more is to be taken. */
bool hypura_knee_goes_on(hypura_knee *knee, const hypura_knee_sample *sample);

/* Memory that is left to others at first, and when nothing has happened for long. It
 * is more where samples come late: who samples on a busy machine sees a thief late. */
uint64_t hypura_knee_first_reserve(uint64_t total_bytes);
uint64_t hypura_knee_calm_reserve(uint64_t total_bytes);

#endif
