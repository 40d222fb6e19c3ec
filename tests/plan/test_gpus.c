/*
 * test_gpus.c - several GPUs: which are used, which layers each has, and how limits are
 * divided. Models are made by hand.
 */
#include "gpus_fixture.h"

#include <math.h>

static void one_gpu_that_holds_the_model_is_enough(void **state)
{
    (void)state;
    add_gpu(GIB);
    add_gpu(GIB);
    hypura_plan *plan = solve(false);
    assert_int_equal(plan->n_gpus, 1);
    assert_string_equal(plan->gpu, "A");
    assert_int_equal(plan->n_vram_pools, 0);
    hypura_plan_free(plan);
    gpus.named = true; /* as many as the caller wants */
    plan = solve(false);
    assert_int_equal(plan->n_gpus, 2);
    assert_string_equal(plan->gpu, "A,B");
    hypura_plan_free(plan);
}

/* What is told to hold all does, and a byte less does not. */
static void with_so_much_all_is_held(void **state)
{
    (void)state;
    add_gpu(100 * MIB);
    hypura_plan *plan = solve(false);
    const uint64_t whole = plan->whole_vram_bytes;
    assert_true(plan->n_vram_pools > 0 && whole > 100 * MIB && whole < plan->full_vram_bytes);
    hypura_plan_free(plan);
    for (uint64_t less = 0; less < 2; less++) {
        gpus.list[0].bytes = whole - less;
        plan = solve(false);
        assert_int_equal(plan->n_vram_pools > 0, less);
        assert_int_equal(plan->n_gpu_layers, LAYERS + 1);
        hypura_plan_free(plan);
    }
}

static void no_more_are_taken_than_it_takes(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        add_gpu(200 * MIB); /* the whole is 332 MiB and 4 for each */
    }
    hypura_plan *plan = solve(false);
    assert_int_equal(plan->n_gpus, 2);
    assert_int_equal(plan->n_vram_pools, 0);
    assert_int_equal(plan->mode, HYPURA_MODE_RESIDENT);
    hypura_plan_free(plan);
    for (int i = 0; i < 4; i++) {
        gpus.list[i].bytes = 70 * MIB; /* not enough in all: experts are paged on each */
    }
    plan = solve(false);
    assert_int_equal(plan->n_gpus, 4);
    assert_true(plan->n_vram_pools >= 4);
    assert_int_equal(plan->mode, HYPURA_MODE_EXPERTS);
    hypura_plan_free(plan);
}

static void layers_follow_memory(void **state)
{
    (void)state;
    add_gpu(160 * MIB);
    add_gpu(80 * MIB);
    hypura_plan *plan = solve(false);
    assert_int_equal(plan->n_gpus, 2);
    assert_int_equal(plan->gpus[0].n_layers, 8); /* of twelve and an output of a third of one */
    assert_true(plan->gpus[0].slot_bytes > plan->gpus[1].slot_bytes);
    assert_true(plan->vram_hit_rate > 0.0 && plan->vram_hit_rate < 1.0);
    assert_true(plan->gpus[0].hit_rate > 0.0 && plan->gpus[1].hit_rate > 0.0);
    assert_true(plan->decode_tok_s > 0.0);
    assert_true(fabs(plan->upload_bytes_per_token -
                     plan->gpus[0].upload_bytes_per_token - plan->gpus[1].upload_bytes_per_token) < 1.0);
    hypura_plan_free(plan);
}

/* Other models of a server have some of it: the same layers, and less of their experts. */
static void others_leave_less_and_move_no_layer(void **state)
{
    (void)state;
    add_gpu(160 * MIB);
    add_gpu(80 * MIB);
    hypura_plan *whole = solve(false);
    gpus.list[0].most_bytes = whole->gpus[0].vram_bytes * 7 / 10;
    for (gpus.total_bytes = 0; gpus.total_bytes <= 300 * MIB; gpus.total_bytes += 300 * MIB) {
        hypura_plan *left = solve(false);
        assert_int_equal(left->n_gpus, 2);
        assert_in_range(left->gpus[0].vram_bytes, gpus.list[0].most_bytes * 9 / 10, gpus.list[0].most_bytes);
        for (int g = 0; g < 2; g++) {
            assert_int_equal(left->gpus[g].n_layers, whole->gpus[g].n_layers);
        }
        hypura_plan_free(left);
    }
    hypura_plan_free(whole);
}

