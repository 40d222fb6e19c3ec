/*
 * test_knee.c - the budget on machines made up of a few lines: how much memory there
 * is, what others take, how fast a model is with what it holds.
 */
#include "plan/knee.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define MIB UINT64_C(1048576)
#define GIB (1024 * MIB)

typedef struct machine {
    hypura_knee knee;
    hypura_knee_sample sample;
    uint64_t total_bytes;
    uint64_t others_bytes;
    uint64_t knee_bytes; /* holding more than this stalls everybody; 0: it never does */
    uint64_t model_bytes;
    uint64_t unit_bytes; /* what is held is a multiple of this; 0: anything */
    uint64_t piece_us;   /* what 8 MiB take until they are there; 0: no time */
    bool working;
    uint64_t least_available_bytes;
    int n_changes;
    int n_stopped; /* growths */
    hypura_budget_reason last;
} machine;

static machine start_in_units(uint64_t total_bytes, uint64_t model_bytes, uint64_t held_bytes, uint64_t unit_bytes)
{
    machine m = {.total_bytes = total_bytes,
                 .model_bytes = model_bytes,
                 .unit_bytes = unit_bytes,
                 .working = true,
                 .least_available_bytes = UINT64_MAX};
    m.sample.held_bytes = held_bytes;
    m.sample.now_us = 1000000;
    hypura_knee_begin(&m.knee, 100 * MIB, model_bytes, total_bytes, unit_bytes);
    return m;
}

static machine start(uint64_t total_bytes, uint64_t model_bytes, uint64_t held_bytes)
{
    return start_in_units(total_bytes, model_bytes, held_bytes, 0);
}

/* As the pager does it: one more slot at a time, in pieces, with a look after each. What was not gone on with goes back. */
static bool take_slots(machine *m, uint64_t goal_bytes)
{
    hypura_knee_sample *s = &m->sample;
    while (s->held_bytes + m->unit_bytes <= goal_bytes) {
        const uint64_t before = s->held_bytes;
        while (s->held_bytes < before + m->unit_bytes) {
            const uint64_t left = before + m->unit_bytes - s->held_bytes;
            s->held_bytes += left < 8 * MIB ? left : 8 * MIB;
            s->available_bytes = m->total_bytes - s->held_bytes - m->others_bytes;
            s->now_us += m->piece_us;
            if (!hypura_knee_goes_on(&m->knee, s)) {
                s->held_bytes = before;
                return false;
            }
        }
    }
    return true;
}

/* Time goes on, the model computes, and the budget is decided. */
static void step(machine *m, uint64_t us)
{
    hypura_knee_sample *s = &m->sample;
    const uint64_t taken = s->held_bytes + m->others_bytes + s->promised_bytes * 0;
    const double missed = 1.0 - (double)s->held_bytes / (double)m->model_bytes;
    const bool beyond = m->knee_bytes > 0 && s->held_bytes > m->knee_bytes;
    const double speed = (beyond ? 0.5 : 1.0) * 1e9 / (0.1 + missed);
    assert_true(taken <= m->total_bytes); /* else somebody was killed */
    s->available_bytes = m->total_bytes - taken;
    m->least_available_bytes =
        s->available_bytes < m->least_available_bytes ? s->available_bytes : m->least_available_bytes;
    s->now_us += us;
    if (m->working) {
        s->needed_bytes += (uint64_t)(speed * (double)us * 1e-6);
        s->missed_bytes += (uint64_t)(missed * speed * (double)us * 1e-6);
    }
    if (beyond) {
        s->stall_us += us / 20;
        s->n_faults += us / 1000;
    }
    hypura_budget_reason reason = HYPURA_BUDGET_FIXED;
    const uint64_t target = hypura_knee_decide(&m->knee, s, &reason);
    assert_in_range(target, m->knee.least_bytes, m->knee.most_bytes);
    if (target != s->held_bytes) {
        m->n_changes++;
        m->last = reason;
        assert_true(target < s->held_bytes ? reason != HYPURA_BUDGET_ROOM : reason == HYPURA_BUDGET_ROOM);
        if (target > s->held_bytes && m->piece_us > 0) {
            m->n_stopped += !take_slots(m, target);
        } else {
            s->held_bytes = m->unit_bytes > 0 ? target - target % m->unit_bytes : target;
        }
    }
}

