/*
 * builder.c - see builder.h.
 */
#include "builder.h"

#include "plan/layout.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

void builder_init(builder *b)
{
    memset(b, 0, sizeof(*b));
    b->map.path = "model.gguf";
    b->map.arch = "test";
    b->map.tensors = b->tensors;
    b->map.bundles = b->bundles;
    b->survey.uses = b->uses;
    b->survey.n_context = 4096;
    b->profile.ram_available_bytes = UINT64_C(64) << 30;
    b->profile.memory_bytes_per_s = 100e9;
    b->profile.direct_bytes_per_s = 2e9;
    b->profile.io_block_bytes = UINT64_C(1) << 20;
    b->profile.io_depth = 8;
    b->profile.io_align_offset_bytes = 4096;
}

int builder_tensor(builder *b, hypura_role role, int layer, uint64_t n_rows, uint64_t row_bytes, uint32_t flags)
{
    assert_true(b->map.n_tensors < BUILDER_MAX_TENSORS);
    int t = b->map.n_tensors++;
    b->survey.n_uses = b->map.n_tensors;
    b->tensors[t] = (hypura_tensor){
        .name = "tensor",
        .n_dims = 2,
        .ne = {(int64_t)row_bytes, (int64_t)n_rows, 1, 1},
        .role = role,
        .layer = layer,
        .bundle = -1,
        .bytes = n_rows * row_bytes,
        .row_bytes = row_bytes,
    };
    bool product = (flags & HYPURA_USE_MUL_MAT) != 0;
    b->uses[t] =
        (hypura_use){.flags = flags, .n_mul_mat = product ? 1 : 0, .order = product ? b->next_order++ : UINT32_MAX};
    b->map.tensor_bytes += b->tensors[t].bytes;
    return t;
}

int builder_fixed(builder *b, uint64_t bytes)
{
    return builder_tensor(b, HYPURA_ROLE_TRUNK, 0, 1, bytes, HYPURA_USE_OTHER);
}

int builder_ffn(builder *b, int layer, uint64_t n_rows, uint64_t row_bytes)
{
    return builder_tensor(b, HYPURA_ROLE_FFN, layer, n_rows, row_bytes, HYPURA_USE_MUL_MAT);
}

int builder_attention(builder *b, int layer, uint64_t n_rows, uint64_t row_bytes)
{
    return builder_tensor(b, HYPURA_ROLE_TRUNK, layer, n_rows, row_bytes, HYPURA_USE_MUL_MAT);
}

int builder_experts(builder *b, int layer, int n_experts, int n_matrices, const uint64_t *matrix_bytes)
{
    assert_true(b->map.n_bundles < BUILDER_MAX_BUNDLES);
    int index = b->map.n_bundles++;
    hypura_bundle *bundle = &b->bundles[index];
    *bundle = (hypura_bundle){.layer = layer, .n_experts = n_experts, .n_tensors = n_matrices};
    for (int i = 0; i < n_matrices; i++) {
        int t =
            builder_tensor(b, HYPURA_ROLE_EXPERT, layer, (uint64_t)n_experts, matrix_bytes[i], HYPURA_USE_MUL_MAT_ID);
        b->tensors[t].ne[0] = (int64_t)matrix_bytes[i];
        b->tensors[t].ne[1] = 1;
        b->tensors[t].ne[2] = n_experts;
        b->tensors[t].bundle = index;
        b->tensors[t].expert_bytes = matrix_bytes[i];
        bundle->tensors[i] = t;
        bundle->expert_bytes += matrix_bytes[i];
    }
    return index;
}

void builder_dense(builder *b, int n_layers, uint64_t n_rows, uint64_t row_bytes)
{
    builder_fixed(b, 1000);
    for (int layer = 0; layer < n_layers; layer++) {
        builder_ffn(b, layer, n_rows, row_bytes);
    }
}

void builder_layers(builder *b, bool mixture)
{
    static const uint64_t matrices[] = {256 << 10, 256 << 10, 256 << 10};
    builder_init(b);
    builder_tensor(b, HYPURA_ROLE_EMBEDDING, -1, 2048, 4096, HYPURA_USE_GET_ROWS);
    for (int layer = 0; layer < BUILDER_LAYERS; layer++) {
        builder_attention(b, layer, 512, 4096);
        if (mixture) {
            builder_experts(b, layer, 32, 3, matrices);
        } else {
            builder_ffn(b, layer, 2048, 4096);
        }
    }
    builder_tensor(b, HYPURA_ROLE_OUTPUT, -1, 2048, 4096, HYPURA_USE_MUL_MAT);
    b->map.n_layers = BUILDER_LAYERS;
    b->map.n_experts = mixture ? 32 : 0;
    b->map.n_experts_used = mixture ? 4 : 0;
    b->survey.device_kv_bytes = BUILDER_LAYERS << 20;
    b->survey.device_compute_bytes = 4 << 20;
}

