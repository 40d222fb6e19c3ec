/*
 * cache.c - which key lies in which slot: slots, key table, pins, free list.
 *
 * A router picks a few experts a token, and picks many of them again soon. The
 * cache keeps those that were read in a fixed number of slots, so that a second
 * use costs no read. It knows numbers only: the pager gives the key of an expert
 * and gets the slot whose memory holds it, or the slot to read it into. Nothing
 * here touches a weight, so a recorded trace of keys drives the same code.
 *
 * Two tables point at each other: slots[s].key says what a slot holds, and
 * slot_of[k] says where a key lies. Every question is one look into one of them.
 * EMPTY slots hang on a free list threaded through the slots. Who leaves when
 * none is EMPTY is not decided here:
 *
 *     visit --> history    what was used, when and how often      (history.h)
 *                  |
 *               ranking    of the held keys, by the policy in force (ranking.h)
 *                  |
 *               ghosts     which policy would hit most            (ghost.h)
 *
 *                    insert                       remove
 *        EMPTY -----------------> HELD (pins 0) -----------------> EMPTY
 *                                  |  ^      ^ insert (victim: another key)
 *                              pin |  | unpin
 *                                  v  |
 *                                 HELD (pins > 0) --remove--> DRAINING --last unpin--> EMPTY
 *
 * The pool shrinks by closing slots at its end and grows by opening them again.
 * One that is closed becomes CLOSED with its last unpin, whatever it is now.
 *
 * What always holds:
 *  1. slot_of[k] == s exactly when slots[s].key == k.
 *  2. The ranking knows exactly the keys of HELD slots, and which of them are
 *     pinned; n_empty counts the EMPTY ones that are open. A DRAINING
 *     slot (its read failed while someone still waits for it) is in neither: it
 *     holds no key, and nobody can be given it.
 *  3. n_pinned counts the open slots with pins > 0, n_closing those that are not
 *     open. None of them is ever a victim.
 *  4. A slot beyond n_open has pins > 0 or is CLOSED: it holds nothing.
 *
 * find, key, pin, unpin and remove take constant time. A visit passes over the keys
 * of its layer, an insert looks at the layers for its victim or passes over slots for an
 * EMPTY one, and resize passes over all slots.
 *
 * Keys of a group get slots near each other while there are EMPTY ones: a product over the
 * slots of a layer's selection takes time for all slots from the first to the last.
 */
#include "cache/cache.h"
#include "cache/ghost.h"
#include "cache/policy.h"
#include "cache/ranking.h"

#include "base/status.h"

#include <assert.h>
#include <stdlib.h>

typedef struct cache_slot {
    uint32_t key; /* NONE when EMPTY or DRAINING */
} cache_slot;

struct hypura_cache {
    uint32_t n_slots;
    uint32_t n_open;
    uint32_t n_keys;
    uint32_t n_empty;
    uint32_t n_pinned;
    uint32_t n_closing;
    cache_slot *slots;
    uint32_t *pins;
    uint32_t *slot_of; /* by key */
    history past;
    ranking held;
    bool adaptive; /* the ghosts choose the policy */
    ghosts all_ghosts;
};

static bool is_empty(const hypura_cache *cache, uint32_t slot)
{
    return cache->slots[slot].key == HYPURA_CACHE_NONE && cache->pins[slot] == 0;
}

static void count_empty(hypura_cache *cache)
{
    cache->n_empty = 0;
    for (uint32_t slot = 0; slot < cache->n_open; slot++) {
        cache->n_empty += is_empty(cache, slot);
    }
}

/* The EMPTY slot nearest to where this key would be if slots held keys in their order; there is one. */
static uint32_t nearest_empty(const hypura_cache *cache, uint32_t key)
{
    const uint32_t home = (uint32_t)((uint64_t)key * cache->n_open / cache->n_keys);
    for (uint32_t away = 0;; away++) {
        if (home + away < cache->n_open && is_empty(cache, home + away)) {
            return home + away;
        }
        if (away <= home && is_empty(cache, home - away)) {
            return home - away;
        }
    }
}

