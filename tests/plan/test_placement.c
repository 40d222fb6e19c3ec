/*
 * test_placement.c - which tensor goes where, on models made by hand.
 */
#include "builder.h"

#include "plan/layout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

static builder b;

static int setup(void **state)
{
    (void)state;
    builder_init(&b);
    return 0;
}

static hypura_place place_of(const hypura_plan *plan, int t)
{
    return plan->placements[t].place;
}

/* Embedding, eight layers of attention and FFN, output: 112 MiB (96 when tied) in all. */
typedef struct dense_model {
    int embedding, norm, output;
    int attention[8];
    int ffn[8];
} dense_model;

static dense_model make_dense(bool tied)
{
    dense_model m;
    m.embedding = builder_tensor(&b, HYPURA_ROLE_EMBEDDING, -1, 4096, 4 * KIB, HYPURA_USE_GET_ROWS);
    m.norm = builder_fixed(&b, 4 * KIB);
    for (int layer = 0; layer < 8; layer++) {
        m.attention[layer] = builder_attention(&b, layer, 512, 4 * KIB);
        m.ffn[layer] = builder_ffn(&b, layer, 2048, 4 * KIB);
    }
    m.output = -1;
    if (tied) {
        b.uses[m.embedding] =
            (hypura_use){.flags = HYPURA_USE_GET_ROWS | HYPURA_USE_MUL_MAT, .n_mul_mat = 1, .order = b.next_order++};
    } else {
        m.output = builder_tensor(&b, HYPURA_ROLE_OUTPUT, -1, 4096, 4 * KIB, HYPURA_USE_MUL_MAT);
    }
    return m;
}

static void test_all_resident_when_it_fits(void **state)
{
    (void)state;
    make_dense(false);
    hypura_plan *plan = builder_plan(&b, b.map.tensor_bytes);
    assert_int_equal(plan->mode, HYPURA_MODE_RESIDENT);
    assert_int_equal(plan->resident_bytes, b.map.tensor_bytes);
    assert_int_equal(plan->nvme_bytes, 0);
    assert_true(plan->hit_rate == 1.0 && plan->read_bytes_per_token == 0.0);
    hypura_plan_free(plan);
}

static void test_rows_leave_first(void **state)
{
    (void)state;
    dense_model m = make_dense(false);
    hypura_plan *plan = builder_plan(&b, b.map.tensor_bytes - 1);
    assert_int_equal(plan->mode, HYPURA_MODE_DENSE);
    assert_int_equal(place_of(plan, m.embedding), HYPURA_PLACE_ROWS);
    assert_int_equal(plan->resident_bytes, b.map.tensor_bytes - 16 * MIB);
    assert_int_equal(plan->n_ring_slots, 0);
    assert_true(plan->read_bytes_per_token == 4096.0);
    hypura_plan_free(plan);
}

static void test_layer_embeddings_are_rows_and_position_tables_stay(void **state)
{
    (void)state;
    int rows = builder_tensor(&b, HYPURA_ROLE_LAYER_EMBEDDING, -1, 1000, 100, HYPURA_USE_GET_ROWS);
    int positions = builder_tensor(&b, HYPURA_ROLE_TRUNK, -1, 1000, 100, HYPURA_USE_GET_ROWS);
    hypura_plan *plan = builder_plan(&b, 100000);
    assert_int_equal(place_of(plan, rows), HYPURA_PLACE_ROWS);
    assert_int_equal(place_of(plan, positions), HYPURA_PLACE_RESIDENT);
    hypura_plan_free(plan);
}

static void test_ffn_streams_before_anything_else(void **state)
{
    (void)state;
    dense_model m = make_dense(false);
    /* 32 MiB of attention and output stay, half of the 64 MiB of FFN is pinned */
    hypura_plan *plan = builder_plan(&b, 64 * MIB);
    assert_int_equal(plan->mode, HYPURA_MODE_DENSE);
    for (int layer = 0; layer < 8; layer++) {
        assert_int_equal(place_of(plan, m.ffn[layer]), HYPURA_PLACE_DENSE);
        assert_int_equal(place_of(plan, m.attention[layer]), HYPURA_PLACE_RESIDENT);
    }
    assert_int_equal(place_of(plan, m.output), HYPURA_PLACE_RESIDENT);
    assert_int_equal(place_of(plan, m.norm), HYPURA_PLACE_RESIDENT);
    /* nothing is left over but less than a group of rows */
    assert_true(64 * MIB - plan->weights_bytes < 32 * 4 * KIB);
    hypura_plan_free(plan);
}

