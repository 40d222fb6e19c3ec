/*
 * test_coactivation.c - experts guessed from what the layers before selected: made-up
 * routes where the answer is known, and odds worked out by hand.
 */
#include "predict/coactivation.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { N_LAYERS = 4, N_EXPERTS = 32, N_USED = 2 };

static const uint32_t n_experts[N_LAYERS] = {N_EXPERTS, N_EXPERTS, N_EXPERTS, N_EXPERTS};

static hypura_coactivation *open_all(void)
{
    hypura_coactivation *seen = hypura_coactivation_open(N_LAYERS, n_experts, N_USED);
    assert_non_null(seen);
    return seen;
}

static void note(hypura_coactivation *seen, uint32_t layer, const int32_t *ids, uint32_t n_tokens)
{
    const hypura_selected selected = {.n_used = N_USED,
                                      .n_tokens = n_tokens,
                                      .ids = (const char *)ids,
                                      .rank_stride_bytes = sizeof(*ids),
                                      .token_stride_bytes = N_USED * sizeof(*ids)};
    hypura_coactivation_note(seen, layer, &selected);
}

/* Every expert alike by its own past. */
static void score(const hypura_coactivation *seen, uint32_t layer, float *scores)
{
    float chances[N_EXPERTS], frequencies[N_EXPERTS];
    for (int e = 0; e < N_EXPERTS; e++) {
        chances[e] = frequencies[e] = (float)N_USED / N_EXPERTS;
    }
    hypura_coactivation_score(seen, layer, chances, frequencies, scores);
}

/* Expert e is followed by e + 1 (of 32), and by that again: both of a token are alike in it. */
static void pass(hypura_coactivation *seen, int32_t first, int32_t second, uint32_t n_layers)
{
    for (uint32_t l = 0; l < n_layers; l++) {
        const int32_t ids[N_USED] = {(first + (int32_t)l) % N_EXPERTS, (second + (int32_t)l) % N_EXPERTS};
        note(seen, l, ids, 1);
    }
}

static void test_what_always_follows_is_named_first(void **state)
{
    (void)state;
    hypura_coactivation *seen = open_all();
    uint32_t seed = 7;
    for (int t = 0; t < 600; t++) {
        seed = seed * 1664525u + 1013904223u;
        const int32_t first = (int32_t)(seed >> 27);
        seed = seed * 1664525u + 1013904223u;
        pass(seen, first, first + 1 + (int32_t)(seed >> 16) % (N_EXPERTS - 1), N_LAYERS);
    }
    for (uint32_t layer = 1; layer < N_LAYERS; layer++) {
        float scores[N_EXPERTS];
        pass(seen, 3, 20, layer);
        assert_true(hypura_coactivation_knows(seen, layer));
        score(seen, layer, scores);
        const float least = fminf(scores[3 + layer], scores[20 + layer]);
        assert_true(least >= HYPURA_COACTIVATION_LEAST);
        for (uint32_t e = 0; e < N_EXPERTS; e++) {
            assert_true(scores[e] < least || e == 3 + layer || e == 20 + layer);
        }
        pass(seen, 3, 20, 1); /* begins anew */
    }
    hypura_coactivation_close(seen);
}

/* Layer 0 selects the first n experts and layer 1 the n from `from` on, n_times; then what layer 1 is expected to. */
static void odds_behind(int32_t n, int32_t from, int n_times, float *scores)
{
    hypura_coactivation *seen = hypura_coactivation_open(2, n_experts, (uint32_t)n);
    assert_non_null(seen);
    int32_t ids[2][N_EXPERTS];
    float chances[N_EXPERTS], frequencies[N_EXPERTS];
    for (int32_t e = 0; e < N_EXPERTS; e++) {
        ids[0][e] = e;
        ids[1][e] = from + e;
        chances[e] = frequencies[e] = (float)n / N_EXPERTS;
    }
    for (int t = 0; t < 2 * n_times + 1; t++) {
        const hypura_selected selected = {.n_used = (uint32_t)n,
                                          .n_tokens = 1,
                                          .ids = (const char *)ids[t % 2],
                                          .rank_stride_bytes = sizeof(**ids),
                                          .token_stride_bytes = sizeof(*ids)};
        hypura_coactivation_note(seen, (uint32_t)t % 2, &selected);
    }
    hypura_coactivation_score(seen, 1, chances, frequencies, scores);
    hypura_coactivation_close(seen);
}

