/*
 * test_ahead_late.c - guesses whose reads are under way when they fail, turn out wrong, or are asked for.
 */
#include "ahead_fixture.h"

#include <errno.h>
#include <stdatomic.h>

typedef struct disturbance {
    atomic_bool fail;
    atomic_bool hold; /* no read ends as long as this is set */
    atomic_uint delay_us;
    atomic_uint n_seen;
} disturbance;

static int64_t disturb(void *user, uint64_t nth, int64_t result)
{
    disturbance *d = user;
    (void)nth;
    if (atomic_load(&d->delay_us) > 0) {
        usleep(atomic_load(&d->delay_us));
    }
    atomic_fetch_add(&d->n_seen, 1);
    while (atomic_load(&d->hold)) {
        usleep(200);
    }
    return atomic_load(&d->fail) ? -EIO : result;
}

static void a_guess_that_cannot_be_read_fails_nobody(void **state)
{
    (void)state;
    fixture_name_engines();
    for (size_t e = 0; e < 2; e++) {
        fixture f;
        fixture_open(&f, &shape);
        disturbance    d = {false};
        hypura_pager  *pager = open_pager(&f, fixture_engine(e), disturb, &d);
        const uint32_t guess[] = {3, 14, 7};
        hypura_pager_enter(pager);
        const unsigned seen = atomic_load(&d.n_seen);
        atomic_store(&d.fail, true);
        hypura_pager_expect_experts(pager, 1, guess, 3, HYPURA_LIKELY);
        while (atomic_load(&d.n_seen) < seen + 3) {
            usleep(200);
        }
        usleep(20000);
        atomic_store(&d.fail, false);
        assert_int_equal(compute(&f, pager, 0, guess, 3), 3);
        assert_int_equal(compute(&f, pager, 1, guess, 3), 3); /* read anew */
        hypura_error error;
        assert_int_equal(hypura_pager_take_error(pager, &error), HYPURA_OK);
        hypura_pager_leave(pager);
        hypura_pager_close(pager);
        fixture_close(&f);
    }
}

/* A guess that is under way when it turns out wrong is not read to its end; also where statistics begin
 * anew meanwhile. */
static void a_wrong_guess_is_dropped(void **state)
{
    (void)state;
    fixture_name_engines();
    for (size_t e = 0; e < 4; e++) {
        fixture f;
        fixture_open(&f, &shape);
        disturbance    d = {false};
        hypura_pager  *pager = open_pager(&f, fixture_engine(e), disturb, &d);
        const uint32_t guess[] = {0, 1, 2, 3};
        const uint32_t selected[] = {8, 9};
        hypura_pager_enter(pager);
        const unsigned seen = atomic_load(&d.n_seen);
        atomic_store(&d.delay_us, 2000);
        hypura_pager_expect_experts(pager, 1, guess, 4, HYPURA_LIKELY);
        while (atomic_load(&d.n_seen) == seen) {
            usleep(100);
        }
        if (e >= 2) {
            hypura_pager_reset_statistics(pager);
        }
        assert_int_equal(compute(&f, pager, 1, selected, 2), 2);
        atomic_store(&d.delay_us, 0);
        const hypura_statistics statistics = statistics_of(pager);
        assert_true(statistics.ahead_bytes_read < 4 * EXPERT_BYTES);
        assert_int_equal(statistics.ahead_bytes_useful, 0);
        assert_int_equal(compute(&f, pager, 1, guess, 4), 4);
        hypura_pager_leave(pager);
        hypura_pager_close(pager);
        fixture_close(&f);
    }
}

/* Of one guess a few requests are under way when it turns out wrong: what follows them is not read, nor counted. */
static void what_is_dropped_was_not_read(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &shape);
    disturbance    d = {false};
    hypura_pager  *pager = open_pager(&f, NULL, disturb, &d);
    const uint32_t guess = 0;
    const uint32_t selected = 8;
    hypura_pager_enter(pager);
    atomic_store(&d.hold, true);
    const unsigned seen = atomic_load(&d.n_seen);
    hypura_pager_expect_experts(pager, 1, &guess, 1, HYPURA_LIKELY);
    while (atomic_load(&d.n_seen) == seen) {
        usleep(100);
    }
    assert_int_equal(statistics_of(pager).ahead_bytes_read, EXPERT_BYTES);
    visit(pager, 1, &selected, 1);
    assert_in_range(statistics_of(pager).ahead_bytes_read, 1, EXPERT_BYTES / 2);
    atomic_store(&d.hold, false);
    assert_int_equal(compute(&f, pager, 1, &guess, 1), 1); /* anew */
    hypura_pager_leave(pager);
    hypura_pager_close(pager);
    fixture_close(&f);
}

/* A guess that is under way when it turns out right is read like anything else that somebody waits for. */
static void a_guess_that_is_asked_for_is_a_demand(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &shape);
    disturbance    d = {false};
    hypura_pager  *pager = open_pager(&f, NULL, disturb, &d);
    const uint32_t guess[] = {0, 1, 2, 3};
    uint32_t       slots[4];
    hypura_pager_enter(pager);
    atomic_store(&d.hold, true);
    const unsigned seen = atomic_load(&d.n_seen);
    hypura_pager_expect_experts(pager, 1, guess, 4, HYPURA_DOUBTFUL);
    while (atomic_load(&d.n_seen) == seen) {
        usleep(100);
    }
    visit(pager, 1, guess, 4);
    assert_int_equal(hypura_pager_lease_experts(pager, 1, guess, 4, slots), 4);
    pthread_mutex_lock(&pager->lock);
    const pager_queue *ahead = &pager->queues[PAGER_AHEAD];
    assert_int_equal(ahead->head, ahead->tail);
    assert_true(pager->demanded_bytes > EXPERT_BYTES);
    pthread_mutex_unlock(&pager->lock);
    atomic_store(&d.hold, false);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(hypura_pager_wait_expert(pager, 1, slots[i], UINT32_MAX), HYPURA_OK);
        assert_true(fixture_expert_is_right(&f, pager, 1, guess[i], slots[i]));
        hypura_pager_release_expert(pager, 1, slots[i]);
    }
    hypura_pager_leave(pager);
    hypura_pager_close(pager);
    fixture_close(&f);
}

static void closing_with_a_guess_under_way(void **state)
{
    (void)state;
    fixture_name_engines();
    for (int i = 0; i < 20; i++) {
        fixture f;
        fixture_open(&f, &shape);
        hypura_pager  *pager = open_pager(&f, fixture_engine((size_t)i), NULL, NULL);
        const uint32_t guess[] = {0, 5, 9};
        hypura_pager_enter(pager);
        hypura_pager_expect_experts(pager, 2, guess, 3, HYPURA_LIKELY);
        usleep((useconds_t)(i * 7));
        hypura_pager_leave(pager);
        hypura_pager_close(pager);
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guess_that_cannot_be_read_fails_nobody),
        cmocka_unit_test(a_wrong_guess_is_dropped),
        cmocka_unit_test(what_is_dropped_was_not_read),
        cmocka_unit_test(a_guess_that_is_asked_for_is_a_demand),
        cmocka_unit_test(closing_with_a_guess_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