static void test_attention_then_output_follow_when_they_must(void **state)
{
    (void)state;
    dense_model m = make_dense(false);
    hypura_plan *plan = builder_plan(&b, 30 * MIB);
    assert_int_equal(place_of(plan, m.ffn[0]), HYPURA_PLACE_DENSE);
    assert_int_equal(place_of(plan, m.attention[7]), HYPURA_PLACE_DENSE);
    assert_int_equal(place_of(plan, m.output), HYPURA_PLACE_RESIDENT);
    hypura_plan_free(plan);

    plan = builder_plan(&b, 8 * MIB);
    assert_int_equal(place_of(plan, m.attention[0]), HYPURA_PLACE_DENSE);
    assert_int_equal(place_of(plan, m.output), HYPURA_PLACE_DENSE);
    assert_int_equal(place_of(plan, m.norm), HYPURA_PLACE_RESIDENT);
    hypura_plan_free(plan);
}

static void test_the_same_share_of_every_weight_is_pinned(void **state)
{
    (void)state;
    dense_model m = make_dense(false);
    int small = builder_ffn(&b, 8, 160, 4 * KIB);
    hypura_plan *plan = builder_plan(&b, 60 * MIB);
    int64_t least = INT64_MAX, most = 0;
    for (int layer = 0; layer < 8; layer++) {
        int64_t rows = plan->placements[m.ffn[layer]].pinned_rows;
        least = rows < least ? rows : least;
        most = rows > most ? rows : most;
    }
    assert_true(least > 0 && most < 2048 && most - least <= 32);
    double share = (double)least / 2048;
    double small_share = (double)plan->placements[small].pinned_rows / 160;
    assert_true(small_share >= share - 0.2 && small_share <= share + 0.2);
    hypura_plan_free(plan);
}

static void test_tied_embeddings_stream_last_and_as_a_product(void **state)
{
    (void)state;
    dense_model m = make_dense(true);
    hypura_plan *plan = builder_plan(&b, 40 * MIB);
    assert_int_equal(place_of(plan, m.ffn[0]), HYPURA_PLACE_DENSE);
    assert_int_equal(place_of(plan, m.embedding), HYPURA_PLACE_RESIDENT);
    hypura_plan_free(plan);

    plan = builder_plan(&b, 6 * MIB);
    assert_int_equal(place_of(plan, m.embedding), HYPURA_PLACE_DENSE);
    hypura_plan_free(plan);
}

static void test_tied_embeddings_used_by_two_products_stay(void **state)
{
    (void)state;
    dense_model m = make_dense(true);
    b.uses[m.embedding].n_mul_mat = 2;
    assert_true(builder_floor(&b, false) > b.tensors[m.embedding].bytes);
    hypura_plan *plan = builder_plan(&b, builder_floor(&b, false));
    assert_int_equal(place_of(plan, m.embedding), HYPURA_PLACE_RESIDENT);
    hypura_plan_free(plan);
}

static void test_weights_used_otherwise_stay(void **state)
{
    (void)state;
    dense_model m = make_dense(false);
    b.uses[m.ffn[0]].flags |= HYPURA_USE_OTHER;
    b.uses[m.ffn[1]].n_mul_mat = 2;
    b.uses[m.ffn[2]] = (hypura_use){.order = UINT32_MAX};
    b.tensors[m.ffn[3]].ne[1] /= 2;
    b.tensors[m.ffn[3]].ne[2] = 2;
    hypura_plan *plan = builder_plan(&b, builder_floor(&b, false));
    for (int layer = 0; layer < 8; layer++) {
        assert_int_equal(place_of(plan, m.ffn[layer]), layer < 4 ? HYPURA_PLACE_RESIDENT : HYPURA_PLACE_DENSE);
    }
    hypura_plan_free(plan);
}

