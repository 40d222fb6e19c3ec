/*
 * test_pager.c - the pager against a file whose bytes tell where they lie: leases,
 * eviction, the ring, rows, and what happens when reads fail, come short or late.
 */
#include "fixture.h"

#include "pager/pager.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char *const engines[] = {"uring", "pool"};

static hypura_pager *open_pager(fixture *f, const char *engine, hypura_io_hook hook, void *user)
{
    hypura_pager              *pager = NULL;
    hypura_error               error = {0};
    const hypura_pager_options options = {
        .map = &f->map, .plan = &f->plan, .io_engine = engine, .hook = hook, .hook_user = user};
    if (hypura_pager_open(&options, &pager, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    return pager;
}

/* Leases experts, checks the bytes of those leased, releases. Returns how many. */
static uint32_t use_experts(fixture *f, hypura_pager *pager, int bundle, const uint32_t *experts, uint32_t n)
{
    uint32_t       slots[FIXTURE_EXPERTS];
    const uint32_t leased = hypura_pager_lease_experts(pager, bundle, experts, n, slots);
    for (uint32_t i = 0; i < n; i++) {
        if (slots[i] != UINT32_MAX) {
            assert_int_equal(hypura_pager_wait_expert(pager, bundle, slots[i], UINT32_MAX), HYPURA_OK);
            assert_true(hypura_pager_expert_ready(pager, bundle, slots[i], UINT32_MAX));
            assert_true(fixture_expert_is_right(f, pager, bundle, experts[i], slots[i]));
            hypura_pager_release_expert(pager, bundle, slots[i]);
        }
    }
    return leased;
}

static void leases_hold_the_right_bytes(void **state)
{
    (void)state;
    static const fixture_options shapes[] = {
        {.expert_bytes = {8192, 8192, 12320}, .n_slots = 6, .n_ring_slots = 3, .pinned_rows = 0},
        {.expert_bytes = {4096, 4096, 4096}, .n_slots = 5, .n_ring_slots = 3, .pinned_rows = 0},
        {.expert_bytes = {100, 4097, 33333}, .n_slots = 4, .n_ring_slots = 3, .pinned_rows = 0},
    };
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        for (size_t e = 0; e < 2; e++) {
            fixture f;
            fixture_open(&f, &shapes[s]);
            hypura_pager *pager = open_pager(&f, engines[e], NULL, NULL);
            hypura_pager_enter(pager);
            srand(7);
            for (int round = 0; round < 200; round++) {
                uint32_t experts[4];
                const uint32_t n = 1 + (uint32_t)rand() % 4;
                for (uint32_t i = 0; i < n; i++) {
                    experts[i] = ((uint32_t)rand() % 4 + i * 4) % FIXTURE_EXPERTS;
                }
                assert_int_equal(use_experts(&f, pager, rand() % FIXTURE_LAYERS, experts, n), n);
            }
            hypura_pager_leave(pager);
            hypura_statistics statistics;
            hypura_pager_statistics(pager, &statistics);
            assert_true(statistics.n_evictions > 0);
            assert_true(statistics.bytes_hit > 0);
            assert_true(statistics.bytes_needed > statistics.bytes_hit);
            assert_string_equal(statistics.io_engine, engines[e]);
            hypura_pager_close(pager);
            fixture_close(&f);
        }
    }
}

static void leases_stop_at_the_last_slot(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &fixture_defaults);
    hypura_pager  *pager = open_pager(&f, NULL, NULL, NULL);
    const uint32_t experts[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    uint32_t       slots[8];
    hypura_pager_enter(pager);
    assert_int_equal(hypura_pager_lease_experts(pager, 0, experts, 8, slots), 6);
    assert_int_equal(slots[6], UINT32_MAX);
    assert_int_equal(slots[7], UINT32_MAX);
    uint32_t other;
    assert_int_equal(hypura_pager_lease_experts(pager, 1, experts, 1, &other), 0);
    /* present ones are leased before a free slot is given to one that comes earlier */
    assert_int_equal(hypura_pager_wait_expert(pager, 0, slots[2], UINT32_MAX), HYPURA_OK);
    hypura_pager_release_expert(pager, 0, slots[2]);
    const uint32_t mixed[2] = {9, 2};
    uint32_t       mixed_slots[2];
    assert_int_equal(hypura_pager_lease_experts(pager, 0, mixed, 2, mixed_slots), 1);
    assert_int_equal(mixed_slots[0], UINT32_MAX);
    assert_int_equal(mixed_slots[1], slots[2]);
    hypura_pager_release_expert(pager, 0, mixed_slots[1]);
    for (int i = 0; i < 6; i++) {
        if (i != 2) {
            assert_int_equal(hypura_pager_wait_expert(pager, 0, slots[i], UINT32_MAX), HYPURA_OK);
            hypura_pager_release_expert(pager, 0, slots[i]);
        }
    }
    hypura_pager_wait_slot(pager, 2);
    assert_int_equal(use_experts(&f, pager, 2, experts, 6), 6);
    hypura_pager_leave(pager);
    hypura_pager_close(pager);
    fixture_close(&f);
}

/* One pass over the dense weights as a token makes it. Returns the bytes pinned. */
static uint64_t pass_dense(fixture *f, hypura_pager *pager, int first, int last)
{
    uint64_t pinned_bytes = 0;
    for (int d = first; d < last; d++) {
        const hypura_tensor *tensor = &f->tensors[fixture_dense(d)];
        int64_t              pinned;
        const char          *rows = hypura_pager_pinned(pager, fixture_dense(d), &pinned);
        pinned_bytes += (uint64_t)pinned * tensor->row_bytes;
        if (pinned > 0) {
            assert_true(fixture_is(rows, tensor->offset, (uint64_t)pinned * tensor->row_bytes));
        }
        int64_t next = pinned;
        for (uint32_t c = 0; c < hypura_pager_chunks(pager, fixture_dense(d)); c++) {
            int64_t     row, n;
            const char *chunk = hypura_pager_acquire_chunk(pager, fixture_dense(d), c, &row, &n);
            assert_non_null(chunk);
            assert_int_equal(row, next);
            assert_true(fixture_is(chunk, tensor->offset + (uint64_t)row * tensor->row_bytes,
                                   (uint64_t)n * tensor->row_bytes));
            hypura_pager_release_chunk(pager);
            next = row + n;
        }
        assert_int_equal(next, tensor->ne[1]);
    }
    return pinned_bytes;
}

static void ring_follows_and_recovers_the_order(void **state)
{
    (void)state;
    for (size_t e = 0; e < 2; e++) {
        fixture f;
        fixture_open(&f, &fixture_defaults);
        hypura_pager *pager = open_pager(&f, engines[e], NULL, NULL);
        hypura_pager_enter(pager);
        for (int token = 0; token < 4; token++) {
            pass_dense(&f, pager, 0, FIXTURE_DENSE);
        }
        pass_dense(&f, pager, 0, 1); /* a graph that leaves the rest out */
        pass_dense(&f, pager, 2, 3);
        pass_dense(&f, pager, 0, FIXTURE_DENSE);
        pass_dense(&f, pager, 1, 2); /* not in the ring at all */
        hypura_pager_leave(pager);
        hypura_pager_close(pager);
        fixture_close(&f);
    }
}

static void in_order_every_chunk_is_read_once(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &fixture_defaults);
    hypura_pager *pager = open_pager(&f, NULL, NULL, NULL);
    hypura_pager_enter(pager);
    uint32_t per_token = 0;
    for (int d = 0; d < FIXTURE_DENSE; d++) {
        per_token += hypura_pager_chunks(pager, fixture_dense(d));
    }
    for (int token = 0; token < 10; token++) {
        pass_dense(&f, pager, 0, FIXTURE_DENSE);
    }
    hypura_pager_leave(pager);
    hypura_statistics statistics;
    hypura_pager_statistics(pager, &statistics);
    assert_in_range(statistics.n_reads, 10 * per_token, 10 * per_token + f.plan.n_ring_slots);
    hypura_pager_close(pager);
    fixture_close(&f);
}

