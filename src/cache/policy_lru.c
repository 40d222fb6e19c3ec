/*
 * policy_lru.c - least recently used, exactly.
 *
 * The slots form one ring of a doubly linked list around a sentinel, in the
 * order of their last use:
 *
 *     sentinel <-> newest <-> ... <-> oldest <-> sentinel
 *
 * A use moves a slot to the front; the victim is the first slot without pins
 * from the back. Links are indices in one array (the sentinel is n_slots), so
 * insert, touch and remove are a handful of stores. Finding the victim passes
 * over pinned slots; what is pinned was just used and sits at the other end, so
 * the walk is one step in practice and never longer than the number of pins.
 *
 * LRU needs a pool larger than the working set of a token (top-k times layers):
 * below it each token evicts what the next one asks for, and nothing hits.
 */
#include "cache/policy.h"

#include <stdlib.h>

typedef struct lru_link {
    uint32_t newer;
    uint32_t older;
} lru_link;

typedef struct lru {
    uint32_t n_slots;
    lru_link *links; /* n_slots, then the sentinel */
} lru;

static void lru_unlink(lru *list, uint32_t slot)
{
    lru_link link = list->links[slot];
    list->links[link.newer].older = link.older;
    list->links[link.older].newer = link.newer;
}

static void lru_link_newest(lru *list, uint32_t slot)
{
    uint32_t sentinel = list->n_slots;
    uint32_t newest = list->links[sentinel].older;
    list->links[slot] = (lru_link){.newer = sentinel, .older = newest};
    list->links[newest].newer = slot;
    list->links[sentinel].older = slot;
}

static void *lru_open(uint32_t n_slots, uint32_t n_keys, uint32_t n_groups)
{
    (void)n_keys;
    (void)n_groups;
    lru *list = malloc(sizeof(*list));
    lru_link *links = calloc((size_t)n_slots + 1, sizeof(*links));
    if (!list || !links) {
        free(links);
        free(list);
        return NULL;
    }
    links[n_slots] = (lru_link){.newer = n_slots, .older = n_slots};
    *list = (lru){.n_slots = n_slots, .links = links};
    return list;
}

static void lru_close(void *state)
{
    lru *list = state;
    free(list->links);
    free(list);
}

static void lru_on_insert(void *state, uint32_t slot, uint32_t key, uint32_t group)
{
    (void)key;
    (void)group;
    lru_link_newest(state, slot);
}

static void lru_on_touch(void *state, uint32_t slot)
{
    lru_unlink(state, slot);
    lru_link_newest(state, slot);
}

static void lru_on_remove(void *state, uint32_t slot)
{
    lru_unlink(state, slot);
}

static uint32_t lru_victim(void *state, const uint32_t *pins, uint32_t key, uint32_t group)
{
    (void)key;
    (void)group;
    const lru *list = state;
    uint32_t slot = list->links[list->n_slots].newer;
    while (slot != list->n_slots && pins[slot] > 0) {
        slot = list->links[slot].newer;
    }
    return slot;
}

const hypura_policy hypura_policy_lru = {
    .name = "lru",
    .open = lru_open,
    .close = lru_close,
    .on_insert = lru_on_insert,
    .on_touch = lru_on_touch,
    .on_remove = lru_on_remove,
    .victim = lru_victim,
};