static void test_rows_that_kernels_would_treat_otherwise_are_not_cut(void **state)
{
    (void)state;
    int odd[8];
    for (int i = 0; i < 8; i++) {
        odd[i] = builder_ffn(&b, i, 1001, 1000);
    }
    hypura_plan *plan = builder_plan(&b, 6 * MIB);
    for (int i = 0; i < 8; i++) {
        const hypura_placement *placement = &plan->placements[odd[i]];
        assert_int_equal(placement->place, HYPURA_PLACE_DENSE);
        assert_int_equal(placement->chunk_rows, 1001);
        assert_true(placement->pinned_rows == 0 || placement->pinned_rows == 1001);
    }
    assert_true(plan->ring_slot_bytes > 1001 * 1000);
    hypura_plan_free(plan);
}

/* One weight that may not be cut would need a ring three times its size. */
static void test_a_single_uncuttable_weight_stays(void **state)
{
    (void)state;
    dense_model m = make_dense(false);
    int odd = builder_tensor(&b, HYPURA_ROLE_OUTPUT, -1, 4097, 4 * KIB, HYPURA_USE_MUL_MAT);
    hypura_plan *plan = builder_plan(&b, builder_floor(&b, false));
    assert_int_equal(place_of(plan, odd), HYPURA_PLACE_RESIDENT);
    assert_int_equal(place_of(plan, m.output), HYPURA_PLACE_DENSE);
    hypura_plan_free(plan);
}

static void test_forced_paging_of_a_dense_model_that_fits(void **state)
{
    (void)state;
    dense_model m = make_dense(false);
    hypura_plan *plan = builder_forced(&b, GIB);
    assert_int_equal(plan->mode, HYPURA_MODE_DENSE);
    assert_int_equal(place_of(plan, m.ffn[0]), HYPURA_PLACE_DENSE);
    assert_int_equal(plan->placements[m.ffn[0]].pinned_rows, 2048);
    assert_int_equal(plan->ring_bytes, 0);
    hypura_plan_free(plan);
}

static void test_the_order_is_that_of_the_graph(void **state)
{
    (void)state;
    int second = builder_ffn(&b, 0, 64, 64);
    int norm = builder_fixed(&b, 64);
    int first = builder_ffn(&b, 0, 64, 64);
    b.uses[second].order = 7;
    b.uses[first].order = 3;
    hypura_plan *plan = builder_plan(&b, GIB);
    assert_int_equal(plan->order[0], first);
    assert_int_equal(plan->order[1], second);
    assert_int_equal(plan->order[2], norm);
    hypura_plan_free(plan);
}

/* ---- experts ------------------------------------------------------------ */

static const uint64_t matrices_a[3] = {512 * KIB, 512 * KIB, 512 * KIB};
static const uint64_t matrices_b[3] = {512 * KIB, 512 * KIB, 640 * KIB};

/* Two dense layers, then experts whose down matrix is larger in every third layer. */
typedef struct moe_model {
    int attention[12];
    int ffn[2];
    int first_bundle;
} moe_model;

static moe_model make_moe(int n_experts, int top_k)
{
    moe_model m;
    builder_tensor(&b, HYPURA_ROLE_EMBEDDING, -1, 4096, 4 * KIB, HYPURA_USE_GET_ROWS);
    for (int layer = 0; layer < 12; layer++) {
        m.attention[layer] = builder_attention(&b, layer, 256, 4 * KIB);
        if (layer < 2) {
            m.ffn[layer] = builder_ffn(&b, layer, 1024, 4 * KIB);
        } else {
            builder_experts(&b, layer, n_experts, 3, layer % 3 == 0 ? matrices_b : matrices_a);
        }
    }
    b.map.n_experts = n_experts;
    b.map.n_experts_used = top_k;
    return m;
}

static void test_experts_go_to_pools_and_the_trunk_stays(void **state)
{
    (void)state;
    moe_model m = make_moe(16, 2);
    hypura_plan *plan = builder_plan(&b, 120 * MIB);
    assert_int_equal(plan->mode, HYPURA_MODE_EXPERTS);
    for (int layer = 0; layer < 12; layer++) {
        assert_int_equal(place_of(plan, m.attention[layer]), HYPURA_PLACE_RESIDENT);
    }
    assert_int_equal(place_of(plan, m.ffn[1]), HYPURA_PLACE_RESIDENT);
    assert_int_equal(plan->resident_bytes, 20 * MIB);
    assert_int_equal(plan->n_pools, 2);
    assert_true(120 * MIB - plan->weights_bytes < 2 * MIB);
    hypura_plan_free(plan);
}