static void rows_come_in_the_order_asked_for(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &fixture_defaults);
    hypura_pager        *pager = open_pager(&f, NULL, NULL, NULL);
    const hypura_tensor *tensor = &f.tensors[fixture_embedding()];
    enum { N = 2500 };
    int64_t *rows = malloc(N * sizeof(*rows));
    char    *bytes = malloc(N * tensor->row_bytes);
    assert_non_null(rows);
    assert_non_null(bytes);
    for (int i = 0; i < N; i++) {
        rows[i] = i * 7 % tensor->ne[1];
    }
    hypura_pager_enter(pager);
    assert_int_equal(hypura_pager_read_rows(pager, fixture_embedding(), rows, N, bytes), HYPURA_OK);
    hypura_pager_leave(pager);
    for (int i = 0; i < N; i++) {
        assert_true(fixture_is(bytes + (size_t)i * tensor->row_bytes,
                               tensor->offset + (uint64_t)rows[i] * tensor->row_bytes, tensor->row_bytes));
    }
    free(bytes);
    free(rows);
    hypura_pager_close(pager);
    fixture_close(&f);
}

/* ---- faults ------------------------------------------------------------------ */

enum fault { FAULT_FAIL, FAULT_SHORT, FAULT_LATE };

typedef struct fault_plan {
    enum fault fault;
    uint64_t   nth;
    uint64_t   n_seen;
    pthread_mutex_t lock;
} fault_plan;