static void run(machine *m, double seconds)
{
    for (double at = 0; at < seconds; at += 0.05) {
        step(m, 50000);
    }
}

static void free_memory_is_used_up_to_the_reserve(void **state)
{
    (void)state;
    machine m = start(16 * GIB, 40 * GIB, 2 * GIB);
    run(&m, 1.5);
    assert_int_equal(m.n_changes, 0); /* nothing is known yet */
    run(&m, 60);
    assert_in_range(m.sample.held_bytes, 16 * GIB - hypura_knee_calm_reserve(16 * GIB) - 64 * MIB,
                    16 * GIB - hypura_knee_calm_reserve(16 * GIB));
    const int n = m.n_changes;
    run(&m, 600);
    assert_int_equal(m.n_changes, n); /* and stays there */
}

/* Experts of 99 MiB, as Mixtral-8x7B has: one more slot is more than a small step, and less than one is none. */
static void large_slots_are_added_too(void **state)
{
    (void)state;
    const uint64_t unit = 99 * MIB;
    machine m = start_in_units(8 * GIB, 60 * unit, 3 * unit, unit);
    run(&m, 120);
    assert_int_equal(m.sample.held_bytes, 60 * unit);
    m = start_in_units(4 * GIB, 60 * unit, 3 * unit, unit);
    run(&m, 120);
    assert_in_range(m.sample.held_bytes, 4 * GIB - hypura_knee_calm_reserve(4 * GIB) - 2 * unit,
                    4 * GIB - hypura_knee_calm_reserve(4 * GIB));
    const int n = m.n_changes;
    run(&m, 600);
    assert_int_equal(m.n_changes, n);
}

/* Memory comes slowly on some machines, 99 MiB in 0.4 s. Nobody need be kept from looking for as long, as if others could
 * have taken a lot unseen: a slot would be given back as soon as it was there, again and again. */
static void slots_that_take_long_are_kept(void **state)
{
    (void)state;
    const uint64_t unit = 99 * MIB;
    static const uint64_t sizes[] = {2 * GIB, 4 * GIB, 8 * GIB};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        machine m = start_in_units(sizes[i], 100 * unit, 3 * unit, unit);
        m.piece_us = 30000;
        run(&m, 300);
        assert_in_range(m.sample.held_bytes, sizes[i] - hypura_knee_calm_reserve(sizes[i]) - 2 * unit,
                        sizes[i] - hypura_knee_calm_reserve(sizes[i]));
        const int n = m.n_changes;
        run(&m, 600);
        assert_int_equal(m.n_changes, n);
        assert_int_equal(m.n_stopped, 0);
    }
}

static void who_takes_memory_stops_a_slot(void **state)
{
    (void)state;
    const uint64_t unit = 99 * MIB;
    machine m = start_in_units(4 * GIB, 60 * unit, 3 * unit, unit);
    run(&m, 120);
    hypura_knee_sample *s = &m.sample;
    const uint64_t held = s->held_bytes;
    s->held_bytes -= unit; /* it is taken right now */
    s->available_bytes += unit;
    m.others_bytes = unit;
    assert_false(take_slots(&m, held));
    const uint64_t stopped_us = s->now_us;
    while (s->now_us < stopped_us + 1500000) {
        step(&m, 50000);
        assert_true(s->held_bytes < held); /* nothing is taken as soon */
    }
}

