/*
 * policy_reuse.c - evict what is expected to be needed last.
 *
 * The best victim is the key whose next use lies furthest ahead (Belady, "A study
 * of replacement algorithms for a virtual-storage computer", 1966). The future is
 * not known here, but two things about it are. Layers are visited in turn, token
 * after token, so a layer just passed comes up again after all others. And routers
 * have favourites that last for some tokens. With the share p of its layer's visits
 * that use an expert, as seen lately, and the distance d to that layer's next visit:
 *
 *     expected next use = d + n_groups * (1 / p - 1)        in visits
 *
 * LRU knows the first thing only by accident: with a pool below one token's
 * working set it evicts just what comes next and never hits. This order does not
 * collapse (26 and 23 % hits at half a working set on two recorded routes, LRU 0),
 * and above the working set it is ahead of LRU by one to four points.
 *
 * p is an average that forgets: each visit of a layer takes DECAY of all its p and
 * gives that to those used. Rather than to touch all keys at every visit, the weight
 * of a use grows ("forward decay", Cormode et al. 2009): value += weight, with p =
 * value / weight * DECAY, so within a layer only a use changes the order. Each
 * group keeps its held slots in a pairing heap, the least p at its root; a victim
 * is the best of the groups' roots.
 *
 * Use, insert and remove cost the logarithm of a layer's experts; a victim costs a
 * look at each group. Values of keys that are not held are kept: an expert that
 * comes back is known.
 */
#include "cache/cache.h"
#include "cache/policy.h"

#include <stdlib.h>

#define NONE HYPURA_CACHE_NONE

#define DECAY        0.15  /* a use counts half after four visits of its layer */
#define UNKNOWN_P    0.001 /* what a key never used again would be worth */
#define WEIGHT_LIMIT 1e100

typedef struct reuse_slot {
    uint32_t key;
    uint32_t group;
    uint32_t child; /* pairing heap: first child */
    uint32_t next;  /* right sibling */
    uint32_t prev;  /* left sibling, parent of a first child, NONE for a root */
} reuse_slot;

typedef struct reuse_key {
    double value;
    uint32_t group; /* NONE until its first use */
    uint32_t visit; /* of its group, when it was last used */
} reuse_key;

typedef struct reuse_group {
    double weight; /* of a use in this visit */
    uint32_t visit;
    uint32_t root;
} reuse_group;

typedef struct reuse {
    uint32_t n_keys;
    uint32_t n_groups;
    uint32_t current; /* group visited last */
    reuse_slot *slots;
    reuse_key *keys;
    reuse_group *groups;
    uint32_t *stack; /* of slots, for looking past pins */
} reuse;

/* ---- pairing heaps (Fredman et al. 1986) --------------------------------- */

static double value_of(const reuse *state, uint32_t slot)
{
    return state->keys[state->slots[slot].key].value;
}

/* Two roots become one. */
static uint32_t meld(reuse *state, uint32_t a, uint32_t b)
{
    if (a == NONE || b == NONE) {
        return a == NONE ? b : a;
    }
    if (value_of(state, b) < value_of(state, a)) {
        uint32_t swapped = a;
        a = b;
        b = swapped;
    }
    reuse_slot *parent = &state->slots[a];
    reuse_slot *child = &state->slots[b];
    child->next = parent->child;
    child->prev = a;
    if (parent->child != NONE) {
        state->slots[parent->child].prev = b;
    }
    parent->child = b;
    return a;
}

static uint32_t detach_first(reuse *state, uint32_t *list)
{
    uint32_t slot = *list;
    if (slot != NONE) {
        *list = state->slots[slot].next;
        state->slots[slot].next = NONE;
        state->slots[slot].prev = NONE;
    }
    return slot;
}

/* Children become one heap: melded in pairs, then the pairs from the last. */
static uint32_t meld_children(reuse *state, uint32_t slot)
{
    uint32_t children = state->slots[slot].child;
    uint32_t pairs = NONE;
    state->slots[slot].child = NONE;
    while (children != NONE) {
        uint32_t a = detach_first(state, &children);
        uint32_t b = detach_first(state, &children);
        uint32_t pair = meld(state, a, b);
        state->slots[pair].next = pairs;
        pairs = pair;
    }
    uint32_t root = NONE;
    while (pairs != NONE) {
        uint32_t pair = detach_first(state, &pairs);
        root = meld(state, root, pair);
    }
    return root;
}

static void heap_insert(reuse *state, uint32_t slot)
{
    reuse_group *group = &state->groups[state->slots[slot].group];
    group->root = meld(state, group->root, slot);
}

static void heap_remove(reuse *state, uint32_t slot)
{
    reuse_slot *removed = &state->slots[slot];
    reuse_group *group = &state->groups[removed->group];
    uint32_t below = meld_children(state, slot);
    if (group->root == slot) {
        group->root = below;
        return;
    }
    if (state->slots[removed->prev].child == slot) {
        state->slots[removed->prev].child = removed->next;
    } else {
        state->slots[removed->prev].next = removed->next;
    }
    if (removed->next != NONE) {
        state->slots[removed->next].prev = removed->prev;
    }
    removed->next = NONE;
    removed->prev = NONE;
    group->root = meld(state, group->root, below);
}