static int64_t inject(void *user, uint64_t nth, int64_t result)
{
    fault_plan *plan = user;
    pthread_mutex_lock(&plan->lock);
    plan->n_seen = nth > plan->n_seen ? nth : plan->n_seen;
    pthread_mutex_unlock(&plan->lock);
    if (nth != plan->nth) {
        return result;
    }
    switch (plan->fault) {
    case FAULT_FAIL:
        return -EIO;
    case FAULT_SHORT:
        return result > 512 ? 512 : result;
    case FAULT_LATE:
        usleep(2000);
        return result;
    }
    return result;
}

/* Some of everything. False when the pager reported a failure. */
static bool work(fixture *f, hypura_pager *pager)
{
    bool ok = true;
    hypura_pager_enter(pager);
    for (int round = 0; round < 4 && ok; round++) {
        uint32_t experts[3] = {(uint32_t)round, (uint32_t)round + 5, (uint32_t)round + 9};
        uint32_t slots[3];
        assert_int_equal(hypura_pager_lease_experts(pager, round % FIXTURE_LAYERS, experts, 3, slots), 3);
        for (int i = 0; i < 3; i++) {
            if (ok && hypura_pager_wait_expert(pager, round % FIXTURE_LAYERS, slots[i], UINT32_MAX) == HYPURA_OK) {
                assert_true(fixture_expert_is_right(f, pager, round % FIXTURE_LAYERS, experts[i], slots[i]));
            } else {
                ok = false;
            }
        }
        for (int i = 0; i < 3; i++) {
            hypura_pager_release_expert(pager, round % FIXTURE_LAYERS, slots[i]);
        }
    }
    for (int d = 0; d < FIXTURE_DENSE && ok; d++) {
        const hypura_tensor *tensor = &f->tensors[fixture_dense(d)];
        for (uint32_t c = 0; c < hypura_pager_chunks(pager, fixture_dense(d)) && ok; c++) {
            int64_t     row, n;
            const char *chunk = hypura_pager_acquire_chunk(pager, fixture_dense(d), c, &row, &n);
            ok = chunk != NULL;
            if (ok) {
                assert_true(fixture_is(chunk, tensor->offset + (uint64_t)row * tensor->row_bytes,
                                       (uint64_t)n * tensor->row_bytes));
                hypura_pager_release_chunk(pager);
            }
        }
    }
    const int64_t rows[3] = {3, 499, 77};
    char          bytes[3 * 1000];
    ok = ok && hypura_pager_read_rows(pager, fixture_embedding(), rows, 3, bytes) == HYPURA_OK;
    hypura_pager_leave(pager);
    return ok;
}

