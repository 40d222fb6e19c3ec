/*
 * test_cache.c - what a cache does, case by case.
 */
#include "cache_fixture.h"

#include "cache/history.h"
#include "cache/policy.h"

#include <string.h>

static uint32_t insert(hypura_cache *cache, uint32_t key, uint32_t expected_evicted)
{
    uint32_t evicted = 12345;
    use(cache, 0, key);
    uint32_t slot = hypura_cache_insert(cache, key, &evicted);
    assert_int_not_equal(slot, NONE);
    assert_int_equal(evicted, expected_evicted);
    assert_int_equal(hypura_cache_find(cache, key), slot);
    assert_int_equal(hypura_cache_key(cache, slot), key);
    return slot;
}

static void test_starts_empty(void **state)
{
    (void)state;
    hypura_cache *cache = open_cache(3, 5, NULL);
    for (uint32_t key = 0; key < 5; key++) {
        assert_int_equal(hypura_cache_find(cache, key), NONE);
    }
    for (uint32_t slot = 0; slot < 3; slot++) {
        assert_int_equal(hypura_cache_key(cache, slot), NONE);
        assert_int_equal(hypura_cache_pins(cache, slot), 0);
    }
    assert_int_equal(hypura_cache_evictable(cache), 3);
    hypura_cache_close(cache);
    hypura_cache_close(NULL);
}

/* Whatever the order in which they come: 60 slots for 90 keys of groups of 30, 22 and 38, of which two in three come. */
static void test_groups_get_slots_near_each_other(void **state)
{
    (void)state;
    hypura_cache *cache = open_cache(60, 90, "lru");
    uint32_t first[N_GROUPS] = {NONE, NONE, NONE};
    uint32_t last[N_GROUPS] = {0};
    for (uint32_t i = 0; i < 90; i++) {
        const uint32_t key = i * 37 % 90;
        if (key % 3 == 1) {
            continue;
        }
        const uint32_t slot = insert(cache, key, NONE);
        const uint32_t group = group_of(90, key);
        first[group] = slot < first[group] ? slot : first[group];
        last[group] = slot > last[group] ? slot : last[group];
    }
    assert_false(hypura_cache_has_empty(cache));
    assert_in_range(last[0] - first[0] + 1, 20, 22);
    assert_in_range(last[1] - first[1] + 1, 14, 18);
    assert_in_range(last[2] - first[2] + 1, 24, 28);
    hypura_cache_close(cache);
}

static void test_every_key_has_its_place_where_all_fit(void **state)
{
    (void)state;
    hypura_cache *cache = open_cache(7, 7, "lru");
    for (uint32_t i = 0; i < 7; i++) {
        assert_int_equal(insert(cache, i * 3 % 7, NONE), i * 3 % 7);
    }
    hypura_cache_close(cache);
}

static void test_lru_evicts_the_least_recently_used(void **state)
{
    (void)state;
    hypura_cache *cache = open_cache(3, 10, "lru");
    insert(cache, 0, NONE);
    insert(cache, 1, NONE);
    insert(cache, 2, NONE);
    use(cache, 0, 0);
    insert(cache, 3, 1);
    assert_int_equal(hypura_cache_find(cache, 1), NONE);
    insert(cache, 4, 2);
    insert(cache, 5, 0);
    insert(cache, 6, 3);
    hypura_cache_close(cache);
}

/* Of a batch's tokens each used what it did so many tokens ago. */
static void test_lru_knows_when_in_a_batch(void **state)
{
    (void)state;
    for (uint32_t older = 0; older < 2; older++) {
        hypura_cache *cache = open_cache(2, 10, "lru");
        const uint32_t keys[] = {0, 1};
        const uint32_t n_uses[] = {1, 1};
        const uint32_t ages[] = {older == 0 ? 3 : 0, older == 1 ? 3 : 0};
        const hypura_cache_visited visit = {
            .group = 0, .n_tokens = 4, .n = 2, .keys = keys, .n_uses = n_uses, .ages = ages};
        insert(cache, 0, NONE);
        insert(cache, 1, NONE);
        hypura_cache_visit(cache, &visit);
        insert(cache, 2, older);
        hypura_cache_close(cache);
    }
}

static void test_finding_is_not_using(void **state)
{
    (void)state;
    hypura_cache *cache = open_cache(2, 4, "lru");
    insert(cache, 0, NONE);
    insert(cache, 1, NONE);
    (void)hypura_cache_find(cache, 0);
    (void)hypura_cache_key(cache, 0);
    insert(cache, 2, 0);
    hypura_cache_close(cache);
}

