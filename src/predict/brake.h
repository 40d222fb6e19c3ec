/*
 * brake.h - whether something that should make tokens faster does, found out on the
 * tokens themselves. Pure: it is told how long each took.
 *
 *          enough tokens of both                gain
 *      TRYING -----------------------> ON  for ON_TOKENS, then TRYING again
 *       ^ | ^  with and without in turn
 *       | +-+  a gain that tokens of one kind differ by as well: tried again, twice at most
 *       |                 no gain, or refused
 *       +----------------------------> OFF  for twice as long as the last time
 *
 * A trial takes BRAKE_BLOCKS blocks of tokens, half of them with it: what a trial costs at
 * worst is that part of its loss, and as OFF doubles, soon none of any weight.
 *
 * Tokens differ most by what they lack, which is chance and the same for both kinds. So of what
 * reading that (over a GPU: uploading it) takes by itself as much is taken off each as tokens of
 * one kind are seen to differ by it: a control variate (Glasserman, "Monte Carlo Methods in
 * Financial Engineering", 2003, section 4.1).
 */
#ifndef HYPURA_PREDICT_BRAKE_H
#define HYPURA_PREDICT_BRAKE_H

#include <stdbool.h>
#include <stdint.h>

#define BRAKE_BLOCK_TOKENS 4  /* with it, or without, in turn; the first of them does not count */
#define BRAKE_BLOCKS       8  /* of a trial */
#define BRAKE_SAMPLES      ((BRAKE_BLOCK_TOKENS - 1) * BRAKE_BLOCKS / 2) /* of each kind */
#define BRAKE_ON_TOKENS    256
#define BRAKE_OFF_TOKENS   256
#define BRAKE_OFF_MOST     8192
#define BRAKE_REPEATS      2
#define BRAKE_GAIN         0.03 /* of a token's time: less is taken for none, as medians of so few differ by that */

typedef enum hypura_brake_state { HYPURA_BRAKE_TRYING = 0, HYPURA_BRAKE_ON, HYPURA_BRAKE_OFF } hypura_brake_state;

typedef struct hypura_brake {
    hypura_brake_state state;
    uint32_t token;     /* of the state */
    uint32_t off_for;   /* tokens, the next time */
    uint32_t n_repeats; /* of this trial */
    uint32_t n_samples[2]; /* without, with */
    double samples_us[2][BRAKE_SAMPLES];
    double reading_us[2][BRAKE_SAMPLES]; /* of what each lacked */
    double gain;        /* that the last trial saw, as a share of a token's time */
} hypura_brake;

void hypura_brake_open(hypura_brake *brake);

/* Whether the token that comes is with it. */
bool hypura_brake_is_on(const hypura_brake *brake);

/* A token of this many microseconds is over; <= 0: one that cannot be compared. Reading what it
 * lacked, early or not, takes so many by itself: to be the same whether the token was with it. */
void hypura_brake_token(hypura_brake *brake, double token_us, double reading_us);

/* It is known to be of no use: a trial ends here. */
void hypura_brake_refuse(hypura_brake *brake);

/* "trying", "on", "off" */
const char *hypura_brake_name(const hypura_brake *brake);

#endif
