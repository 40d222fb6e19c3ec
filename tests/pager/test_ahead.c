/*
 * test_ahead.c - experts read before their layer selects them: right guesses, wrong
 * ones, and whether guessing pays.
 */
#include "ahead_fixture.h"

#include "predict/coactivation.h"

#include <stdlib.h>

static void a_right_guess_is_a_hit(void **state)
{
    (void)state;
    fixture_name_engines();
    for (size_t e = 0; e < 2; e++) {
        fixture f;
        fixture_open(&f, &shape);
        hypura_pager *pager = open_pager(&f, fixture_engine(e), NULL, NULL);
        const uint32_t guess[] = {3, 14, 7};
        const uint32_t selected[] = {7, 3};
        hypura_pager_enter(pager);
        hypura_pager_expect_experts(pager, 1, guess, 3, HYPURA_LIKELY);
        wait_bytes(pager, 3 * EXPERT_BYTES);
        const hypura_statistics before = statistics_of(pager);
        assert_int_equal(before.ahead_bytes_read, 3 * EXPERT_BYTES);
        assert_int_equal(before.bytes_needed, 0);
        visit(pager, 1, selected, 2);
        uint32_t slots[2];
        assert_int_equal(hypura_pager_lease_experts(pager, 1, selected, 2, slots), 2);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(hypura_pager_wait_expert(pager, 1, slots[i], UINT32_MAX), HYPURA_OK);
            assert_true(fixture_expert_is_right(&f, pager, 1, selected[i], slots[i]));
            hypura_pager_release_expert(pager, 1, slots[i]);
        }
        assert_int_equal(statistics_of(pager).ahead_bytes_useful, 2 * EXPERT_BYTES);
        /* what was wrong is held like anything else that was read */
        assert_int_equal(compute(&f, pager, 1, &guess[1], 1), 1);
        /* each once, with what lies between two sectors; the last of them may have come after all else */
        assert_true(statistics_of(pager).bytes_read < 4 * EXPERT_BYTES);
        hypura_pager_leave(pager);
        hypura_pager_close(pager);
        fixture_close(&f);
    }
}

/* Statistics begin anew between a guess and the selection: what is of use was read. */
static void a_guess_outlives_a_reset(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &shape);
    hypura_pager  *pager = open_pager(&f, NULL, NULL, NULL);
    const uint32_t guess[] = {3, 14, 7};
    hypura_pager_enter(pager);
    hypura_pager_expect_experts(pager, 1, guess, 3, HYPURA_LIKELY);
    wait_bytes(pager, 3 * EXPERT_BYTES);
    hypura_pager_reset_statistics(pager);
    assert_int_equal(statistics_of(pager).ahead_bytes_read, 3 * EXPERT_BYTES);
    assert_int_equal(compute(&f, pager, 1, guess, 2), 2);
    assert_int_equal(statistics_of(pager).ahead_bytes_useful, 2 * EXPERT_BYTES);
    hypura_pager_reset_statistics(pager);
    assert_int_equal(statistics_of(pager).ahead_bytes_read, 0);
    hypura_pager_leave(pager);
    hypura_pager_close(pager);
    fixture_close(&f);
}

/* The number of an expert says nothing without its layer. */
static void another_layers_selection_is_no_proof(void **state)
{
    (void)state;
    const uint32_t guess[] = {3, 14, 7};
    for (int bundle = 0; bundle < FIXTURE_LAYERS; bundle++) {
        fixture f;
        fixture_open(&f, &shape);
        hypura_pager *pager = open_pager(&f, NULL, NULL, NULL);
        hypura_pager_enter(pager);
        hypura_pager_expect_experts(pager, 1, guess, 3, HYPURA_LIKELY);
        wait_bytes(pager, 3 * EXPERT_BYTES);
        hypura_pager_settle_experts(pager, bundle, guess, 2);
        hypura_pager_settle_experts(pager, 1, guess, 3); /* nothing is expected any more */
        assert_int_equal(statistics_of(pager).ahead_bytes_useful, bundle == 1 ? 2 * EXPERT_BYTES : 0);
        hypura_pager_leave(pager);
        hypura_pager_close(pager);
        fixture_close(&f);
    }
}

