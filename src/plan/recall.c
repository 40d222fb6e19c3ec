/*
 * recall.c - see recall.h.
 *
 * A run has three things to say, and all of them are carried to another share by bytes:
 *
 *   reads      how many times as much was read as was expected with so much held. Between two runs that is mixed
 *              by what is held, as logarithms. Beyond all runs it counts the less, the farther the expected reads
 *              are from those of the nearest run (its exponent is the smaller of both over the larger).
 *   computing  what it took. What is there is computed in pieces while the rest is read, and threads are woken for
 *              each: so computing grows with what is missed. Between two runs it is in proportion to that;
 *              with more held than in all runs, between the last one and a token that misses nothing. With less
 *              held it is as it was.
 *   factor     how many times as long as at the drive's full rate a byte took. Between two runs by what each has
 *              read; of a run that read less than is asked for, the rest is read as without runs.
 *
 * docs/notes/0095-what-a-run-says-of-other-shares.md has what that came to.
 */
#include "plan/recall.h"

#include <math.h>

/* What a run can have been slowed down by; beyond, it was by something else. */
#define MOST_FACTOR 4.0

double plan_mix(double a, double b, double part)
{
    return a + (b - a) * part;
}

double hypura_plan_mix_factors(double a, double b, double part)
{
    return a <= 0.0 ? b : b <= 0.0 ? a : plan_mix(a, b, part);
}

/* seconds = max(compute, read) + (1 - overlap) min(compute, read), solved for read. A
 * reading that computing hides tells nothing. */
double hypura_plan_read_factor(const hypura_plan *plan, double seconds, double compute_s, double storage_s)
{
    const double alone = 1.0 - plan->overlap;
    double read_s = seconds - alone * compute_s;
    if (read_s < compute_s) {
        read_s = alone > 0.5 ? (seconds - compute_s) / alone : 0.0;
    }
    return storage_s > 0.0 && read_s > 0.0 ? fmin(read_s / storage_s, MOST_FACTOR) : 0.0;
}

/* Read / expected; 0: not known. */
static double misfit_of(const hypura_lesson *lesson, double expected_bytes)
{
    return expected_bytes > 0.0 ? lesson->read_bytes / expected_bytes : 0.0;
}

static double mix_misfits(double a, double b, double part)
{
    if (a <= 0.0 || b <= 0.0) {
        return a > 0.0 ? a : b > 0.0 ? b : 1.0;
    }
    return a * pow(b / a, part);
}

/* Low has read more, as a rule. */
static void recall_between(const hypura_lesson *low, const hypura_lesson *high, double low_misfit, double high_misfit,
                           plan_token *token)
{
    const double span = high->held - low->held;
    const double part = span > 0.0 ? (token->held - low->held) / span : 0.0;
    const double most = fmax(token->most_bytes, fmax(low->read_bytes, high->read_bytes));
    token->read_bytes = fmin(token->read_bytes * mix_misfits(low_misfit, high_misfit, part), most);
    const double reads = low->read_bytes - high->read_bytes;
    const double missed = reads > 0.0 ? (token->read_bytes - high->read_bytes) / reads : 1.0 - part;
    const double of_low = fmin(fmax(missed, 0.0), 1.0);
    token->compute_s = plan_mix(high->compute_s, low->compute_s, of_low);
    const double low_bytes = of_low * low->read_bytes;
    const double both_bytes = low_bytes + (1.0 - of_low) * high->read_bytes;
    const double factor = hypura_plan_mix_factors(high->read_factor, low->read_factor,
                                                  both_bytes > 0.0 ? low_bytes / both_bytes : of_low);
    token->read_factor = factor > 0.0 ? factor : token->read_factor;
}

static void recall_beyond(const hypura_lesson *lesson, double expected_bytes, plan_token *token)
{
    const double misfit = misfit_of(lesson, expected_bytes);
    const double most = fmax(token->most_bytes, lesson->read_bytes);
    if (misfit > 0.0 && token->read_bytes > 0.0) {
        const double nearness = fmin(token->read_bytes, expected_bytes) / fmax(token->read_bytes, expected_bytes);
        token->read_bytes = fmin(token->read_bytes * pow(misfit, nearness), most);
    }
    const double clean_s = token->compute_s;
    const bool reads_less = lesson->read_bytes > token->read_bytes;
    const bool grows = clean_s > 0.0 && lesson->compute_s > clean_s && reads_less;
    token->compute_s =
        grows ? plan_mix(clean_s, lesson->compute_s, token->read_bytes / lesson->read_bytes) : lesson->compute_s;
    if (lesson->read_factor > 0.0) {
        const double known = reads_less || token->read_bytes <= 0.0 ? 1.0 : lesson->read_bytes / token->read_bytes;
        token->read_factor = plan_mix(token->read_factor, lesson->read_factor, known);
    }
}

void plan_recall(const hypura_lessons *lessons, const double *expected_bytes, plan_token *token)
{
    int above = 0;
    while (above < lessons->n && lessons->items[above].held < token->held) {
        above++;
    }
    const int nearest = above > 0 ? above - 1 : 0;
    if (above == 0 || above == lessons->n) {
        recall_beyond(&lessons->items[nearest], expected_bytes[nearest], token);
        return;
    }
    const hypura_lesson *low = &lessons->items[nearest];
    const hypura_lesson *high = &lessons->items[above];
    recall_between(low, high, misfit_of(low, expected_bytes[nearest]), misfit_of(high, expected_bytes[above]), token);
}