static void test_pinned_slots_stay(void **state)
{
    (void)state;
    hypura_cache *cache = open_cache(2, 8, "lru");
    uint32_t a = insert(cache, 0, NONE);
    uint32_t b = insert(cache, 1, NONE);
    hypura_cache_pin(cache, a);
    hypura_cache_pin(cache, a);
    assert_int_equal(hypura_cache_evictable(cache), 1);
    insert(cache, 2, 1);
    insert(cache, 3, 2);

    hypura_cache_pin(cache, b);
    assert_int_equal(hypura_cache_evictable(cache), 0);
    uint32_t evicted = 0;
    assert_int_equal(hypura_cache_insert(cache, 4, &evicted), NONE);
    assert_int_equal(evicted, NONE);
    assert_int_equal(hypura_cache_find(cache, 4), NONE);
    assert_int_equal(hypura_cache_find(cache, 0), a);
    assert_int_equal(hypura_cache_find(cache, 3), b);

    hypura_cache_unpin(cache, a);
    assert_int_equal(hypura_cache_pins(cache, a), 1);
    assert_int_equal(hypura_cache_evictable(cache), 0);
    hypura_cache_unpin(cache, a);
    assert_int_equal(hypura_cache_evictable(cache), 1);
    insert(cache, 4, 0);
    hypura_cache_close(cache);
}

static void test_removed_slot_is_used_before_a_victim(void **state)
{
    (void)state;
    hypura_cache *cache = open_cache(2, 8, "lru");
    insert(cache, 0, NONE);
    uint32_t slot = insert(cache, 1, NONE);
    hypura_cache_remove(cache, slot);
    assert_int_equal(hypura_cache_find(cache, 1), NONE);
    assert_int_equal(hypura_cache_key(cache, slot), NONE);
    assert_int_equal(insert(cache, 2, NONE), slot);
    hypura_cache_close(cache);
}

static void test_pinned_slot_that_is_removed_waits_for_its_last_unpin(void **state)
{
    (void)state;
    hypura_cache *cache = open_cache(1, 8, "lru");
    uint32_t slot = insert(cache, 3, NONE);
    hypura_cache_pin(cache, slot);
    hypura_cache_pin(cache, slot);
    hypura_cache_remove(cache, slot);
    assert_int_equal(hypura_cache_find(cache, 3), NONE);
    uint32_t evicted;
    assert_int_equal(hypura_cache_insert(cache, 3, &evicted), NONE);
    hypura_cache_unpin(cache, slot);
    assert_int_equal(hypura_cache_insert(cache, 3, &evicted), NONE);
    hypura_cache_unpin(cache, slot);
    assert_int_equal(insert(cache, 3, NONE), slot);
    hypura_cache_close(cache);
}

static void test_closed_slots_are_left_at_once_or_with_their_last_unpin(void **state)
{
    (void)state;
    hypura_cache *cache = open_cache(4, 10, "lru");
    for (uint32_t key = 0; key < 4; key++) {
        insert(cache, key, NONE);
    }
    hypura_cache_pin(cache, 3);
    hypura_cache_resize(cache, 2);
    assert_int_equal(hypura_cache_find(cache, 2), NONE);
    assert_int_equal(hypura_cache_find(cache, 3), 3); /* its reads may be under way */
    assert_int_equal(hypura_cache_closing(cache), 1);
    assert_int_equal(hypura_cache_evictable(cache), 2);
    hypura_cache_unpin(cache, 3);
    assert_int_equal(hypura_cache_find(cache, 3), NONE);
    assert_int_equal(hypura_cache_closing(cache), 0);
    insert(cache, 5, 0);
    insert(cache, 6, 1);

    hypura_cache_pin(cache, 1);
    hypura_cache_resize(cache, 1);
    hypura_cache_resize(cache, 4); /* opened again before it was left */
    hypura_cache_unpin(cache, 1);
    assert_int_equal(hypura_cache_find(cache, 6), 1);
    assert_int_equal(insert(cache, 7, NONE), 2);
    assert_int_equal(insert(cache, 8, NONE), 3);
    hypura_cache_close(cache);
}

static void test_what_earlier_runs_used_less_goes_first(void **state)
{
    (void)state;
    hypura_cache *cache = open_cache(2, 8, "lfu");
    hypura_cache_recall(cache, 0, 0.5f);
    hypura_cache_recall(cache, 1, 0.1f);
    insert(cache, 0, NONE);
    insert(cache, 1, NONE);
    insert(cache, 2, 1);
    hypura_cache_close(cache);
}