/* Behind each alike: (uses with it / usual + 2) / (uses + 2); no layer further before. */
static void expect_odds(int32_t n, int32_t from, int n_times, int n_counted)
{
    float scores[N_EXPERTS + 1] = {[N_EXPERTS] = 42.0F};
    odds_behind(n, from, n_times, scores);
    const double usual = (double)n / N_EXPERTS;
    const double own = 0.7 + 1.1 * log(usual / (1.0 - usual));
    for (int32_t e = 0; e < N_EXPERTS; e++) {
        const int with = e >= from && e < from + n ? n_counted : 0;
        assert_true(fabs(scores[e] - (own + 2.3 * log((with / usual + 2) / (n_counted + 2)))) < 1e-4);
    }
    assert_true(scores[N_EXPERTS] == 42.0F);
}

static void test_odds_of_a_few_uses(void **state)
{
    (void)state;
    expect_odds(N_USED, 8, 3, 3);
    expect_odds(20, 10, 3, 3); /* more factors than a product holds */
}

/* Counts are bytes: those of 250 uses are halved before the next. */
static void test_odds_of_many_uses(void **state)
{
    (void)state;
    expect_odds(N_USED, 8, 250, 250);
    expect_odds(N_USED, 8, 251, 126);
    expect_odds(N_USED, 8, 251 + 124, 250);
    expect_odds(N_USED, 8, 251 + 125, 126);
}

/* A prompt teaches what its tokens would one by one, the last of them at least. */
static void test_a_batch_teaches_as_its_tokens_do(void **state)
{
    (void)state;
    enum { MORE = HYPURA_COACTIVATION_TOKENS + 40 };
    static int32_t batches[2][MORE][N_USED];
    hypura_coactivation *one = open_all();
    hypura_coactivation *all = open_all();
    for (int32_t t = 0; t < MORE; t++) {
        for (int32_t l = 0; l < 2; l++) {
            batches[l][t][0] = (t + l) % N_EXPERTS;
            batches[l][t][1] = (t * 3 + 1 + l) % N_EXPERTS == (t + l) % N_EXPERTS ? (t + l + 5) % N_EXPERTS
                                                                                  : (t * 3 + 1 + l) % N_EXPERTS;
        }
    }
    for (int32_t l = 0; l < 2; l++) {
        note(all, (uint32_t)l, batches[l][0], MORE);
        note(all, (uint32_t)l, batches[l][0], MORE); /* told twice, counted once */
    }
    for (int32_t t = MORE - HYPURA_COACTIVATION_TOKENS; t < MORE; t++) {
        note(one, 0, batches[0][t], 1);
        note(one, 1, batches[1][t], 1);
    }
    assert_false(hypura_coactivation_knows(all, 2)); /* a batch of many is not guessed for */
    float of_one[N_EXPERTS], of_all[N_EXPERTS];
    note(one, 0, batches[0][0], 1);
    note(all, 0, batches[0][0], 1);
    score(one, 1, of_one);
    score(all, 1, of_all);
    assert_memory_equal(of_one, of_all, sizeof(of_one));
    hypura_coactivation_close(one);
    hypura_coactivation_close(all);
}