/* A token takes the longer the longer an operation does, and a cut what handing over does, not a result's way back. */
static void small_work_takes_its_time(void **state)
{
    (void)state;
    add_gpu(130 * MIB);
    hypura_plan *plan = solve(true);
    const double bytes_s = plan->compute_s;
    hypura_plan_free(plan);
    gpus.list[0].operation_us = 1.0;
    plan = solve(true);
    const double longer_s = plan->compute_s;
    hypura_plan_free(plan);
    gpus.list[0].operation_us = 2.0;
    plan = solve(true);
    assert_true(longer_s > bytes_s);
    assert_true(fabs(plan->compute_s - longer_s - (longer_s - bytes_s)) < 1e-9);
    hypura_plan_free(plan);
    gpus.list[0].operation_us = 0.0;
    gpus.list[0].hand_over_us = gpus.list[0].round_trip_us;
    gpus.list[0].round_trip_us = 1e6;
    plan = solve(true);
    assert_true(fabs(plan->compute_s - bytes_s) < 1e-9);
    hypura_plan_free(plan);
}

/* Of what is named ahead as many are sent as the link carries while a layer is computed, and one in any case. */
static void guesses_fit_the_link(void **state)
{
    (void)state;
    add_gpu(130 * MIB);
    gpus.list[0].operation_us = 1.0;
    hypura_plan *plan = solve(true);
    const double layer_s = plan->compute_s / plan->gpus[0].n_layers;
    const double expert_bytes = (double)plan->vram_pools[0].slot_bytes;
    assert_int_equal(plan->n_vram_pools, 1);
    hypura_plan_free(plan);
    const uint32_t fit[] = {1, 2, 5};
    for (size_t i = 0; i < sizeof fit / sizeof *fit; i++) {
        gpus.list[0].upload_bytes_per_s = (fit[i] + 0.5) * expert_bytes / layer_s;
        plan = solve(true);
        assert_int_equal(plan->gpus[0].most_foreseen, fit[i]);
        hypura_plan_free(plan);
    }
    gpus.list[0].upload_bytes_per_s = 0.1 * expert_bytes / layer_s;
    plan = solve(true);
    assert_int_equal(plan->gpus[0].most_foreseen, 1);
    hypura_plan_free(plan);
    gpus.list[0].upload_bytes_per_s = 0.0; /* not known */
    plan = solve(true);
    assert_int_equal(plan->gpus[0].most_foreseen, 0);
    hypura_plan_free(plan);
}

/* Links alike within what measuring twice gives move nothing; of one that is much slower
 * fewer layers are behind it, with more of their experts there, and a token gains. A limit
 * on all moves none of them. */
static void a_slow_link_has_fewer_layers(void **state)
{
    (void)state;
    add_gpu(130 * MIB);
    add_gpu(130 * MIB);
    hypura_plan *even = solve(false);
    gpus.list[1].upload_bytes_per_s /= 1.4;
    hypura_plan *alike = solve(false);
    assert_int_equal(alike->gpus[0].n_layers, even->gpus[0].n_layers);
    gpus.list[1].upload_bytes_per_s /= 6.0;
    hypura_plan *slow = solve(false);
    assert_true(slow->gpus[1].n_layers < even->gpus[1].n_layers);
    assert_true(slow->gpus[1].hit_rate > slow->gpus[0].hit_rate);
    const double even_s = even->gpus[0].upload_bytes_per_token / gpus.list[0].upload_bytes_per_s +
                          even->gpus[1].upload_bytes_per_token / gpus.list[1].upload_bytes_per_s;
    const double slow_s = slow->gpus[0].upload_bytes_per_token / gpus.list[0].upload_bytes_per_s +
                          slow->gpus[1].upload_bytes_per_token / gpus.list[1].upload_bytes_per_s;
    assert_true(slow_s < even_s);
    for (uint32_t percent = 0; percent <= 100; percent += 20) {
        gpus.total_bytes = hypura_plan_vram_at(slow, percent);
        hypura_plan *less = solve(true);
        assert_int_equal(less->gpus[1].first_layer, slow->gpus[1].first_layer);
        hypura_plan_free(less);
    }
    hypura_plan_free(even);
    hypura_plan_free(alike);
    hypura_plan_free(slow);
}

