/*
 * test_forecast.c - what a token is said to read and to take, from rates and from earlier runs.
 */
#include "builder.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static builder b;

static int setup(void **state)
{
    (void)state;
    builder_init(&b);
    return 0;
}

static bool near(double value, double expected)
{
    return fabs(value - expected) <= 1e-6 * fabs(expected);
}

static void test_resident_models_are_bound_by_memory(void **state)
{
    (void)state;
    builder_dense(&b, 10, 1000, 99900); /* 999 MB, and 1000 bytes */
    builder_tensor(&b, HYPURA_ROLE_EMBEDDING, -1, 100000, 1000, HYPURA_USE_GET_ROWS);
    builder_tensor(&b, HYPURA_ROLE_MTP, -1, 1000, 10000, 0);
    hypura_plan *plan = builder_plan(&b, 8 * GIB);
    assert_true(near(plan->bound_tok_s, 100e9 / (999e6 + 1000 + 1000)));
    assert_true(near(plan->decode_tok_s, plan->bound_tok_s));
    assert_string_equal(plan->bound_by, "compute");
    hypura_plan_free(plan);
}

static void test_dense_models_are_bound_by_what_is_not_pinned(void **state)
{
    (void)state;
    builder_dense(&b, 64, 4096, 8192); /* 2 GiB */
    hypura_plan *plan = builder_plan(&b, GIB);
    double unpinned = (double)b.map.tensor_bytes - 1000.0 - (double)plan->pinned_bytes;
    assert_true(near(plan->read_bytes_per_token, unpinned));
    assert_true(near(plan->bound_tok_s, 2e9 / unpinned));
    assert_true(plan->decode_tok_s < plan->bound_tok_s && plan->decode_tok_s > 0.8 * plan->bound_tok_s);
    assert_true(near(plan->hit_rate, (double)plan->pinned_bytes / (2.0 * (double)GIB)));
    assert_string_equal(plan->bound_by, "storage");
    hypura_plan_free(plan);
}

/* 16 layers of 64 experts, top-8: the shape of a trace that was replayed with the pager's
 * own cache (docs/notes/0010-which-experts-to-keep.md). */
static void test_expert_hits_follow_the_measured_curve(void **state)
{
    (void)state;
    uint64_t matrices[1] = {1000000};
    for (int layer = 0; layer < 16; layer++) {
        builder_experts(&b, layer, 64, 1, matrices);
    }
    b.map.n_experts_used = 8;
    static const struct {
        uint32_t n_slots;
        double hit_rate;
    } cases[] = {{8, 0.0}, {64, 0.275}, {128, 0.448}, {256, 0.618}, {384, 0.733}, {512, 0.822}, {768, 0.946}, {1024, 1.0}};
    uint64_t stride_bytes = (1000000 + 4095) / 4096 * 4096 + 8192;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        hypura_plan *plan = builder_forced(&b, cases[i].n_slots * stride_bytes);
        assert_int_equal(plan->pools[0].n_slots, cases[i].n_slots);
        assert_true(fabs(plan->hit_rate - cases[i].hit_rate) < 0.05);
        assert_true(near(plan->read_bytes_per_token + 1.0, 128e6 * (1.0 - plan->hit_rate) + 1.0));
        hypura_plan_free(plan);
    }
}

static void test_unknown_rates_give_no_forecast(void **state)
{
    (void)state;
    builder_dense(&b, 64, 1024, 1000);
    b.profile.direct_bytes_per_s = 0;
    hypura_plan *plan = builder_plan(&b, 20 * MIB);
    assert_true(plan->bound_tok_s == 0.0 && plan->decode_tok_s == 0.0);
    assert_true(plan->read_bytes_per_token > 0.0);
    assert_string_equal(plan->bound_by, "storage");
    hypura_plan_free(plan);

    plan = builder_plan(&b, GIB);
    assert_true(plan->bound_tok_s > 0.0);
    hypura_plan_free(plan);

    b.profile.memory_bytes_per_s = 0;
    plan = builder_plan(&b, GIB);
    assert_true(plan->bound_tok_s == 0.0 && plan->decode_tok_s == 0.0);
    hypura_plan_free(plan);
}