/* The least value without pins, NONE when all are pinned. Children are looked at
 * only below pinned slots. */
static uint32_t heap_least_unpinned(const reuse *state, uint32_t root, const uint32_t *pins)
{
    uint32_t least = NONE;
    uint32_t depth = 0;
    if (root != NONE) {
        state->stack[depth++] = root;
    }
    while (depth > 0) {
        uint32_t slot = state->stack[--depth];
        if (pins[slot] == 0) {
            if (least == NONE || value_of(state, slot) < value_of(state, least)) {
                least = slot;
            }
            continue;
        }
        for (uint32_t child = state->slots[slot].child; child != NONE; child = state->slots[child].next) {
            state->stack[depth++] = child;
        }
    }
    return least;
}

/* ---- uses ---------------------------------------------------------------- */

/* Scales a group's values and weight alike, which changes neither order nor p. */
static void rescale(reuse *state, uint32_t group)
{
    double factor = 1.0 / state->groups[group].weight;
    for (uint32_t key = 0; key < state->n_keys; key++) {
        if (state->keys[key].group == group) {
            state->keys[key].value *= factor;
        }
    }
    state->groups[group].weight = 1.0;
}

/* A visit begins when another group is used, or a key twice. */
static void count_use(reuse *state, uint32_t key, uint32_t group)
{
    reuse_key *used = &state->keys[key];
    reuse_group *visited = &state->groups[group];
    if (state->current != group || (used->group == group && used->visit == visited->visit)) {
        state->current = group;
        visited->visit++;
        visited->weight /= 1.0 - DECAY;
        if (visited->weight > WEIGHT_LIMIT) {
            rescale(state, group);
        }
    }
    used->group = group;
    used->visit = visited->visit;
    used->value += visited->weight;
}

static void *reuse_open(uint32_t n_slots, uint32_t n_keys, uint32_t n_groups)
{
    n_groups = n_groups > 0 ? n_groups : 1;
    reuse *state = calloc(1, sizeof(*state));
    if (!state) {
        return NULL;
    }
    *state = (reuse){
        .n_keys = n_keys,
        .n_groups = n_groups,
        .current = NONE,
        .slots = calloc(n_slots, sizeof(*state->slots)),
        .keys = calloc(n_keys, sizeof(*state->keys)),
        .groups = calloc(n_groups, sizeof(*state->groups)),
        .stack = calloc(n_slots, sizeof(*state->stack)),
    };
    if (!state->slots || !state->keys || !state->groups || !state->stack) {
        hypura_policy_reuse.close(state);
        return NULL;
    }
    for (uint32_t key = 0; key < n_keys; key++) {
        state->keys[key].group = NONE;
    }
    for (uint32_t group = 0; group < n_groups; group++) {
        state->groups[group] = (reuse_group){.weight = 1.0, .root = NONE};
    }
    return state;
}

static void reuse_close(void *opened)
{
    reuse *state = opened;
    free(state->stack);
    free(state->groups);
    free(state->keys);
    free(state->slots);
    free(state);
}

static void reuse_on_insert(void *opened, uint32_t slot, uint32_t key, uint32_t group)
{
    reuse *state = opened;
    count_use(state, key, group);
    state->slots[slot] = (reuse_slot){.key = key, .group = group, .child = NONE, .next = NONE, .prev = NONE};
    heap_insert(state, slot);
}

static void reuse_on_touch(void *opened, uint32_t slot)
{
    reuse *state = opened;
    heap_remove(state, slot);
    count_use(state, state->slots[slot].key, state->slots[slot].group);
    heap_insert(state, slot);
}

static void reuse_on_remove(void *opened, uint32_t slot)
{
    heap_remove(opened, slot);
}

static uint32_t reuse_victim(void *opened, const uint32_t *pins, uint32_t key, uint32_t group)
{
    (void)key;
    const reuse *state = opened;
    uint32_t victim = NONE;
    double furthest = -1.0;
    for (uint32_t i = 1; i <= state->n_groups; i++) {
        uint32_t other = (group + i) % state->n_groups;
        uint32_t slot = heap_least_unpinned(state, state->groups[other].root, pins);
        if (slot != NONE) {
            double p = value_of(state, slot) / state->groups[other].weight * DECAY + UNKNOWN_P;
            double next_use = (double)i + (double)state->n_groups * (1.0 / p - 1.0);
            if (next_use > furthest || victim == NONE) {
                furthest = next_use;
                victim = slot;
            }
        }
    }
    return victim;
}

const hypura_policy hypura_policy_reuse = {
    .name = "reuse",
    .open = reuse_open,
    .close = reuse_close,
    .on_insert = reuse_on_insert,
    .on_touch = reuse_on_touch,
    .on_remove = reuse_on_remove,
    .victim = reuse_victim,
};