/* Where all fits, the faster memory is filled first. */
static void slow_memory_has_fewer_layers(void **state)
{
    (void)state;
    add_gpu(300 * MIB);
    add_gpu(300 * MIB);
    gpus.named = true;
    gpus.list[0].memory_bytes_per_s /= 4.0;
    hypura_plan *plan = solve(false);
    assert_int_equal(plan->n_vram_pools, 0);
    assert_true(plan->gpus[0].n_layers < 4);
    assert_true(plan->gpus[1].vram_bytes > 250 * MIB);
    hypura_plan_free(plan);
}

/* A limit on all together: from the floor on there is a plan, it moves no layer, and more
 * of it never holds less on any GPU. */
static void a_limit_on_all_moves_no_layer(void **state)
{
    (void)state;
    add_gpu(150 * MIB);
    add_gpu(90 * MIB);
    add_gpu(60 * MIB);
    gpus.named = true;
    hypura_plan *whole = solve(true);
    assert_int_equal(whole->n_gpus, 3);
    uint64_t last[3] = {0};
    for (uint32_t percent = 0; percent <= 100; percent += 5) {
        gpus.total_bytes = hypura_plan_vram_at(whole, percent);
        hypura_plan *plan = solve(true);
        assert_int_equal(plan->n_gpus, 3);
        assert_int_equal(plan->n_gpu_layers, LAYERS + 1);
        for (int g = 0; g < 3; g++) {
            assert_int_equal(plan->gpus[g].first_layer, whole->gpus[g].first_layer);
            const uint64_t held = plan->gpus[g].vram_bytes - plan->gpus[g].stage_bytes;
            assert_true(held >= last[g]);
            last[g] = held;
        }
        hypura_plan_free(plan);
    }
    gpus.total_bytes = whole->floor_vram_bytes - 1; /* the last layers that fit, whole */
    hypura_plan *less = solve(true);
    assert_int_equal(less->n_vram_pools, 0);
    assert_true(less->n_gpu_layers < LAYERS + 1);
    hypura_plan_free(less);
    hypura_plan_free(whole);
}

/* The one that has least: from what its fewest layers take on it is used, and the other one
 * has the rest. */
static void a_gpu_with_room_for_its_floor_alone(void **state)
{
    (void)state;
    uint64_t low = 1;
    uint64_t high = 200 * MIB;
    gpus.named = true;
    add_gpu(200 * MIB);
    add_gpu(high);
    while (high - low > 1) {
        gpus.list[1].bytes = (low + high) / 2;
        hypura_plan *plan = solve(false);
        if (plan->n_gpus == 2) {
            high = gpus.list[1].bytes;
        } else {
            low = gpus.list[1].bytes;
        }
        hypura_plan_free(plan);
    }
    gpus.list[1].bytes = high;
    hypura_plan *plan = solve(false);
    assert_int_equal(plan->n_gpu_layers, LAYERS + 1);
    assert_int_equal(plan->gpus[1].n_layers, 1); /* the output and what computing takes */
    assert_int_equal(plan->gpus[1].vram_bytes, high);
    assert_int_equal(high, 12 * MIB);
    hypura_plan_free(plan);
    gpus.list[1].bytes = high - 1;
    plan = solve(false);
    assert_int_equal(plan->n_gpus, 1);
    assert_int_equal(plan->n_gpu_layers, LAYERS + 1);
    hypura_plan_free(plan);
}

static void one_that_is_too_small_first_is_left_out(void **state)
{
    (void)state;
    gpus.named = true;
    add_gpu(MIB);
    add_gpu(200 * MIB);
    hypura_plan *plan = solve(false);
    assert_string_equal(plan->gpu, "B");
    assert_int_equal(plan->n_gpu_layers, LAYERS + 1);
    hypura_plan_free(plan);
    gpus.list[1].bytes = MIB; /* neither: the host computes everything */
    const hypura_plan_options options = {.weights_bytes = 8 * GIB, .gpus = &gpus};
    hypura_error error;
    assert_int_equal(builder_solve(&b, &options, &plan, &error), HYPURA_OK);
    assert_int_equal(plan->n_gpus, 0);
    assert_string_equal(plan->gpu, "");
    assert_int_equal(plan->n_gpu_layers, 0);
    hypura_plan_free(plan);
}

/* 10 MiB weights and 1 MiB cache a layer: as many of the last layers as fit, the host has
 * the first ones. */
