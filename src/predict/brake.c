/*
 * brake.c - see brake.h. Medians, because a token may take long for reasons of its
 * own: the user's terminal, another program.
 */
#include "predict/brake.h"

#include "base/median.h"

#include <string.h>

void hypura_brake_open(hypura_brake *brake)
{
    *brake = (hypura_brake){.state = HYPURA_BRAKE_TRYING, .off_for = BRAKE_OFF_TOKENS};
}

/* Blocks in the order off on on off: what drifts over a trial weighs on both alike. */
static bool block_is_on(uint32_t token)
{
    const uint32_t block = token / BRAKE_BLOCK_TOKENS % 4;
    return block == 1 || block == 2;
}

bool hypura_brake_is_on(const hypura_brake *brake)
{
    return brake->state == HYPURA_BRAKE_ON || (brake->state == HYPURA_BRAKE_TRYING && block_is_on(brake->token));
}

static void enter(hypura_brake *brake, hypura_brake_state state)
{
    brake->state = state;
    brake->token = 0;
    memset(brake->n_samples, 0, sizeof(brake->n_samples));
}

/* By how much tokens of one kind differ from block to block, the one that differs most on
 * either side left out: what a program does that has the processors for some of the blocks. */
static double spread_us(const double samples_us[BRAKE_SAMPLES])
{
    enum { N = BRAKE_BLOCK_TOKENS - 1, N_BLOCKS = BRAKE_BLOCKS / 2 };
    double medians_us[N_BLOCKS];
    for (int block = 0; block < N_BLOCKS; block++) {
        double sorted_us[N];
        memcpy(sorted_us, samples_us + block * N, sizeof(sorted_us));
        medians_us[block] = hypura_median(sorted_us, N);
    }
    (void)hypura_median(medians_us, N_BLOCKS); /* in order now */
    return medians_us[N_BLOCKS - 2] - medians_us[1];
}

static void judge(hypura_brake *brake)
{
    const double spread_without_us = spread_us(brake->samples_us[0]);
    const double spread_with_us = spread_us(brake->samples_us[1]);
    const double without = hypura_median(brake->samples_us[0], (int)brake->n_samples[0]);
    const double with = hypura_median(brake->samples_us[1], (int)brake->n_samples[1]);
    const bool clear = without - with > spread_without_us && without - with > spread_with_us;
    brake->gain = (without - with) / hypura_median(brake->plain_us, BRAKE_SAMPLES);
    if (brake->gain >= BRAKE_GAIN && !clear) {
        brake->gain = 0.0;
        if (brake->n_repeats++ < BRAKE_REPEATS) {
            enter(brake, HYPURA_BRAKE_TRYING);
            return;
        }
    }
    brake->n_repeats = 0;
    if (brake->gain >= BRAKE_GAIN) {
        brake->off_for = BRAKE_OFF_TOKENS;
        enter(brake, HYPURA_BRAKE_ON);
    } else {
        enter(brake, HYPURA_BRAKE_OFF);
    }
}

static void try_token(hypura_brake *brake, double token_us, double reading_us)
{
    const bool with = block_is_on(brake->token);
    if (brake->token++ % BRAKE_BLOCK_TOKENS != 0) {
        if (!with) {
            brake->plain_us[brake->n_samples[0]] = token_us;
        }
        brake->samples_us[with][brake->n_samples[with]++] = token_us - reading_us;
    }
    if (brake->token == BRAKE_BLOCK_TOKENS * BRAKE_BLOCKS) {
        judge(brake);
    }
}

void hypura_brake_token(hypura_brake *brake, double token_us, double reading_us)
{
    if (token_us <= 0) {
        return;
    }
    switch (brake->state) {
    case HYPURA_BRAKE_TRYING:
        try_token(brake, token_us, reading_us);
        break;
    case HYPURA_BRAKE_ON:
        if (++brake->token == BRAKE_ON_TOKENS) {
            enter(brake, HYPURA_BRAKE_TRYING);
        }
        break;
    case HYPURA_BRAKE_OFF:
        if (++brake->token >= brake->off_for) {
            brake->off_for = brake->off_for < BRAKE_OFF_MOST ? 2 * brake->off_for : BRAKE_OFF_MOST;
            enter(brake, HYPURA_BRAKE_TRYING);
        }
        break;
    }
}

void hypura_brake_refuse(hypura_brake *brake)
{
    if (brake->state == HYPURA_BRAKE_TRYING) {
        brake->gain = 0.0;
        brake->n_repeats = 0;
        enter(brake, HYPURA_BRAKE_OFF);
    }
}

const char *hypura_brake_name(const hypura_brake *brake)
{
    static const char *const names[] = {"trying", "on", "off"};
    return names[brake->state];
}