static void test_size_classes_hold_the_same_share(void **state)
{
    (void)state;
    make_moe(16, 2);
    hypura_plan *plan = builder_plan(&b, 120 * MIB);
    const hypura_pool_plan *a = &plan->pools[0], *c = &plan->pools[1];
    assert_int_equal(a->n_units + c->n_units, 160);
    double share_a = a->n_slots / (double)a->n_units;
    double share_c = c->n_slots / (double)c->n_units;
    assert_true(share_a > 0.3 && share_a < 0.5);
    assert_true(share_a - share_c < 1.0 / c->n_units && share_c - share_a < 1.0 / c->n_units);
    hypura_plan_free(plan);
}

static void test_pools_never_exceed_their_experts(void **state)
{
    (void)state;
    make_moe(16, 2);
    hypura_plan *plan = builder_forced(&b, 64 * GIB);
    assert_int_equal(plan->mode, HYPURA_MODE_EXPERTS);
    for (int i = 0; i < plan->n_pools; i++) {
        assert_int_equal(plan->pools[i].n_slots, plan->pools[i].n_units);
    }
    assert_true(plan->hit_rate == 1.0);
    hypura_plan_free(plan);
}

static void test_the_floor_of_a_pool_is_top_k(void **state)
{
    (void)state;
    static const struct {
        int n_experts, top_k, floor;
    } cases[] = {{16, 2, 2}, {16, 16, 16}, {16, 40, 16}, {16, 0, 16}, {16, -3, 16}, {1, 1, 1}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        builder_init(&b);
        make_moe(cases[i].n_experts, cases[i].top_k);
        hypura_plan *plan = builder_plan(&b, builder_floor(&b, false));
        for (int pool = 0; pool < plan->n_pools; pool++) {
            assert_int_equal(plan->pools[pool].n_floor, cases[i].floor);
            assert_int_equal(plan->pools[pool].n_slots, cases[i].floor);
        }
        hypura_plan_free(plan);
    }
}

static void test_bundles_of_one_class_may_differ_in_experts(void **state)
{
    (void)state;
    static const int n_experts[3] = {4, 16, 8};
    for (int layer = 0; layer < 3; layer++) {
        builder_experts(&b, layer, n_experts[layer], 3, matrices_a);
    }
    hypura_plan *plan = builder_forced(&b, GIB);
    assert_int_equal(plan->n_pools, 1);
    assert_int_equal(plan->pools[0].n_floor, 16);
    assert_int_equal(plan->pools[0].n_units, 28);
    hypura_plan_free(plan);
}

static void test_no_pool_loses_a_slot_to_a_larger_budget(void **state)
{
    (void)state;
    static const uint64_t tiny[1] = {70 * KIB};
    for (int layer = 0; layer < 6; layer++) {
        builder_experts(&b, layer, 16, 3, layer % 2 ? matrices_b : matrices_a);
        builder_experts(&b, layer, 16, 1, tiny);
    }
    b.map.n_experts_used = 2;
    uint32_t last[3] = {0};
    for (uint64_t budget = builder_floor(&b, true); budget < 80 * MIB; budget += 30000) {
        hypura_plan *plan = builder_forced(&b, budget);
        assert_int_equal(plan->n_pools, 3);
        for (int i = 0; i < 3; i++) {
            assert_true(plan->pools[i].n_slots >= last[i]);
            last[i] = plan->pools[i].n_slots;
        }
        hypura_plan_free(plan);
    }
}

static void test_no_weight_loses_rows_to_a_larger_budget(void **state)
{
    (void)state;
    for (int layer = 0; layer < 4; layer++) {
        builder_ffn(&b, layer, 1024, 4 * KIB);
        builder_ffn(&b, layer, 2048, 300);
    }
    int64_t last[8] = {0};
    for (uint64_t budget = builder_floor(&b, false); budget < b.map.tensor_bytes; budget += 5000) {
        hypura_plan *plan = builder_plan(&b, budget);
        for (int t = 0; t < 8; t++) {
            assert_true(plan->placements[t].pinned_rows >= last[t]);
            last[t] = plan->placements[t].pinned_rows;
        }
        hypura_plan_free(plan);
    }
    assert_true(last[0] > 500);
}