static void dense_layers_fill_all(void **state)
{
    (void)state;
    int last = 0;
    gpus.named = true;
    add_gpu(0);
    add_gpu(0);
    for (uint64_t bytes = 8 * MIB; bytes <= 120 * MIB; bytes += 2 * MIB) {
        gpus.list[0].bytes = bytes;
        gpus.list[1].bytes = bytes / 2;
        hypura_plan *plan = solve(false);
        assert_true(plan->n_gpu_layers >= last);
        last = plan->n_gpu_layers;
        hypura_plan_free(plan);
    }
    assert_int_equal(last, LAYERS + 1);
    gpus.list[0].bytes = 60 * MIB;
    gpus.list[1].bytes = 50 * MIB;
    hypura_plan *plan = solve(false);
    assert_int_equal(plan->gpus[1].n_layers, 3); /* 8 + 4 + 10 for a weight that is sent + 2 * 11 */
    assert_int_equal(plan->gpus[0].n_layers, 4); /* 4 + 10 + 4 * 11 */
    hypura_plan_free(plan);
}

/* One limit on both of a dense model: parts in proportion to what each has. */
static void dense_layers_share_a_limit(void **state)
{
    (void)state;
    int last = 0;
    gpus.named = true;
    add_gpu(GIB);
    add_gpu(GIB);
    for (gpus.total_bytes = 16 * MIB; gpus.total_bytes <= 192 * MIB; gpus.total_bytes += 4 * MIB) {
        hypura_plan *plan = solve(false);
        assert_true(plan->n_gpu_layers + 1 >= last); /* a GPU's first layer comes with buffers of its own */
        last = plan->n_gpu_layers;
        if (plan->n_gpus == 2) { /* the last one has the output as well */
            assert_in_range(plan->gpus[0].n_layers + 1 - plan->gpus[1].n_layers, 0, 2);
        } else {
            assert_true(gpus.total_bytes < 80 * MIB);
        }
        hypura_plan_free(plan);
    }
    assert_int_equal(last, LAYERS + 1);
}

/* Whatever the GPUs: check() holds, and a single one is as if it were alone. */
static void any_gpus_make_a_plan(void **state)
{
    (void)state;
    unsigned seed = 7;
    for (int round = 0; round < 300; round++) {
        gpus = (hypura_plan_gpus){.named = round % 2 != 0};
        const int n = 1 + round % 4;
        uint64_t sum = 0;
        for (int g = 0; g < n; g++) {
            seed = seed * 1103515245u + 12345u;
            add_gpu((seed >> 8) % (240 * MIB));
            gpus.list[g].upload_bytes_per_s *= seed % 5;
            gpus.list[g].memory_bytes_per_s *= (seed >> 4) % 7;
            gpus.list[g].remote = g >= n - round % 7 % 3;
            sum += gpus.list[g].bytes;
        }
        gpus.total_bytes = round % 3 == 0 ? sum * (1 + (uint64_t)round % 5) / 4 : 0;
        hypura_plan_free(solve(round % 5 == 0));
    }
}

/* Each has a pool at least, however many another one could use. */
static void classes_leave_pools_to_each_other(void **state)
{
    enum { MANY = 48 };
    static const uint64_t most[] = {256 * KIB, 256 * KIB, 256 * KIB};
    static const uint64_t last[] = {256 * KIB, 256 * KIB, 128 * KIB};
    (void)state;
    builder_init(&b);
    for (int layer = 0; layer < MANY; layer++) {
        builder_attention(&b, layer, 512, 4 * KIB);
        builder_experts(&b, layer, EXPERTS, 3, layer % 16 == 15 ? last : most);
    }
    b.map.n_layers = MANY;
    b.map.n_experts = EXPERTS;
    b.map.n_experts_used = USED;
    gpus = (hypura_plan_gpus){.named = true};
    add_gpu(520 * MIB);
    add_gpu(40 * MIB);
    add_gpu(40 * MIB);
    add_gpu(40 * MIB);
    for (int g = 0; g < gpus.n; g++) {
        gpus.list[g].max_buffer_bytes = 256 * KIB; /* of one tensor: a slot each */
        gpus.list[g].round_trip_us = 0.001;        /* so that no layer is held whole */
    }
    const hypura_plan_options options = {.weights_bytes = 8 * GIB, .gpus = &gpus};
    hypura_plan *plan = builder_wanted(&b, &options);
    int n_of[2] = {0};
    assert_true(plan->gpus[0].n_layers > 32 && plan->n_vram_pools <= HYPURA_MAX_VRAM_POOLS);
    for (int i = 0; i < plan->n_vram_pools; i++) {
        assert_true(plan->vram_pools[i].n_slots >= USED && plan->vram_pools[i].n_units > 0);
        n_of[plan->vram_pools[i].slot_bytes == 640 * KIB] += plan->vram_pools[i].gpu == 0;
    }
    assert_true(n_of[0] > 0 && n_of[1] > 0);
    assert_true(n_of[0] + n_of[1] <= HYPURA_MAX_VRAM_POOLS / 4); /* the others' parts are theirs */
    hypura_plan_free(plan);
}

