/*
 * test_worth.c - which layers are guessed, by given times.
 */
#include "predict/worth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { LAYERS = 2000, TOKENS = 60 };

/* A machine whose GPU takes 100 us for a layer, and whose host guesses in `guess_us` and is waited for or not. */
static hypura_worth machine(double guess_us, bool is_late, bool spared)
{
    hypura_worth worth;
    float lacks = 1.0F;
    hypura_worth_open(&worth);
    for (int i = 0; i < LAYERS; i++) {
        const hypura_worth_seen seen = {
            .guessed = true, .lacked = true, .again = !spared, .guess_us = guess_us, .wait_us = is_late ? 0.0 : 20.0};
        hypura_worth_note(&worth, &lacks, &seen);
        hypura_worth_note_layer(&worth, 100.0);
    }
    return worth;
}

static float lacks_behind(hypura_worth *worth, uint32_t n_tokens, uint32_t one_in)
{
    float lacks = 1.0F;
    for (uint32_t t = 1; t <= n_tokens; t++) {
        const hypura_worth_seen seen = {.guessed = true, .lacked = one_in > 0 && t % one_in == 0, .guess_us = 9.0, .wait_us = 20.0};
        hypura_worth_note(worth, &lacks, &seen);
    }
    return lacks;
}

static void unknown_layers_are_guessed(void **state)
{
    (void)state;
    hypura_worth worth;
    float lacks = 1.0F;
    hypura_worth_open(&worth);
    assert_true(hypura_worth_guess(&worth, 1.0F));
    assert_true(hypura_worth_guess(&worth, WORTH_LEAST));
    const hypura_worth_seen late = {.guessed = true, .lacked = true, .again = true, .guess_us = 500.0};
    hypura_worth_note(&worth, &lacks, &late); /* what a layer takes is not known */
    assert_true(hypura_worth_guess(&worth, lacks));
}

static void layers_that_lack_nothing_are_not(void **state)
{
    (void)state;
    hypura_worth worth = machine(9.0, false, true);
    assert_true(hypura_worth_guess(&worth, lacks_behind(&worth, 8, 0)));
    assert_false(hypura_worth_guess(&worth, lacks_behind(&worth, TOKENS, 0)));
    assert_true(hypura_worth_guess(&worth, lacks_behind(&worth, TOKENS, 2)));
    float lacks = lacks_behind(&worth, TOKENS, 0);
    const hypura_worth_seen lacked = {.guessed = false, .lacked = true, .again = true, .wait_us = 20.0};
    hypura_worth_note(&worth, &lacks, &lacked);
    hypura_worth_note(&worth, &lacks, &lacked);
    assert_true(hypura_worth_guess(&worth, lacks)); /* as soon as it lacks something again */
}

/* What a guess takes counts where the GPU waits for it, against what it spares. */
static void the_host_guesses_where_it_has_time(void **state)
{
    (void)state;
    hypura_worth worth = machine(16.0, false, true);
    assert_true(hypura_worth_guess(&worth, 0.15F));
    worth = machine(16.0, true, true);
    assert_true(hypura_worth_guess(&worth, 0.5F));
    assert_true(hypura_worth_guess(&worth, 0.2F));
    assert_false(hypura_worth_guess(&worth, 0.15F)); /* 15 of 100 us, for 16 */
    worth = machine(16.0, true, false);
    assert_false(hypura_worth_guess(&worth, 1.0F)); /* spares nothing */
}

/* The host that does not guess would be late if it did, where it waits for less than a guess takes. */
static void a_host_that_rests_is_not_taken_for_quick(void **state)
{
    (void)state;
    for (int quick = 0; quick < 2; quick++) {
        hypura_worth worth = machine(16.0, true, true);
        float lacks = 0.15F;
        for (int i = 0; i < LAYERS; i++) {
            const hypura_worth_seen seen = {.wait_us = quick ? 17.0 : 15.0};
            hypura_worth_note(&worth, &lacks, &seen);
        }
        assert_true(hypura_worth_guess(&worth, 0.15F) == (quick > 0));
    }
}

/* Guesses that spared nothing are tried again some day. */
static void what_is_not_tried_is_forgotten(void **state)
{
    (void)state;
    hypura_worth worth = machine(16.0, true, false);
    float lacks = 1.0F;
    assert_false(hypura_worth_guess(&worth, lacks));
    for (int i = 0; i < LAYERS; i++) {
        const hypura_worth_seen seen = {.lacked = true, .again = true};
        hypura_worth_note(&worth, &lacks, &seen);
    }
    assert_true(hypura_worth_guess(&worth, lacks));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_layers_are_guessed),
        cmocka_unit_test(layers_that_lack_nothing_are_not),
        cmocka_unit_test(the_host_guesses_where_it_has_time),
        cmocka_unit_test(a_host_that_rests_is_not_taken_for_quick),
        cmocka_unit_test(what_is_not_tried_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
