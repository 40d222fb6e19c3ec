/*
 * test_budget.c - limits, floors and refusals.
 */
#include "builder.h"

#include "plan/knee.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

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

static void expect_error(const hypura_plan_options *options, hypura_status expected, const char *part)
{
    hypura_plan *plan = (hypura_plan *)&b;
    hypura_error error = {0};
    assert_int_equal(builder_solve(&b, options, &plan, &error), expected);
    assert_null(plan);
    if (!strstr(error.message, part)) {
        fail_msg("\"%s\" does not say \"%s\"", error.message, part);
    }
    assert_int_equal(builder_solve(&b, options, &plan, NULL), expected);
}

static void test_mode_names(void **state)
{
    (void)state;
    assert_string_equal(hypura_mode_name(HYPURA_MODE_RESIDENT), "resident");
    assert_string_equal(hypura_mode_name(HYPURA_MODE_EXPERTS), "experts");
    assert_string_equal(hypura_mode_name(HYPURA_MODE_DENSE), "dense");
    assert_string_equal(hypura_mode_name(HYPURA_MODE_MIXED), "mixed");
}

/* Trunk of 1000 bytes and a ring of three chunks of 32 rows, each in a slot that
 * is padded to whole pages with one more on both sides. */
static void test_the_floor_of_a_dense_model(void **state)
{
    (void)state;
    builder_dense(&b, 16, 1024, 1000);
    assert_int_equal(builder_floor(&b, false), 1000 + 3 * (32768 + 8192));
}

/* Trunk, two slots of three padded matrices. */
static void test_the_floor_of_a_mixture(void **state)
{
    (void)state;
    uint64_t matrices[3] = {100000, 100000, 200000};
    builder_fixed(&b, 5000);
    for (int layer = 0; layer < 4; layer++) {
        builder_experts(&b, layer, 8, 3, matrices);
    }
    b.map.n_experts_used = 2;
    assert_int_equal(builder_floor(&b, false), 5000 + 2 * (2 * (102400 + 8192) + 200704 + 8192));
}

/* Padding would make a tiny model larger than it is: then it is simply held. */
static void test_the_floor_is_never_above_the_model(void **state)
{
    (void)state;
    uint64_t matrices[2] = {100, 100};
    builder_fixed(&b, 500);
    builder_experts(&b, 0, 8, 2, matrices);
    assert_int_equal(builder_floor(&b, false), 500 + 1600);
    /* paging is asked for: eight slots of two padded matrices */
    assert_int_equal(builder_floor(&b, true), 500 + 8 * 2 * 3 * 512);
}

/* From the smallest ring on: more slots, then pinned rows, each never fewer. */
static void test_a_ring_grows_before_rows_are_pinned(void **state)
{
    (void)state;
    builder_dense(&b, 8, 4096, 8192); /* 256 MiB */
    uint64_t floor_bytes = builder_floor(&b, false);
    uint32_t last_slots = 3;
    uint64_t last_slot_bytes = 0, last_pinned_bytes = 0;
    unsigned sizes_seen = 0;
    for (uint64_t budget = floor_bytes; budget < floor_bytes + 40 * MIB; budget += 100000) {
        hypura_plan *plan = builder_plan(&b, budget);
        assert_true(plan->n_ring_slots >= last_slots);
        assert_true(plan->ring_slot_bytes >= last_slot_bytes);
        assert_true(plan->pinned_bytes >= last_pinned_bytes);
        sizes_seen += plan->n_ring_slots > last_slots || plan->ring_slot_bytes > last_slot_bytes;
        last_slots = plan->n_ring_slots;
        last_slot_bytes = plan->ring_slot_bytes;
        last_pinned_bytes = plan->pinned_bytes;
        hypura_plan_free(plan);
    }
    assert_true(sizes_seen >= 3);
    assert_true(last_pinned_bytes > 10 * MIB);
}

/* A weight that fits a slot is one chunk, whatever its neighbours need. */
static void test_a_weight_that_fits_a_slot_is_one_chunk(void **state)
{
    (void)state;
    builder_dense(&b, 1, 8192, 8192);
    builder_dense(&b, 3, 64, 10000);
    hypura_plan *plan = builder_plan(&b, 8 * MIB);
    assert_int_equal(plan->placements[2].chunk_rows % 32, 0);
    assert_int_equal(plan->placements[2].pinned_rows, 0);
    assert_int_equal(plan->placements[3].chunk_rows, 64);
    hypura_plan_free(plan);
}