static void slots_are_no_larger_than_a_buffer(void **state)
{
    (void)state;
    add_gpu(120 * MIB);
    gpus.list[0].max_buffer_bytes = 10 * MIB;
    hypura_plan *plan = solve(true);
    assert_true(plan->n_vram_pools > 1);
    assert_false(plan->gpus[0].stages_in_slots); /* with those the tensor would be larger */
    for (int i = 0; i < plan->n_vram_pools; i++) {
        assert_true(plan->vram_pools[i].n_slots * 256 * KIB <= 10 * MIB);
    }
    hypura_plan_free(plan);
}

/* What runs ahead reads slots of any layer of a class: bytes of another type may be numbers that are none. */
static void slots_are_of_one_type(void **state)
{
    (void)state;
    add_gpu(120 * MIB);
    hypura_plan *plan = solve(true);
    assert_int_equal(plan->n_vram_pools, 1);
    assert_true(plan->gpus[0].stages_in_slots);
    hypura_plan_free(plan);
    for (int t = 0; t < b.map.n_tensors; t++) {
        b.tensors[t].type = b.tensors[t].layer >= LAYERS / 2 ? 20 : 2; /* IQ4_NL has as many bytes as Q4_0 */
    }
    plan = solve(true);
    const int first = plan->placements[b.bundles[0].tensors[0]].vram_pool;
    const int middle = plan->placements[b.bundles[LAYERS / 2].tensors[0]].vram_pool;
    assert_true(first >= 0 && middle >= 0 && first != middle);
    assert_false(plan->gpus[0].stages_in_slots); /* there is one stage for both */
    hypura_plan_free(plan);
}

static void stages_begin_where_tensors_may(void **state)
{
    (void)state;
    static const uint64_t odd[] = {100000, 100000, 100000};
    builder_init(&b);
    for (int layer = 0; layer < LAYERS; layer++) {
        builder_attention(&b, layer, 512, 4 * KIB);
        builder_experts(&b, layer, EXPERTS, 3, odd);
    }
    b.map.n_layers = LAYERS;
    b.map.n_experts = EXPERTS;
    b.map.n_experts_used = USED;
    for (uint64_t mib = 80; mib < 90; mib++) {
        gpus = (hypura_plan_gpus){.n = 0};
        add_gpu(mib * MIB);
        hypura_plan *plan = solve(true);
        assert_true(plan->gpus[0].stages_in_slots);
        assert_int_equal(plan->vram_pools[0].n_lasting * odd[0] % 256, 0);
        hypura_plan_free(plan);
    }
}

/* Rows are looked up by the host; of an embedding that is the output too the GPU has a copy. */
static void embeddings_stay_with_the_host(void **state)
{
    (void)state;
    uint64_t resident_bytes[3];
    add_gpu(GIB);
    for (int i = 0; i < 3; i++) {
        if (i == 1) {
            b.uses[0] = (hypura_use){.flags = HYPURA_USE_GET_ROWS | HYPURA_USE_MUL_MAT, .n_mul_mat = 1, .order = b.next_order++};
        }
        const int rows = i == 2 ? builder_tensor(&b, HYPURA_ROLE_LAYER_EMBEDDING, 2, 2048, 4 * KIB, HYPURA_USE_GET_ROWS) : 0;
        hypura_plan *plan = solve(false);
        resident_bytes[i] = plan->gpus[0].resident_bytes;
        assert_int_not_equal(plan->placements[0].place, HYPURA_PLACE_VRAM);
        assert_int_not_equal(plan->placements[rows].place, HYPURA_PLACE_VRAM);
        hypura_plan_free(plan);
    }
    assert_int_equal(resident_bytes[1], resident_bytes[0] + b.tensors[0].bytes);
    assert_int_equal(resident_bytes[2], resident_bytes[1]);
}