/* Rates of types, and what is measured beside them, take the place of memory's rate. */
static void test_measured_rates_count(void **state)
{
    (void)state;
    builder_dense(&b, 10, 1000, 99900); /* 999 MB, and a row of 1000 bytes */
    const hypura_rates rates = {.n = 1, .by_type = {{b.tensors[1].type, false, 0, 1e9, 0.05}}, .others_s = 1.0};
    const hypura_plan_options options = {.weights_bytes = 8 * GIB, .rates = &rates};
    hypura_plan *plan = builder_wanted(&b, &options);
    assert_true(fabs(plan->compute_s - (0.999 + 10 * 0.05 + 1.0)) < 1e-3);
    assert_true(near(plan->decode_tok_s, 1.0 / plan->compute_s));
    assert_false(plan->learned);
    hypura_plan_free(plan);
}

/* Weights that stream are computed with like those that stay. */
static void test_streamed_weights_are_computed_with(void **state)
{
    (void)state;
    builder_dense(&b, 64, 4096, 8192); /* 2 GiB */
    const hypura_rates rates = {.n = 1, .by_type = {{b.tensors[1].type, false, 0, 1e9}}};
    const hypura_plan_options options = {.weights_bytes = 300 * MIB, .rates = &rates};
    hypura_plan *plan = builder_wanted(&b, &options);
    assert_int_equal(plan->mode, HYPURA_MODE_DENSE);
    assert_true(fabs(plan->compute_s - 2.147) < 1e-2);
    for (int t = 0; t < plan->n_placements; t++) {
        assert_int_equal(plan->placements[t].gpu, -1);
        assert_int_equal(plan->placements[t].vram_pool, -1);
    }
    hypura_plan_free(plan);
}

/* What a dense model reads is known: of runs it takes computing and how slow reading was. */
static void test_earlier_runs_of_dense_weights_count(void **state)
{
    (void)state;
    builder_dense(&b, 64, 4096, 8192); /* 2 GiB; the drive gives 2e9 bytes a second */
    const double all = (double)b.map.tensor_bytes;
    const hypura_lessons lessons = {.n = 1, .items = {{0.5, 0.25, 4e9, 1.5}}};
    const hypura_plan_options options = {.weights_bytes = (uint64_t)(all * 0.5), .lessons = &lessons};
    hypura_plan *plan = builder_wanted(&b, &options);
    assert_true(plan->learned && near(plan->compute_s, 0.25));
    assert_true(fabs(plan->read_bytes_per_token - 0.5 * all) < 0.02 * all);
    assert_true(near(plan->decode_tok_s, 1.0 / (1.5 * plan->read_bytes_per_token / 2e9 + (1.0 - plan->overlap) * 0.25)));
    assert_true(plan->overlap > 0.9 && plan->overlap < 1.0);
    hypura_plan_free(plan);
}

/* Half held: as it was in that run. More held: what is missed shrinks, and with it what it cost to compute
 * beside. Between two: in between, with the curve's shape. */