hypura_status builder_solve(const builder *b, const hypura_plan_options *options, hypura_plan **plan,
                            hypura_error *error)
{
    return hypura_plan_solve(&b->map, &b->survey, &b->profile, options, plan, error);
}

hypura_plan *builder_wanted(const builder *b, const hypura_plan_options *options)
{
    hypura_plan *plan = NULL;
    hypura_error error = {0};
    if (builder_solve(b, options, &plan, &error)) {
        fail_msg("%s", error.message);
    }
    return plan;
}

static hypura_plan *solve_weights(const builder *b, uint64_t weights_bytes, bool force_paging)
{
    const hypura_plan_options options = {.weights_bytes = weights_bytes, .force_paging = force_paging};
    hypura_plan *plan = builder_wanted(b, &options);
    builder_check(b, plan, weights_bytes);
    return plan;
}

hypura_plan *builder_plan(const builder *b, uint64_t weights_bytes)
{
    return solve_weights(b, weights_bytes, false);
}

hypura_plan *builder_forced(const builder *b, uint64_t weights_bytes)
{
    return solve_weights(b, weights_bytes, true);
}

uint64_t builder_floor(const builder *b, bool force_paging)
{
    hypura_plan *plan = solve_weights(b, UINT64_C(1) << 50, force_paging);
    uint64_t floor_bytes = plan->floor_weights_bytes;
    hypura_plan_free(plan);
    return floor_bytes;
}

/* ---- invariants --------------------------------------------------------- */

static void check_pools(const hypura_plan *plan, uint64_t *pool_bytes, uint64_t *held_bytes)
{
    for (int i = 0; i < plan->n_pools; i++) {
        const hypura_pool_plan *pool = &plan->pools[i];
        assert_true(pool->n_floor >= 1);
        assert_in_range(pool->n_slots, pool->n_floor, pool->n_units);
        assert_true(pool->slot_stride_bytes > pool->slot_bytes);
        assert_int_equal(pool->slot_stride_bytes % plan->slot_align_bytes, 0);
        *pool_bytes += pool->n_slots * pool->slot_stride_bytes;
        *held_bytes += pool->n_slots * pool->slot_bytes;
    }
}

/* Every bundle lies whole in a pool whose slot has its size and room around. */
static void check_bundles(const builder *b, const hypura_plan *plan)
{
    uint64_t n_units[HYPURA_MAX_POOLS] = {0};
    for (int i = 0; i < b->map.n_bundles; i++) {
        const hypura_bundle *bundle = &b->bundles[i];
        const hypura_placement *first = &plan->placements[bundle->tensors[0]];
        uint64_t stride_bytes = 0;
        for (int m = 0; m < bundle->n_tensors; m++) {
            const hypura_placement *placement = &plan->placements[bundle->tensors[m]];
            assert_int_equal(placement->place, first->place);
            assert_int_equal(placement->pool, first->pool);
            if (first->place == HYPURA_PLACE_EXPERTS) {
                stride_bytes +=
                    hypura_layout_region_bytes(hypura_layout_unit(plan), b->tensors[bundle->tensors[m]].expert_bytes);
            }
        }
        if (first->place == HYPURA_PLACE_EXPERTS) {
            assert_in_range(first->pool, 0, plan->n_pools - 1);
            assert_int_equal(plan->pools[first->pool].slot_bytes, bundle->expert_bytes);
            assert_int_equal(plan->pools[first->pool].slot_stride_bytes, stride_bytes);
            n_units[first->pool] += (uint64_t)bundle->n_experts;
        }
    }
    for (int i = 0; i < plan->n_pools; i++) {
        assert_int_equal(plan->pools[i].n_units, n_units[i]);
    }
}

static void check_dense(const builder *b, const hypura_plan *plan, int t, uint64_t *held_bytes, uint64_t *read_bytes)
{
    const hypura_tensor *tensor = &b->tensors[t];
    const hypura_placement *placement = &plan->placements[t];
    assert_true((b->uses[t].flags & ~(uint32_t)HYPURA_USE_GET_ROWS) == HYPURA_USE_MUL_MAT);
    assert_int_equal(b->uses[t].n_mul_mat, 1);
    assert_in_range(placement->pinned_rows, 0, tensor->ne[1]);
    assert_in_range(placement->chunk_rows, 1, tensor->ne[1]);
    bool cut =
        placement->pinned_rows > 0 ? placement->pinned_rows < tensor->ne[1] : placement->chunk_rows < tensor->ne[1];
    if (cut) {
        assert_int_equal(tensor->ne[1] % 4, 0);
        assert_int_equal(placement->pinned_rows % 4, 0);
        assert_int_equal(placement->chunk_rows % 4, 0);
    }
    if (cut && tensor->ne[1] % 8 == 0) { /* rows that repacked forms interleave */
        assert_int_equal(placement->pinned_rows % 8, 0);
        assert_int_equal(placement->chunk_rows % 8, 0);
    }
    if (cut && tensor->ne[1] >= 64) {
        assert_int_equal(placement->pinned_rows % 32, 0);
        assert_true(placement->chunk_rows % 32 == 0 || placement->chunk_rows == tensor->ne[1]);
    }
    uint64_t missed_rows = (uint64_t)(tensor->ne[1] - placement->pinned_rows);
    if (missed_rows > 0) {
        assert_true(plan->n_ring_slots >= 3);
        uint64_t chunk_rows =
            (uint64_t)placement->chunk_rows < missed_rows ? (uint64_t)placement->chunk_rows : missed_rows;
        assert_true(hypura_layout_region_bytes(HYPURA_LAYOUT_PAGE_BYTES, chunk_rows * tensor->row_bytes) <=
                    plan->ring_slot_bytes);
    }
    *held_bytes += (uint64_t)placement->pinned_rows * tensor->row_bytes;
    *read_bytes += missed_rows * tensor->row_bytes;
}

