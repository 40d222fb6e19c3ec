/*
 * test_belady.c - the clairvoyant policy against every choice there is.
 *
 * On small random traces the most hits that any sequence of evictions reaches is
 * found by trying all of them: a state is the set of keys held.
 */
#include "cache/policy.h"
#include "cache/trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define N_KEYS   7
#define N_STEPS  24
#define MAX_STEP 3

typedef struct small_trace {
    uint32_t uses[N_STEPS * MAX_STEP];
    hypura_cache_step steps[N_STEPS];
    hypura_cache_trace trace;
} small_trace;

static uint32_t random_state;

static uint32_t next_random(uint32_t n)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 16) % n;
}

static void make_trace(small_trace *t, uint32_t seed)
{
    random_state = seed;
    memset(t, 0, sizeof(*t));
    t->trace =
        (hypura_cache_trace){.uses = t->uses, .steps = t->steps, .n_steps = N_STEPS, .n_keys = N_KEYS, .n_groups = 1};
    for (uint32_t s = 0; s < N_STEPS; s++) {
        const uint32_t n = 1 + next_random(MAX_STEP);
        uint32_t seen = 0;
        t->steps[s].first = t->trace.n_uses;
        for (uint32_t i = 0; i < n; i++) {
            const uint32_t key = next_random(N_KEYS);
            if (!(seen >> key & 1u)) {
                t->uses[t->trace.n_uses++] = key;
                seen |= 1u << key;
            }
        }
        t->steps[s].n = t->trace.n_uses - t->steps[s].first;
    }
}

/* Most hits from state `held` before use `at` on. */
static int best[N_STEPS * MAX_STEP + 1][1 << N_KEYS];

static int most_hits(const small_trace *t, uint32_t at, uint32_t held, uint32_t n_held, uint32_t n_slots)
{
    if (at == t->trace.n_uses) {
        return 0;
    }
    int *most = &best[at][held];
    const uint32_t key = 1u << t->uses[at];
    if (*most >= 0) {
        return *most;
    }
    if (held & key) {
        *most = 1 + most_hits(t, at + 1, held, n_held, n_slots);
    } else if (n_held < n_slots) {
        *most = most_hits(t, at + 1, held | key, n_held + 1, n_slots);
    }
    for (uint32_t victim = 0; !(held & key) && n_held == n_slots && victim < N_KEYS; victim++) {
        if (held >> victim & 1u) {
            const int n = most_hits(t, at + 1, (held & ~(1u << victim)) | key, n_held, n_slots);
            *most = n > *most ? n : *most;
        }
    }
    return *most;
}

static void test_nobody_hits_more(void **state)
{
    (void)state;
    small_trace t;
    for (uint32_t seed = 1; seed <= 40; seed++) {
        make_trace(&t, seed);
        for (uint32_t n_slots = 1; n_slots <= N_KEYS; n_slots++) {
            uint64_t n_hits = 0;
            memset(best, 0xFF, sizeof(best));
            assert_int_equal(hypura_cache_belady(&t.trace, n_slots, &n_hits, NULL), HYPURA_OK);
            assert_int_equal(n_hits, most_hits(&t, 0, 0, 0, n_slots));
        }
    }
}

static void test_every_policy_stays_below(void **state)
{
    (void)state;
    small_trace t;
    for (uint32_t seed = 1; seed <= 200; seed++) {
        make_trace(&t, seed);
        for (uint32_t n_slots = MAX_STEP; n_slots <= N_KEYS; n_slots++) {
            uint64_t most = 0;
            assert_int_equal(hypura_cache_belady(&t.trace, n_slots, &most, NULL), HYPURA_OK);
            for (uint32_t p = 0; hypura_policy_at(p); p++) {
                uint64_t n_hits = 0;
                assert_int_equal(hypura_cache_replay(&t.trace, hypura_policy_at(p)->name, n_slots, NULL, NULL, &n_hits, NULL),
                                 HYPURA_OK);
                assert_true(n_hits <= most);
            }
        }
    }
}

static void test_lru_by_hand(void **state)
{
    (void)state;
    static const uint32_t uses[] = {0, 1, 2, 0, 3, 2, 1, 0};
    static const hypura_cache_step steps[] = {{0, 3, 0}, {3, 2, 0}, {5, 1, 0}, {6, 2, 0}};
    const hypura_cache_trace trace = {
        .uses = uses, .steps = steps, .n_uses = 8, .n_steps = 4, .n_keys = 4, .n_groups = 1};
    uint64_t n_hits = 0;
    /* 0 1 2 miss; 0 hits, 3 misses and 1 leaves; 2 hits; of 1 and 0 the latter hits first, 1 misses */
    assert_int_equal(hypura_cache_replay(&trace, "lru", 3, NULL, NULL, &n_hits, NULL), HYPURA_OK);
    assert_int_equal(n_hits, 3);
    /* one by one, 1 misses first and 0 leaves for it */
    hypura_cache_trace singles = trace;
    singles.n_steps = 0;
    assert_int_equal(hypura_cache_replay(&singles, "lru", 3, NULL, NULL, &n_hits, NULL), HYPURA_OK);
    assert_int_equal(n_hits, 2);
    assert_int_equal(hypura_cache_replay(&trace, "no such policy", 3, NULL, NULL, &n_hits, NULL), HYPURA_ERR_USAGE);
    assert_int_equal(hypura_cache_belady(&trace, 0, &n_hits, NULL), HYPURA_ERR_USAGE);
}

/* A step that asks for three keys of a cache of two is taken in groups: the two that it leaves are those that hit in the next. */
static void test_a_step_may_ask_for_more_than_there_are_slots(void **state)
{
    (void)state;
    static const uint32_t uses[] = {0, 1, 2, 0, 1, 2, 0, 1, 2};
    static const hypura_cache_step steps[] = {{0, 3, 0}, {3, 3, 0}, {6, 3, 0}};
    const hypura_cache_trace trace = {
        .uses = uses, .steps = steps, .n_uses = 9, .n_steps = 3, .n_keys = 4, .n_groups = 1};
    for (uint32_t p = 0; hypura_policy_at(p); p++) {
        uint64_t n_hits = 0;
        assert_int_equal(hypura_cache_replay(&trace, hypura_policy_at(p)->name, 2, NULL, NULL, &n_hits, NULL), HYPURA_OK);
        assert_int_equal(n_hits, 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_hits_more),
        cmocka_unit_test(test_every_policy_stays_below),
        cmocka_unit_test(test_lru_by_hand),
        cmocka_unit_test(test_a_step_may_ask_for_more_than_there_are_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