/* Disturbs the nth read. Returns how many failures were told; *n_reads gets how many
 * reads there were to disturb. */
static int disturb(fixture *f, const char *engine, enum fault fault, uint64_t nth, uint64_t *n_reads)
{
    fault_plan    plan = {.fault = fault, .nth = nth, .lock = PTHREAD_MUTEX_INITIALIZER};
    hypura_pager *pager = NULL;
    hypura_error  error = {0};
    int           n_failed = 0;
    const hypura_pager_options options = {
        .map = &f->map, .plan = &f->plan, .io_engine = engine, .hook = inject, .hook_user = &plan};
    if (hypura_pager_open(&options, &pager, &error) != HYPURA_OK) {
        assert_int_equal(fault, FAULT_FAIL); /* the pinned rows could not be read */
        assert_non_null(strstr(error.message, f->path));
        *n_reads = nth + 1 > *n_reads ? nth + 1 : *n_reads;
        return 1;
    }
    const bool ok = work(f, pager);
    const bool told = hypura_pager_take_error(pager, &error) != HYPURA_OK;
    if (fault != FAULT_FAIL) {
        assert_true(ok);
        assert_false(told);
    }
    if (!ok) {
        assert_true(told);
        assert_non_null(strstr(error.message, f->path));
        n_failed++;
    }
    /* nothing stale: a later pass reads anew and is right; the fault may have been
     * waiting for it */
    if (!work(f, pager)) {
        assert_true(ok && fault == FAULT_FAIL);
        assert_int_equal(hypura_pager_take_error(pager, &error), HYPURA_ERR_IO);
        assert_true(work(f, pager));
        n_failed++;
    }
    pthread_mutex_lock(&plan.lock); /* reads ahead are still counted */
    *n_reads = plan.n_seen > *n_reads ? plan.n_seen : *n_reads;
    pthread_mutex_unlock(&plan.lock);
    hypura_pager_close(pager);
    return n_failed;
}

static void every_fault_is_told_or_healed(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &fixture_defaults);
    for (size_t e = 0; e < 2; e++) {
        for (enum fault fault = FAULT_FAIL; fault <= FAULT_LATE; fault++) {
            uint64_t n_reads = 1;
            int      n_failed = 0;
            for (uint64_t nth = 0; nth <= n_reads; nth += nth < 40 ? 1 : 9) {
                n_failed += disturb(&f, engines[e], fault, nth, &n_reads);
            }
            if (fault == FAULT_FAIL) {
                assert_true(n_failed > 20);
            }
        }
    }
    fixture_close(&f);
}

static void a_truncated_file_is_named(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &fixture_defaults);
    hypura_pager *pager = open_pager(&f, NULL, NULL, NULL);
    assert_int_equal(truncate(f.path, 4096), 0);
    const uint32_t expert = 15;
    uint32_t       slot;
    hypura_error   error = {0};
    hypura_pager_enter(pager);
    assert_int_equal(hypura_pager_lease_experts(pager, 2, &expert, 1, &slot), 1);
    assert_int_equal(hypura_pager_wait_expert(pager, 2, slot, UINT32_MAX), HYPURA_ERR_IO);
    hypura_pager_release_expert(pager, 2, slot);
    hypura_pager_leave(pager);
    assert_int_equal(hypura_pager_take_error(pager, &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, f.path));
    assert_non_null(strstr(error.message, "truncated"));
    assert_non_null(strstr(error.message, "expert 15"));
    assert_int_equal(hypura_pager_take_error(pager, &error), HYPURA_OK);
    hypura_pager_close(pager);
    fixture_close(&f);
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &fixture_defaults);
    unlink(f.path);
    hypura_pager              *pager = NULL;
    hypura_error               error = {0};
    const hypura_pager_options options = {.map = &f.map, .plan = &f.plan};
    assert_int_equal(hypura_pager_open(&options, &pager, &error), HYPURA_ERR_IO);
    assert_null(pager);
    assert_non_null(strstr(error.message, f.path));
}