static void test_the_floor_counts_context_and_overhead(void **state)
{
    (void)state;
    builder_dense(&b, 16, 1024, 1000);
    b.survey.kv_bytes = 7 * MIB;
    b.survey.compute_bytes = 3 * MIB;
    uint64_t floor_bytes = 1000 + 3 * (32768 + 8192);
    hypura_plan_options options = {.memory_bytes = floor_bytes + 15 * MIB, .overhead_bytes = 5 * MIB};
    hypura_plan *plan = builder_wanted(&b, &options);
    assert_int_equal(plan->floor_weights_bytes, floor_bytes);
    assert_int_equal(plan->floor_memory_bytes, floor_bytes + 15 * MIB);
    assert_int_equal(plan->memory_bytes, options.memory_bytes);
    assert_int_equal(plan->kv_bytes, 7 * MIB);
    assert_int_equal(plan->compute_bytes, 3 * MIB);
    assert_int_equal(plan->overhead_bytes, 5 * MIB);
    assert_int_equal(plan->weights_bytes, floor_bytes);
    hypura_plan_free(plan);

    char number[32];
    options.memory_bytes--;
    snprintf(number, sizeof(number), "(%llu bytes)", (unsigned long long)floor_bytes);
    expect_error(&options, HYPURA_ERR_BUDGET, number);
    snprintf(number, sizeof(number), "(%llu bytes)", (unsigned long long)(floor_bytes + 15 * MIB));
    expect_error(&options, HYPURA_ERR_BUDGET, number);
    options.memory_bytes = 1;
    expect_error(&options, HYPURA_ERR_BUDGET, number);
}

/* Above the floor chunks grow before there are more of them. */
static void test_a_small_ring_takes_what_there_is(void **state)
{
    (void)state;
    builder_dense(&b, 16, 1024, 1000);
    hypura_plan *plan = builder_plan(&b, 1000 + 3 * (131072 + 8192) + 100);
    assert_int_equal(plan->n_ring_slots, 3);
    assert_int_equal(plan->ring_slot_bytes, 131072 + 8192);
    hypura_plan_free(plan);
}

/* The last slot that fits is taken, to the byte. */
static void test_slots_are_shared_to_the_last_byte(void **state)
{
    (void)state;
    const hypura_pool_plan pools[] = {{.slot_stride_bytes = 100, .n_units = 8, .n_floor = 1},
                                      {.slot_stride_bytes = 100, .n_units = 8, .n_floor = 1}};
    uint32_t n_slots[2];
    hypura_plan_share_slots(pools, 2, 1100, n_slots);
    assert_int_equal(n_slots[0], 6);
    assert_int_equal(n_slots[1], 5);
    hypura_plan_share_slots(pools, 2, 1099, n_slots);
    assert_int_equal(n_slots[0] + n_slots[1], 10);
    const hypura_pool_plan many = {.slot_stride_bytes = 100, .n_units = 3u << 20, .n_floor = 1};
    hypura_plan_share_slots(&many, 1, UINT64_MAX, n_slots);
    assert_int_equal(n_slots[0], many.n_units); /* no more than there are */
}

/* Small requests are asked for in larger numbers than the drive, measured alone, needs. */
static void test_enough_is_in_flight(void **state)
{
    (void)state;
    builder_dense(&b, 16, 1024, 1000);
    static const struct {
        uint64_t block_bytes;
        uint32_t depth;
        uint32_t planned;
    } rows[] = {{MIB, 1, 4}, {MIB, 8, 8}, {128 << 10, 2, 32}, {4 << 10, 1, 64}, {16 * MIB, 2, 2}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        b.profile.io_block_bytes = rows[i].block_bytes;
        b.profile.io_depth = rows[i].depth;
        hypura_plan *plan = builder_plan(&b, 8 * MIB);
        assert_int_equal(plan->io_depth, rows[i].planned);
        hypura_plan_free(plan);
    }
}