hypura_status hypura_cache_open(const hypura_cache_options *options, hypura_cache **cache, hypura_error *error)
{
    *cache = NULL;
    if (options->n_slots == 0 || options->n_slots == HYPURA_CACHE_NONE) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a cache of %u slots: give at least 1", options->n_slots);
    }
    if (options->n_keys == 0 || options->n_keys == HYPURA_CACHE_NONE) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a cache for %u keys: give at least 1", options->n_keys);
    }
    const uint32_t n_groups = options->n_groups > 0 ? options->n_groups : 1;
    const hypura_policy *policy = options->policy ? hypura_policy_find(options->policy) : hypura_policy_at(0);
    if (!policy) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "there is no cache policy \"%s\"; without one, the best is chosen",
                           options->policy);
    }
    if (!options->group_keys && options->n_keys % n_groups != 0) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%u keys do not make %u groups that are alike", options->n_keys,
                           n_groups);
    }

    hypura_cache *opened = calloc(1, sizeof(*opened));
    if (!opened) {
        goto no_memory;
    }
    opened->n_slots = options->n_slots;
    opened->n_open = options->n_slots;
    opened->n_keys = options->n_keys;
    opened->adaptive = !options->policy;
    opened->slots = calloc(options->n_slots, sizeof(*opened->slots));
    opened->pins = calloc(options->n_slots, sizeof(*opened->pins));
    opened->slot_of = calloc(options->n_keys, sizeof(*opened->slot_of));
    if (!opened->slots || !opened->pins || !opened->slot_of ||
        !history_open(&opened->past, options->n_keys, n_groups, options->group_keys) ||
        !ranking_open(&opened->held, &opened->past, policy) ||
        (opened->adaptive && !ghosts_open(&opened->all_ghosts, &opened->past))) {
        goto no_memory;
    }

    for (uint32_t key = 0; key < opened->n_keys; key++) {
        opened->slot_of[key] = HYPURA_CACHE_NONE;
    }
    for (uint32_t slot = 0; slot < opened->n_slots; slot++) {
        opened->slots[slot].key = HYPURA_CACHE_NONE;
    }
    count_empty(opened);
    *cache = opened;
    return HYPURA_OK;

no_memory:
    hypura_cache_close(opened);
    return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the tables of a cache of %u slots and %u keys",
                       options->n_slots, options->n_keys);
}

void hypura_cache_close(hypura_cache *cache)
{
    if (!cache) {
        return;
    }
    ghosts_close(&cache->all_ghosts);
    ranking_close(&cache->held);
    history_close(&cache->past);
    free(cache->slot_of);
    free(cache->pins);
    free(cache->slots);
    free(cache);
}

uint32_t hypura_cache_find(const hypura_cache *cache, uint32_t key)
{
    assert(key < cache->n_keys);
    return cache->slot_of[key];
}

uint32_t hypura_cache_key(const hypura_cache *cache, uint32_t slot)
{
    assert(slot < cache->n_slots);
    return cache->slots[slot].key;
}

void hypura_cache_visit(hypura_cache *cache, const hypura_cache_visited *visit)
{
    assert(visit->group < cache->past.n_groups && visit->n_tokens > 0);
    const bool round = history_visit(&cache->past, visit);
    ranking_visit(&cache->held, visit->group);
    if (round) {
        ranking_refresh(&cache->held);
    }
    if (!cache->adaptive) {
        return;
    }
    ghosts_visit(&cache->all_ghosts, visit, round, cache->n_open);
    const hypura_policy *best = round ? ghosts_choose(&cache->all_ghosts, cache->held.policy) : cache->held.policy;
    if (best != cache->held.policy) {
        ranking_set_policy(&cache->held, best);
    }
}

/* HELD loses its key: to nobody (remove) or to another key (insert). */
static uint32_t release_key(hypura_cache *cache, uint32_t slot)
{
    uint32_t key = cache->slots[slot].key;
    cache->slot_of[key] = HYPURA_CACHE_NONE;
    cache->slots[slot].key = HYPURA_CACHE_NONE;
    ranking_set(&cache->held, key, RANKING_ABSENT);
    return key;
}

uint32_t hypura_cache_insert(hypura_cache *cache, uint32_t key, uint32_t *evicted)
{
    assert(hypura_cache_find(cache, key) == HYPURA_CACHE_NONE);
    *evicted = HYPURA_CACHE_NONE;

    uint32_t slot;
    if (cache->n_empty > 0) {
        slot = nearest_empty(cache, key);
        cache->n_empty--;
    } else if (hypura_cache_evictable(cache) == 0) {
        return HYPURA_CACHE_NONE;
    } else {
        slot = cache->slot_of[ranking_last(&cache->held, cache->past.group_of[key])];
        assert(slot < cache->n_slots && cache->pins[slot] == 0);
        *evicted = release_key(cache, slot);
    }

    cache->slots[slot].key = key;
    cache->slot_of[key] = slot;
    ranking_set(&cache->held, key, RANKING_HELD);
    return slot;
}

