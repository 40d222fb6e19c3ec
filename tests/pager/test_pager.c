/*
 * test_pager.c - the pager against a file whose bytes tell where they lie: leases,
 * eviction, the ring, rows, and what happens when reads fail, come short or late.
 */
#include "fixture.h"

#include "pager/internal.h"
#include "pager/pager.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void leases_hold_the_right_bytes(void **state)
{
    (void)state;
    fixture_name_engines();
    static const fixture_options shapes[] = {
        {.expert_bytes = {8192, 8192, 12320}, .n_slots = 6, .n_ring_slots = 3, .pinned_rows = 0},
        {.expert_bytes = {4096, 4096, 4096}, .n_slots = 5, .n_ring_slots = 3, .pinned_rows = 0},
        {.expert_bytes = {100, 4097, 33333}, .n_slots = 4, .n_ring_slots = 3, .pinned_rows = 0},
    };
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        for (size_t e = 0; e < 2; e++) {
            fixture f;
            fixture_open(&f, &shapes[s]);
            hypura_pager *pager = fixture_open_pager(&f, fixture_engine(e), NULL, NULL);
            hypura_pager_enter(pager);
            srand(7);
            for (int round = 0; round < 200; round++) {
                uint32_t experts[4];
                const uint32_t n = 1 + (uint32_t)rand() % 4;
                for (uint32_t i = 0; i < n; i++) {
                    experts[i] = ((uint32_t)rand() % 4 + i * 4) % FIXTURE_EXPERTS;
                }
                assert_int_equal(fixture_use_experts(&f, pager, rand() % FIXTURE_LAYERS, experts, n), n);
            }
            hypura_pager_leave(pager);
            hypura_statistics statistics;
            hypura_pager_statistics(pager, &statistics);
            assert_true(statistics.n_evictions > 0);
            assert_true(statistics.bytes_hit > 0);
            assert_true(statistics.bytes_needed > statistics.bytes_hit);
            assert_string_equal(statistics.io_engine, fixture_engine(e));
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
    hypura_pager  *pager = fixture_open_pager(&f, NULL, NULL, NULL);
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
    assert_int_equal(fixture_use_experts(&f, pager, 2, experts, 6), 6);
    hypura_pager_leave(pager);
    hypura_pager_close(pager);
    fixture_close(&f);
}

/* What only passes is gone with its last lease, unless another one wants it to stay. */
static void what_passes_is_gone_with_its_last_lease(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &fixture_defaults);
    hypura_pager  *pager = fixture_open_pager(&f, NULL, NULL, NULL);
    const uint32_t expert = 3;
    hypura_pager_enter(pager);
    for (int stays = 0; stays < 2; stays++) {
        uint32_t slots[2];
        for (int i = 0; i < 2; i++) {
            assert_int_equal(hypura_pager_lease_experts(pager, 0, &expert, 1, &slots[i]), 1);
            assert_int_equal(hypura_pager_wait_expert(pager, 0, slots[i], UINT32_MAX), HYPURA_OK);
        }
        assert_int_equal(slots[0], slots[1]);
        hypura_pager_pass_expert(pager, 0, slots[0]);
        assert_true(hypura_pager_holds_expert(pager, 0, expert));
        (stays ? hypura_pager_release_expert : hypura_pager_pass_expert)(pager, 0, slots[1]);
        assert_int_equal(hypura_pager_holds_expert(pager, 0, expert), stays);
    }
    hypura_pager_leave(pager);
    hypura_pager_close(pager);
    fixture_close(&f);
}

/* Of what was before a reset nothing is told. */
static void statistics_begin_anew(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &fixture_defaults);
    hypura_pager     *pager = fixture_open_pager(&f, NULL, NULL, NULL);
    const uint32_t    experts[2] = {1, 2};
    hypura_statistics s;
    hypura_layer_hits layers[FIXTURE_LAYERS];
    uint64_t          bytes = 0;
    for (int m = 0; m < FIXTURE_MATRICES; m++) {
        bytes += fixture_defaults.expert_bytes[m];
    }
    hypura_pager_enter(pager);
    assert_int_equal(fixture_use_experts(&f, pager, 0, experts, 2), 2);
    hypura_pager_statistics(pager, &s);
    assert_true(s.bytes_read >= 2 * bytes && s.n_reads > 0 && s.bytes_needed == 2 * bytes);
    hypura_pager_reset_statistics(pager);
    hypura_pager_statistics(pager, &s);
    hypura_pager_layer_hits(pager, layers, FIXTURE_LAYERS);
    assert_true(s.bytes_read == 0 && s.n_reads == 0 && s.bytes_needed == 0 && s.bytes_hit == 0);
    assert_true(s.device_busy_s == 0.0 && s.read_wait_s == 0.0);
    assert_int_equal(layers[0].bytes_needed, 0);
    assert_int_equal(fixture_use_experts(&f, pager, 0, experts, 1), 1); /* there since */
    assert_int_equal(fixture_use_experts(&f, pager, 1, experts, 1), 1);
    hypura_pager_statistics(pager, &s);
    hypura_pager_layer_hits(pager, layers, FIXTURE_LAYERS);
    assert_in_range(s.bytes_read, bytes, bytes + FIXTURE_MATRICES * 2 * 4096); /* whole blocks of the drive */
    assert_int_equal(s.bytes_needed, 2 * bytes);
    assert_int_equal(s.bytes_hit, bytes);
    assert_true(layers[0].bytes_hit == bytes && layers[1].bytes_hit == 0 && layers[1].bytes_needed == bytes);
    hypura_pager_leave(pager);
    hypura_pager_close(pager);
    fixture_close(&f);
}