static void test_below_trunk_and_floor_dense_weights_stream_too(void **state)
{
    (void)state;
    moe_model m = make_moe(16, 2);
    hypura_plan *plan = builder_plan(&b, 22 * MIB);
    assert_int_equal(plan->mode, HYPURA_MODE_MIXED);
    assert_int_equal(place_of(plan, m.ffn[0]), HYPURA_PLACE_DENSE);
    assert_int_equal(place_of(plan, m.attention[0]), HYPURA_PLACE_RESIDENT);
    for (int i = 0; i < plan->n_pools; i++) {
        assert_int_equal(plan->pools[i].n_slots, plan->pools[i].n_floor);
    }
    hypura_plan_free(plan);

    plan = builder_plan(&b, 12 * MIB);
    assert_int_equal(plan->mode, HYPURA_MODE_MIXED);
    assert_int_equal(place_of(plan, m.attention[11]), HYPURA_PLACE_DENSE);
    hypura_plan_free(plan);
}

static void test_experts_used_otherwise_stay_with_their_whole_bundle(void **state)
{
    (void)state;
    make_moe(16, 2);
    const hypura_bundle *bundle = &b.bundles[4];
    b.uses[bundle->tensors[1]].flags |= HYPURA_USE_OTHER;
    hypura_plan *plan = builder_plan(&b, builder_floor(&b, false));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(place_of(plan, bundle->tensors[i]), HYPURA_PLACE_RESIDENT);
        assert_int_equal(place_of(plan, b.bundles[3].tensors[i]), HYPURA_PLACE_EXPERTS);
    }
    hypura_plan_free(plan);
}

static void test_experts_that_no_graph_uses_take_no_memory(void **state)
{
    (void)state;
    make_moe(16, 2);
    uint64_t floor_bytes = builder_floor(&b, false);
    int bundle = builder_experts(&b, 12, 16, 3, matrices_a);
    for (int i = 0; i < 3; i++) {
        b.uses[b.bundles[bundle].tensors[i]].flags = 0;
    }
    assert_int_equal(builder_floor(&b, false), floor_bytes);
    hypura_plan *plan = builder_plan(&b, 120 * MIB);
    assert_int_equal(place_of(plan, b.bundles[bundle].tensors[0]), HYPURA_PLACE_EXPERTS);
    hypura_plan_free(plan);
}

static void test_more_size_classes_than_pools(void **state)
{
    (void)state;
    for (int layer = 0; layer < HYPURA_MAX_POOLS + 3; layer++) {
        uint64_t matrices[2] = {(uint64_t)(layer + 1) * 100000, 100000};
        builder_experts(&b, layer, 8, 2, matrices);
    }
    b.map.n_experts_used = 2;
    hypura_plan *plan = builder_plan(&b, 60000000);
    assert_int_equal(plan->n_pools, HYPURA_MAX_POOLS);
    for (int layer = 0; layer < HYPURA_MAX_POOLS + 3; layer++) {
        assert_int_equal(place_of(plan, b.bundles[layer].tensors[0]),
                         layer < 3 ? HYPURA_PLACE_RESIDENT : HYPURA_PLACE_EXPERTS);
    }
    hypura_plan_free(plan);
}

static void test_small_matrices_have_little_padding(void **state)
{
    (void)state;
    uint64_t small[3] = {2000, 2000, 3000};
    builder_experts(&b, 0, 8, 3, small);
    b.map.n_experts_used = 2;
    hypura_plan *plan = builder_forced(&b, GIB);
    assert_int_equal(plan->slot_align_bytes, 512);
    assert_int_equal(plan->pools[0].slot_stride_bytes, 2 * (2048 + 1024) + 3072 + 1024);
    hypura_plan_free(plan);

    builder_init(&b);
    builder_experts(&b, 0, 8, 3, matrices_a);
    plan = builder_forced(&b, GIB);
    assert_int_equal(plan->slot_align_bytes, 4096);
    assert_int_equal(plan->pools[0].slot_stride_bytes, 3 * (512 * KIB + 8192));
    hypura_plan_free(plan);
}