/* A layer that is held whole needs no round trip, and takes the slots of the others. */
static void layers_are_held_whole_where_round_trips_are_long(void **state)
{
    (void)state;
    int n_whole[2];
    add_gpu(200 * MIB);
    for (int i = 0; i < 2; i++) {
        gpus.list[0].round_trip_us = i == 0 ? 1.0 : 100e3;
        hypura_plan *plan = solve(false);
        assert_true(plan->n_vram_pools > 0);
        n_whole[i] = 0;
        for (int bundle = 0; bundle < b.map.n_bundles; bundle++) {
            n_whole[i] += plan->placements[b.map.bundles[bundle].tensors[0]].vram_pool < 0;
        }
        hypura_plan_free(plan);
    }
    assert_int_equal(n_whole[0], 0);
    assert_in_range(n_whole[1], 2, LAYERS - 1);
}

/* ---- what a token takes ---------------------------------------------------------------- */

/* Its weights at the rate of the GPU's memory, and a round trip at each cut and from each GPU to the next. */
static void computing_is_forecast(void **state)
{
    (void)state;
    const double mib = (double)MIB;
    add_gpu(GIB);
    hypura_plan *plan = solve(false);
    /* a row of the embedding stays with the host, which looks it up */
    const double held_s = (LAYERS * (2 + 3) + 8) * mib / 500e9;
    assert_int_equal(plan->n_vram_pools, 0);
    assert_true(fabs(plan->compute_s - held_s) < 1e-7);
    hypura_plan_free(plan);

    gpus.list[0].bytes = 200 * MIB;
    plan = solve(false);
    assert_true(plan->n_vram_pools > 0);
    assert_true(fabs(plan->compute_s - held_s - LAYERS * 20e-6) < 1e-7);
    assert_true(plan->decode_tok_s > 0.0);
    hypura_plan_free(plan);

    gpus.list[0].memory_bytes_per_s = 0.0; /* not measured: nothing is claimed */
    plan = solve(false);
    assert_true(plan->decode_tok_s == 0.0 && plan->bound_tok_s == 0.0);
    hypura_plan_free(plan);
}

static void what_one_hands_to_the_next_is_forecast(void **state)
{
    (void)state;
    add_gpu(GIB);
    hypura_plan *plan = solve(false);
    const double alone_s = plan->compute_s;
    hypura_plan_free(plan);
    add_gpu(GIB);
    gpus.named = true;
    plan = solve(false);
    assert_int_equal(plan->n_gpus, 2);
    assert_true(fabs(plan->compute_s - alone_s - 20e-6) < 1e-7);
    hypura_plan_free(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(one_gpu_that_holds_the_model_is_enough, make_mixture),
        cmocka_unit_test_setup(with_so_much_all_is_held, make_mixture),
        cmocka_unit_test_setup(no_more_are_taken_than_it_takes, make_mixture),
        cmocka_unit_test_setup(layers_follow_memory, make_mixture),
        cmocka_unit_test_setup(others_leave_less_and_move_no_layer, make_mixture),
        cmocka_unit_test_setup(small_work_takes_its_time, make_mixture),
        cmocka_unit_test_setup(guesses_fit_the_link, make_mixture),
        cmocka_unit_test_setup(a_slow_link_has_fewer_layers, make_mixture),
        cmocka_unit_test_setup(slow_memory_has_fewer_layers, make_mixture),
        cmocka_unit_test_setup(a_limit_on_all_moves_no_layer, make_mixture),
        cmocka_unit_test_setup(a_gpu_with_room_for_its_floor_alone, make_mixture),
        cmocka_unit_test_setup(one_that_is_too_small_first_is_left_out, make_mixture),
        cmocka_unit_test_setup(dense_layers_fill_all, make_dense),
        cmocka_unit_test_setup(dense_layers_share_a_limit, make_dense),
        cmocka_unit_test_setup(any_gpus_make_a_plan, make_mixture),
        cmocka_unit_test(classes_leave_pools_to_each_other),
        cmocka_unit_test_setup(slots_are_no_larger_than_a_buffer, make_mixture),
        cmocka_unit_test_setup(slots_are_of_one_type, make_mixture),
        cmocka_unit_test_setup(stages_begin_where_tensors_may, make_mixture),
        cmocka_unit_test_setup(embeddings_stay_with_the_host, make_mixture),
        cmocka_unit_test_setup(layers_are_held_whole_where_round_trips_are_long, make_mixture),
        cmocka_unit_test_setup(computing_is_forecast, make_mixture),
        cmocka_unit_test_setup(what_one_hands_to_the_next_is_forecast, make_dense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
