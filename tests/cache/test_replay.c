/*
 * test_replay.c - a recorded trace of a real router through the cache.
 *
 * olmoe.trace holds the expert choices of 14 tokens. Expected hits come from
 * the definition of LRU: a use hits when fewer than n_slots different keys were
 * used since the last use of the same key (its stack distance; Mattson et al.,
 * "Evaluation techniques for storage hierarchies", 1970).
 */
#include "cache/cache.h"
#include "cache/ghost.h"

#include <math.h>
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

static hypura_cache *open_cache(const char *policy, uint32_t n_slots)
{
    hypura_cache_options options = {.n_slots = n_slots, .n_keys = N_KEYS, .n_groups = N_LAYERS, .policy = policy};
    hypura_cache *cache = NULL;
    assert_int_equal(hypura_cache_open(&options, &cache, NULL), HYPURA_OK);
    return cache;
}

/* What the pager does when a token selects keys of one layer: hits are held first. */
static uint32_t use(hypura_cache *cache, const uint32_t *keys, uint32_t n_keys)
{
    hypura_cache_visited visit = {.group = keys[0] / N_EXPERTS, .n_tokens = 1, .n = n_keys, .keys = keys};
    uint32_t slots[TOP_K];
    uint32_t n_hits = 0;
    hypura_cache_visit(cache, &visit);
    for (uint32_t i = 0; i < n_keys; i++) {
        slots[i] = hypura_cache_find(cache, keys[i]);
        if (slots[i] != HYPURA_CACHE_NONE) {
            hypura_cache_pin(cache, slots[i]);
            n_hits++;
        }
    }
    for (uint32_t i = 0; i < n_keys; i++) {
        uint32_t evicted;
        if (slots[i] == HYPURA_CACHE_NONE) {
            slots[i] = hypura_cache_insert(cache, keys[i], &evicted);
            assert_int_not_equal(slots[i], HYPURA_CACHE_NONE);
            hypura_cache_pin(cache, slots[i]);
        }
    }
    for (uint32_t i = 0; i < n_keys; i++) {
        hypura_cache_unpin(cache, slots[i]);
    }
    return n_hits;
}

