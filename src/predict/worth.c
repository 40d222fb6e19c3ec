/*
 * worth.c - see worth.h.
 */
#include "predict/worth.h"

#define WEIGHT 0.01  /* of the newest layer, in what all layers share: a token's are dozens */
#define FORGET 0.001 /* towards the best, where nothing is tried: so it is tried again some day */

void hypura_worth_open(hypura_worth *worth)
{
    *worth = (hypura_worth){.spared = 1.0};
}

bool hypura_worth_guess(const hypura_worth *worth, float lacks)
{
    const double gain_us = (double)lacks * worth->spared * worth->layer_us;
    const bool   seen = worth->layer_us > 0.0;
    return lacks >= WORTH_LEAST && (!seen || gain_us >= worth->late * worth->guess_us);
}

static void move(double *mean, double weight, double newest)
{
    *mean += weight * (newest - *mean);
}

void hypura_worth_note(hypura_worth *worth, float *lacks, const hypura_worth_seen *seen)
{
    *lacks += WORTH_WEIGHT * ((seen->lacked ? 1.0F : 0.0F) - *lacks);
    if (seen->guessed) {
        move(&worth->guess_us, worth->guess_us > 0.0 ? WEIGHT : 1.0, seen->guess_us);
        move(&worth->late, WEIGHT, seen->wait_us > 0.0 ? 0.0 : 1.0);
    } else {
        move(&worth->late, WEIGHT, seen->wait_us > worth->guess_us ? 0.0 : 1.0);
    }
    if (seen->lacked && seen->guessed) {
        move(&worth->spared, WEIGHT, seen->again ? 0.0 : 1.0);
    } else if (seen->lacked) {
        move(&worth->spared, FORGET, 1.0);
    }
}

void hypura_worth_note_layer(hypura_worth *worth, double us)
{
    move(&worth->layer_us, worth->layer_us > 0.0 ? WEIGHT : 1.0, us);
}
