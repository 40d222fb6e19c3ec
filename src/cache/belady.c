/*
 * belady.c - the clairvoyant policy, for comparison alone.
 *
 * Each held key stands in a heap under the position of its next use, the latest on
 * top. A use leaves the old entry behind, and its position passes; so what is on
 * top is always the entry of a held key.
 *
 * Steps are not looked at: a key may leave before its step ends, which no pager could
 * do. So this is the textbook's figure, a few tenths of a point above what can be had.
 */
#include "cache/trace.h"

#include "base/status.h"

#include <stdbool.h>
#include <stdlib.h>

#define NEVER UINT32_MAX

typedef struct entry {
    uint32_t next; /* position of the next use, NEVER after the last one */
    uint32_t key;
} entry;

/* A binary heap, the latest next use on top. */
typedef struct heap {
    entry *entries; /* room for all uses */
    uint32_t n;
} heap;

static void heap_push(heap *h, entry added)
{
    uint32_t at = h->n++;
    while (at > 0 && h->entries[(at - 1) / 2].next < added.next) {
        h->entries[at] = h->entries[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    h->entries[at] = added;
}

static entry heap_pop(heap *h)
{
    const entry top = h->entries[0];
    const entry last = h->entries[--h->n];
    uint32_t at = 0;
    for (uint32_t child = 1; child < h->n; child = 2 * at + 1) {
        child += child + 1 < h->n && h->entries[child + 1].next > h->entries[child].next;
        if (h->entries[child].next <= last.next) {
            break;
        }
        h->entries[at] = h->entries[child];
        at = child;
    }
    h->entries[at] = last;
    return top;
}

typedef struct clairvoyant {
    const hypura_cache_trace *trace;
    uint32_t *next_use; /* by position: that of the same key's next use, or NEVER */
    bool *held;         /* by key */
    uint32_t n_held;
    heap heap;
} clairvoyant;

/* next_of_key is scratch, one for each key. */
static void find_next_uses(clairvoyant *c, uint32_t *next_of_key)
{
    for (uint32_t key = 0; key < c->trace->n_keys; key++) {
        next_of_key[key] = NEVER;
    }
    for (uint32_t at = c->trace->n_uses; at-- > 0;) {
        c->next_use[at] = next_of_key[c->trace->uses[at]];
        next_of_key[c->trace->uses[at]] = at;
    }
}

static bool use(clairvoyant *c, uint32_t at, uint32_t n_slots)
{
    const uint32_t key = c->trace->uses[at];
    const bool hit = c->held[key];
    if (!hit && c->n_held == n_slots) {
        c->held[heap_pop(&c->heap).key] = false;
        c->n_held--;
    }
    c->n_held += !hit;
    c->held[key] = true;
    heap_push(&c->heap, (entry){.next = c->next_use[at], .key = key});
    return hit;
}

hypura_status hypura_cache_belady(const hypura_cache_trace *trace, uint32_t n_slots, uint64_t *n_hits,
                                  hypura_error *error)
{
    clairvoyant c = {
        .trace = trace,
        .next_use = calloc((size_t)trace->n_uses + 1, sizeof(*c.next_use)),
        .held = calloc((size_t)trace->n_keys + 1, sizeof(*c.held)),
        .heap.entries = calloc((size_t)trace->n_uses + 1, sizeof(*c.heap.entries)),
    };
    uint32_t *scratch = calloc((size_t)trace->n_keys + 1, sizeof(*scratch));
    hypura_status status = HYPURA_OK;
    *n_hits = 0;
    if (n_slots == 0) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "a cache of 0 slots: give at least 1");
    } else if (!c.next_use || !c.held || !c.heap.entries || !scratch) {
        status = hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to look ahead over %u uses", trace->n_uses);
    } else {
        find_next_uses(&c, scratch);
        for (uint32_t at = 0; at < trace->n_uses; at++) {
            *n_hits += use(&c, at, n_slots);
        }
    }
    free(c.next_use);
    free(c.held);
    free(c.heap.entries);
    free(scratch);
    return status;
}