bool hypura_cache_prefers(hypura_cache *cache, uint32_t key)
{
    assert(hypura_cache_find(cache, key) == HYPURA_CACHE_NONE);
    if (cache->n_empty > 0 || hypura_cache_evictable(cache) == 0) {
        return cache->n_empty > 0;
    }
    const uint32_t group = cache->past.group_of[key];
    const uint32_t last = ranking_last(&cache->held, group);
    return ranking_next_use(&cache->held, key, group) < ranking_next_use(&cache->held, last, group);
}

void hypura_cache_remove(hypura_cache *cache, uint32_t slot)
{
    assert(hypura_cache_key(cache, slot) != HYPURA_CACHE_NONE);
    release_key(cache, slot);
    cache->n_empty += cache->pins[slot] == 0;
}

/* The pinned slots on either side of the end. */
static uint32_t *pinned_count(hypura_cache *cache, uint32_t slot)
{
    return slot < cache->n_open ? &cache->n_pinned : &cache->n_closing;
}

void hypura_cache_pin(hypura_cache *cache, uint32_t slot)
{
    assert(hypura_cache_key(cache, slot) != HYPURA_CACHE_NONE);
    assert(cache->pins[slot] < UINT32_MAX);
    if (cache->pins[slot]++ == 0) {
        ++*pinned_count(cache, slot);
        ranking_set(&cache->held, cache->slots[slot].key, RANKING_PINNED);
    }
}

void hypura_cache_unpin(hypura_cache *cache, uint32_t slot)
{
    assert(hypura_cache_pins(cache, slot) > 0);
    if (--cache->pins[slot] > 0) {
        return;
    }
    --*pinned_count(cache, slot);
    const bool held = cache->slots[slot].key != HYPURA_CACHE_NONE;
    if (slot >= cache->n_open) {
        if (held) {
            release_key(cache, slot);
        }
    } else if (!held) {
        cache->n_empty++;
    } else {
        ranking_set(&cache->held, cache->slots[slot].key, RANKING_HELD);
    }
}

void hypura_cache_pin_all(hypura_cache *cache, const uint32_t *slots, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        hypura_cache_pin(cache, slots[i]);
    }
}

void hypura_cache_unpin_all(hypura_cache *cache, const uint32_t *slots, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        hypura_cache_unpin(cache, slots[i]);
    }
}

uint32_t hypura_cache_pins(const hypura_cache *cache, uint32_t slot)
{
    assert(slot < cache->n_slots);
    return cache->pins[slot];
}

uint32_t hypura_cache_evictable(const hypura_cache *cache)
{
    return cache->n_open - cache->n_pinned;
}

void hypura_cache_resize(hypura_cache *cache, uint32_t n_open)
{
    assert(n_open >= 1 && n_open <= cache->n_slots);
    cache->n_open = n_open;
    cache->n_pinned = 0;
    cache->n_closing = 0;
    for (uint32_t slot = 0; slot < cache->n_slots; slot++) {
        if (cache->pins[slot] > 0) {
            ++*pinned_count(cache, slot);
        } else if (slot >= n_open && cache->slots[slot].key != HYPURA_CACHE_NONE) {
            release_key(cache, slot);
        }
    }
    count_empty(cache);
}

uint32_t hypura_cache_closing(const hypura_cache *cache)
{
    return cache->n_closing;
}

const char *hypura_cache_policy(const hypura_cache *cache)
{
    return cache->held.policy->name;
}

uint32_t hypura_cache_uses(const hypura_cache *cache, uint32_t key)
{
    assert(key < cache->n_keys);
    return cache->past.keys[key].n_uses;
}

bool hypura_cache_has_empty(const hypura_cache *cache)
{
    return cache->n_empty > 0;
}

void hypura_cache_outlook(const hypura_cache *cache, uint32_t first_key, uint32_t n, float *chances,
                          float *frequencies)
{
    assert((uint64_t)first_key + n <= cache->n_keys);
    for (uint32_t i = 0; i < n; i++) {
        chances[i] = history_chance(&cache->past, first_key + i);
        frequencies[i] = cache->past.keys[first_key + i].frequency;
    }
}

void hypura_cache_recall(hypura_cache *cache, uint32_t key, float frequency)
{
    assert(key < cache->n_keys);
    history_recall(&cache->past, key, frequency);
    ranking_visit(&cache->held, cache->past.group_of[key]);
}
