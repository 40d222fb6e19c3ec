/*
 * cache_fixture.h - a cache with groups of different sizes, as tests open it.
 */
#ifndef HYPURA_TESTS_CACHE_FIXTURE_H
#define HYPURA_TESTS_CACHE_FIXTURE_H

#include "cache/cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define NONE     HYPURA_CACHE_NONE
#define N_GROUPS 3

/* Groups of different sizes, the first perhaps empty. */
static inline uint32_t group_of(uint32_t n_keys, uint32_t key)
{
    uint32_t first = n_keys / 3;
    uint32_t second = n_keys / 4;
    return key < first ? 0 : key < first + second ? 1 : 2;
}

static inline hypura_cache *open_cache(uint32_t n_slots, uint32_t n_keys, const char *policy)
{
    uint32_t group_keys[N_GROUPS] = {0};
    for (uint32_t key = 0; key < n_keys; key++) {
        group_keys[group_of(n_keys, key)]++;
    }
    hypura_cache_options options = {
        .n_slots = n_slots, .n_keys = n_keys, .n_groups = N_GROUPS, .group_keys = group_keys, .policy = policy};
    hypura_cache *cache = NULL;
    hypura_error error = {0};
    assert_int_equal(hypura_cache_open(&options, &cache, &error), HYPURA_OK);
    assert_non_null(cache);
    return cache;
}

/* Groups make no difference to LRU; they do to ghosts. */
static inline void use(hypura_cache *cache, uint32_t group, uint32_t key)
{
    hypura_cache_visited visit = {.group = group, .n_tokens = 1, .n = 1, .keys = &key};
    hypura_cache_visit(cache, &visit);
}

#endif