static void test_the_layout_holds_every_phase(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1, 511, 512, 513, 4095, 4096, 4097, 884736};
    for (uint64_t unit = 512; unit <= 4096; unit *= 8) {
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            uint64_t region_bytes = hypura_layout_region_bytes(unit, sizes[i]);
            assert_int_equal(region_bytes % unit, 0);
            for (uint64_t offset = 8192; offset < 8192 + unit; offset += 32) {
                uint64_t data = hypura_layout_data_offset(unit, offset);
                assert_int_equal(data % unit, offset % unit);
                uint64_t read_begin = data / unit * unit;
                uint64_t read_end = (data + sizes[i] + unit - 1) / unit * unit;
                assert_true(read_begin >= unit && read_end <= region_bytes);
            }
        }
    }
}

/* Kernels count the numbers of a tensor in 32 bits, and the blocks of one that has such. */
static void test_no_tensor_of_slots_is_more_than_kernels_count(void **state)
{
    (void)state;
    const uint64_t halves[] = {UINT64_C(16) << 20}; /* of 8 Mi numbers: 255 of them are fewer than 2^31 */
    for (int layer = 0; layer < 8; layer++) {
        builder_experts(&b, layer, 128, 1, halves);
    }
    b.map.n_layers = 8;
    b.map.n_experts = 128;
    b.map.n_experts_used = 8;
    for (int blocks = 0; blocks < 2; blocks++) {
        for (int t = 0; t < b.map.n_tensors; t++) {
            b.tensors[t].ne[0] = (int64_t)halves[0] / (blocks ? 1 : 2);
        }
        const hypura_plan_gpus gpus = {.n = 1, .list = {{.name = "a GPU", .bytes = UINT64_C(64) << 30}}};
        const hypura_plan_options options = {
            .weights_bytes = UINT64_C(64) << 30, .force_paging = true, .gpus = &gpus};
        hypura_plan *plan = NULL;
        hypura_error error = {0};
        assert_int_equal(builder_solve(&b, &options, &plan, &error), HYPURA_OK);
        assert_true(plan->vram_slot_bytes > (UINT64_C(4) << 30));
        assert_true(blocks ? plan->n_vram_pools == 1 : plan->n_vram_pools > 1);
        for (int p = 0; p < plan->n_vram_pools && !blocks; p++) {
            assert_true(plan->vram_pools[p].n_slots <= 255);
        }
        hypura_plan_free(plan);
    }
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_all_resident_when_it_fits),
        TEST(test_rows_leave_first),
        TEST(test_layer_embeddings_are_rows_and_position_tables_stay),
        TEST(test_ffn_streams_before_anything_else),
        TEST(test_attention_then_output_follow_when_they_must),
        TEST(test_the_same_share_of_every_weight_is_pinned),
        TEST(test_tied_embeddings_stream_last_and_as_a_product),
        TEST(test_tied_embeddings_used_by_two_products_stay),
        TEST(test_weights_used_otherwise_stay),
        TEST(test_rows_that_kernels_would_treat_otherwise_are_not_cut),
        TEST(test_a_single_uncuttable_weight_stays),
        TEST(test_forced_paging_of_a_dense_model_that_fits),
        TEST(test_the_order_is_that_of_the_graph),
        TEST(test_experts_go_to_pools_and_the_trunk_stays),
        TEST(test_size_classes_hold_the_same_share),
        TEST(test_pools_never_exceed_their_experts),
        TEST(test_the_floor_of_a_pool_is_top_k),
        TEST(test_bundles_of_one_class_may_differ_in_experts),
        TEST(test_no_pool_loses_a_slot_to_a_larger_budget),
        TEST(test_no_weight_loses_rows_to_a_larger_budget),
        TEST(test_below_trunk_and_floor_dense_weights_stream_too),
        TEST(test_experts_used_otherwise_stay_with_their_whole_bundle),
        TEST(test_experts_that_no_graph_uses_take_no_memory),
        TEST(test_more_size_classes_than_pools),
        TEST(test_no_tensor_of_slots_is_more_than_kernels_count),
        TEST(test_small_matrices_have_little_padding),
        TEST(test_the_layout_holds_every_phase),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