/* Whatever is guessed, and whenever the selection comes, what is leased is right. */
static void guesses_change_no_byte(void **state)
{
    (void)state;
    fixture_name_engines();
    for (size_t e = 0; e < 2; e++) {
        fixture f;
        fixture_open(&f, &shape);
        hypura_pager *pager = open_pager(&f, fixture_engine(e), NULL, NULL);
        srand(11);
        hypura_pager_enter(pager);
        for (int round = 0; round < 240; round++) {
            const int bundle = round % FIXTURE_LAYERS;
            uint32_t  selected[3];
            uint32_t  guess[4];
            for (uint32_t i = 0; i < 4; i++) {
                guess[i] = i * 4 + (uint32_t)rand() % 4;
            }
            for (uint32_t i = 0; i < 3; i++) {
                selected[i] = rand() % 2 ? guess[i] : i * 4 + (uint32_t)rand() % 4;
            }
            if (rand() % 4 > 0) {
                hypura_pager_expect_experts(pager, bundle, guess, 1 + (uint32_t)rand() % 4,
                                            (hypura_certainty)(rand() % 3));
            }
            if (rand() % 2) {
                usleep((useconds_t)(rand() % 300));
            }
            if (rand() % 8 == 0) { /* another layer comes first */
                assert_int_equal(compute(&f, pager, rand() % FIXTURE_LAYERS, selected, 3), 3);
            }
            assert_int_equal(compute(&f, pager, bundle, selected, 3), 3);
        }
        hypura_pager_leave(pager);
        const hypura_statistics statistics = statistics_of(pager);
        assert_true(statistics.ahead_bytes_useful > 0);
        assert_true(statistics.ahead_bytes_read >= statistics.ahead_bytes_useful);
        assert_true(statistics.ahead_bytes_read <= statistics.bytes_read);
        hypura_pager_close(pager);
        fixture_close(&f);
    }
}

static void an_expectation_leaves_half_of_the_slots(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &shape);
    hypura_pager *pager = open_pager(&f, NULL, NULL, NULL);
    uint32_t      experts[FIXTURE_EXPERTS];
    uint32_t      slots[FIXTURE_EXPERTS];
    for (uint32_t i = 0; i < FIXTURE_EXPERTS; i++) {
        experts[i] = i;
    }
    hypura_pager_enter(pager);
    hypura_pager_expect_experts(pager, 1, experts, FIXTURE_EXPERTS, HYPURA_CERTAIN);
    wait_bytes(pager, 4 * EXPERT_BYTES);
    assert_int_equal(statistics_of(pager).ahead_bytes_read, 4 * EXPERT_BYTES);
    assert_int_equal(hypura_pager_lease_experts(pager, 0, experts, FIXTURE_EXPERTS, slots), 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(hypura_pager_wait_expert(pager, 0, slots[i], UINT32_MAX), HYPURA_OK);
        hypura_pager_release_expert(pager, 0, slots[i]);
    }
    hypura_pager_leave(pager);
    /* and does not keep what is to be given back */
    const uint64_t slot_bytes = f.plan.pools[0].slot_stride_bytes;
    assert_in_range(hypura_pager_resize(pager, 4 * slot_bytes), slot_bytes, 4 * slot_bytes);
    hypura_pager_close(pager);
    fixture_close(&f);
}

/* Also where less is expected than would fill it: the other half is the later layer's, which may select something else. */
static void half_is_left_to_a_layer_that_comes_later(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &shape);
    hypura_pager *pager = open_pager(&f, NULL, NULL, NULL);
    const uint32_t guess = 3;
    uint32_t experts[FIXTURE_EXPERTS];
    uint32_t slots[FIXTURE_EXPERTS];
    for (uint32_t i = 0; i < FIXTURE_EXPERTS; i++) {
        experts[i] = i;
    }
    hypura_pager_enter(pager);
    for (int bundle = 0; bundle < 2; bundle++) {
        hypura_pager_expect_experts(pager, 1, &guess, 1, HYPURA_LIKELY);
        wait_bytes(pager, EXPERT_BYTES);
        const uint32_t n = hypura_pager_lease_experts(pager, bundle, experts, FIXTURE_EXPERTS, slots);
        assert_int_equal(n, bundle == 0 ? 4 : 8);
        for (uint32_t i = 0; i < FIXTURE_EXPERTS; i++) {
            if (slots[i] != UINT32_MAX) {
                assert_int_equal(hypura_pager_wait_expert(pager, bundle, slots[i], UINT32_MAX), HYPURA_OK);
                hypura_pager_release_expert(pager, bundle, slots[i]);
            }
        }
    }
    hypura_pager_leave(pager);
    hypura_pager_close(pager);
    fixture_close(&f);
}

