/*
 * test_resize.c - what the pager holds shrinks and grows while it is used: slots and
 * pinned rows come and go, memory goes back to the system, and no byte is wrong.
 */
#include "fixture.h"

#include "pager/internal.h"
#include "plan/layout.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* How many pages of the slots from `first` on are taken. */
static size_t pages_taken(const fixture *f, hypura_pager *pager, uint32_t first)
{
    const hypura_pool_plan *pool = &f->plan.pools[0];
    const hypura_slots      slots = hypura_pager_slots(pager, 0, 0);
    const size_t            page = (size_t)sysconf(_SC_PAGESIZE);
    const uintptr_t         begin = ((uintptr_t)slots.data + first * slots.stride_bytes + page - 1) / page * page;
    const size_t            bytes = (pool->n_units - first - 1) * pool->slot_stride_bytes;
    unsigned char           taken[4096];
    size_t                  n = 0;
    assert_true(bytes / page < sizeof(taken));
    assert_int_equal(mincore((void *)begin, bytes, (void *)taken), 0);
    for (size_t i = 0; i < bytes / page; i++) {
        n += taken[i] & 1;
    }
    return n;
}

/* Waits until every page of these bytes is taken; false when that does not come. */
static bool are_taken(const char *memory, size_t bytes)
{
    const size_t    page = (size_t)sysconf(_SC_PAGESIZE);
    const uintptr_t begin = (uintptr_t)memory / page * page;
    unsigned char   taken[1024];
    for (int i = 0; i < 6000; i++) {
        size_t n_missing = 0;
        for (uintptr_t at = begin; at < (uintptr_t)memory + bytes; at += page * sizeof(taken)) {
            const size_t left = ((uintptr_t)memory + bytes - at + page - 1) / page;
            const size_t n = left < sizeof(taken) ? left : sizeof(taken);
            assert_int_equal(mincore((void *)at, n * page, (void *)taken), 0);
            for (size_t k = 0; k < n; k++) {
                n_missing += !(taken[k] & 1);
            }
        }
        if (n_missing == 0) {
            return true;
        }
        (void)nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    return false;
}

/* The first touch of memory is slow: all of a pool that takes many steps is touched before it is used. */
static void pools_are_taken_ahead(void **state)
{
    (void)state;
    fixture         f;
    fixture_options options = fixture_defaults;
    for (int m = 0; m < FIXTURE_MATRICES; m++) {
        options.expert_bytes[m] = 500000;
    }
    options.n_slots = 30;
    fixture_open(&f, &options);
    hypura_pager      *pager = fixture_open_pager(&f, NULL, NULL, NULL);
    const hypura_slots slots = hypura_pager_slots(pager, 0, 0);
    assert_true(are_taken(slots.data, (size_t)29 * f.plan.pools[0].slot_stride_bytes));
    hypura_pager_close(pager);
    fixture_close(&f);
}

/* Uses the first n of eight experts of a layer, as one graph. Returns how many were leased. */
static uint32_t use_layer(fixture *f, hypura_pager *pager, int layer)
{
    const uint32_t all[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    hypura_pager_enter(pager);
    const uint32_t leased = fixture_use_experts(f, pager, layer, all, 8);
    hypura_pager_leave(pager);
    return leased;
}

static void pools_grow_and_shrink(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &fixture_defaults);
    for (int t = 0; t < FIXTURE_DENSE; t++) {
        f.placements[fixture_dense(t)] = (hypura_placement){.place = HYPURA_PLACE_RESIDENT, .pool = -1};
    }
    f.plan.n_ring_slots = 0;
    const uint64_t stride = f.plan.pools[0].slot_stride_bytes;
    hypura_pager  *pager = fixture_open_pager(&f, NULL, NULL, NULL);
    const hypura_held held = hypura_pager_held(pager);
    assert_int_equal(held.least_bytes, stride);
    assert_int_equal(held.now_bytes, 6 * stride);
    assert_int_equal(held.most_bytes, 48 * stride);
    assert_int_equal(use_layer(&f, pager, 0), 6);

    assert_int_equal(hypura_pager_resize(pager, 40 * stride + stride / 2), 40 * stride);
    for (int layer = 0; layer < 3; layer++) {
        assert_int_equal(use_layer(&f, pager, layer), 8);
    }
    hypura_pager_reset_statistics(pager);
    for (int layer = 0; layer < 3; layer++) {
        assert_int_equal(use_layer(&f, pager, layer), 8);
    }
    hypura_statistics statistics;
    hypura_pager_statistics(pager, &statistics);
    assert_int_equal(statistics.bytes_hit, statistics.bytes_needed);
    assert_int_equal(statistics.pool_bytes, 40 * stride);
    assert_true(pages_taken(&f, pager, 3) > 0);

    assert_int_equal(hypura_pager_resize(pager, 3 * stride), 3 * stride);
    assert_int_equal(pages_taken(&f, pager, 3), 0);
    assert_int_equal(use_layer(&f, pager, 1), 3);
    assert_int_equal(hypura_pager_resize(pager, 0), stride); /* the floor */
    assert_int_equal(use_layer(&f, pager, 2), 1);
    assert_int_equal(hypura_pager_resize(pager, UINT64_MAX), 48 * stride);
    assert_int_equal(use_layer(&f, pager, 2), 8);
    hypura_pager_close(pager);
    fixture_close(&f);
}

typedef struct shrinking {
    hypura_pager *pager;
    uint64_t      bytes;
    atomic_bool   ended;
} shrinking;

static void *shrink(void *argument)
{
    shrinking *s = argument;
    hypura_pager_resize(s->pager, s->bytes);
    atomic_store(&s->ended, true);
    return NULL;
}

/* Slots that are leased are waited for, and nothing else has to happen: the last of them given back ends the wait. */
static void a_shrink_ends_with_the_last_lease(void **state)
{
    (void)state;
    const uint32_t experts[6] = {0, 1, 2, 3, 4, 5};
    uint32_t       slots[6];
    pthread_t      thread;
    fixture        f;
    fixture_open(&f, &fixture_defaults);
    hypura_pager *pager = fixture_open_pager(&f, NULL, NULL, NULL);
    shrinking     s = {.pager = pager, .bytes = 3 * f.plan.pools[0].slot_stride_bytes};
    hypura_pager_enter(pager);
    assert_int_equal(hypura_pager_lease_experts(pager, 0, experts, 6, slots), 6);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(hypura_pager_wait_expert(pager, 0, slots[i], UINT32_MAX), HYPURA_OK);
    }
    hypura_pager_leave(pager);
    assert_int_equal(pthread_create(&thread, NULL, shrink, &s), 0);
    for (bool waits = false; !waits;) {
        pthread_mutex_lock(&pager->lock);
        waits = pager->n_waiting > 0;
        pthread_mutex_unlock(&pager->lock);
        (void)nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    assert_false(atomic_load(&s.ended));
    for (int i = 0; i < 6; i++) {
        assert_true(fixture_expert_is_right(&f, pager, 0, experts[i], slots[i])); /* its memory is there as long */
        hypura_pager_release_expert(pager, 0, slots[i]);
    }
    for (int i = 0; i < 1000 && !atomic_load(&s.ended); i++) {
        (void)nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    assert_true(atomic_load(&s.ended));
    pthread_join(thread, NULL);
    hypura_pager_close(pager);
    fixture_close(&f);
}

/* What is given back is all of the experts' memory then. */
static void hold_dense(fixture *f)
{
    for (int t = 0; t < FIXTURE_DENSE; t++) {
        f->placements[fixture_dense(t)] = (hypura_placement){.place = HYPURA_PLACE_RESIDENT, .pool = -1};
    }
    f->plan.n_ring_slots = 0;
}

/* Slots of small experts are no multiple of a page: of one that two share nothing is lost when the latter is closed. */
static void a_page_that_two_slots_share_stays(void **state)
{
    (void)state;
    static const fixture_options small = {.expert_bytes = {100, 4097, 7000}, .n_slots = 8, .n_ring_slots = 3, .pinned_rows = 0};
    fixture f;
    fixture_open(&f, &small);
    hold_dense(&f);
    f.plan.slot_align_bytes = 512;
    f.plan.pools[0].slot_stride_bytes = 0;
    for (int m = 0; m < FIXTURE_MATRICES; m++) {
        f.plan.pools[0].slot_stride_bytes += hypura_layout_region_bytes(512, small.expert_bytes[m]);
    }
    const uint64_t stride = f.plan.pools[0].slot_stride_bytes;
    assert_int_not_equal(stride % (uint64_t)sysconf(_SC_PAGESIZE), 0);
    hypura_pager *pager = fixture_open_pager(&f, NULL, NULL, NULL);
    assert_int_equal(use_layer(&f, pager, 0), 8);
    for (uint32_t n = 7; n > 0; n--) {
        assert_int_equal(hypura_pager_resize(pager, n * stride), n * stride);
        hypura_pager_enter(pager);
        uint32_t n_held = 0;
        for (uint32_t e = 0; e < 8; e++) {
            if (hypura_pager_holds_expert(pager, 0, e)) {
                assert_int_equal(fixture_use_experts(&f, pager, 0, &e, 1), 1);
                n_held++;
            }
        }
        hypura_pager_leave(pager);
        assert_int_equal(n_held, n);
    }
    assert_int_equal(hypura_pager_resize(pager, 8 * stride), 8 * stride);
    assert_int_equal(use_layer(&f, pager, 0), 8);
    hypura_pager_close(pager);
    fixture_close(&f);
}

typedef struct slot_wait {
    hypura_pager *pager;
    atomic_bool   ended;
} slot_wait;

static void *wait_for_slot(void *argument)
{
    slot_wait *w = argument;
    hypura_pager_wait_slot(w->pager, 0);
    atomic_store(&w->ended, true);
    return NULL;
}

static void who_waits_for_a_slot_sees_the_pool_grow(void **state)
{
    (void)state;
    const uint32_t experts[6] = {0, 1, 2, 3, 4, 5};
    uint32_t       slots[6];
    pthread_t      thread;
    fixture        f;
    fixture_open(&f, &fixture_defaults);
    hold_dense(&f);
    hypura_pager *pager = fixture_open_pager(&f, NULL, NULL, NULL);
    slot_wait     w = {.pager = pager};
    assert_int_equal(hypura_pager_lease_experts(pager, 0, experts, 6, slots), 6);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(hypura_pager_wait_expert(pager, 0, slots[i], UINT32_MAX), HYPURA_OK);
    }
    assert_int_equal(pthread_create(&thread, NULL, wait_for_slot, &w), 0);
    (void)nanosleep(&(struct timespec){0, 20000000}, NULL);
    assert_false(atomic_load(&w.ended));
    const uint64_t stride = f.plan.pools[0].slot_stride_bytes;
    assert_int_equal(hypura_pager_resize(pager, 7 * stride), 7 * stride);
    for (int i = 0; i < 1000 && !atomic_load(&w.ended); i++) {
        (void)nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    assert_true(atomic_load(&w.ended));
    pthread_join(thread, NULL);
    for (int i = 0; i < 6; i++) {
        hypura_pager_release_expert(pager, 0, slots[i]);
    }
    hypura_pager_close(pager);
    fixture_close(&f);
}

/* Reads and checks every row of the dense weights, as one token. Returns how many
 * bytes of them were in memory. */
static uint64_t use_dense(fixture *f, hypura_pager *pager)
{
    uint64_t pinned_bytes = 0;
    for (int d = 0; d < FIXTURE_DENSE; d++) {
        hypura_pager_enter(pager);
        pinned_bytes += fixture_pass_dense(f, pager, d, d + 1);
        hypura_pager_leave(pager);
    }
    return pinned_bytes;
}

static void pinned_rows_grow_and_shrink(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &fixture_defaults);
    uint64_t all = 0;
    for (int d = 0; d < FIXTURE_DENSE; d++) {
        all += f.tensors[fixture_dense(d)].bytes;
    }
    const uint64_t floor = f.plan.pools[0].slot_stride_bytes;
    hypura_pager  *pager = fixture_open_pager(&f, NULL, NULL, NULL);
    assert_int_equal(hypura_pager_held(pager).most_bytes, all + 48 * floor);
    const uint64_t planned = use_dense(&f, pager);
    assert_int_equal(planned, 3 * 64 * f.tensors[fixture_dense(0)].row_bytes);

    /* half of all rows: a token later they are there, without a read for them */
    const uint64_t held = hypura_pager_resize(pager, floor + all / 2);
    assert_in_range(held, floor + all / 2 - 70000, floor + all / 2);
    assert_int_equal(use_dense(&f, pager), planned);
    const uint64_t half = use_dense(&f, pager);
    assert_int_equal(half, held - floor);
    hypura_pager_resize(pager, UINT64_MAX);
    assert_int_equal(use_dense(&f, pager), half);
    assert_int_equal(use_dense(&f, pager), all);
    hypura_pager_reset_statistics(pager);
    assert_int_equal(use_dense(&f, pager), all);
    hypura_statistics statistics;
    hypura_pager_statistics(pager, &statistics);
    assert_int_equal(statistics.n_reads, 0);
    assert_int_equal(statistics.pinned_bytes, all);

    hypura_pager_resize(pager, floor + all / 3);
    const uint64_t third = use_dense(&f, pager);
    assert_in_range(third, all / 3 - 70000, all / 3);
    assert_int_equal(hypura_pager_resize(pager, 0), floor);
    assert_int_equal(use_dense(&f, pager), 0);
    assert_int_equal(use_dense(&f, pager), 0);
    hypura_pager_close(pager);
    fixture_close(&f);
}

/* A unit more is more, from the floor up to everything, whatever slots and chunks are: by less the keeper would stand still. */
static void a_unit_more_is_more(void **state)
{
    (void)state;
    for (int large = 0; large < 2; large++) {
        fixture f;
        fixture_open(&f, &fixture_defaults);
        f.plan.pools[0].slot_stride_bytes *= large ? 40 : 1; /* 1.7 MB */
        hypura_pager     *pager = fixture_open_pager(&f, NULL, NULL, NULL);
        const uint64_t    unit = pager_unit_bytes(pager);
        const hypura_held all = hypura_pager_held(pager);
        uint64_t          held = hypura_pager_resize(pager, all.least_bytes);
        uint32_t          n = 0;
        assert_true(unit >= f.plan.pools[0].slot_stride_bytes);
        while (held + unit <= all.most_bytes) {
            const uint64_t before = held;
            held = hypura_pager_resize(pager, before + unit);
            assert_in_range(held, before + 1, before + unit);
            n++;
        }
        assert_true(n >= (all.most_bytes - all.least_bytes) / unit);
        hypura_pager_close(pager);
        fixture_close(&f);
    }
}

typedef struct resizer {
    hypura_pager *pager;
    uint64_t      stride;
    unsigned      seed;
    atomic_bool   stop;
} resizer;

static void *resize_until_told(void *argument)
{
    resizer *r = argument;
    while (!atomic_load(&r->stop)) {
        r->seed = r->seed * 1103515245u + 12345u;
        hypura_pager_resize(r->pager, (4 + (r->seed >> 16) % 70) * r->stride);
    }
    return NULL;
}

static int64_t fail_some(void *user, uint64_t nth, int64_t result)
{
    (void)user;
    return nth > 200 && nth % 97 == 0 ? -EIO : result;
}

/* Slots are closed while they are leased and read, rows are given up and taken again,
 * and every byte stays right. In every other run some reads of experts fail, and
 * their slots come back. */
static void resizing_changes_no_byte(void **state)
{
    (void)state;
    fixture_name_engines();
    for (size_t e = 0; e < 4; e++) {
        const bool failing = e % 2 == 0;
        fixture    f;
        fixture_open(&f, &fixture_defaults);
        hypura_pager *pager = fixture_open_pager(&f, fixture_engine(e / 2), failing ? fail_some : NULL, NULL);
        uint32_t      n_right = 0;
        resizer       resizers[2];
        pthread_t     threads[2];
        for (unsigned i = 0; i < 2; i++) {
            resizers[i] = (resizer){.pager = pager, .stride = f.plan.pools[0].slot_stride_bytes, .seed = i};
            assert_int_equal(pthread_create(&threads[i], NULL, resize_until_told, &resizers[i]), 0);
        }
        for (uint32_t round = 0; round < 200; round++) {
            hypura_pager_enter(pager);
            const int      layer = (int)(round % 3);
            const uint32_t experts[4] = {round % 16, (round * 7 + 1 + round) % 16, (round + 5) % 16, (round + 11) % 16};
            const uint32_t n = experts[1] == experts[0] || experts[1] == experts[2] || experts[1] == experts[3] ? 1 : 4;
            uint32_t       slots[4];
            do {
                hypura_pager_wait_slot(pager, layer);
            } while (hypura_pager_lease_experts(pager, layer, experts, n, slots) == 0);
            for (uint32_t i = 0; i < n; i++) {
                if (slots[i] != UINT32_MAX &&
                    hypura_pager_wait_expert(pager, layer, slots[i], UINT32_MAX) == HYPURA_OK) {
                    assert_true(fixture_expert_is_right(&f, pager, layer, experts[i], slots[i]));
                    n_right++;
                }
            }
            for (uint32_t i = 0; i < n; i++) {
                if (slots[i] != UINT32_MAX) {
                    hypura_pager_release_expert(pager, layer, slots[i]);
                }
            }
            hypura_pager_leave(pager);
            if (!failing && round % 8 == 0) {
                use_dense(&f, pager);
            }
        }
        assert_true(n_right > 200);
        for (unsigned i = 0; i < 2; i++) {
            atomic_store(&resizers[i].stop, true);
            pthread_join(threads[i], NULL);
        }
        hypura_pager_close(pager);
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pools_grow_and_shrink),
        cmocka_unit_test(pools_are_taken_ahead),
        cmocka_unit_test(pinned_rows_grow_and_shrink),
        cmocka_unit_test(a_shrink_ends_with_the_last_lease),
        cmocka_unit_test(a_page_that_two_slots_share_stays),
        cmocka_unit_test(who_waits_for_a_slot_sees_the_pool_grow),
        cmocka_unit_test(a_unit_more_is_more),
        cmocka_unit_test(resizing_changes_no_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
