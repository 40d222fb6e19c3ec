/*
 * test_random.c - the cache against a model of it that is obviously right, in random operations.
 *
 * The model keeps a list of slots with the time of their last use and finds
 * everything by looking at all of them.
 */
#include "cache_fixture.h"

#include "cache/policy.h"

#include <string.h>

#define MAX_SLOTS 16
#define MAX_KEYS  48

typedef struct reference_slot {
    uint32_t key;
    uint32_t pins;
    uint64_t used;
} reference_slot;

typedef struct reference {
    uint32_t n_slots;
    uint32_t n_open;
    uint64_t clock;
    reference_slot slots[MAX_SLOTS];
} reference;

static uint32_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 32);
}

static uint32_t model_find(const reference *model, uint32_t key)
{
    for (uint32_t slot = 0; slot < model->n_slots; slot++) {
        if (model->slots[slot].key == key) {
            return slot;
        }
    }
    return NONE;
}

static bool model_has_empty(const reference *model)
{
    for (uint32_t slot = 0; slot < model->n_open; slot++) {
        if (model->slots[slot].key == NONE && model->slots[slot].pins == 0) {
            return true;
        }
    }
    return false;
}

static uint32_t model_oldest_unpinned(const reference *model)
{
    uint32_t oldest = NONE;
    for (uint32_t slot = 0; slot < model->n_slots; slot++) {
        if (model->slots[slot].key != NONE && model->slots[slot].pins == 0 &&
            (oldest == NONE || model->slots[slot].used < model->slots[oldest].used)) {
            oldest = slot;
        }
    }
    return oldest;
}

static void compare(const hypura_cache *cache, const reference *model, uint32_t n_keys)
{
    uint32_t n_unpinned = 0;
    uint32_t n_closing = 0;
    for (uint32_t slot = 0; slot < model->n_slots; slot++) {
        assert_int_equal(hypura_cache_key(cache, slot), model->slots[slot].key);
        assert_int_equal(hypura_cache_pins(cache, slot), model->slots[slot].pins);
        n_unpinned += slot < model->n_open && model->slots[slot].pins == 0;
        n_closing += slot >= model->n_open && model->slots[slot].pins > 0;
    }
    for (uint32_t key = 0; key < n_keys; key++) {
        assert_int_equal(hypura_cache_find(cache, key), model_find(model, key));
    }
    assert_int_equal(hypura_cache_evictable(cache), n_unpinned);
    assert_int_equal(hypura_cache_closing(cache), n_closing);
}

static void model_close(reference_slot *slot)
{
    if (slot->pins == 0) {
        slot->key = NONE;
    }
}

static void model_resize(reference *model, uint32_t n_open)
{
    model->n_open = n_open;
    for (uint32_t slot = n_open; slot < model->n_slots; slot++) {
        model_close(&model->slots[slot]);
    }
}

/* A key is asked for: a use when present, else an insert. With exact_lru the
 * victim must be the model's; with other policies any unpinned slot will do. */
static void step_use(hypura_cache *cache, reference *model, uint32_t n_keys, uint32_t key, bool exact_lru)
{
    use(cache, group_of(n_keys, key), key);
    uint32_t slot = model_find(model, key);
    if (slot != NONE) {
        model->slots[slot].used = ++model->clock;
        return;
    }
    uint32_t evicted = 0;
    uint32_t got = hypura_cache_insert(cache, key, &evicted);
    if (model_has_empty(model)) {
        assert_true(got < model->n_open);
        assert_int_equal(evicted, NONE);
        assert_int_equal(model->slots[got].key, NONE);
        assert_int_equal(model->slots[got].pins, 0);
    } else {
        uint32_t oldest = model_oldest_unpinned(model);
        if (oldest == NONE) {
            assert_int_equal(got, NONE);
            assert_int_equal(evicted, NONE);
            return;
        }
        assert_true(got < model->n_open);
        assert_int_equal(model->slots[got].pins, 0);
        assert_int_equal(evicted, model->slots[got].key);
        if (exact_lru) {
            assert_int_equal(got, oldest);
        }
    }
    model->slots[got].key = key;
    model->slots[got].used = ++model->clock;
}

static void random_operations(const char *policy, uint32_t n_slots, uint32_t n_keys, uint64_t seed)
{
    bool exact_lru = policy && strcmp(policy, "lru") == 0;
    hypura_cache *cache = open_cache(n_slots, n_keys, policy);
    reference model = {.n_slots = n_slots, .n_open = n_slots};
    for (uint32_t slot = 0; slot < n_slots; slot++) {
        model.slots[slot].key = NONE;
    }
    for (int i = 0; i < 4000; i++) {
        uint32_t slot = next_random(&seed) % n_slots;
        reference_slot *modelled = &model.slots[slot];
        switch (next_random(&seed) % 9) {
        case 0:
        case 1:
            if (modelled->key != NONE) {
                hypura_cache_pin(cache, slot);
                modelled->pins++;
            }
            break;
        case 2:
        case 3:
            if (modelled->pins > 0) {
                hypura_cache_unpin(cache, slot);
                modelled->pins--;
                if (slot >= model.n_open) {
                    model_close(modelled);
                }
            }
            break;
        case 4:
            if (modelled->key != NONE) {
                hypura_cache_remove(cache, slot);
                modelled->key = NONE;
            }
            break;
        case 5: {
            const uint32_t n_open = 1 + next_random(&seed) % n_slots;
            hypura_cache_resize(cache, n_open);
            model_resize(&model, n_open);
            break;
        }
        default:
            step_use(cache, &model, n_keys, next_random(&seed) % n_keys, exact_lru);
            break;
        }
        compare(cache, &model, n_keys);
    }
    hypura_cache_close(cache);
}

static void test_random_operations(void **state)
{
    (void)state;
    for (uint32_t i = 0; i <= HYPURA_N_POLICIES; i++) {
        const char *policy = i < HYPURA_N_POLICIES ? hypura_policy_at(i)->name : NULL;
        random_operations(policy, 1, 1, 1);
        random_operations(policy, 1, 5, 2);
        random_operations(policy, 2, MAX_KEYS, 3);
        random_operations(policy, 7, 20, 4);
        random_operations(policy, MAX_SLOTS, 12, 5);
        random_operations(policy, MAX_SLOTS, MAX_KEYS, 6);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_operations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