/* With a single slot there is no half to give away. */
static void one_slot_is_never_held(void **state)
{
    (void)state;
    fixture         f;
    fixture_options tiny = shape;
    tiny.n_slots = 1;
    fixture_open(&f, &tiny);
    f.plan.pools[0].n_units = 1;
    hypura_pager *pager = open_pager(&f, NULL, NULL, NULL);
    uint32_t      experts[FIXTURE_EXPERTS];
    for (uint32_t i = 0; i < FIXTURE_EXPERTS; i++) {
        experts[i] = i;
    }
    hypura_pager_enter(pager);
    for (uint32_t round = 0; round < 4; round++) {
        assert_int_equal(compute(&f, pager, 1, &experts[round], 1), 1);
        hypura_pager_expect_experts(pager, 1, experts, FIXTURE_EXPERTS, HYPURA_CERTAIN);
        assert_int_equal(compute(&f, pager, 0, experts, 2), 1);
    }
    assert_int_equal(statistics_of(pager).ahead_bytes_read, 0);
    hypura_pager_leave(pager);
    hypura_pager_close(pager);
    fixture_close(&f);
}

/* Every expert of a layer is followed by the same one of the next: what comes next is read before it is
 * asked for, for each of the tokens, and no other byte is. */
static void read_what_came_together(uint32_t n_tokens)
{
    fixture f;
    hypura_pager *pager = NULL;
    hypura_error  error = {0};
    fixture_open(&f, &shape);
    f.map.n_experts_used = 1;
    f.plan.io_block_bytes = 4096;
    const hypura_pager_options options = {.map = &f.map, .plan = &f.plan, .foresight = HYPURA_FORESIGHT_COACTIVATION};
    if (hypura_pager_open(&options, &pager, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    hypura_pager_enter(pager);
    uint64_t useful = 0;
    for (uint32_t token = 0; token < 64; token++) {
        for (int bundle = 0; bundle < FIXTURE_LAYERS; bundle++) {
            uint32_t selected[2];
            int32_t  ids[2];
            for (uint32_t t = 0; t < n_tokens; t++) {
                selected[t] = (token * 5 + t * 7 + (uint32_t)bundle * 3) % FIXTURE_EXPERTS;
                ids[t] = (int32_t)selected[t];
            }
            const hypura_selection selection = {.bundle = bundle,
                                                .selected = {.n_used = 1,
                                                             .n_tokens = n_tokens,
                                                             .ids = (const char *)ids,
                                                             .rank_stride_bytes = sizeof(*ids),
                                                             .token_stride_bytes = sizeof(*ids)}};
            hypura_pager_note_selection(pager, &selection);
            assert_int_equal(compute_by(&f, pager, bundle, n_tokens, selected, n_tokens), n_tokens);
            assert_int_equal(hypura_pager_guesser(pager), HYPURA_GUESS_COACTIVATION);
            if (token >= 48 && bundle + 1 < FIXTURE_LAYERS) {
                hypura_pager_expect_companions(pager, bundle + 1);
                wait_bytes(pager, 0);
            }
        }
        useful = token == 47 ? statistics_of(pager).ahead_bytes_useful : useful;
    }
    const hypura_statistics after = statistics_of(pager);
    assert_string_equal(after.foresight_by, "co-activation");
    assert_int_equal(useful, 0);
    assert_true(after.ahead_bytes_useful >= n_tokens * 16 * EXPERT_BYTES); /* of 32 each, of which some are there */
    assert_int_equal(after.ahead_bytes_useful, after.ahead_bytes_read);
    hypura_pager_leave(pager);
    hypura_pager_close(pager);
    fixture_close(&f);
}

static void what_came_together_before_is_read_ahead(void **state)
{
    (void)state;
    read_what_came_together(1);
    read_what_came_together(2);
}

/* What a GPU holds of the layers has no slots here: those of another layer are not filled with it. */
static void a_layer_without_slots_is_not_guessed(void **state)
{
    (void)state;
    fixture f;
    hypura_pager *pager = NULL;
    hypura_error  error = {0};
    fixture_open(&f, &shape);
    f.map.n_experts_used = 1;
    const hypura_bundle *last = &f.map.bundles[FIXTURE_LAYERS - 1];
    for (int i = 0; i < last->n_tensors; i++) {
        f.placements[last->tensors[i]] = (hypura_placement){.place = HYPURA_PLACE_VRAM, .pool = -1, .vram_pool = -1};
    }
    const hypura_pager_options options = {.map = &f.map, .plan = &f.plan, .foresight = HYPURA_FORESIGHT_COACTIVATION};
    if (hypura_pager_open(&options, &pager, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    hypura_pager_enter(pager);
    for (uint32_t token = 0; token < 8; token++) {
        for (int bundle = 0; bundle + 1 < FIXTURE_LAYERS; bundle++) {
            const uint32_t selected = (token + (uint32_t)bundle) % FIXTURE_EXPERTS;
            const int32_t  id = (int32_t)selected;
            const hypura_selection selection = {
                .bundle = bundle, .selected = {.n_used = 1, .n_tokens = 1, .ids = (const char *)&id}};
            hypura_pager_note_selection(pager, &selection);
            assert_int_equal(compute_by(&f, pager, bundle, 1, &selected, 1), 1);
        }
        hypura_pager_expect_companions(pager, FIXTURE_LAYERS - 1);
        assert_int_not_equal(pager->ahead.bundle, FIXTURE_LAYERS - 1);
        wait_bytes(pager, 0);
    }
    assert_int_equal(statistics_of(pager).ahead_bytes_read, 0);
    hypura_pager_leave(pager);
    hypura_pager_close(pager);
    fixture_close(&f);
}

static void pass_of(fixture *f, hypura_pager *pager, uint32_t n_tokens)
{
    for (int bundle = 0; bundle < FIXTURE_LAYERS; bundle++) {
        const uint32_t selected = (uint32_t)rand() % FIXTURE_EXPERTS;
        assert_int_equal(compute_by(f, pager, bundle, n_tokens, &selected, 1), 1);
    }
}

static void what_the_counts_take_is_planned(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &shape);
    hypura_map map = f.map;
    map.n_experts_used = 2;
    uint32_t n_experts[FIXTURE_LAYERS];
    for (int b = 0; b < map.n_bundles; b++) {
        n_experts[b] = (uint32_t)map.bundles[b].n_experts;
    }
    const uint64_t bytes =
        hypura_coactivation_bytes((uint32_t)map.n_bundles, n_experts, (uint32_t)map.n_experts_used);
    assert_true(bytes > 0);
    assert_int_equal(hypura_pager_coactivation_bytes(&map), bytes);
    map.n_bundles = 1; /* nothing comes before it */
    assert_int_equal(hypura_pager_coactivation_bytes(&map), 0);
    fixture_close(&f);
}

/* Passes of as many tokens are compared with one another, and a prompt with nothing. A trial begins with four without. */
static void each_number_of_tokens_has_a_trial_of_its_own(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &shape);
    hypura_pager *pager = open_pager(&f, NULL, NULL, NULL);
    srand(5);
    hypura_pager_enter(pager);
    assert_int_equal(hypura_pager_guesser(pager), HYPURA_GUESS_NOBODY);
    static const uint32_t sizes[] = {8, 31, 1, 2};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        for (int n = 0; n < 4; n++) {
            pass_of(&f, pager, sizes[i]);
            assert_int_equal(hypura_pager_guesser(pager), HYPURA_GUESS_NOBODY);
        }
        pass_of(&f, pager, sizes[i]); /* its begin is the fourth one's end */
        assert_int_equal(hypura_pager_guesser(pager), HYPURA_GUESS_COACTIVATION);
    }
    pass_of(&f, pager, 40);
    assert_int_equal(hypura_pager_guesser(pager), HYPURA_GUESS_NOBODY);
    pass_of(&f, pager, 8);
    assert_int_equal(hypura_pager_guesser(pager), HYPURA_GUESS_COACTIVATION);
    for (int n = 0; n < 12; n++) { /* in turns, as guessed tokens come */
        pass_of(&f, pager, 3 + (uint32_t)n % 2);
        assert_int_equal(hypura_pager_guesser(pager), n < 8 ? HYPURA_GUESS_NOBODY : HYPURA_GUESS_COACTIVATION);
    }
    assert_string_equal(statistics_of(pager).foresight, "trying");
    hypura_pager_leave(pager);
    hypura_pager_close(pager);
    fixture_close(&f);
}

/* A trial ends within the token in which the guesses prove to be wrong. */
static void wrong_guesses_end_a_trial(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &shape);
    hypura_pager *pager = open_pager(&f, NULL, NULL, NULL);
    hypura_pager_enter(pager);
    uint32_t at = 0;
    for (int token = 0; hypura_pager_guesser(pager) == HYPURA_GUESS_NOBODY; token++) {
        assert_true(token < 8); /* the trial begins without guesses */
        for (int bundle = 0; bundle < FIXTURE_LAYERS; bundle++) {
            const uint32_t selected[] = {at % 16, (at + 1) % 16, (at + 2) % 16};
            at += 3;
            assert_int_equal(compute(&f, pager, bundle, selected, 3), 3);
        }
    }
    const uint64_t begin = statistics_of(pager).ahead_bytes_read;
    const uint32_t others[] = {8, 9, 10, 11, 7, 6, 5, 4}; /* of another layer, in all slots */
    assert_int_equal(compute(&f, pager, 2, others, 8), 8);
    int n_guessed = 0;
    for (; hypura_pager_guesser(pager) != HYPURA_GUESS_NOBODY; n_guessed++) {
        const uint32_t guess[] = {12, 13, 14, 15};
        const uint32_t selected[] = {(uint32_t)n_guessed % 8};
        const uint64_t read = statistics_of(pager).bytes_read;
        assert_true(n_guessed < 8);
        hypura_pager_expect_experts(pager, 1, guess, 4, HYPURA_LIKELY);
        wait_bytes(pager, read + 4 * EXPERT_BYTES);
        assert_int_equal(compute(&f, pager, 1, selected, 1), 1);
        assert_int_equal(compute(&f, pager, 2, others, 8), 8);
    }
    assert_in_range((statistics_of(pager).ahead_bytes_read - begin) / EXPERT_BYTES, 16, 19);
    assert_string_equal(statistics_of(pager).foresight, "off");
    hypura_pager_leave(pager);
    hypura_pager_close(pager);
    fixture_close(&f);
}