/* Also of keys that are held, and have been ranked, by then. */
static void test_what_earlier_runs_used_is_ranked_at_once(void **state)
{
    (void)state;
    for (uint32_t less = 0; less < 2; less++) {
        hypura_cache *cache = open_cache(2, 8, "lfu");
        uint32_t evicted;
        (void)hypura_cache_insert(cache, 0, &evicted);
        (void)hypura_cache_insert(cache, 1, &evicted);
        assert_false(hypura_cache_prefers(cache, 2));
        hypura_cache_recall(cache, less, 0.1f);
        hypura_cache_recall(cache, 1 - less, 0.5f);
        (void)hypura_cache_insert(cache, 2, &evicted);
        assert_int_equal(evicted, less);
        hypura_cache_close(cache);
    }
}

static void test_what_was_not_used_in_earlier_runs_is_as_unknown_as_before(void **state)
{
    (void)state;
    float chances[2], frequencies[2];
    hypura_cache *cache = open_cache(2, 8, NULL);
    hypura_cache_recall(cache, 0, 0.0f);
    hypura_cache_outlook(cache, 0, 2, chances, frequencies);
    assert_true(chances[0] == chances[1] && frequencies[0] == frequencies[1]);
    hypura_cache_recall(cache, 0, 0.3f);
    hypura_cache_outlook(cache, 0, 2, chances, frequencies);
    assert_true(chances[0] > chances[1] && frequencies[0] > frequencies[1]);
    hypura_cache_close(cache);
}

static void test_what_is_at_hand_is_preferred_where_it_is_expected_sooner(void **state)
{
    (void)state;
    static const uint32_t used[] = {2, 3};
    hypura_cache *cache = open_cache(2, 8, "lfu");
    assert_true(hypura_cache_prefers(cache, 7)); /* an empty slot */
    hypura_cache_recall(cache, 0, 0.5f);
    hypura_cache_recall(cache, 1, 0.1f);
    insert(cache, 0, NONE);
    insert(cache, 1, NONE);
    assert_false(hypura_cache_prefers(cache, 2));
    hypura_cache_visit(cache, &(hypura_cache_visited){.n_tokens = 20, .n = 2, .keys = used, .n_uses = (const uint32_t[]){20, 1}});
    assert_true(hypura_cache_prefers(cache, 2)); /* to 1 */
    assert_false(hypura_cache_prefers(cache, 3));
    assert_true(hypura_cache_uses(cache, 2) == 20 && hypura_cache_uses(cache, 3) == 1);
    hypura_cache_pin(cache, 1);
    assert_false(hypura_cache_prefers(cache, 2)); /* 0 is the one that would go */
    hypura_cache_unpin(cache, 1);
    assert_int_equal(hypura_cache_find(cache, 1), 1); /* asking changes nothing */
    insert(cache, 2, 1);
    assert_false(hypura_cache_prefers(cache, 3));
    hypura_cache_pin(cache, 0);
    hypura_cache_pin(cache, 1);
    assert_false(hypura_cache_prefers(cache, 1)); /* nothing can go */
    hypura_cache_close(cache);
    cache = open_cache(2, 8, "lfu");
    for (uint32_t key = 4; key < 7; key++) { /* of one group: as soon is not sooner */
        hypura_cache_recall(cache, key, 0.1f);
    }
    uint32_t evicted;
    (void)hypura_cache_insert(cache, 4, &evicted);
    (void)hypura_cache_insert(cache, 5, &evicted);
    assert_false(hypura_cache_prefers(cache, 6));
    hypura_cache_close(cache);
}

/* Keys of a batch are used by some of its tokens: that says nothing of what the next token uses. */
static void test_chances_are_learned_from_single_tokens(void **state)
{
    (void)state;
    static const uint32_t keys[] = {0, 1, 2};
    float seen[HISTORY_CLASSES];
    history past;
    assert_true(history_open(&past, 8, 1, NULL));
    const hypura_cache_visited single = {.n_tokens = 1, .n = 3, .keys = keys};
    const hypura_cache_visited batch = {.n_tokens = 4, .n = 3, .keys = keys};
    (void)history_visit(&past, &single); /* known from now on */
    memcpy(seen, past.seen, sizeof seen);
    (void)history_visit(&past, &batch);
    assert_memory_equal(past.seen, seen, sizeof seen);
    (void)history_visit(&past, &single);
    assert_memory_not_equal(past.seen, seen, sizeof seen);
    history_close(&past);
}

static void visit_key(history *past, uint32_t group, uint32_t n_tokens, uint32_t key, bool begins_round)
{
    const hypura_cache_visited visit = {.group = group, .n_tokens = n_tokens, .n = 1, .keys = &key};
    assert_true(history_visit(past, &visit) == begins_round);
}

/* Layers come in their order, some of them not at all, and one may be all that comes. */
static void test_a_round_begins_where_layers_begin_anew(void **state)
{
    (void)state;
    history past;
    assert_true(history_open(&past, 9, 3, NULL));
    visit_key(&past, 1, 1, 3, true);
    visit_key(&past, 2, 1, 6, false);
    visit_key(&past, 0, 1, 0, true);
    visit_key(&past, 2, 1, 6, false);
    visit_key(&past, 2, 1, 7, true);
    history_close(&past);
}