/* ---- threads ------------------------------------------------------------------- */

typedef struct thread_work {
    fixture      *f;
    hypura_pager *pager;
} thread_work;

static void *work_many_times(void *argument)
{
    thread_work *w = argument;
    for (int i = 0; i < 20; i++) {
        if (!work(w->f, w->pager)) {
            return argument;
        }
    }
    return NULL;
}

static void contexts_take_turns(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &fixture_defaults);
    hypura_pager *pager = open_pager(&f, NULL, NULL, NULL);
    thread_work   w = {&f, pager};
    pthread_t     threads[3];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, work_many_times, &w), 0);
    }
    for (int i = 0; i < 3; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    hypura_pager_close(pager);
    fixture_close(&f);
}

/* ---- the pools' size ------------------------------------------------------------ */

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

/* Uses the first n of eight experts of a layer, as one graph. Returns how many were leased. */
static uint32_t use_layer(fixture *f, hypura_pager *pager, int layer)
{
    const uint32_t all[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    hypura_pager_enter(pager);
    const uint32_t leased = use_experts(f, pager, layer, all, 8);
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
    hypura_pager  *pager = open_pager(&f, NULL, NULL, NULL);
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

/* Reads and checks every row of the dense weights, as one token. Returns how many
 * bytes of them were in memory. */
static uint64_t use_dense(fixture *f, hypura_pager *pager)
{
    uint64_t pinned_bytes = 0;
    for (int d = 0; d < FIXTURE_DENSE; d++) {
        hypura_pager_enter(pager);
        pinned_bytes += pass_dense(f, pager, d, d + 1);
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
    hypura_pager  *pager = open_pager(&f, NULL, NULL, NULL);
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
    for (size_t e = 0; e < 4; e++) {
        const bool failing = e % 2 == 0;
        fixture    f;
        fixture_open(&f, &fixture_defaults);
        hypura_pager *pager = open_pager(&f, engines[e / 2], failing ? fail_some : NULL, NULL);
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

static void closing_with_reads_under_way(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        fixture f;
        fixture_open(&f, &fixture_defaults);
        hypura_pager  *pager = open_pager(&f, engines[round % 2], NULL, NULL);
        const uint32_t experts[6] = {0, 1, 2, 3, 4, 5};
        uint32_t       slots[6];
        hypura_pager_enter(pager);
        hypura_pager_lease_experts(pager, 0, experts, 6, slots);
        for (int i = 0; i < 6; i++) {
            hypura_pager_release_expert(pager, 0, slots[i]);
        }
        hypura_pager_leave(pager);
        hypura_pager_close(pager);
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leases_hold_the_right_bytes),
        cmocka_unit_test(leases_stop_at_the_last_slot),
        cmocka_unit_test(ring_follows_and_recovers_the_order),
        cmocka_unit_test(in_order_every_chunk_is_read_once),
        cmocka_unit_test(rows_come_in_the_order_asked_for),
        cmocka_unit_test(every_fault_is_told_or_healed),
        cmocka_unit_test(a_truncated_file_is_named),
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(contexts_take_turns),
        cmocka_unit_test(pools_grow_and_shrink),
        cmocka_unit_test(pinned_rows_grow_and_shrink),
        cmocka_unit_test(resizing_changes_no_byte),
        cmocka_unit_test(closing_with_reads_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
