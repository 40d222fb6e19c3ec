/*
 * brake.c - see brake.h. Medians, because a token may take long for reasons of its
 * own: the user's terminal, another program.
 */
#include "predict/brake.h"

#include "base/median.h"

#include <string.h>

#define TELLS   0.5 /* of the differences of tokens, that reading has to explain: less is left as it is */
#define UNUSUAL 1.5 /* fold of a token's usual time, beside what it reads */

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

/* Sums of squares and products around the means, of tokens of one kind at a time. */
typedef struct moments {
    double together; /* of a token's time and of reading what it lacked */
    double alone;    /* of that reading */
    double all;      /* of the token's time */
} moments;

/* Tokens that took much longer than usual, which others' work does, are left out. */
static void add_moments(moments *sums, const double token_us[BRAKE_SAMPLES], const double reading_us[BRAKE_SAMPLES])
{
    int usual[BRAKE_SAMPLES];
    int n = 0;
    double sorted_us[BRAKE_SAMPLES], mean_token_us = 0.0, mean_reading_us = 0.0;
    memcpy(sorted_us, token_us, sizeof(sorted_us));
    const double most_us = UNUSUAL * hypura_median(sorted_us, BRAKE_SAMPLES);
    for (int i = 0; i < BRAKE_SAMPLES; i++) {
        if (token_us[i] <= most_us + reading_us[i]) {
            mean_token_us += token_us[i];
            mean_reading_us += reading_us[i];
            usual[n++] = i;
        }
    }
    for (int i = 0; i < n; i++) { /* the median is among them: n > 0 */
        const double token = token_us[usual[i]] - mean_token_us / n;
        const double reading = reading_us[usual[i]] - mean_reading_us / n;
        sums->together += token * reading;
        sums->alone += reading * reading;
        sums->all += token * token;
    }
}

/* How much longer tokens of one kind take for each us of reading what they lacked, from 0 (reads
 * hide behind computing, or something else makes most of the difference) to 1. */
static double slope_of_reading(const hypura_brake *brake)
{
    moments sums = {0};
    add_moments(&sums, brake->samples_us[0], brake->reading_us[0]);
    add_moments(&sums, brake->samples_us[1], brake->reading_us[1]);
    const bool tells = sums.together > 0.0 && sums.together * sums.together >= TELLS * sums.alone * sums.all;
    return !tells ? 0.0 : sums.together > sums.alone ? 1.0 : sums.together / sums.alone;
}

static void judge(hypura_brake *brake)
{
    double plain_us[BRAKE_SAMPLES];
    memcpy(plain_us, brake->samples_us[0], sizeof(plain_us));
    const double token_us = hypura_median(plain_us, BRAKE_SAMPLES);
    const double slope = slope_of_reading(brake);
    for (int i = 0; i < BRAKE_SAMPLES; i++) {
        brake->samples_us[0][i] -= slope * brake->reading_us[0][i];
        brake->samples_us[1][i] -= slope * brake->reading_us[1][i];
    }
    const double spread_without_us = spread_us(brake->samples_us[0]);
    const double spread_with_us = spread_us(brake->samples_us[1]);
    const double without = hypura_median(brake->samples_us[0], (int)brake->n_samples[0]);
    const double with = hypura_median(brake->samples_us[1], (int)brake->n_samples[1]);
    const bool clear = without - with > spread_without_us && without - with > spread_with_us;
    brake->gain = (without - with) / token_us;
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
        brake->reading_us[with][brake->n_samples[with]] = reading_us;
        brake->samples_us[with][brake->n_samples[with]++] = token_us;
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
