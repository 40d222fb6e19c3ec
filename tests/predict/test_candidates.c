/*
 * test_candidates.c - the largest scores, against sorting all of them.
 */
#include "predict/candidates.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define N_SCORES 50

static void test_the_largest_come_first(void **state)
{
    (void)state;
    uint32_t seed = 7;
    for (uint32_t n = 0; n <= N_SCORES; n++) {
        float scores[N_SCORES];
        uint32_t picked[N_SCORES];
        for (uint32_t i = 0; i < N_SCORES; i++) {
            seed = seed * 1664525u + 1013904223u;
            scores[i] = (float)(seed >> 20) - 2000.0f; /* some are equal */
        }
        hypura_candidates_pick(scores, N_SCORES, picked, n);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t n_larger = 0;
            for (uint32_t j = 0; j < N_SCORES; j++) {
                /* of equal ones the first */
                n_larger += scores[j] > scores[picked[i]] || (scores[j] == scores[picked[i]] && j < picked[i]);
            }
            assert_int_equal(n_larger, i);
        }
    }
}

static void test_scores_that_are_no_numbers_do_no_harm(void **state)
{
    (void)state;
    const float scores[] = {NAN, 1.0f, NAN, -INFINITY, 2.0f};
    uint32_t picked[3];
    hypura_candidates_pick(scores, 5, picked, 3);
    for (int i = 0; i < 3; i++) {
        assert_in_range(picked[i], 0, 4);
        for (int j = 0; j < i; j++) {
            assert_int_not_equal(picked[i], picked[j]);
        }
    }
}

/* Of two tokens: what is added to a score, and what to its sigmoid, decides. */
static void test_a_bias_changes_the_order(void **state)
{
    (void)state;
    const float bias[] = {0.0f, 0.0f, 0.6f};
    for (int on_probability = 0; on_probability < 2; on_probability++) {
        float scores[] = {1.0f, 0.8f, 0.5f, -1.0f, 3.0f, 2.0f};
        uint32_t picked[2][3];
        hypura_candidates_add_bias(scores, 6, bias, 3, on_probability == 1);
        hypura_candidates_pick(scores, 3, picked[0], 3);
        hypura_candidates_pick(scores + 3, 3, picked[1], 3);
        assert_int_equal(picked[0][0], 2); /* 1.1 of 1.0; 1.22 of 0.73 */
        assert_int_equal(picked[1][0], on_probability ? 2 : 1); /* 2.6 of 3.0; 1.48 of 0.95 */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_largest_come_first),
        cmocka_unit_test(test_scores_that_are_no_numbers_do_no_harm),
        cmocka_unit_test(test_a_bias_changes_the_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
