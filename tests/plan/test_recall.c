/*
 * test_recall.c - what runs say of other shares of a model: of one made up so that the answer is known, and of
 * what cannot be known.
 */
#include "plan/recall.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#define MOST 1000.0

/* A machine on which a token computes 10 s, and 0.01 s more for each byte that it misses, misses this part of what is
 * expected, and reads each byte in so many times the drive's time. */
typedef struct machine {
    double misfit;
    double factor;
} machine;

static double expect(double held)
{
    return MOST * exp(-3.0 * held);
}

static hypura_lesson run(const machine *m, double held)
{
    const double read_bytes = m->misfit * expect(held);
    return (hypura_lesson){
        .held = held, .compute_s = 10.0 + 0.01 * read_bytes, .read_bytes = read_bytes, .read_factor = m->factor};
}

static plan_token ask(const hypura_lessons *lessons, double held)
{
    double expected_bytes[HYPURA_MAX_LESSONS];
    for (int i = 0; i < lessons->n; i++) {
        expected_bytes[i] = expect(lessons->items[i].held);
    }
    plan_token token = {
        .held = held, .compute_s = 10.0, .read_bytes = expect(held), .most_bytes = MOST, .read_factor = 1.5};
    plan_recall(lessons, expected_bytes, &token);
    return token;
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fmax(fabs(a), fabs(b));
}

static bool is_run(const plan_token *token, const hypura_lesson *lesson)
{
    return near(token->compute_s, lesson->compute_s) && near(token->read_bytes, lesson->read_bytes) &&
           near(token->read_factor, lesson->read_factor);
}

/* With as much held as in a run it is as it was. */
static void a_run_is_as_it_was(void **state)
{
    (void)state;
    const machine m = {.misfit = 0.7, .factor = 1.2};
    hypura_lessons lessons = {.n = 3, .items = {run(&m, 0.2), run(&m, 0.4), run(&m, 0.9)}};
    lessons.items[1].compute_s = 20.0;
    lessons.items[1].read_factor = 3.0;
    for (int i = 0; i < 3; i++) {
        const plan_token token = ask(&lessons, lessons.items[i].held);
        assert_true(is_run(&token, &lessons.items[i]));
        const hypura_lessons alone = {.n = 1, .items = {lessons.items[i]}};
        const plan_token again = ask(&alone, lessons.items[i].held);
        assert_true(is_run(&again, &lessons.items[i]));
    }
}

/* However far apart: reads are anything but a straight line there. */
static void between_two_runs_all_follows_what_is_missed(void **state)
{
    (void)state;
    const machine m = {.misfit = 0.7, .factor = 1.2};
    const hypura_lessons lessons = {.n = 2, .items = {run(&m, 0.1), run(&m, 0.9)}};
    for (double held = 0.1; held < 0.9; held += 0.1) {
        const plan_token token = ask(&lessons, held);
        const hypura_lesson truth = run(&m, held);
        assert_true(is_run(&token, &truth));
    }
}

/* How wrong the expectation was is a ratio: half way between four times and once is twice. */
static void misfits_are_mixed_as_ratios(void **state)
{
    (void)state;
    const hypura_lessons lessons = {.n = 2,
                                    .items = {{.held = 0.4, .compute_s = 11.0, .read_bytes = expect(0.4)},
                                              {.held = 0.6, .compute_s = 11.0, .read_bytes = expect(0.6) / 4.0}}};
    assert_true(near(ask(&lessons, 0.5).read_bytes, expect(0.5) / 2.0));
    const hypura_lessons one_read = {
        .n = 2,
        .items = {{.held = 0.4, .compute_s = 11.0, .read_bytes = expect(0.4) / 2.0}, {.held = 0.6, .compute_s = 11.0}}};
    assert_true(near(ask(&one_read, 0.5).read_bytes, expect(0.5) / 2.0));
    const hypura_lessons none_read = {.n = 2,
                                      .items = {{.held = 0.4, .compute_s = 11.0}, {.held = 0.6, .compute_s = 11.0}}};
    assert_true(near(ask(&none_read, 0.5).read_bytes, expect(0.5)));
}

