/*
 * test_waits.c - a team waits for an expert: asleep, or looking for its end. All of it see
 * the bytes when they return, however long reading takes, and all return when it fails.
 */
#include "fixture.h"

#include "pager/pager.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include <unistd.h>

static const fixture_options shape = {
    .expert_bytes = {8192, 16384, 12320}, .n_slots = 8, .n_ring_slots = 3, .pinned_rows = 0};

enum { TEAM = 4, ROUNDS = 24 };

typedef struct slow {
    atomic_uint us; /* of each request */
    atomic_bool fails;
} slow;

static int64_t be_slow(void *user, uint64_t nth, int64_t result)
{
    slow *how = user;
    (void)nth;
    (void)usleep(atomic_load(&how->us));
    return atomic_load(&how->fails) ? -EIO : result;
}

typedef struct member {
    fixture      *f;
    hypura_pager *pager;
    uint32_t      expert;
    uint32_t      slot;
    bool          fails; /* then reads may still write there */
    bool          right;
} member;

static void *follow(void *argument)
{
    member *m = argument;
    hypura_pager_follow_wait(m->pager, 0, m->slot, UINT32_MAX);
    m->right = !m->fails && fixture_expert_is_right(m->f, m->pager, 0, m->expert, m->slot);
    return NULL;
}

/* The first of the team is the one that is told. */
static hypura_status wait_together(fixture *f, hypura_pager *pager, uint32_t expert, uint32_t slot, bool fails, bool *right)
{
    pthread_t threads[TEAM - 1];
    member    members[TEAM - 1];
    for (int i = 0; i < TEAM - 1; i++) {
        members[i] = (member){.f = f, .pager = pager, .expert = expert, .slot = slot, .fails = fails};
        assert_int_equal(pthread_create(&threads[i], NULL, follow, &members[i]), 0);
    }
    const hypura_status status = hypura_pager_wait_expert(pager, 0, slot, UINT32_MAX);
    *right = status == HYPURA_OK && fixture_expert_is_right(f, pager, 0, expert, slot);
    for (int i = 0; i < TEAM - 1; i++) {
        pthread_join(threads[i], NULL);
        *right = *right && members[i].right;
    }
    return status;
}