static uint32_t replay(const char *policy, uint32_t n_slots, uint32_t n_keys)
{
    hypura_cache *cache = open_cache(policy, n_slots);
    uint32_t n_hits = 0;
    for (uint32_t i = 0; i < N_USES; i += n_keys) {
        n_hits += use(cache, &uses[i], n_keys);
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
        assert_int_equal(replay("lru", sizes[i], 1), expected);
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
    assert_int_equal(replay("lru", N_LAYERS * TOP_K / 2, 1), 0);
    assert_int_equal(replay("lru", N_KEYS, 1), N_USES - n_first);
}

/* ---- reuse, against its definition --------------------------------------- */

/* Every token counts against the class that a key was in before it, and a key's
 * class follows from its age and frequency alone: see history.h. */
typedef struct by_definition {
    bool used_before[N_KEYS];
    uint32_t age[N_KEYS];
    double frequency[N_KEYS];
    double seen[10][10];
    double used[10][10];
    double chance[10][10];
} by_definition;

static int age_class(uint32_t age)
{
    static const uint32_t begins[] = {0, 1, 2, 3, 4, 8, 16, 32, 64, 128};
    int class = 9;
    while (begins[class] > age) {
        class --;
    }
    return class;
}

static int frequency_class(double frequency)
{
    int class = 9;
    for (double limit = 0.5; class > 0 && frequency < limit; limit /= 1.7) {
        class --;
    }
    return class;
}

static void begin_round(by_definition *model)
{
    for (int a = 0; a < 10; a++) {
        for (int f = 0; f < 10; f++) {
            model->chance[a][f] = model->used[a][f] / model->seen[a][f] + 0.0005;
            if (model->seen[a][f] > 20.0) {
                model->seen[a][f] *= 0.998;
                model->used[a][f] *= 0.998;
            }
        }
    }
}

static void open_model(by_definition *model)
{
    memset(model, 0, sizeof(*model));
    static const double by_age[] = {1.0, 0.5, 0.42, 0.36, 0.33, 0.28, 0.2, 0.1, 0.06, 0.03};
    static const double by_frequency[] = {0.1, 0.14, 0.18, 0.2, 0.24, 0.27, 0.32, 0.41, 0.63, 0.8};
    for (int a = 0; a < 10; a++) {
        for (int f = 0; f < 10; f++) {
            model->seen[a][f] = 20.0;
            model->used[a][f] = 20.0 * by_age[a] * by_frequency[f];
        }
    }
}

static bool contains(const uint32_t *keys, uint32_t n, uint32_t key)
{
    for (uint32_t i = 0; i < n; i++) {
        if (keys[i] == key) {
            return true;
        }
    }
    return false;
}

static void pass_token(by_definition *model, uint32_t layer, const uint32_t *keys)
{
    for (uint32_t key = layer * N_EXPERTS; key < (layer + 1) * N_EXPERTS; key++) {
        bool now = contains(keys, TOP_K, key);
        if (model->used_before[key]) {
            int a = age_class(model->age[key]);
            int f = frequency_class(model->frequency[key]);
            model->seen[a][f] += 1.0;
            model->used[a][f] += now;
        }
        model->used_before[key] = model->used_before[key] || now;
        model->age[key] = now ? 0 : model->age[key] + 1;
        model->frequency[key] = 0.98 * model->frequency[key] + (now ? 0.02 : 0.0);
    }
}

static double next_use(const by_definition *model, uint32_t key, uint32_t layer)
{
    uint32_t distance = (key / N_EXPERTS + N_LAYERS - layer) % N_LAYERS;
    double chance = model->chance[age_class(model->age[key])][frequency_class(model->frequency[key])];
    return (distance == 0 ? N_LAYERS : distance) + N_LAYERS * (1.0 / chance - 1.0);
}

static double furthest_next_use(const by_definition *model, const hypura_cache *cache, uint32_t layer)
{
    double furthest = 0.0;
    for (uint32_t key = 0; key < N_KEYS; key++) {
        uint32_t slot = hypura_cache_find(cache, key);
        if (slot != HYPURA_CACHE_NONE && hypura_cache_pins(cache, slot) == 0) {
            furthest = fmax(furthest, next_use(model, key, layer));
        }
    }
    return furthest;
}

/* Whoever leaves is among those expected last: a hair of rounding decides between
 * keys of one class. */
static void test_reuse_evicts_what_is_expected_last(void **state)
{
    (void)state;
    static by_definition model;
    open_model(&model);
    hypura_cache *cache = open_cache("reuse", 200);
    uint32_t n_evicted = 0;
    for (uint32_t i = 0; i < 10 * N_USES; i += TOP_K) {
        const uint32_t *keys = &uses[i % N_USES];
        uint32_t layer = keys[0] / N_EXPERTS;
        uint32_t slots[TOP_K];
        if (layer == 0) {
            begin_round(&model);
        }
        pass_token(&model, layer, keys);
        hypura_cache_visited visit = {.group = layer, .n_tokens = 1, .n = TOP_K, .keys = keys};
        hypura_cache_visit(cache, &visit);
        for (uint32_t j = 0; j < TOP_K; j++) {
            slots[j] = hypura_cache_find(cache, keys[j]);
            if (slots[j] != HYPURA_CACHE_NONE) {
                hypura_cache_pin(cache, slots[j]);
            }
        }
        for (uint32_t j = 0; j < TOP_K; j++) {
            if (slots[j] == HYPURA_CACHE_NONE) {
                uint32_t evicted = HYPURA_CACHE_NONE;
                double furthest = furthest_next_use(&model, cache, layer);
                slots[j] = hypura_cache_insert(cache, keys[j], &evicted);
                hypura_cache_pin(cache, slots[j]);
                if (evicted != HYPURA_CACHE_NONE) {
                    assert_true(next_use(&model, evicted, layer) >= furthest * (1.0 - 1e-3));
                    n_evicted++;
                }
            }
        }
        for (uint32_t j = 0; j < TOP_K; j++) {
            hypura_cache_unpin(cache, slots[j]);
        }
    }
    assert_true(n_evicted > 1000);
    hypura_cache_close(cache);
}

static void test_reuse_does_not_collapse(void **state)
{
    (void)state;
    assert_int_equal(replay("lru", N_LAYERS * TOP_K / 2, TOP_K), 0);
    assert_true(replay("reuse", N_LAYERS * TOP_K / 2, TOP_K) > N_USES / 6);
    assert_int_equal(replay("reuse", N_KEYS, TOP_K), replay("lru", N_KEYS, TOP_K));
}

/* ---- the choice of a policy ----------------------------------------------- */

/* Also while hardly anything was seen: the trace is 14 tokens long. */
static void test_the_choice_is_close_to_the_best(void **state)
{
    (void)state;
    for (uint32_t n_slots = 64; n_slots <= 512; n_slots += 64) {
        uint32_t best = 0;
        for (uint32_t i = 0; i < HYPURA_N_POLICIES; i++) {
            uint32_t n_hits = replay(hypura_policy_at(i)->name, n_slots, TOP_K);
            best = n_hits > best ? n_hits : best;
        }
        assert_true(replay(NULL, n_slots, TOP_K) + N_USES * 5 / 100 >= best);
    }
}

static void test_the_choice_changes_for_an_advantage_alone(void **state)
{
    (void)state;
    history past;
    ghosts all;
    assert_true(history_open(&past, N_KEYS, N_LAYERS, NULL));
    assert_true(ghosts_open(&all, &past));
    const hypura_policy *first = hypura_policy_at(0);
    const hypura_policy *other = hypura_policy_at(1);
    all.uses = 2000.0;
    all.of[0].hits = 1000.0;
    all.of[1].hits = 1010.0;
    assert_ptr_equal(ghosts_choose(&all, first), first);
    all.of[1].hits = 1200.0;
    assert_ptr_equal(ghosts_choose(&all, first), other);
    all.of[0].hits = 1190.0;
    assert_ptr_equal(ghosts_choose(&all, other), other);
    all.of[0].hits = 1200.0; /* as good again */
    assert_ptr_equal(ghosts_choose(&all, other), first);
    all.of[0].hits = 0.0;
    all.uses = 10.0; /* too few to say anything */
    assert_ptr_equal(ghosts_choose(&all, first), first);
    ghosts_close(&all);
    history_close(&past);
}

/* Favourites and experts that drift: frequency alone is ahead for a while. */
static void favourites_and_drift(uint32_t *keys, uint32_t token, uint32_t layer, uint32_t n_experts, uint32_t *seed)
{
    for (uint32_t n = 0; n < 4;) {
        *seed = *seed * 1664525u + 1013904223u;
        const bool favourite = (*seed >> 8) % 10 < 7;
        *seed = *seed * 1664525u + 1013904223u;
        const uint32_t expert = favourite ? (*seed >> 8) % 8 : (token * 3 + (*seed >> 8) % 10) % n_experts;
        const uint32_t key = layer * n_experts + expert;
        bool twice = false;
        for (uint32_t i = 0; i < n; i++) {
            twice = twice || keys[i] == key;
        }
        keys[n] = key;
        n += !twice;
    }
}

/* The policy whose name is told is another one after each change. */
static void test_a_change_takes_force(void **state)
{
    enum { LAYERS = 8, EXPERTS = 64, SLOTS = 64, TOKENS = 2000 };
    (void)state;
    const hypura_cache_options options = {.n_slots = SLOTS, .n_keys = LAYERS * EXPERTS, .n_groups = LAYERS};
    hypura_cache *cache = NULL;
    hypura_error error;
    assert_int_equal(hypura_cache_open(&options, &cache, &error), HYPURA_OK);
    const char *name = hypura_cache_policy(cache);
    uint32_t seed = 5;
    uint32_t n_changes = 0;
    for (uint32_t visit = 0; visit < TOKENS * LAYERS; visit++) {
        uint32_t keys[4];
        const uint32_t layer = visit % LAYERS;
        favourites_and_drift(keys, visit / LAYERS, layer, EXPERTS, &seed);
        hypura_cache_visit(cache, &(hypura_cache_visited){.group = layer, .n_tokens = 1, .n = 4, .keys = keys});
        n_changes += strcmp(hypura_cache_policy(cache), name) != 0;
        name = hypura_cache_policy(cache);
        for (uint32_t i = 0; i < 4; i++) {
            uint32_t evicted;
            if (hypura_cache_find(cache, keys[i]) == HYPURA_CACHE_NONE) {
                assert_int_not_equal(hypura_cache_insert(cache, keys[i], &evicted), HYPURA_CACHE_NONE);
            }
        }
    }
    assert_true(n_changes > 0);
    hypura_cache_close(cache);
}

/* Ghosts that see every layer and all slots hit what the cache itself does. */
static void test_a_ghost_hits_what_its_policy_does(void **state)
{
    (void)state;
    enum { FEW_LAYERS = 8, FEW_KEYS = FEW_LAYERS * N_EXPERTS };
    history past;
    ghosts all;
    assert_true(history_open(&past, FEW_KEYS, FEW_LAYERS, NULL));
    assert_true(ghosts_open(&all, &past));
    assert_int_equal(all.stride, 1);
    for (uint32_t p = 0; p < HYPURA_N_POLICIES; p++) {
        hypura_cache_options options = {
            .n_slots = 100, .n_keys = FEW_KEYS, .n_groups = FEW_LAYERS, .policy = hypura_policy_at(p)->name};
        hypura_cache *cache = NULL;
        assert_int_equal(hypura_cache_open(&options, &cache, NULL), HYPURA_OK);
        double n_hits = 0.0;
        for (uint32_t i = 0; i < N_USES; i += TOP_K) {
            uint32_t layer = uses[i] / N_EXPERTS;
            if (layer >= FEW_LAYERS) {
                continue;
            }
            n_hits *= layer == 0 ? 0.99 : 1.0;
            n_hits += use(cache, &uses[i], TOP_K);
            if (p == 0) {
                hypura_cache_visited visit = {.group = layer, .n_tokens = 1, .n = TOP_K, .keys = &uses[i]};
                ghosts_visit(&all, &visit, history_visit(&past, &visit), 100);
            }
        }
        assert_true(fabs(all.of[p].hits - n_hits) <= 0.05 * n_hits + 1.0);
        hypura_cache_close(cache);
    }
    ghosts_close(&all);
    history_close(&past);
}

static uint32_t count_held(const ghost *one)
{
    uint32_t n = 0;
    for (uint32_t key = 0; key < N_KEYS; key++) {
        n += one->held.states[key] != RANKING_ABSENT;
    }
    return n;
}

/* They hold no more than a cache of so many slots would, also where it becomes smaller, and count what single tokens use, of
 * late: a hundred rounds and more are as one hundred. */
static void test_ghosts_are_as_small_as_the_cache(void **state)
{
    (void)state;
    enum { OF_ROUND = N_LAYERS / 4 * TOP_K }; /* that are looked at */
    history past;
    ghosts all;
    assert_true(history_open(&past, N_KEYS, N_LAYERS, NULL));
    assert_true(ghosts_open(&all, &past));
    for (uint32_t i = 0; i < 40 * N_USES; i += TOP_K) {
        const uint32_t layer = uses[i % N_USES] / N_EXPERTS;
        const uint32_t n_slots = i < 20 * N_USES ? 512 : 96;
        const hypura_cache_visited visit = {.group = layer, .n_tokens = 1, .n = TOP_K, .keys = &uses[i % N_USES]};
        ghosts_visit(&all, &visit, history_visit(&past, &visit), n_slots);
    }
    assert_true(all.uses > 90.0 * OF_ROUND && all.uses < 100.0 * OF_ROUND + 1.0);
    for (uint32_t p = 0; p < HYPURA_N_POLICIES; p++) {
        const double hits = all.of[p].hits;
        assert_int_equal(count_held(&all.of[p]), all.of[p].n_held);
        assert_in_range(all.of[p].n_held, 1, 96 / 4);
        assert_true(hits > 0.0 && hits < all.uses);
        const hypura_cache_visited batch = {.group = 0, .n_tokens = 2, .n = TOP_K, .keys = uses};
        ghosts_visit(&all, &batch, false, 96);
        assert_true(all.of[p].hits == hits);
    }
    ghosts_close(&all);
    history_close(&past);
}

/* ---- batches ------------------------------------------------------------------ */

#define N_PROMPT (N_TOKENS / 2)

/* The prompt's selections of one layer, as one batch. */
static void visit_prompt(hypura_cache *cache, uint32_t layer)
{
    uint32_t keys[N_EXPERTS];
    uint32_t n_uses[N_EXPERTS];
    uint32_t ages[N_EXPERTS];
    hypura_cache_visited visit = {.group = layer, .n_tokens = N_PROMPT, .keys = keys, .n_uses = n_uses, .ages = ages};
    for (uint32_t token = 0; token < N_PROMPT; token++) {
        for (uint32_t i = 0; i < TOP_K; i++) {
            uint32_t key = uses[(token * N_LAYERS + layer) * TOP_K + i];
            uint32_t at = 0;
            while (at < visit.n && keys[at] != key) {
                at++;
            }
            if (at == visit.n) {
                keys[visit.n++] = key;
                n_uses[at] = 0;
            }
            n_uses[at]++;
            ages[at] = N_PROMPT - 1 - token;
        }
    }
    hypura_cache_visit(cache, &visit);
    for (uint32_t i = 0; i < visit.n; i++) {
        uint32_t evicted;
        if (hypura_cache_find(cache, keys[i]) == HYPURA_CACHE_NONE) {
            assert_int_not_equal(hypura_cache_insert(cache, keys[i], &evicted), HYPURA_CACHE_NONE);
        }
    }
}

/* A prompt uses most experts of every layer. Read as one batch, layer after layer,
 * it must leave what decoding needs next as well as when it came token by token. */
static void test_a_batch_leaves_what_comes_next(void **state)
{
    (void)state;
    for (uint32_t n_slots = 128; n_slots <= 384; n_slots += 128) {
        uint32_t n_hits[2] = {0};
        for (int batch = 0; batch < 2; batch++) {
            hypura_cache *cache = open_cache(NULL, n_slots);
            for (uint32_t layer = 0; batch && layer < N_LAYERS; layer++) {
                visit_prompt(cache, layer);
            }
            for (uint32_t i = 0; i < N_USES; i += TOP_K) {
                bool prompt = i < N_PROMPT * N_LAYERS * TOP_K;
                if (!prompt || !batch) {
                    uint32_t hits = use(cache, &uses[i], TOP_K);
                    n_hits[batch] += prompt ? 0 : hits;
                }
            }
            hypura_cache_close(cache);
        }
        assert_true(n_hits[1] * 100 >= n_hits[0] * 95);
    }
}

static void test_what_was_frequent_in_another_run_is_known(void **state)
{
    (void)state;
    hypura_cache *cache = open_cache("reuse", 2);
    uint32_t evicted;
    hypura_cache_recall(cache, 5, 0.3f);
    assert_int_equal(hypura_cache_uses(cache, 5), 0);
    assert_true(hypura_cache_has_empty(cache));
    hypura_cache_insert(cache, 4, &evicted);
    hypura_cache_insert(cache, 5, &evicted);
    hypura_cache_insert(cache, 6, &evicted);
    assert_int_equal(evicted, 4);
    hypura_cache_insert(cache, 7, &evicted);
    assert_int_equal(evicted, 6);
    assert_false(hypura_cache_has_empty(cache));
    use(cache, (const uint32_t[]){9, 7}, 2);
    use(cache, (const uint32_t[]){7}, 1);
    assert_int_equal(hypura_cache_uses(cache, 7), 2);
    hypura_cache_close(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lru_hits_what_its_stack_distance_says),
        cmocka_unit_test(test_lru_at_both_ends),
        cmocka_unit_test(test_reuse_evicts_what_is_expected_last),
        cmocka_unit_test(test_reuse_does_not_collapse),
        cmocka_unit_test(test_the_choice_is_close_to_the_best),
        cmocka_unit_test(test_the_choice_changes_for_an_advantage_alone),
        cmocka_unit_test(test_a_change_takes_force),
        cmocka_unit_test(test_a_ghost_hits_what_its_policy_does),
        cmocka_unit_test(test_ghosts_are_as_small_as_the_cache),
        cmocka_unit_test(test_a_batch_leaves_what_comes_next),
        cmocka_unit_test(test_what_was_frequent_in_another_run_is_known),
    };
    return cmocka_run_group_tests(tests, read_trace, NULL);
}
