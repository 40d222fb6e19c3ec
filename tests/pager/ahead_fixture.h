/*
 * ahead_fixture.h - a pager that is told what will be selected, and what an executor does with it.
 */
#ifndef HYPURA_TESTS_AHEAD_FIXTURE_H
#define HYPURA_TESTS_AHEAD_FIXTURE_H

#include "fixture.h"

#include "pager/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

/* Requests of 4096 bytes: a matrix takes several. */
static const fixture_options shape = {
    .expert_bytes = {8192, 16384, 12320}, .n_slots = 8, .n_ring_slots = 3, .pinned_rows = 0};
enum { EXPERT_BYTES = 8192 + 16384 + 12320 };

static inline hypura_pager *open_pager(fixture *f, const char *engine, hypura_io_hook hook, void *user)
{
    hypura_pager *pager = NULL;
    hypura_error  error = {0};
    f->plan.io_block_bytes = 4096;
    const hypura_pager_options options = {
        .map = &f->map, .plan = &f->plan, .io_engine = engine, .hook = hook, .hook_user = user, .gives_way = true};
    if (hypura_pager_open(&options, &pager, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    return pager;
}

/* Of so many tokens, each of the experts selected by one. */
static inline void visit_by(hypura_pager *pager, int bundle, uint32_t n_tokens, const uint32_t *experts, uint32_t n)
{
    uint32_t n_uses[FIXTURE_EXPERTS];
    uint32_t ages[FIXTURE_EXPERTS] = {0};
    for (uint32_t i = 0; i < n; i++) {
        n_uses[i] = 1;
    }
    hypura_pager_begin_layer(pager, bundle, n_tokens);
    hypura_pager_visit_experts(pager, bundle, n_tokens, experts, n, n_uses, ages);
}

static inline void visit(hypura_pager *pager, int bundle, const uint32_t *experts, uint32_t n)
{
    visit_by(pager, bundle, 1, experts, n);
}

/* What the executor does with a selection. Returns how many had a slot. */
static inline uint32_t compute_by(fixture *f, hypura_pager *pager, int bundle, uint32_t n_tokens, const uint32_t *experts,
                           uint32_t n)
{
    uint32_t slots[FIXTURE_EXPERTS];
    visit_by(pager, bundle, n_tokens, experts, n);
    const uint32_t leased = hypura_pager_lease_experts(pager, bundle, experts, n, slots);
    for (uint32_t i = 0; i < n; i++) {
        if (slots[i] != UINT32_MAX) {
            assert_int_equal(hypura_pager_wait_expert(pager, bundle, slots[i], UINT32_MAX), HYPURA_OK);
            assert_true(fixture_expert_is_right(f, pager, bundle, experts[i], slots[i]));
            hypura_pager_release_expert(pager, bundle, slots[i]);
        }
    }
    return leased;
}

static inline uint32_t compute(fixture *f, hypura_pager *pager, int bundle, const uint32_t *experts, uint32_t n)
{
    return compute_by(f, pager, bundle, 1, experts, n);
}

static inline hypura_statistics statistics_of(hypura_pager *pager)
{
    hypura_statistics statistics;
    hypura_pager_statistics(pager, &statistics);
    return statistics;
}

/* Until so much was read and nothing more is; fails by the test's own time limit. */
static inline void wait_bytes(hypura_pager *pager, uint64_t bytes)
{
    uint64_t last = 0;
    for (int quiet = 0; quiet < 50; quiet++) {
        const uint64_t now = statistics_of(pager).bytes_read;
        quiet = now < bytes || now != last ? 0 : quiet;
        last = now;
        usleep(1000);
    }
}

#endif