static void factors_count_by_what_they_were_of(void **state)
{
    (void)state;
    const machine m = {.misfit = 1.0, .factor = 1.2};
    hypura_lessons lessons = {.n = 2, .items = {run(&m, 0.0), run(&m, 1.0)}};
    lessons.items[1].read_factor = 4.0; /* of 50 bytes, the other one of 1000 */
    const plan_token token = ask(&lessons, 0.2);
    assert_true(token.read_factor > 1.2 && token.read_factor < 1.4);
    lessons.items[0].read_factor = 0.0;
    assert_true(near(ask(&lessons, 0.2).read_factor, 4.0));
    lessons.items[1].read_factor = 0.0;
    assert_true(near(ask(&lessons, 0.2).read_factor, 1.5));
}

/* What the pieces cost in which it was computed is not carried to where little is missed. */
static void with_more_held_computing_nears_that_of_nothing_missed(void **state)
{
    (void)state;
    const machine m = {.misfit = 1.0, .factor = 1.2};
    const hypura_lessons lessons = {.n = 1, .items = {run(&m, 0.2)}};
    for (double held = 0.3; held <= 1.0; held += 0.1) {
        const plan_token token = ask(&lessons, held);
        const hypura_lesson truth = run(&m, held);
        assert_true(is_run(&token, &truth));
    }
    const hypura_lessons fast = {.n = 1, .items = {{.held = 0.2, .compute_s = 9.0, .read_bytes = 500.0}}};
    assert_true(near(ask(&fast, 0.9).compute_s, 9.0)); /* faster than the rates say: they do not know better */
    double expected_bytes[] = {expect(0.2)};
    plan_token unknown = {.held = 0.9, .read_bytes = expect(0.9), .most_bytes = MOST, .read_factor = 1.5};
    plan_recall(&lessons, expected_bytes, &unknown);
    assert_true(near(unknown.compute_s, lessons.items[0].compute_s));
}

static void little_reading_says_little_of_much(void **state)
{
    (void)state;
    const hypura_lessons lessons = {
        .n = 1, .items = {{.held = 0.9, .compute_s = 11.0, .read_bytes = 0.5 * expect(0.9), .read_factor = 4.0}}};
    const plan_token token = ask(&lessons, 0.1);
    assert_true(near(token.compute_s, 11.0));
    assert_true(token.read_bytes > 0.9 * expect(0.1) && token.read_bytes < expect(0.1));
    assert_true(token.read_factor > 1.5 && token.read_factor < 1.7);
    const plan_token beside = ask(&lessons, 0.88);
    assert_true(beside.read_bytes < 0.6 * expect(0.88) && beside.read_factor > 3.5);
}

static void nothing_is_read_that_is_not_there(void **state)
{
    (void)state;
    const machine m = {.misfit = 1.6, .factor = 1.2};
    const hypura_lessons lessons = {.n = 1, .items = {run(&m, 0.2)}};
    assert_true(near(ask(&lessons, 0.1).read_bytes, MOST));
    const hypura_lessons two = {.n = 2, .items = {run(&m, 0.15), run(&m, 0.9)}};
    assert_true(ask(&two, 0.16).read_bytes <= two.items[0].read_bytes);
}

/* A run that read nothing knows nothing of reading, nor one of which nothing was expected. */
static void what_is_not_known_is_left_as_it_was(void **state)
{
    (void)state;
    const hypura_lessons lessons = {.n = 1, .items = {{.held = 1.0, .compute_s = 12.0}}};
    const plan_token token = ask(&lessons, 0.5);
    assert_true(near(token.read_bytes, expect(0.5)) && near(token.read_factor, 1.5) && near(token.compute_s, 12.0));
    double none[] = {0.0};
    plan_token resident = {.held = 1.0, .compute_s = 10.0, .read_factor = 1.5};
    const machine m = {.misfit = 1.0, .factor = 1.2};
    const hypura_lessons paged = {.n = 1, .items = {run(&m, 0.2)}};
    plan_recall(&paged, none, &resident);
    assert_true(resident.read_bytes == 0.0 && near(resident.compute_s, 10.0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_is_as_it_was),
        cmocka_unit_test(between_two_runs_all_follows_what_is_missed),
        cmocka_unit_test(misfits_are_mixed_as_ratios),
        cmocka_unit_test(factors_count_by_what_they_were_of),
        cmocka_unit_test(with_more_held_computing_nears_that_of_nothing_missed),
        cmocka_unit_test(little_reading_says_little_of_much),
        cmocka_unit_test(nothing_is_read_that_is_not_there),
        cmocka_unit_test(what_is_not_known_is_left_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
