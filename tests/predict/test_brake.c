/*
 * test_brake.c - tokens of given times, with and without.
 */
#include "predict/brake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

typedef struct course {
    double without_us;
    double with_us;
    double noise_us; /* added to every seventh token, at random times this many fold */
    uint32_t seed;
} course;

/* Returns what n tokens take. */
static double pass(hypura_brake *brake, course *c, uint32_t n)
{
    double total = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        c->seed = c->seed * 1664525u + 1013904223u;
        const double noise = (c->seed >> 24) % 7 == 0 ? c->noise_us * ((c->seed >> 16) % 8) : 0.0;
        const double token_us = (hypura_brake_is_on(brake) ? c->with_us : c->without_us) + noise;
        total += token_us - noise;
        hypura_brake_token(brake, token_us, 0);
    }
    return total;
}

static void test_a_gain_is_kept(void **state)
{
    (void)state;
    hypura_brake brake;
    course c = {.without_us = 1000, .with_us = 800};
    hypura_brake_open(&brake);
    pass(&brake, &c, BRAKE_BLOCKS * BRAKE_BLOCK_TOKENS);
    assert_int_equal(brake.state, HYPURA_BRAKE_ON);
    assert_string_equal(hypura_brake_name(&brake), "on");
    assert_true(brake.gain > 0.19 && brake.gain < 0.21);
    assert_true(hypura_brake_is_on(&brake));
    assert_true(pass(&brake, &c, 4000) < 4000 * 0.83 * 1000);
}

static void test_a_loss_costs_less_than_a_hundredth(void **state)
{
    (void)state;
    hypura_brake brake;
    course c = {.without_us = 1000, .with_us = 1100};
    hypura_brake_open(&brake);
    pass(&brake, &c, BRAKE_BLOCKS * BRAKE_BLOCK_TOKENS);
    assert_int_equal(brake.state, HYPURA_BRAKE_OFF);
    assert_false(hypura_brake_is_on(&brake));
    assert_true(pass(&brake, &c, 10000) < 10000 * 1.01 * 1000);
}

/* What does not pay is tried less and less often: after 256, 512, 1024 tokens and so on. */
static void test_trials_in_vain_become_rare(void **state)
{
    (void)state;
    hypura_brake brake;
    course c = {.without_us = 1000, .with_us = 1100};
    int n_trials = 0;
    hypura_brake_open(&brake);
    for (int i = 0; i < 20000; i++) {
        n_trials += brake.state == HYPURA_BRAKE_TRYING && brake.token == 0;
        pass(&brake, &c, 1);
    }
    assert_int_equal(n_trials, 7);
}

static double lack_any(uint32_t drawn)
{
    return 1000.0 * (drawn % 7);
}

/* Two of five lack a lot, the others nothing. */
static double lack_much(uint32_t drawn)
{
    return drawn % 5 < 2 ? 6000.0 : 0.0;
}

/* Of 200 trials, those that end ON. What tokens lack differs: reading it takes 0 to 6 ms, of which so
 * much is waited for; of 2 ms beside that some are won. */
static int trials_won_of(double (*lack)(uint32_t), double waited, double won_us, bool told)
{
    int n_on = 0;
    uint32_t seed = 1;
    for (int trial = 0; trial < 200; trial++) {
        hypura_brake brake;
        hypura_brake_open(&brake);
        while (brake.state == HYPURA_BRAKE_TRYING) {
            seed = seed * 1664525u + 1013904223u;
            const double reading_us = lack(seed >> 24);
            const double noise_us = 100.0 * ((seed >> 16) % 4);
            const double token_us = 2000 + waited * reading_us + noise_us - (hypura_brake_is_on(&brake) ? won_us : 0.0);
            hypura_brake_token(&brake, token_us, told ? reading_us : 0);
        }
        n_on += brake.state == HYPURA_BRAKE_ON;
    }
    return n_on;
}

