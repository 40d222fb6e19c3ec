/* test_form.c - repacked or as in the file: where each of them is right. */
#include "plan/form.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Figures of the order of a 30B mixture on two cores: 100 ms computing, 1.5 GB a token. */
static const hypura_form_costs base = {.repacked_compute_s = 0.08,
                                       .plain_compute_s = 0.1,
                                       .read_bytes_per_s = 3e9,
                                       .repack_bytes_per_s = 2.5e9,
                                       .n_threads = 2,
                                       .n_cpus = 2};

static void held_weights_are_repacked(void **state)
{
    (void)state;
    hypura_form_costs costs = base;
    assert_false(hypura_form_prefers_plain(&costs));
    assert_true(hypura_form_repacked_s(&costs) == 0.08);
    assert_true(hypura_form_plain_s(&costs) == 0.1);
    costs.read_bytes = 50e6;
    assert_false(hypura_form_prefers_plain(&costs));
}

static void streaming_through_few_processors_is_not(void **state)
{
    (void)state;
    hypura_form_costs costs = base;
    costs.read_bytes = 300e6; /* 100 ms of reading, 120 ms of repacking */
    assert_true(hypura_form_prefers_plain(&costs));
    costs.repack_bytes_per_s = 17e9; /* a type that repacks fast */
    assert_false(hypura_form_prefers_plain(&costs));
}

static void spare_processors_repack_for_nothing(void **state)
{
    (void)state;
    hypura_form_costs costs = base;
    costs.read_bytes = 200e6;
    costs.n_cpus = 8;
    assert_false(hypura_form_prefers_plain(&costs));
    assert_true(hypura_form_repacked_s(&costs) == 0.08);
    costs.n_cpus = 1; /* fewer than threads: the profile and the caller disagree */
    assert_true(hypura_form_repacked_s(&costs) > 0.08);
}

static void a_slow_drive_hides_either(void **state)
{
    (void)state;
    hypura_form_costs costs = base;
    costs.read_bytes = 300e6;
    costs.read_bytes_per_s = 0.5e9;
    assert_false(hypura_form_prefers_plain(&costs));
    assert_true(hypura_form_repacked_s(&costs) == hypura_form_plain_s(&costs));
}

static void what_is_not_known_costs_nothing(void **state)
{
    (void)state;
    const hypura_form_costs none = {.n_threads = 1};
    assert_false(hypura_form_prefers_plain(&none));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(held_weights_are_repacked),
        cmocka_unit_test(streaming_through_few_processors_is_not),
        cmocka_unit_test(spare_processors_repack_for_nothing),
        cmocka_unit_test(a_slow_drive_hides_either),
        cmocka_unit_test(what_is_not_known_costs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