/* A long time ago is no less than that, however long ago. */
static void test_ages_have_an_end(void **state)
{
    (void)state;
    history past;
    assert_true(history_open(&past, 3, 1, NULL));
    visit_key(&past, 0, 1, 0, true);
    for (uint32_t n = 0; n < 5; n++) {
        const uint16_t age = past.keys[0].age;
        visit_key(&past, 0, 30000, 1, true);
        assert_true(past.keys[0].age > age || age == UINT16_MAX);
    }
    assert_int_equal(past.keys[0].age, UINT16_MAX);
    visit_key(&past, 0, 1, 0, true);
    assert_int_equal(past.keys[0].age, 0);
    history_close(&past);
}

/* Several tokens use more than one does: in 8 of them, what one uses in one of ten cases comes in 57 of 100. */
static void test_visits_of_several_tokens_use_more(void **state)
{
    (void)state;
    history past;
    assert_true(history_open(&past, 4, 2, NULL));
    assert_in_range((int)(history_visits_to_use(&past, 0.1) * 100.0), 999, 1000);
    for (uint32_t n = 0; n < 400; n++) {
        visit_key(&past, n % 2, 8, n % 2 * 2, n % 2 == 0);
    }
    assert_in_range((int)(history_visits_to_use(&past, 0.1) * 100.0), 174, 177);
    history_close(&past);
}

static void test_bad_options_are_named(void **state)
{
    (void)state;
    hypura_cache *cache = (hypura_cache *)&cache;
    hypura_error error = {0};
    hypura_cache_options no_slots = {.n_slots = 0, .n_keys = 1};
    assert_int_equal(hypura_cache_open(&no_slots, &cache, &error), HYPURA_ERR_USAGE);
    assert_null(cache);
    hypura_cache_options no_keys = {.n_slots = 1, .n_keys = 0};
    assert_int_equal(hypura_cache_open(&no_keys, &cache, &error), HYPURA_ERR_USAGE);
    hypura_cache_options uneven = {.n_slots = 1, .n_keys = 5, .n_groups = 2};
    assert_int_equal(hypura_cache_open(&uneven, &cache, &error), HYPURA_ERR_USAGE);
    hypura_cache_options unknown = {.n_slots = 1, .n_keys = 1, .policy = "mru"};
    assert_int_equal(hypura_cache_open(&unknown, &cache, &error), HYPURA_ERR_USAGE);
    assert_non_null(strstr(error.message, "\"mru\""));
    assert_int_equal(hypura_cache_open(&unknown, &cache, NULL), HYPURA_ERR_USAGE);
}

static void test_the_table_of_policies(void **state)
{
    (void)state;
    assert_null(hypura_policy_find("no such policy"));
    uint32_t n = 0;
    for (; hypura_policy_at(n); n++) {
        assert_ptr_equal(hypura_policy_find(hypura_policy_at(n)->name), hypura_policy_at(n));
    }
    assert_true(n >= 1);
    assert_null(hypura_policy_at(n + 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_starts_empty),
        cmocka_unit_test(test_groups_get_slots_near_each_other),
        cmocka_unit_test(test_every_key_has_its_place_where_all_fit),
        cmocka_unit_test(test_lru_evicts_the_least_recently_used),
        cmocka_unit_test(test_lru_knows_when_in_a_batch),
        cmocka_unit_test(test_finding_is_not_using),
        cmocka_unit_test(test_pinned_slots_stay),
        cmocka_unit_test(test_removed_slot_is_used_before_a_victim),
        cmocka_unit_test(test_pinned_slot_that_is_removed_waits_for_its_last_unpin),
        cmocka_unit_test(test_closed_slots_are_left_at_once_or_with_their_last_unpin),
        cmocka_unit_test(test_what_earlier_runs_used_less_goes_first),
        cmocka_unit_test(test_what_earlier_runs_used_is_ranked_at_once),
        cmocka_unit_test(test_what_was_not_used_in_earlier_runs_is_as_unknown_as_before),
        cmocka_unit_test(test_what_is_at_hand_is_preferred_where_it_is_expected_sooner),
        cmocka_unit_test(test_chances_are_learned_from_single_tokens),
        cmocka_unit_test(test_a_round_begins_where_layers_begin_anew),
        cmocka_unit_test(test_ages_have_an_end),
        cmocka_unit_test(test_visits_of_several_tokens_use_more),
        cmocka_unit_test(test_bad_options_are_named),
        cmocka_unit_test(test_the_table_of_policies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