static int trials_won(double waited, double won_us, bool told)
{
    return trials_won_of(lack_any, waited, won_us, told);
}

static void test_what_tokens_lack_hides_no_gain(void **state)
{
    (void)state;
    assert_true(trials_won_of(lack_much, 0.9, 500, true) >= 195); /* such a token is not one that others disturbed */
    assert_true(trials_won(0.9, 500, true) >= 190);
    assert_true(trials_won(0.9, 500, false) <= 100); /* nothing else tells it */
}

/* Nor does it make one up, where reads are waited for or where they hide behind computing. */
static void test_what_tokens_lack_is_no_gain(void **state)
{
    (void)state;
    assert_true(trials_won(0.9, 0, true) <= trials_won(0.9, 0, false) / 2);
    assert_true(trials_won(0.3, 0, true) <= trials_won(0.3, 0, false));
    assert_int_equal(trials_won(0.0, 0, true), trials_won(0.0, 0, false));
}

/* No difference: off, as what does not help may still wear the drive. */
static void test_no_gain_is_none(void **state)
{
    (void)state;
    hypura_brake brake;
    course c = {.without_us = 1000, .with_us = 995};
    hypura_brake_open(&brake);
    pass(&brake, &c, BRAKE_BLOCKS * BRAKE_BLOCK_TOKENS);
    assert_int_equal(brake.state, HYPURA_BRAKE_OFF);
}

static void test_what_changes_is_seen(void **state)
{
    (void)state;
    hypura_brake brake;
    course c = {.without_us = 1000, .with_us = 900};
    hypura_brake_open(&brake);
    pass(&brake, &c, 100);
    assert_int_equal(brake.state, HYPURA_BRAKE_ON);
    c.with_us = 1200;
    pass(&brake, &c, BRAKE_ON_TOKENS + BRAKE_BLOCKS * BRAKE_BLOCK_TOKENS);
    assert_int_equal(brake.state, HYPURA_BRAKE_OFF);
    c.with_us = 900;
    pass(&brake, &c, BRAKE_OFF_TOKENS + BRAKE_BLOCKS * BRAKE_BLOCK_TOKENS);
    assert_int_equal(brake.state, HYPURA_BRAKE_ON);
}

static void decide(hypura_brake *brake, course *c)
{
    hypura_brake_open(brake);
    while (brake->state == HYPURA_BRAKE_TRYING) {
        pass(brake, c, 1);
    }
}

/* Tokens that take several times as long, one in seven, change no judgement. */
static void test_stray_tokens_do_not_count(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 50; seed++) {
        hypura_brake brake;
        course gain = {.without_us = 1000, .with_us = 900, .noise_us = 1000, .seed = seed};
        decide(&brake, &gain);
        assert_int_equal(brake.state, HYPURA_BRAKE_ON);
        course loss = {.without_us = 900, .with_us = 1000, .noise_us = 1000, .seed = seed};
        decide(&brake, &loss);
        assert_int_equal(brake.state, HYPURA_BRAKE_OFF);
    }
}

/* A program has the processors for some tokens of the trial, whichever these are: that is no gain of what is tried, and
 * what the trial after it sees counts. */
static void test_what_others_take_is_no_gain(void **state)
{
    (void)state;
    const uint32_t trial = BRAKE_BLOCKS * BRAKE_BLOCK_TOKENS;
    for (uint32_t first = 0; first < trial; first++) {
        for (uint32_t n = BRAKE_BLOCK_TOKENS; first + n < trial; n++) {
            hypura_brake brake;
            course calm = {.without_us = 1000, .with_us = 1010};
            hypura_brake_open(&brake);
            for (uint32_t i = 0; i < trial; i++) {
                hypura_brake_token(&brake, i >= first && i < first + n ? 2200 : 1000, 0);
            }
            if (brake.state == HYPURA_BRAKE_ON || brake.gain >= BRAKE_GAIN) {
                fail_msg("tokens %u to %u took longer: a gain of %.2f", first, first + n - 1, brake.gain);
            }
            pass(&brake, &calm, trial);
            assert_int_equal(brake.state, HYPURA_BRAKE_OFF);
        }
    }
}

