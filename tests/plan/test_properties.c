/*
 * test_properties.c - what holds for every model and every budget.
 *
 * Random models of every kind at random budgets: sums and legality (builder_check),
 * the floor exact to the byte, and a larger budget never reading more.
 */
#include "builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define N_MODELS  400
#define N_BUDGETS 60

static uint64_t random_state;

static uint64_t random_below(uint64_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (random_state >> 11) % n;
}

static uint64_t random_rows(void)
{
    static const uint64_t multiples[] = {1, 2, 3, 4, 8, 32, 32, 32, 256};
    return multiples[random_below(9)] * (1 + random_below(60));
}

static uint64_t random_row_bytes(void)
{
    static const uint64_t sizes[] = {17, 34, 144, 288, 1152, 2304, 20000};
    return sizes[random_below(7)];
}

static uint32_t random_flags(void)
{
    static const uint32_t flags[] = {
        HYPURA_USE_MUL_MAT,
        HYPURA_USE_MUL_MAT,
        HYPURA_USE_MUL_MAT,
        HYPURA_USE_OTHER,
        HYPURA_USE_MUL_MAT | HYPURA_USE_OTHER,
        0,
    };
    return flags[random_below(6)];
}

static void add_random_layer(builder *b, int layer, bool experts)
{
    for (uint64_t i = random_below(5); i > 0; i--) {
        builder_tensor(b, HYPURA_ROLE_TRUNK, layer, random_rows(), random_row_bytes(), random_flags());
    }
    if (experts && layer > 0) {
        uint64_t scale = 1 + random_below(3);
        uint64_t matrices[3] = {1000 * scale, 1000 * scale, 70000 * random_below(scale) + 1500};
        int n_experts = 1 + (int)random_below(20);
        int bundle = builder_experts(b, layer, n_experts, 2 + (int)random_below(2), matrices);
        if (random_below(10) == 0) {
            b->uses[b->bundles[bundle].tensors[0]].flags |= HYPURA_USE_OTHER;
        }
    } else {
        for (uint64_t i = random_below(4); i > 0; i--) {
            int t = builder_ffn(b, layer, random_rows(), random_row_bytes());
            if (random_below(20) == 0) {
                b->uses[t].n_mul_mat = 2;
            }
        }
    }
}

static void make_random_model(builder *b)
{
    builder_init(b);
    if (random_below(2)) {
        builder_tensor(b, HYPURA_ROLE_EMBEDDING, -1, random_rows() * 10, random_row_bytes(), HYPURA_USE_GET_ROWS);
    } else {
        builder_tensor(b, HYPURA_ROLE_EMBEDDING, -1, random_rows() * 10, random_row_bytes(),
                       HYPURA_USE_GET_ROWS | HYPURA_USE_MUL_MAT);
    }
    bool experts = random_below(2) == 0;
    int n_layers = 1 + (int)random_below(12);
    for (int layer = 0; layer < n_layers; layer++) {
        builder_fixed(b, 100 + random_below(5000));
        add_random_layer(b, layer, experts);
    }
    if (random_below(2)) {
        builder_tensor(b, HYPURA_ROLE_OUTPUT, -1, random_rows() * 10, random_row_bytes(), HYPURA_USE_MUL_MAT);
    }
    b->map.n_experts_used = (int)random_below(25);
    if (random_below(4) == 0) {
        b->profile.direct_bytes_per_s = 0;
    }
    if (random_below(4) == 0) {
        b->profile.memory_bytes_per_s = 0;
    }
    if (random_below(4) == 0) {
        b->profile.io_block_bytes = 0;
        b->profile.io_align_offset_bytes = 512;
    }
}

static bool can_page(const builder *b)
{
    hypura_plan_options options = {.weights_bytes = UINT64_C(1) << 50, .force_paging = true};
    hypura_plan *plan = NULL;
    hypura_status status = builder_solve(b, &options, &plan, NULL);
    hypura_plan_free(plan);
    assert_true(status == HYPURA_OK || status == HYPURA_ERR_UNSUPPORTED);
    return status == HYPURA_OK;
}

static void expect_refused(const builder *b, uint64_t weights_bytes, bool force_paging, uint64_t floor_bytes)
{
    hypura_plan_options options = {.weights_bytes = weights_bytes, .force_paging = force_paging};
    hypura_plan *plan = NULL;
    hypura_error error = {0};
    assert_int_equal(builder_solve(b, &options, &plan, &error), HYPURA_ERR_BUDGET);
    assert_null(plan);
    char number[32];
    snprintf(number, sizeof(number), "(%llu bytes)", (unsigned long long)floor_bytes);
    assert_non_null(strstr(error.message, number));
}

static void check_budgets(const builder *b, bool force_paging)
{
    uint64_t floor_bytes = builder_floor(b, force_paging);
    uint64_t top = b->map.tensor_bytes + b->map.tensor_bytes / 2;
    expect_refused(b, floor_bytes - 1, force_paging, floor_bytes);

    double last_reads = 1e300;
    uint64_t span = top > floor_bytes ? top - floor_bytes : 0;
    for (uint64_t i = 0; i <= N_BUDGETS; i++) {
        /* dense near the floor, where the plan changes most */
        uint64_t budget = floor_bytes + (uint64_t)((double)span * (double)(i * i) / (N_BUDGETS * N_BUDGETS));
        for (uint64_t step = 0; step < 2; step++) {
            hypura_plan *plan = force_paging ? builder_forced(b, budget + step) : builder_plan(b, budget + step);
            assert_int_equal(plan->floor_weights_bytes, floor_bytes);
            assert_true(plan->read_bytes_per_token <= last_reads * (1.0 + 1e-12));
            assert_true(!force_paging || plan->mode != HYPURA_MODE_RESIDENT);
            last_reads = plan->read_bytes_per_token;
            hypura_plan_free(plan);
        }
    }
}

static void test_random_models(void **state)
{
    (void)state;
    int n_paged = 0;
    static builder b;
    for (uint64_t seed = 1; seed <= N_MODELS; seed++) {
        random_state = seed * UINT64_C(0x9E3779B97F4A7C15);
        make_random_model(&b);
        check_budgets(&b, false);
        if (can_page(&b)) {
            check_budgets(&b, true);
            n_paged++;
        }
    }
    assert_true(n_paged > N_MODELS / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_models)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