static void test_earlier_runs_count(void **state)
{
    (void)state;
    const uint64_t matrix_bytes = MIB;
    b.map.n_experts_used = 4;
    builder_fixed(&b, 1000);
    for (int layer = 0; layer < 32; layer++) {
        builder_experts(&b, layer, 64, 1, &matrix_bytes); /* 2 GiB; the drive gives 2e9 bytes a second */
    }
    const double all = (double)b.map.tensor_bytes;
    const double used = 128.0 * (double)MIB;
    const hypura_rates rates = {.n = 1, .by_type = {{b.tensors[1].type, true, 0, 1e9}}, .others_s = 0.1};
    hypura_plan_options options = {.weights_bytes = (uint64_t)(all * 0.5), .rates = &rates};
    hypura_plan *plan = builder_wanted(&b, &options);
    const double clean_s = plan->compute_s;
    const double expected = plan->read_bytes_per_token;
    assert_false(plan->learned);
    hypura_plan_free(plan);

    const double read = 2.0 * expected;
    hypura_lessons lessons = {.n = 1, .items = {{0.5, 1.0, read, 0.75}}};
    options.lessons = &lessons;
    plan = builder_wanted(&b, &options);
    assert_true(plan->learned && fabs(plan->compute_s - 1.0) < 1e-3);
    assert_true(fabs(plan->read_bytes_per_token - read) < 0.01 * read);
    assert_true(fabs(plan->hit_rate - (1.0 - read / used)) < 0.01);
    /* one after the other */
    assert_true(near(plan->decode_tok_s, 1.0 / (plan->compute_s + 0.75 * plan->read_bytes_per_token / 2e9)));
    hypura_plan_free(plan);

    options.weights_bytes = (uint64_t)(all * 0.8);
    plan = builder_wanted(&b, &options);
    const double at_much = plan->read_bytes_per_token;
    assert_true(at_much < 0.5 * read);
    assert_true(fabs(plan->compute_s - (clean_s + (1.0 - clean_s) * at_much / read)) < 1e-6);
    hypura_plan_free(plan);
    options.rates = NULL; /* what nothing missed would take is not known then */
    plan = builder_wanted(&b, &options);
    assert_true(near(plan->compute_s, 1.0));
    hypura_plan_free(plan);

    lessons.n = 2;
    lessons.items[1] = (hypura_lesson){0.9, 0.5, 0.1 * expected, 0.0}; /* hidden: nothing known of reading */
    options.weights_bytes = (uint64_t)(all * 0.7);
    plan = builder_wanted(&b, &options);
    assert_true(plan->read_bytes_per_token < read && plan->read_bytes_per_token > 0.1 * expected);
    const double part = (plan->read_bytes_per_token - 0.1 * expected) / (read - 0.1 * expected);
    assert_true(fabs(plan->compute_s - (0.5 + 0.5 * part)) < 1e-6);
    assert_true(near(plan->decode_tok_s, 1.0 / (plan->compute_s + 0.75 * plan->read_bytes_per_token / 2e9)));
    hypura_plan_free(plan);
}

/* What a run teaches of reading gives back how long it took. */
static void test_read_factors_are_those_of_the_run(void **state)
{
    (void)state;
    static const struct {
        double overlap, compute_s, storage_s, factor;
    } cases[] = {{0.0, 1.0, 0.5, 1.5}, {0.0, 1.0, 3.0, 0.75}, {0.95, 1.0, 2.0, 1.25}, {0.5, 0.25, 1.0, 2.0}, {0.2, 2.0, 1.0, 1.5}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const hypura_plan plan = {.overlap = cases[i].overlap};
        const double read_s = cases[i].factor * cases[i].storage_s;
        const double longer = read_s > cases[i].compute_s ? read_s : cases[i].compute_s;
        const double seconds = longer + (1.0 - plan.overlap) * (read_s + cases[i].compute_s - longer);
        const double found = hypura_plan_read_factor(&plan, seconds, cases[i].compute_s, cases[i].storage_s);
        assert_true(fabs(found - cases[i].factor) < 1e-9);
    }
    const hypura_plan hides = {.overlap = 0.95};
    assert_true(hypura_plan_read_factor(&hides, 1.01, 1.0, 0.5) == 0.0); /* hidden by computing */
    assert_true(hypura_plan_read_factor(&hides, 1.0, 0.5, 0.0) == 0.0);  /* nothing read */
    assert_true(hypura_plan_read_factor(&hides, 100.0, 0.5, 0.5) <= 4.0);
    assert_true(near(hypura_plan_mix_factors(1.0, 2.0, 0.25), 1.25));
    assert_true(near(hypura_plan_mix_factors(0.0, 2.0, 0.25), 2.0) && near(hypura_plan_mix_factors(1.0, 0.0, 0.75), 1.0));
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_resident_models_are_bound_by_memory),
        TEST(test_dense_models_are_bound_by_what_is_not_pinned),
        TEST(test_expert_hits_follow_the_measured_curve),
        TEST(test_unknown_rates_give_no_forecast),
        TEST(test_measured_rates_count),
        TEST(test_streamed_weights_are_computed_with),
        TEST(test_earlier_runs_of_dense_weights_count),
        TEST(test_earlier_runs_count),
        TEST(test_read_factors_are_those_of_the_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