/* One that comes and goes all the time hides what there may be to gain: no trial in a row goes on for ever. */
static void test_trials_that_tell_nothing_end(void **state)
{
    (void)state;
    const uint32_t trial = BRAKE_BLOCKS * BRAKE_BLOCK_TOKENS;
    hypura_brake brake;
    hypura_brake_open(&brake);
    course   gain = {.without_us = 1000, .with_us = 800};
    uint32_t off_for = BRAKE_OFF_TOKENS;
    for (int times = 0; times < 2; times++) {
        for (uint32_t i = 0; i < (1 + BRAKE_REPEATS) * trial; i++) {
            assert_int_equal(brake.state, HYPURA_BRAKE_TRYING);
            const uint32_t at = i % trial;
            const bool     other = at >= trial * 3 / 8 && at < trial * 5 / 8; /* two blocks without */
            hypura_brake_token(&brake, other ? 2200 : 1000, 0);
        }
        assert_int_equal(brake.state, HYPURA_BRAKE_OFF);
        assert_true(brake.gain == 0.0);
        pass(&brake, &gain, off_for);
        off_for *= 2;
    }
    pass(&brake, &gain, trial);
    assert_int_equal(brake.state, HYPURA_BRAKE_ON);
}

static void test_what_cannot_be_compared_is_no_token(void **state)
{
    (void)state;
    hypura_brake brake;
    hypura_brake_open(&brake);
    for (int i = 0; i < 1000; i++) {
        hypura_brake_token(&brake, 0, 0);
    }
    assert_int_equal(brake.state, HYPURA_BRAKE_TRYING);
    assert_int_equal(brake.token, 0);
}

static void test_a_refusal_ends_a_trial(void **state)
{
    (void)state;
    hypura_brake brake;
    course c = {.without_us = 1000, .with_us = 800};
    hypura_brake_open(&brake);
    pass(&brake, &c, BRAKE_BLOCK_TOKENS + 2);
    assert_true(hypura_brake_is_on(&brake));
    hypura_brake_refuse(&brake);
    assert_int_equal(brake.state, HYPURA_BRAKE_OFF);
    pass(&brake, &c, BRAKE_OFF_TOKENS + BRAKE_BLOCKS * BRAKE_BLOCK_TOKENS);
    assert_int_equal(brake.state, HYPURA_BRAKE_ON);
    hypura_brake_refuse(&brake); /* proven by its gain */
    assert_int_equal(brake.state, HYPURA_BRAKE_ON);
    pass(&brake, &c, BRAKE_ON_TOKENS);
    assert_true(brake.state == HYPURA_BRAKE_TRYING && brake.gain > 0.0);
    brake.n_repeats = 1;
    hypura_brake_refuse(&brake); /* of what was known nothing is left */
    assert_true(brake.state == HYPURA_BRAKE_OFF && brake.gain == 0.0 && brake.n_repeats == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_gain_is_kept),
        cmocka_unit_test(test_a_loss_costs_less_than_a_hundredth),
        cmocka_unit_test(test_trials_in_vain_become_rare),
        cmocka_unit_test(test_what_tokens_lack_hides_no_gain),
        cmocka_unit_test(test_what_tokens_lack_is_no_gain),
        cmocka_unit_test(test_no_gain_is_none),
        cmocka_unit_test(test_what_changes_is_seen),
        cmocka_unit_test(test_stray_tokens_do_not_count),
        cmocka_unit_test(test_what_others_take_is_no_gain),
        cmocka_unit_test(test_trials_that_tell_nothing_end),
        cmocka_unit_test(test_what_cannot_be_compared_is_no_token),
        cmocka_unit_test(test_a_refusal_ends_a_trial),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