static void test_of_two_limits_the_smaller_counts(void **state)
{
    (void)state;
    builder_dense(&b, 64, 1024, 1000);
    hypura_plan_options options = {.memory_bytes = 60 * MIB, .weights_bytes = 20 * MIB};
    hypura_plan *plan = builder_wanted(&b, &options);
    assert_true(plan->weights_bytes <= 20 * MIB && plan->weights_bytes > 19 * MIB);
    hypura_plan_free(plan);

    options.weights_bytes = 50 * MIB;
    b.survey.kv_bytes = 30 * MIB;
    plan = builder_wanted(&b, &options);
    assert_true(plan->weights_bytes <= 30 * MIB && plan->weights_bytes > 29 * MIB);
    hypura_plan_free(plan);

    /* and the one that is too small is named */
    options.weights_bytes = 1000;
    expect_error(&options, HYPURA_ERR_BUDGET, "1000 B for weights is below the floor");
    options.memory_bytes = 30 * MIB + 500;
    expect_error(&options, HYPURA_ERR_BUDGET, "30 MiB of memory is below the floor");
}

static void test_without_limits_free_memory_decides(void **state)
{
    (void)state;
    builder_dense(&b, 64, 1024, 1 * MIB / 16); /* 4 GiB */
    hypura_plan_options options = {.overhead_bytes = 10 * MIB};
    b.profile.ram_available_bytes = 64 * GIB;
    hypura_plan *plan = builder_wanted(&b, &options);
    assert_int_equal(plan->mode, HYPURA_MODE_RESIDENT);
    assert_int_equal(plan->memory_bytes, b.map.tensor_bytes + 10 * MIB);
    hypura_plan_free(plan);

    b.profile.ram_available_bytes = 3 * GIB;
    plan = builder_wanted(&b, &options);
    assert_int_equal(plan->mode, HYPURA_MODE_DENSE);
    assert_int_equal(plan->memory_bytes, plan->weights_bytes + 10 * MIB);
    const uint64_t left = 3 * GIB - hypura_knee_first_reserve(3 * GIB);
    assert_true(plan->memory_bytes <= left && plan->memory_bytes > left - 20 * MIB);
    assert_true(plan->n_ring_slots > 0);
    hypura_plan_free(plan);

    /* it fits, but could not give anything back when others come */
    b.profile.ram_available_bytes = 5 * GIB;
    plan = builder_wanted(&b, &options);
    assert_int_equal(plan->mode, HYPURA_MODE_DENSE);
    assert_true(plan->n_ring_slots > 0);
    assert_true(plan->nvme_bytes < 20 * MIB);
    hypura_plan_free(plan);
    options.memory_bytes = 5 * GIB; /* asked for, it is for good */
    plan = builder_wanted(&b, &options);
    assert_int_equal(plan->mode, HYPURA_MODE_RESIDENT);
    hypura_plan_free(plan);
    options.memory_bytes = 0;

    b.profile.ram_available_bytes = 20 * MIB;
    expect_error(&options, HYPURA_ERR_BUDGET, "floor");
    b.profile.ram_available_bytes = 0;
    expect_error(&options, HYPURA_ERR_BUDGET, "free");
    options.weights_bytes = GIB;
    plan = builder_wanted(&b, &options);
    assert_int_equal(plan->memory_bytes, 0);
    hypura_plan_free(plan);
}

static void test_a_model_of_hundreds_of_gigabytes(void **state)
{
    (void)state;
    for (int layer = 0; layer < 126; layer++) {
        builder_attention(&b, layer, 16384, 9216);
        builder_ffn(&b, layer, 53248, 9216);
        builder_ffn(&b, layer, 53248, 9216);
        builder_ffn(&b, layer, 16384, 29952);
    }
    assert_true(b.map.tensor_bytes > UINT64_C(200000000000));
    hypura_plan *plan = builder_plan(&b, 24 * GIB);
    assert_int_equal(plan->mode, HYPURA_MODE_DENSE);
    assert_true(24 * GIB - plan->weights_bytes < 2 * MIB);
    assert_true(plan->ring_slot_bytes <= 4 * MIB + 8192);
    assert_true(plan->prefetch_depth * (plan->ring_slot_bytes - 8192) >= 4 * MIB);
    assert_true(plan->ring_bytes <= 32 * MIB);
    hypura_plan_free(plan);
}

