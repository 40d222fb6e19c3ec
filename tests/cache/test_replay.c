/*
 * test_replay.c - a recorded trace of a real router through the cache.
 *
 * olmoe.trace holds the expert choices of 14 tokens. Expected hits come from
 * the definition of LRU: a use hits when fewer than n_slots different keys were
 * used since the last use of the same key (its stack distance; Mattson et al.,
 * "Evaluation techniques for storage hierarchies", 1970).
 */
#include "cache/cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_LAYERS  16
#define N_EXPERTS 64
#define N_KEYS    (N_LAYERS * N_EXPERTS)
#define TOP_K     8
#define N_TOKENS  14
#define N_USES    (N_TOKENS * N_LAYERS * TOP_K)

static uint32_t uses[N_USES];

static int read_trace(void **state)
{
    (void)state;
    FILE *file = fopen(HYPURA_TRACE, "r");
    if (!file) {
        return -1;
    }
    char line[256];
    uint32_t n = 0;
    while (fgets(line, sizeof(line), file)) {
        if (line[0] == '#') {
            continue;
        }
        char *at = line;
        (void)strtoul(at, &at, 10);
        uint32_t layer = (uint32_t)strtoul(at, &at, 10);
        for (int i = 0; i < TOP_K && n < N_USES && layer < N_LAYERS; i++) {
            uses[n++] = layer * N_EXPERTS + (uint32_t)strtoul(at, &at, 10) % N_EXPERTS;
        }
    }
    fclose(file);
    return n == N_USES ? 0 : -1;
}

/* Different keys used since the last use of uses[at]; UINT32_MAX at its first. */
static uint32_t stack_distance(uint32_t at)
{
    bool seen[N_KEYS] = {false};
    uint32_t distance = 0;
    for (uint32_t i = at; i-- > 0;) {
        if (uses[i] == uses[at]) {
            return distance;
        }
        distance += !seen[uses[i]];
        seen[uses[i]] = true;
    }
    return UINT32_MAX;
}

static uint32_t replay(const char *policy, uint32_t n_slots)
{
    hypura_cache_options options = {.n_slots = n_slots, .n_keys = N_KEYS, .n_groups = N_LAYERS, .policy = policy};
    hypura_cache *cache = NULL;
    assert_int_equal(hypura_cache_open(&options, &cache, NULL), HYPURA_OK);
    uint32_t n_hits = 0;
    for (uint32_t i = 0; i < N_USES; i++) {
        uint32_t slot = hypura_cache_find(cache, uses[i]);
        if (slot != HYPURA_CACHE_NONE) {
            hypura_cache_touch(cache, slot);
            n_hits++;
        } else {
            uint32_t evicted;
            assert_int_not_equal(hypura_cache_insert(cache, uses[i], uses[i] / N_EXPERTS, &evicted), HYPURA_CACHE_NONE);
        }
    }
    hypura_cache_close(cache);
    return n_hits;
}

static void test_lru_hits_what_its_stack_distance_says(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {8, 64, 128, 192, 256, 300, 384, 512, 768, N_KEYS};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint32_t expected = 0;
        for (uint32_t at = 0; at < N_USES; at++) {
            expected += stack_distance(at) < sizes[i];
        }
        assert_int_equal(replay("lru", sizes[i]), expected);
    }
}

/* Below the working set of a token (16 layers x 8) LRU evicts each expert before
 * its next use; with a slot for every expert only first uses miss. */
static void test_lru_at_both_ends(void **state)
{
    (void)state;
    uint32_t n_first = 0;
    for (uint32_t at = 0; at < N_USES; at++) {
        n_first += stack_distance(at) == UINT32_MAX;
    }
    assert_true(n_first < N_USES / 2);
    assert_int_equal(replay("lru", N_LAYERS * TOP_K / 2), 0);
    assert_int_equal(replay("lru", N_KEYS), N_USES - n_first);
}

/* ---- reuse, against its definition --------------------------------------- */