/* Layers see all tokens of a prompt, but the last one: what came there last is what is expected. */
static void few_tokens_of_a_prompt_reach_the_last_layer(void **state)
{
    (void)state;
    static const struct {
        uint32_t n_tokens[FIXTURE_LAYERS];
        uint32_t reach; /* the last layer, of 100 tokens */
    } batches[] = {
        {{0, 0, 0}, 1}, {{64, 64, 3}, 3}, {{8, 8, 8}, 3}, {{1, 1, 1}, 3}, {{40, 40, 40}, 100}, {{512, 512, 1}, 1},
    };
    fixture f;
    fixture_open(&f, &shape);
    hypura_pager  *pager = open_pager(&f, fixture_engine(0), NULL, NULL);
    hypura_pager_enter(pager);
    for (size_t i = 0; i < sizeof(batches) / sizeof(batches[0]); i++) {
        for (int bundle = 0; bundle < FIXTURE_LAYERS && batches[i].n_tokens[bundle] > 0; bundle++) {
            hypura_pager_begin_layer(pager, bundle, batches[i].n_tokens[bundle]);
        }
        assert_int_equal(hypura_pager_tokens_that_reach(pager, FIXTURE_LAYERS - 1, 100), batches[i].reach);
        assert_int_equal(hypura_pager_tokens_that_reach(pager, FIXTURE_LAYERS - 1, 8), 8);
        assert_int_equal(hypura_pager_tokens_that_reach(pager, 1, 100), 100);
    }
    hypura_pager_leave(pager);
    hypura_pager_close(pager);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_right_guess_is_a_hit),
        cmocka_unit_test(a_guess_outlives_a_reset),
        cmocka_unit_test(another_layers_selection_is_no_proof),
        cmocka_unit_test(guesses_change_no_byte),
        cmocka_unit_test(an_expectation_leaves_half_of_the_slots),
        cmocka_unit_test(half_is_left_to_a_layer_that_comes_later),
        cmocka_unit_test(one_slot_is_never_held),
        cmocka_unit_test(wrong_guesses_end_a_trial),
        cmocka_unit_test(what_came_together_before_is_read_ahead),
        cmocka_unit_test(a_layer_without_slots_is_not_guessed),
        cmocka_unit_test(what_the_counts_take_is_planned),
        cmocka_unit_test(each_number_of_tokens_has_a_trial_of_its_own),
        cmocka_unit_test(few_tokens_of_a_prompt_reach_the_last_layer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