/* What is read ahead grows with the drive, and never takes the model over. */
static void test_the_ring_follows_drive_and_model(void **state)
{
    (void)state;
    builder_dense(&b, 64, 4096, 8192); /* 2 GiB */
    hypura_plan *plan = builder_plan(&b, GIB);
    uint64_t slow = plan->ring_bytes;
    assert_true(slow >= 8 * MIB && slow < 32 * MIB);
    hypura_plan_free(plan);
    b.profile.direct_bytes_per_s = 14e9;
    plan = builder_plan(&b, GIB);
    assert_true(plan->ring_bytes > slow);
    assert_true(plan->prefetch_depth * plan->ring_slot_bytes >= 28000000);
    hypura_plan_free(plan);

    builder_init(&b);
    builder_dense(&b, 30, 1536, 360); /* 16 MiB */
    plan = builder_plan(&b, 8 * MIB);
    assert_true(plan->ring_bytes < 4 * MIB);
    assert_true(plan->pinned_bytes > 4 * MIB);
    hypura_plan_free(plan);
}

static void test_nothing_to_page(void **state)
{
    (void)state;
    builder_fixed(&b, 1000000);
    hypura_plan_options options = {.weights_bytes = 999999};
    expect_error(&options, HYPURA_ERR_BUDGET, "(1000000 bytes)");
    options = (hypura_plan_options){.weights_bytes = GIB, .force_paging = true};
    expect_error(&options, HYPURA_ERR_UNSUPPORTED, "model.gguf");
}

static void test_an_empty_model(void **state)
{
    (void)state;
    hypura_plan *plan = builder_plan(&b, 1);
    assert_int_equal(plan->mode, HYPURA_MODE_RESIDENT);
    assert_int_equal(plan->floor_weights_bytes, 0);
    hypura_plan_free(plan);
}

static void test_bad_input_is_refused(void **state)
{
    (void)state;
    builder_dense(&b, 4, 1024, 1000);
    hypura_plan_options options = {.weights_bytes = MIB};
    b.survey.n_uses--;
    expect_error(&options, HYPURA_ERR_USAGE, "4 tensors, the model has 5");
    b.survey.n_uses++;

    b.survey.kv_bytes = UINT64_MAX - 5;
    b.survey.compute_bytes = 6;
    expect_error(&options, HYPURA_ERR_USAGE, "context");
    b.survey.kv_bytes = 0;
    options.overhead_bytes = UINT64_MAX;
    expect_error(&options, HYPURA_ERR_USAGE, "context");
    options.overhead_bytes = 0;

    b.tensors[2].bytes = UINT64_MAX - 100;
    expect_error(&options, HYPURA_ERR_FORMAT, "tensor tensor");
}

static void test_reads_follow_the_profile(void **state)
{
    (void)state;
    builder_dense(&b, 4, 1024, 1000);
    b.profile.io_block_bytes = 524288;
    b.profile.io_depth = 12;
    hypura_plan *plan = builder_plan(&b, GIB);
    assert_int_equal(plan->io_block_bytes, 524288);
    assert_int_equal(plan->io_depth, 12);
    hypura_plan_free(plan);
    b.profile.io_block_bytes = 0;
    b.profile.io_depth = 0;
    plan = builder_plan(&b, GIB);
    assert_int_equal(plan->io_block_bytes, MIB);
    assert_true(plan->io_depth > 0);
    hypura_plan_free(plan);
    hypura_plan_free(NULL);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_mode_names),
        TEST(test_the_floor_of_a_dense_model),
        TEST(test_the_floor_of_a_mixture),
        TEST(test_the_floor_is_never_above_the_model),
        TEST(test_a_ring_grows_before_rows_are_pinned),
        TEST(test_a_weight_that_fits_a_slot_is_one_chunk),
        TEST(test_the_floor_counts_context_and_overhead),
        TEST(test_a_small_ring_takes_what_there_is),
        TEST(test_slots_are_shared_to_the_last_byte),
        TEST(test_enough_is_in_flight),
        TEST(test_of_two_limits_the_smaller_counts),
        TEST(test_without_limits_free_memory_decides),
        TEST(test_a_model_of_hundreds_of_gigabytes),
        TEST(test_the_ring_follows_drive_and_model),
        TEST(test_nothing_to_page),
        TEST(test_an_empty_model),
        TEST(test_bad_input_is_refused),
        TEST(test_reads_follow_the_profile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