static void ring_follows_and_recovers_the_order(void **state)
{
    (void)state;
    fixture_name_engines();
    for (size_t e = 0; e < 2; e++) {
        fixture f;
        fixture_open(&f, &fixture_defaults);
        hypura_pager *pager = fixture_open_pager(&f, fixture_engine(e), NULL, NULL);
        hypura_pager_enter(pager);
        for (int token = 0; token < 4; token++) {
            fixture_pass_dense(&f, pager, 0, FIXTURE_DENSE);
        }
        fixture_pass_dense(&f, pager, 0, 1); /* a graph that leaves the rest out */
        fixture_pass_dense(&f, pager, 2, 3);
        fixture_pass_dense(&f, pager, 0, FIXTURE_DENSE);
        fixture_pass_dense(&f, pager, 1, 2); /* not in the ring at all */
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
    hypura_pager *pager = fixture_open_pager(&f, NULL, NULL, NULL);
    hypura_pager_enter(pager);
    uint32_t per_token = 0;
    for (int d = 0; d < FIXTURE_DENSE; d++) {
        per_token += hypura_pager_chunks(pager, fixture_dense(d));
    }
    for (int token = 0; token < 10; token++) {
        fixture_pass_dense(&f, pager, 0, FIXTURE_DENSE);
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
    hypura_pager        *pager = fixture_open_pager(&f, NULL, NULL, NULL);
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
    fixture_name_engines();
    fixture f;
    fixture_open(&f, &fixture_defaults);
    const size_t n_engines = hypura_io_engine_available("uring") ? 2 : 1;
    for (size_t e = 0; e < n_engines; e++) {
        for (enum fault fault = FAULT_FAIL; fault <= FAULT_LATE; fault++) {
            uint64_t n_reads = 1;
            int      n_failed = 0;
            for (uint64_t nth = 0; nth <= n_reads; nth += nth < 40 ? 1 : 9) {
                n_failed += disturb(&f, fixture_engine(e), fault, nth, &n_reads);
            }
            if (fault == FAULT_FAIL) {
                assert_true(n_failed > 20);
            }
        }
    }
    fixture_close(&f);
}

/* Reads end when it opens. */
static int64_t pass_gate(void *user, uint64_t nth, int64_t result)
{
    const atomic_bool *closed = user;
    (void)nth;
    while (atomic_load(closed)) {
        usleep(500);
    }
    return result;
}

typedef struct reader {
    fixture      *f;
    hypura_pager *pager;
    atomic_bool   ended;
    bool          right;
} reader;

/* The first chunk of the last weight. */
static void *acquire_last(void *argument)
{
    reader *r = argument;
    int64_t row, n;
    const hypura_tensor *tensor = &r->f->tensors[fixture_dense(FIXTURE_DENSE - 1)];
    const char *chunk = hypura_pager_acquire_chunk(r->pager, fixture_dense(FIXTURE_DENSE - 1), 0, &row, &n);
    r->right = chunk && fixture_is(chunk, tensor->offset + (uint64_t)row * tensor->row_bytes, (uint64_t)n * tensor->row_bytes);
    atomic_store(&r->ended, true);
    return NULL;
}

static uint32_t count_filling(hypura_pager *pager, bool *waited_for)
{
    uint32_t n = 0;
    pthread_mutex_lock(&pager->lock);
    for (uint32_t i = 0; i < pager->ring.n_slots; i++) {
        n += pager->ring.slots[i].filling;
    }
    *waited_for = pager->n_waiting > 0;
    pthread_mutex_unlock(&pager->lock);
    return n;
}

/* Where a graph leaves weights out, a place in the ring that a read is under way to is given to no other chunk before that read has
 * ended. */
static void a_place_is_given_away_when_its_read_has_ended(void **state)
{
    (void)state;
    atomic_bool closed = false;
    bool        waits;
    fixture     f;
    pthread_t   thread;
    int64_t     row, n;
    fixture_open(&f, &fixture_defaults);
    hypura_pager *pager = fixture_open_pager(&f, NULL, pass_gate, &closed);
    reader        r = {.f = &f, .pager = pager};
    hypura_pager_enter(pager);
    assert_non_null(hypura_pager_acquire_chunk(pager, fixture_dense(0), 0, &row, &n));
    while (count_filling(pager, &waits) > 0) {
        usleep(1000);
    }
    atomic_store(&closed, true);
    hypura_pager_release_chunk(pager); /* the next one is read in its place */
    assert_int_equal(pthread_create(&thread, NULL, acquire_last, &r), 0);
    do {
        usleep(1000);
    } while (count_filling(pager, &waits) > 0 && !waits);
    assert_int_equal(count_filling(pager, &waits), 1);
    assert_false(atomic_load(&r.ended));
    atomic_store(&closed, false);
    pthread_join(thread, NULL);
    assert_true(r.right);
    hypura_pager_release_chunk(pager);
    fixture_pass_dense(&f, pager, 0, FIXTURE_DENSE);
    hypura_pager_leave(pager);
    hypura_pager_close(pager);
    fixture_close(&f);
}

static void a_truncated_file_is_named(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &fixture_defaults);
    hypura_pager *pager = fixture_open_pager(&f, NULL, NULL, NULL);
    assert_int_equal(truncate(f.path, 4096), 0);
    const uint32_t expert = 15;
    hypura_error   error = {0};
    for (int bundle = 0; bundle <= 2; bundle += 2) {
        uint32_t slot;
        hypura_pager_enter(pager);
        assert_int_equal(hypura_pager_lease_experts(pager, bundle, &expert, 1, &slot), 1);
        assert_int_equal(hypura_pager_wait_expert(pager, bundle, slot, UINT32_MAX), HYPURA_ERR_IO);
        for (bool reads = true; reads;) { /* of the other matrices */
            pthread_mutex_lock(&pager->lock);
            reads = pager->pools[0].slots[slot].filling > 0;
            pthread_mutex_unlock(&pager->lock);
            usleep(1000);
        }
        assert_false(hypura_pager_expert_ready(pager, bundle, slot, UINT32_MAX));
        assert_false(hypura_pager_holds_expert(pager, bundle, expert));
        hypura_pager_release_expert(pager, bundle, slot);
        hypura_pager_leave(pager);
        assert_int_equal(hypura_pager_take_error(pager, &error), HYPURA_ERR_IO);
        assert_non_null(strstr(error.message, f.path));
        assert_non_null(strstr(error.message, "truncated"));
        assert_non_null(strstr(error.message, "expert 15"));
        assert_int_equal(hypura_pager_take_error(pager, &error), HYPURA_OK);
    }
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

/* Another file of that size, between the pager's opening and what stays being loaded. */
static void a_file_replaced_before_a_load_is_told(void **state)
{
    (void)state;
    fixture f;
    char bytes[4096];
    char other[80];
    fixture_open(&f, &fixture_defaults);
    hypura_pager *pager = fixture_open_pager(&f, NULL, NULL, NULL);
    hypura_error error = {0};
    const hypura_load load = {.bytes = sizeof bytes, .dst = bytes};
    assert_int_equal(hypura_pager_load(pager, &load, 1, NULL, NULL, &error), HYPURA_OK);
    assert_true(fixture_is(bytes, 0, sizeof bytes));
    snprintf(other, sizeof other, "%s.other", f.path);
    FILE *file = fopen(other, "w");
    assert_non_null(file);
    assert_int_equal(ftruncate(fileno(file), (off_t)f.file_bytes[0]), 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(rename(other, f.path), 0);
    assert_int_equal(hypura_pager_load(pager, &load, 1, NULL, NULL, &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, f.path));
    assert_non_null(strstr(error.message, "replaced"));
    hypura_pager_close(pager);
    fixture_close(&f);
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
    hypura_pager *pager = fixture_open_pager(&f, NULL, NULL, NULL);
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

static void closing_with_reads_under_way(void **state)
{
    (void)state;
    fixture_name_engines();
    for (int round = 0; round < 20; round++) {
        fixture f;
        fixture_open(&f, &fixture_defaults);
        hypura_pager  *pager = fixture_open_pager(&f, fixture_engine((size_t)round), NULL, NULL);
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
        cmocka_unit_test(what_passes_is_gone_with_its_last_lease),
        cmocka_unit_test(statistics_begin_anew),
        cmocka_unit_test(ring_follows_and_recovers_the_order),
        cmocka_unit_test(in_order_every_chunk_is_read_once),
        cmocka_unit_test(rows_come_in_the_order_asked_for),
        cmocka_unit_test(every_fault_is_told_or_healed),
        cmocka_unit_test(a_place_is_given_away_when_its_read_has_ended),
        cmocka_unit_test(a_truncated_file_is_named),
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(a_file_replaced_before_a_load_is_told),
        cmocka_unit_test(contexts_take_turns),
        cmocka_unit_test(closing_with_reads_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