static void what_others_take_is_given_up_in_time(void **state)
{
    (void)state;
    static const double rates[] = {0.5, 1, 2, 3}; /* GiB a second */
    for (size_t i = 0; i < sizeof(rates) / sizeof(*rates); i++) {
        machine m = start(16 * GIB, 40 * GIB, 8 * GIB);
        run(&m, 60);
        const uint64_t before = m.sample.held_bytes;
        const uint64_t begin_us = m.sample.now_us;
        m.least_available_bytes = UINT64_MAX;
        while (m.others_bytes < 4 * GIB) {
            m.others_bytes += (uint64_t)(rates[i] * 0.01 * (double)GIB);
            step(&m, 10000); /* as often as the keeper looks when little is left */
        }
        run(&m, 0.1);
        assert_true(m.sample.now_us - begin_us < 10000000);
        assert_int_equal(m.last, HYPURA_BUDGET_SQUEEZE);
        assert_true(m.least_available_bytes > 64 * MIB);
        assert_true(m.sample.held_bytes < before);
        run(&m, 5);
        /* not far below what the new memory allows */
        assert_in_range(m.sample.held_bytes, 12 * GIB - 2 * hypura_knee_first_reserve(16 * GIB),
                        12 * GIB - hypura_knee_calm_reserve(16 * GIB));
        run(&m, 30);
        m.others_bytes = 0;
        run(&m, 60);
        assert_true(m.sample.held_bytes > 16 * GIB - hypura_knee_calm_reserve(16 * GIB) - 64 * MIB);
    }
}

/* Somebody comes and goes every second: growing is for calm times. */
static void what_comes_and_goes_is_left_alone(void **state)
{
    (void)state;
    machine m = start(8 * GIB, 40 * GIB, 4 * GIB);
    for (int i = 0; i < 60; i++) {
        m.others_bytes = i % 2 == 0 ? 2 * GIB : 0;
        run(&m, 1.0);
    }
    assert_in_range(m.sample.held_bytes, 4 * GIB, 6 * GIB);
    assert_true(m.n_changes < 20);
}

/* Somebody takes memory slowly and lets go of it at once, again and again: the least of what is left counts, and not what is
 * left at the moment. */
static void what_is_free_for_a_moment_is_not_taken(void **state)
{
    (void)state;
    machine m = start(16 * GIB, 40 * GIB, 8 * GIB);
    run(&m, 60);
    for (int turn = 0; turn < 30; turn++) {
        m.n_changes = turn == 5 ? 0 : m.n_changes;
        for (int i = 0; i < 50; i++) {
            m.others_bytes += 20 * MIB;
            step(&m, 50000);
        }
        m.others_bytes = 0;
    }
    assert_int_equal(m.n_changes, 0);
    assert_in_range(m.sample.held_bytes, 13 * GIB, 15 * GIB);
}

/* Who looks twice a second sees others when they may have taken a GB: that is left to them. */
static void who_looks_seldom_leaves_more(void **state)
{
    (void)state;
    machine m = start(16 * GIB, 40 * GIB, 8 * GIB);
    for (int i = 0; i < 200; i++) {
        step(&m, 450000);
    }
    assert_in_range(m.sample.held_bytes, 15 * GIB, 16 * GIB - 900000000);
}

/* Somebody else asked for less than there was before the last growth: that was not slower because there was more. */
static void what_was_asked_for_is_no_growth(void **state)
{
    (void)state;
    machine m = start(16 * GIB, 40 * GIB, 2 * GIB);
    while (m.n_changes == 0) {
        step(&m, 50000);
    }
    m.sample.held_bytes = GIB;
    m.knee_bytes = 512 * MIB;
    for (int i = 0; i < 30; i++) {
        step(&m, 50000);
        assert_true(m.n_changes == 1 || m.last == HYPURA_BUDGET_ROOM);
    }
}

static void nothing_missed_nothing_grown(void **state)
{
    (void)state;
    machine m = start(16 * GIB, 4 * GIB, 4 * GIB);
    run(&m, 60);
    assert_int_equal(m.n_changes, 0);
    machine idle = start(16 * GIB, 40 * GIB, 4 * GIB);
    idle.working = false;
    run(&idle, 60);
    assert_int_equal(idle.n_changes, 0);
    idle.others_bytes = 13 * GIB - 512 * MIB; /* shrinking is not for busy times alone */
    idle.sample.held_bytes = 3 * GIB;
    run(&idle, 1);
    assert_true(idle.sample.held_bytes < 3 * GIB);
}