typedef struct by_definition {
    double p[N_KEYS]; /* share of its layer's visits that use a key, as seen lately */
    uint32_t slot_of[N_KEYS];
} by_definition;

static void visit_layer(by_definition *model, uint32_t layer)
{
    for (uint32_t key = layer * N_EXPERTS; key < (layer + 1) * N_EXPERTS; key++) {
        model->p[key] *= 1.0 - 0.15;
    }
}

static double next_use(const by_definition *model, uint32_t key, uint32_t layer)
{
    uint32_t distance = (key / N_EXPERTS + N_LAYERS - layer) % N_LAYERS;
    return (distance == 0 ? N_LAYERS : distance) + N_LAYERS * (1.0 / (model->p[key] + 0.001) - 1.0);
}

static double furthest_next_use(const by_definition *model, const hypura_cache *cache, uint32_t layer)
{
    double furthest = 0.0;
    for (uint32_t key = 0; key < N_KEYS; key++) {
        if (model->slot_of[key] != HYPURA_CACHE_NONE && hypura_cache_pins(cache, model->slot_of[key]) == 0 &&
            next_use(model, key, layer) > furthest) {
            furthest = next_use(model, key, layer);
        }
    }
    return furthest;
}

/* Long enough a run for weights that are never scaled back to overflow. */
static void test_reuse_evicts_what_is_expected_last(void **state)
{
    (void)state;
    static by_definition model;
    for (uint32_t key = 0; key < N_KEYS; key++) {
        model.slot_of[key] = HYPURA_CACHE_NONE;
    }
    hypura_cache_options options = {.n_slots = 200, .n_keys = N_KEYS, .n_groups = N_LAYERS, .policy = "reuse"};
    hypura_cache *cache = NULL;
    assert_int_equal(hypura_cache_open(&options, &cache, NULL), HYPURA_OK);
    uint32_t n_evicted = 0;
    for (uint32_t i = 0; i < 400 * N_USES; i++) {
        uint32_t key = uses[i % N_USES];
        uint32_t layer = key / N_EXPERTS;
        uint32_t evicted = HYPURA_CACHE_NONE;
        double furthest = 0.0;
        if (model.slot_of[key] == HYPURA_CACHE_NONE) {
            furthest = furthest_next_use(&model, cache, layer);
            model.slot_of[key] = hypura_cache_insert(cache, key, layer, &evicted);
        } else {
            hypura_cache_touch(cache, model.slot_of[key]);
        }
        if (evicted != HYPURA_CACHE_NONE) {
            assert_true(next_use(&model, evicted, layer) >= furthest * (1.0 - 1e-9));
            model.slot_of[evicted] = HYPURA_CACHE_NONE;
            n_evicted++;
        }
        if (i % TOP_K == 0) {
            visit_layer(&model, layer);
        }
        model.p[key] += 0.15;
        /* all experts of a layer are held while it is computed */
        hypura_cache_pin(cache, model.slot_of[key]);
        for (uint32_t j = 0; i % TOP_K == TOP_K - 1 && j < TOP_K; j++) {
            hypura_cache_unpin(cache, model.slot_of[uses[(i - j) % N_USES]]);
        }
    }
    assert_true(n_evicted > 1000);
    hypura_cache_close(cache);
}

static void test_reuse_does_not_collapse(void **state)
{
    (void)state;
    assert_int_equal(replay("lru", N_LAYERS * TOP_K / 2), 0);
    assert_true(replay("reuse", N_LAYERS * TOP_K / 2) > N_USES / 6);
    assert_int_equal(replay("reuse", N_KEYS), replay("lru", N_KEYS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lru_hits_what_its_stack_distance_says),
        cmocka_unit_test(test_lru_at_both_ends),
        cmocka_unit_test(test_reuse_evicts_what_is_expected_last),
        cmocka_unit_test(test_reuse_does_not_collapse),
    };
    return cmocka_run_group_tests(tests, read_trace, NULL);
}