static hypura_pager *open_pager(fixture *f, bool looks, slow *how)
{
    hypura_pager *pager = NULL;
    hypura_error  error = {0};
    const hypura_pager_options options = {
        .map = &f->map, .plan = &f->plan, .hook = be_slow, .hook_user = how, .looks = looks};
    if (hypura_pager_open(&options, &pager, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    return pager;
}

/* Shorter than a look, about as long, and longer than one; at last so long that there is a wait on any machine. */
static void all_see_the_bytes(void **state)
{
    (void)state;
    const unsigned times_us[] = {0, 100, 900, 3000};
    for (int looks = 0; looks < 2; looks++) {
        slow how = {.us = 0};
        fixture f;
        fixture_open(&f, &shape);
        hypura_pager *pager = open_pager(&f, looks, &how);
        hypura_pager_enter(pager);
        for (uint32_t round = 0; round < ROUNDS; round++) {
            const uint32_t expert = round * 5 % FIXTURE_EXPERTS;
            uint32_t slot;
            bool right;
            atomic_store(&how.us, round + 1 < ROUNDS ? times_us[round % 4] : 100000);
            assert_int_equal(hypura_pager_lease_experts(pager, 0, &expert, 1, &slot), 1);
            assert_int_equal(wait_together(&f, pager, expert, slot, false, &right), HYPURA_OK);
            assert_true(right);
            hypura_pager_release_expert(pager, 0, slot);
        }
        hypura_statistics statistics;
        hypura_pager_statistics(pager, &statistics);
        assert_true(statistics.read_wait_s > 0);
        hypura_pager_leave(pager);
        hypura_pager_close(pager);
        fixture_close(&f);
    }
}

static void all_return_when_it_fails(void **state)
{
    (void)state;
    for (int looks = 0; looks < 2; looks++) {
        slow how = {.us = 300, .fails = true};
        fixture f;
        fixture_open(&f, &shape);
        hypura_pager *pager = open_pager(&f, looks, &how);
        hypura_pager_enter(pager);
        for (uint32_t round = 0; round < 4; round++) {
            const uint32_t expert = round;
            uint32_t slot;
            bool right;
            const bool fails = round % 2 == 0;
            atomic_store(&how.fails, fails);
            assert_int_equal(hypura_pager_lease_experts(pager, 0, &expert, 1, &slot), 1);
            const hypura_status status = wait_together(&f, pager, expert, slot, fails, &right);
            assert_int_equal(status, fails ? HYPURA_ERR_IO : HYPURA_OK);
            assert_true(right == !fails);
            hypura_pager_release_expert(pager, 0, slot);
        }
        hypura_pager_leave(pager);
        hypura_pager_close(pager);
        fixture_close(&f);
    }
}

typedef struct one_fails {
    atomic_uint n_results;
} one_fails;

/* The first result fails; the others come one by one. */
static int64_t fail_first(void *user, uint64_t nth, int64_t result)
{
    one_fails *how = user;
    (void)nth;
    const bool first = atomic_load(&how->n_results) == 0;
    (void)usleep(first ? 0 : 20000);
    atomic_fetch_add(&how->n_results, 1);
    return first ? -EIO : result;
}

static char *place_elsewhere(void *user, uint32_t i, int matrix)
{
    (void)i;
    return (char *)user + (size_t)matrix * 32768;
}

/* What is read elsewhere than into slots: when the lease of an expert of which a part failed has ended, nothing writes there
 * any more, however long its other parts take. */
static void a_place_elsewhere_is_left_alone_then(void **state)
{
    (void)state;
    one_fails     how = {.n_results = 0};
    char         *memory = aligned_alloc(4096, FIXTURE_MATRICES * 32768);
    fixture       f;
    const uint32_t expert = 3;
    uint32_t      slot;
    assert_non_null(memory);
    fixture_open(&f, &shape);
    hypura_pager        *pager = fixture_open_pager(&f, "pool", fail_first, &how);
    const hypura_landing landing = {place_elsewhere, memory};
    hypura_pager_enter(pager);
    assert_int_equal(hypura_pager_lease_landing(pager, 0, &expert, 1, &landing, &slot), 1);
    assert_true(hypura_pager_is_landing(pager, 0, slot));
    assert_int_equal(hypura_pager_wait_expert(pager, 0, slot, UINT32_MAX), HYPURA_ERR_IO);
    hypura_pager_end_landing(pager, 0, slot);
    const unsigned n_results = atomic_load(&how.n_results);
    hypura_pager_leave(pager);
    hypura_pager_close(pager);
    assert_int_equal(atomic_load(&how.n_results), n_results);
    fixture_close(&f);
    free(memory);
}

/* While a chunk is computed with: the drive is behind until more than half of the ring is there. */
static void a_ring_that_is_behind_says_for_how_long(void **state)
{
    (void)state;
    fixture         f;
    fixture_options wanted = shape;
    hypura_pager   *pager = NULL;
    hypura_error    error;
    int64_t         row, n;
    uint64_t        pending_us;
    wanted.n_ring_slots = 4;
    fixture_open(&f, &wanted);
    const hypura_pager_options options = {.map = &f.map, .plan = &f.plan, .io_limit_bytes_per_s = 150000};
    assert_int_equal(hypura_pager_open(&options, &pager, &error), HYPURA_OK);
    hypura_pager_enter(pager);
    assert_true(hypura_pager_chunks(pager, fixture_dense(0)) >= 2);
    assert_non_null(hypura_pager_acquire_chunk(pager, fixture_dense(0), 0, &row, &n));
    assert_true(hypura_pager_ring_pending_us(pager) > 0);
    for (int i = 0; (pending_us = hypura_pager_ring_pending_us(pager)) > 0 && i < 10000; i++) {
        usleep(1000);
    }
    assert_int_equal(pending_us, 0);
    hypura_pager_release_chunk(pager);
    hypura_pager_leave(pager);
    hypura_pager_close(pager);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_see_the_bytes),
        cmocka_unit_test(all_return_when_it_fails),
        cmocka_unit_test(a_place_elsewhere_is_left_alone_then),
        cmocka_unit_test(a_ring_that_is_behind_says_for_how_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