static void check_order(const builder *b, const hypura_plan *plan)
{
    bool seen[BUILDER_MAX_TENSORS] = {false};
    for (int i = 0; i < plan->n_placements; i++) {
        assert_in_range(plan->order[i], 0, plan->n_placements - 1);
        assert_false(seen[plan->order[i]]);
        seen[plan->order[i]] = true;
        assert_true(i == 0 || b->uses[plan->order[i - 1]].order <= b->uses[plan->order[i]].order);
    }
}

void builder_check(const builder *b, const hypura_plan *plan, uint64_t weights_bytes)
{
    uint64_t resident_bytes = 0, pinned_bytes = 0, pool_bytes = 0, held_bytes = 0, read_bytes = 0;
    int n_paged = 0;
    assert_int_equal(plan->n_placements, b->map.n_tensors);
    for (int t = 0; t < b->map.n_tensors; t++) {
        const hypura_placement *placement = &plan->placements[t];
        n_paged += placement->place != HYPURA_PLACE_RESIDENT;
        assert_true(placement->pool == -1 || placement->place == HYPURA_PLACE_EXPERTS);
        switch (placement->place) {
        case HYPURA_PLACE_RESIDENT:
            resident_bytes += b->tensors[t].bytes;
            break;
        case HYPURA_PLACE_EXPERTS:
            assert_true((b->uses[t].flags & ~(uint32_t)HYPURA_USE_MUL_MAT_ID) == 0);
            break;
        case HYPURA_PLACE_DENSE:
            pinned_bytes += hypura_layout_pinned_bytes((uint64_t)placement->pinned_rows * b->tensors[t].row_bytes);
            check_dense(b, plan, t, &held_bytes, &read_bytes);
            read_bytes += b->uses[t].flags & HYPURA_USE_GET_ROWS ? b->tensors[t].row_bytes : 0;
            break;
        case HYPURA_PLACE_ROWS:
            assert_int_equal(b->uses[t].flags, HYPURA_USE_GET_ROWS);
            read_bytes += b->tensors[t].row_bytes;
            break;
        case HYPURA_PLACE_VRAM:
            fail_msg("tensor %d is placed on a GPU, and there is none", t);
            break;
        }
    }
    check_pools(plan, &pool_bytes, &held_bytes);
    check_bundles(b, plan);
    check_order(b, plan);

    assert_int_equal(plan->resident_bytes, resident_bytes);
    assert_int_equal(plan->pinned_bytes, pinned_bytes);
    assert_int_equal(plan->pool_bytes, pool_bytes);
    assert_int_equal(plan->ring_bytes, plan->ring_slot_bytes * plan->n_ring_slots);
    assert_int_equal(plan->weights_bytes, resident_bytes + pinned_bytes + pool_bytes + plan->ring_bytes);
    assert_true(plan->weights_bytes <= weights_bytes);
    assert_true(plan->floor_weights_bytes <= weights_bytes);
    assert_int_equal(plan->nvme_bytes, b->map.tensor_bytes - resident_bytes - held_bytes);
    assert_int_equal(plan->n_ring_slots, plan->n_ring_slots == 0 ? 0 : plan->prefetch_depth + 2);
    assert_int_equal(plan->mode == HYPURA_MODE_RESIDENT, n_paged == 0);

    assert_true(plan->hit_rate >= 0.0 && plan->hit_rate <= 1.0);
    assert_true(plan->read_bytes_per_token >= (double)read_bytes * (1.0 - 1e-9));
    assert_true(isfinite(plan->decode_tok_s) && plan->decode_tok_s >= 0.0);
    assert_true(isfinite(plan->bound_tok_s) && plan->decode_tok_s <= plan->bound_tok_s * (1.0 + 1e-9));
    if (plan->n_pools == 0) {
        assert_true(fabs(plan->read_bytes_per_token - (double)read_bytes) < 0.5);
    }
}