/* What any of its tokens selects: each is guessed for by what it selected itself. */
static void test_a_batch_is_guessed_for_by_each_of_its_tokens(void **state)
{
    (void)state;
    static const int32_t tokens[3][N_USED] = {{3, 20}, {9, 27}, {14, 30}};
    hypura_coactivation *alone[3], *together = open_all();
    double none[N_EXPERTS];
    for (int e = 0; e < N_EXPERTS; e++) {
        none[e] = 1.0;
    }
    for (int s = 0; s < 4; s++) {
        hypura_coactivation *seen = s < 3 ? (alone[s] = open_all()) : together;
        for (int32_t t = 0; t < 200; t++) {
            pass(seen, t % N_EXPERTS, (t * 5 + 1) % N_EXPERTS, N_LAYERS);
        }
        for (uint32_t l = 0; l < 2; l++) {
            int32_t ids[3][N_USED];
            for (int t = 0; t < 3; t++) {
                ids[t][0] = (tokens[t][0] + (int32_t)l) % N_EXPERTS;
                ids[t][1] = (tokens[t][1] + (int32_t)l) % N_EXPERTS;
            }
            note(seen, l, s < 3 ? ids[s] : ids[0], s < 3 ? 1 : 3);
        }
        float scores[N_EXPERTS + 1] = {[N_EXPERTS] = 42.0F};
        assert_true(hypura_coactivation_knows(seen, 2));
        score(seen, 2, scores);
        assert_true(scores[N_EXPERTS] == 42.0F);
        for (int e = 0; e < N_EXPERTS; e++) {
            const double chance = 1.0 / (1.0 + exp(-scores[e]));
            none[e] *= s < 3 ? 1.0 - chance : 1.0;
            assert_true(s < 3 || fabs(chance - (1.0 - none[e])) < 1e-4);
        }
        hypura_coactivation_close(seen);
    }
}

/* Of other tokens nothing is learned, and nothing is known. */
static void test_layers_of_other_batches_are_not_taken_together(void **state)
{
    (void)state;
    hypura_coactivation *seen = open_all();
    const int32_t ids[3][N_USED] = {{1, 2}, {3, 4}, {5, 6}};
    for (int i = 0; i < 50; i++) {
        note(seen, 0, ids[0], 3);
        note(seen, 1, ids[2], 1); /* one of the three reaches this layer */
    }
    assert_true(hypura_coactivation_knows(seen, 2));
    assert_false(hypura_coactivation_knows(seen, 1));
    assert_false(hypura_coactivation_knows(seen, 3));
    assert_false(hypura_coactivation_knows(seen, N_LAYERS));
    float scores[N_EXPERTS];
    note(seen, 0, ids[0], 1);
    score(seen, 1, scores);
    for (int e = 1; e < N_EXPERTS; e++) {
        assert_memory_equal(&scores[e], &scores[0], sizeof(scores[e]));
    }
    hypura_coactivation_close(seen);
}

/* Counts are bytes: many uses halve them, and neither odds nor neighbours suffer. */
static void test_many_uses_do_not_overflow(void **state)
{
    (void)state;
    hypura_coactivation *seen = open_all();
    for (int t = 0; t < 5000; t++) {
        pass(seen, 0, 16, N_LAYERS);
    }
    float scores[N_EXPERTS];
    pass(seen, 0, 16, 2);
    score(seen, 2, scores);
    for (int e = 0; e < N_EXPERTS; e++) {
        assert_int_equal(scores[e] >= HYPURA_COACTIVATION_LEAST, e == 2 || e == 18);
    }
    hypura_coactivation_close(seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_always_follows_is_named_first),
        cmocka_unit_test(test_odds_of_a_few_uses),
        cmocka_unit_test(test_odds_of_many_uses),
        cmocka_unit_test(test_a_batch_teaches_as_its_tokens_do),
        cmocka_unit_test(test_a_batch_is_guessed_for_by_each_of_its_tokens),
        cmocka_unit_test(test_layers_of_other_batches_are_not_taken_together),
        cmocka_unit_test(test_many_uses_do_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
