/*
 * cache.h - which expert lies in which slot, and which one has to go. Pure:
 * keys only, no weights, no I/O, no locks (the pager calls it under its own).
 *
 * A key is one expert of one layer, numbered 0 .. n_keys-1 by the pager; a group
 * is its layer, whose keys follow one another. A slot is EMPTY or holds one key. A
 * pinned slot is never a victim. Slots at the end can be closed and opened again
 * while in use. All memory is taken at open. A key, slot or state that a function
 * does not allow is a defect of the caller (asserted), not an error it reports.
 *
 *     hypura_cache_visit    what the router selected: for the history, once a layer
 *     hypura_cache_find     which of it is held; pin those
 *     hypura_cache_insert   a slot for each of the others, to be read; pin them too
 *     hypura_cache_unpin    all, when they have been computed with
 */
#ifndef HYPURA_CACHE_CACHE_H
#define HYPURA_CACHE_CACHE_H

#include "hypura.h"

#define HYPURA_CACHE_NONE UINT32_MAX

typedef struct hypura_cache hypura_cache;

typedef struct hypura_cache_options {
    uint32_t        n_slots; /* the most there will ever be */
    uint32_t        n_keys;
    uint32_t        n_groups;   /* in the order in which a token visits them */
    const uint32_t *group_keys; /* keys of each group, n_keys in all; NULL: all alike */
    const char     *policy;     /* "reuse", "lru", "lfu"; NULL: whichever hits most, chosen all the time */
} hypura_cache_options;

hypura_status hypura_cache_open(const hypura_cache_options *options, hypura_cache **cache, hypura_error *error);
void          hypura_cache_close(hypura_cache *cache);

/* What one token, or a batch of tokens computed together, selected in one layer. */
typedef struct hypura_cache_visited {
    uint32_t        group;
    uint32_t        n_tokens; /* at least 1 */
    uint32_t        n;        /* distinct keys */
    const uint32_t *keys;
    const uint32_t *n_uses; /* tokens that selected each; NULL: 1 each */
    const uint32_t *ages;   /* tokens of the batch after the last that selected it; NULL: 0 each */
} hypura_cache_visited;

/* Notes it. Slots stay as they are; the ranking of keys, and perhaps the policy
 * that ranks, changes. */
void hypura_cache_visit(hypura_cache *cache, const hypura_cache_visited *visit);

/* Slot that holds key, or NONE. */
uint32_t hypura_cache_find(const hypura_cache *cache, uint32_t key);
/* Key that the slot holds, or NONE. */
uint32_t hypura_cache_key(const hypura_cache *cache, uint32_t slot);

/* Gives key (absent until now) a slot: an EMPTY one, near others of its group where it can be, else that
 * of the key needed last among those unpinned, which is stored in *evicted (NONE when it was empty).
 * Returns NONE, changing nothing, when every slot is pinned. An insert is no use: a
 * key read ahead of its use is worth what its history says. */
uint32_t hypura_cache_insert(hypura_cache *cache, uint32_t key, uint32_t *evicted);

/* Whether key (absent) is expected sooner than what insert would evict for it, or a slot is EMPTY: it is
 * at hand, and may be kept in place of another one. */
bool hypura_cache_prefers(hypura_cache *cache, uint32_t key);

/* The slot loses its key (its read failed, or the pool shrinks) and becomes EMPTY:
 * now, or, when it is pinned, with its last unpin. */
void hypura_cache_remove(hypura_cache *cache, uint32_t slot);

/* Pins nest. Only a slot that holds a key may be pinned. */
void     hypura_cache_pin(hypura_cache *cache, uint32_t slot);
void     hypura_cache_unpin(hypura_cache *cache, uint32_t slot);
void     hypura_cache_pin_all(hypura_cache *cache, const uint32_t *slots, uint32_t n);
void     hypura_cache_unpin_all(hypura_cache *cache, const uint32_t *slots, uint32_t n);
uint32_t hypura_cache_pins(const hypura_cache *cache, uint32_t slot);

/* How many open slots are not pinned; insert succeeds while this is not 0. */
uint32_t hypura_cache_evictable(const hypura_cache *cache);

/* Slots 0 .. n_open - 1 may hold keys from now on (1 <= n_open <= n_slots; all at
 * first). One that is closed loses its key: now, or, when it is pinned, with its
 * last unpin; until then the key is found there. */
void hypura_cache_resize(hypura_cache *cache, uint32_t n_open);
/* How many closed slots still wait for their last unpin. */
uint32_t hypura_cache_closing(const hypura_cache *cache);

/* Name of the policy in force. */
const char *hypura_cache_policy(const hypura_cache *cache);

/* Of n keys from this one on: the chance that the next token uses each, by its own past
 * alone, and the share of the tokens that did of late. */
void hypura_cache_outlook(const hypura_cache *cache, uint32_t first_key, uint32_t n, float *chances,
                          float *frequencies);

/* How many tokens selected the key since open: to be kept across runs. recall is for
 * a key not visited yet: which share of the tokens did in earlier runs. */
uint32_t hypura_cache_uses(const hypura_cache *cache, uint32_t key);
void     hypura_cache_recall(hypura_cache *cache, uint32_t key, float frequency);

/* True while a slot is EMPTY: an insert evicts nothing. */
bool hypura_cache_has_empty(const hypura_cache *cache);

#endif