static void promises_are_kept(void **state)
{
    (void)state;
    machine m = start(16 * GIB, 40 * GIB, 4 * GIB);
    m.sample.promised_bytes = 3 * GIB;
    run(&m, 60);
    assert_in_range(m.sample.held_bytes, 12 * GIB, 13 * GIB - hypura_knee_calm_reserve(16 * GIB));
    const uint64_t before = m.sample.held_bytes;
    m.sample.promised_bytes = GIB; /* two of them are taken now */
    m.others_bytes = 2 * GIB;
    run(&m, 10);
    assert_in_range(m.sample.held_bytes, before - MIB, before + MIB);
}

static void the_knee_is_found(void **state)
{
    (void)state;
    machine m = start(16 * GIB, 40 * GIB, 4 * GIB);
    m.knee_bytes = 9 * GIB;
    run(&m, 20);
    assert_int_equal(m.last, HYPURA_BUDGET_SLOWER);
    uint64_t beyond_us = 0;
    uint64_t below_us = 0;
    for (int i = 0; i < 20 * 120; i++) {
        step(&m, 50000);
        beyond_us += m.sample.held_bytes > m.knee_bytes ? 50000 : 0;
        below_us += m.sample.held_bytes < m.knee_bytes / 8 * 7 - 64 * MIB ? 50000 : 0;
    }
    assert_true(beyond_us < 120000000 / 20); /* it is tried again now and then */
    assert_int_equal(below_us, 0);
}

static void stalls_of_others_count_where_memory_is_short(void **state)
{
    (void)state;
    machine m = start(16 * GIB, 40 * GIB, 4 * GIB);
    m.others_bytes = 11 * GIB;
    run(&m, 3);
    const uint64_t before = m.sample.held_bytes;
    for (int i = 0; i < 25; i++) {
        m.sample.stall_us += 15000;
        step(&m, 50000);
    }
    assert_int_equal(m.last, HYPURA_BUDGET_PRESSURE);
    assert_true(m.sample.held_bytes < before);

    int n_pressed = 0;
    for (int i = 0; i < 400; i++) { /* they go on, whatever is given up: nothing more is */
        const int n_changes = m.n_changes;
        m.sample.stall_us += 15000;
        step(&m, 50000);
        n_pressed += m.n_changes > n_changes && m.last == HYPURA_BUDGET_PRESSURE;
    }
    assert_int_equal(n_pressed, 0);
    assert_true(m.sample.held_bytes >= before - 64 * MIB); /* and what was, comes back */

    machine roomy = start(16 * GIB, 4 * GIB, 4 * GIB); /* they stall in a group of their own */
    for (int i = 0; i < 400; i++) {
        roomy.sample.stall_us += 15000;
        step(&roomy, 50000);
    }
    assert_int_equal(roomy.n_changes, 0);
}

static void reserves_fit_the_machine(void **state)
{
    (void)state;
    for (uint64_t total = 64 * MIB; total < 1024 * GIB; total *= 2) {
        assert_true(hypura_knee_calm_reserve(total) <= hypura_knee_first_reserve(total));
        assert_true(hypura_knee_first_reserve(total) <= total / 4);
        assert_true(hypura_knee_calm_reserve(total) > 0);
    }
}

static void every_reason_has_a_name(void **state)
{
    (void)state;
    for (int r = HYPURA_BUDGET_FIXED; r <= HYPURA_BUDGET_ASKED; r++) {
        assert_string_not_equal(hypura_budget_reason_name((hypura_budget_reason)r), "unknown");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_slots_are_added_too),
        cmocka_unit_test(slots_that_take_long_are_kept),
        cmocka_unit_test(who_takes_memory_stops_a_slot),
        cmocka_unit_test(free_memory_is_used_up_to_the_reserve),
        cmocka_unit_test(what_others_take_is_given_up_in_time),
        cmocka_unit_test(what_comes_and_goes_is_left_alone),
        cmocka_unit_test(what_is_free_for_a_moment_is_not_taken),
        cmocka_unit_test(who_looks_seldom_leaves_more),
        cmocka_unit_test(what_was_asked_for_is_no_growth),
        cmocka_unit_test(nothing_missed_nothing_grown),
        cmocka_unit_test(promises_are_kept),
        cmocka_unit_test(the_knee_is_found),
        cmocka_unit_test(stalls_of_others_count_where_memory_is_short),
        cmocka_unit_test(reserves_fit_the_machine),
        cmocka_unit_test(every_reason_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
