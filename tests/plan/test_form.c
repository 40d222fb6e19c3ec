/* test_form.c - repacked or as in the file: where each of them is right. */
#include "plan/form.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Figures of the order of a 30B mixture on two cores: 100 ms computing, 1.5 GB a token. */
static const hypura_form_costs base = {.decode = {.repacked_compute_s = 0.08, .plain_compute_s = 0.1},
                                       .read_bytes_per_s = 3e9,
                                       .repack_bytes_per_s = 2.5e9,
                                       .n_threads = 2,
                                       .n_cpus = 2};

static void held_weights_are_repacked(void **state)
{
    (void)state;
    hypura_form_costs costs = base;
    assert_false(hypura_form_prefers_plain(&costs));
    assert_true(hypura_form_repacked_s(&costs, &costs.decode) == 0.08);
    assert_true(hypura_form_plain_s(&costs, &costs.decode) == 0.1);
    costs.decode.read_bytes = 50e6;
    assert_false(hypura_form_prefers_plain(&costs));
}

static void streaming_through_few_processors_is_not(void **state)
{
    (void)state;
    hypura_form_costs costs = base;
    costs.decode.read_bytes = 300e6; /* 100 ms of reading, 120 ms of repacking */
    assert_true(hypura_form_prefers_plain(&costs));
    costs.repack_bytes_per_s = 17e9; /* a type that repacks fast */
    assert_false(hypura_form_prefers_plain(&costs));
}

static void spare_processors_repack_for_nothing(void **state)
{
    (void)state;
    hypura_form_costs costs = base;
    costs.decode.read_bytes = 200e6;
    costs.n_cpus = 8;
    assert_false(hypura_form_prefers_plain(&costs));
    assert_true(hypura_form_repacked_s(&costs, &costs.decode) == 0.08);
    costs.n_cpus = 1; /* fewer than threads: the profile and the caller disagree */
    assert_true(hypura_form_repacked_s(&costs, &costs.decode) > 0.08);
}

static void a_slow_drive_hides_either(void **state)
{
    (void)state;
    hypura_form_costs costs = base;
    costs.decode.read_bytes = 300e6;
    costs.read_bytes_per_s = 0.5e9;
    assert_false(hypura_form_prefers_plain(&costs));
    assert_true(hypura_form_repacked_s(&costs, &costs.decode) == hypura_form_plain_s(&costs, &costs.decode));
}

static void what_is_not_known_costs_nothing(void **state)
{
    (void)state;
    const hypura_form_costs none = {.n_threads = 1};
    assert_false(hypura_form_prefers_plain(&none));
}

static void prompts_count_as_much_as_decoding(void **state)
{
    (void)state;
    hypura_form_costs costs = base; /* decodes 1.25 times as fast repacked */
    costs.prompt = (hypura_form_work){.repacked_compute_s = 0.004, .plain_compute_s = 0.003};
    assert_false(hypura_form_prefers_plain(&costs)); /* 1.33 times, all in all too little */
    costs.prompt.plain_compute_s = 0.002;
    assert_true(hypura_form_prefers_plain(&costs));
    costs.prompt.read_bytes = 12e6; /* 4 ms, and as much of repacking */
    assert_true(hypura_form_prefers_plain(&costs));
    costs.repack_bytes_per_s = 17e9; /* hidden by the drive, like computing */
    assert_false(hypura_form_prefers_plain(&costs));
    costs.prompt = (hypura_form_work){.plain_compute_s = 0.002}; /* the other one is not known */
    assert_false(hypura_form_prefers_plain(&costs));
}

/* Near each other repacked, like the whole; without a rate as in the file. */
static void the_output_is_repacked_where_that_is_not_slower(void **state)
{
    (void)state;
    assert_true(hypura_form_repacks_output(31e9, 47e9));
    assert_true(hypura_form_repacks_output(31e9, 28e9));
    assert_false(hypura_form_repacks_output(31e9, 26e9));
    assert_false(hypura_form_repacks_output(31e9, 0));
    assert_string_equal(hypura_form_name(HYPURA_FORM_OUTPUT), "output");
    assert_string_equal(hypura_form_name(HYPURA_FORM_FILE), "file");
    assert_string_equal(hypura_form_name(HYPURA_FORM_REPACKED), "repacked");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(held_weights_are_repacked),
        cmocka_unit_test(the_output_is_repacked_where_that_is_not_slower),
        cmocka_unit_test(streaming_through_few_processors_is_not),
        cmocka_unit_test(spare_processors_repack_for_nothing),
        cmocka_unit_test(a_slow_drive_hides_either),
        cmocka_unit_test(prompts_count_as_much_as_decoding),
        cmocka_unit_test(what_is_not_known_costs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
