/* When the team that makes others impatient is there. GNU's OpenMP is played by this program. */
#include "base/patience.h"

#include "fake_team.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

static void nothing_happens_before_it_is_allowed(void **state)
{
    (void)state;
    assert_true(hypura_patience_can_change());
    hypura_patience_wish_short(1);
    hypura_patience_take_back();
    hypura_patience_allow(false);
    hypura_patience_wish_short(1);
    hypura_patience_take_back();
    assert_int_equal(fake_team_begun(), 0);
}

static void one_team_is_there_while_anybody_wishes(void **state)
{
    (void)state;
    hypura_patience_allow(true);
    hypura_patience_wish_short(1);
    fake_team_await(1, 1);
    assert_int_equal(fake_team_size(), (unsigned)sysconf(_SC_NPROCESSORS_ONLN) + 1); /* and one that computes */
    hypura_patience_wish_short(1);
    hypura_patience_take_back();
    fake_team_await(1, 1);
    hypura_patience_take_back();
    fake_team_await(1, 0);
}

static void it_comes_again(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        hypura_patience_wish_short(1);
        fake_team_await(2 + i, 1);
        hypura_patience_take_back();
        fake_team_await(2 + i, 0);
    }
}

static void as_few_as_do(void **state)
{
    (void)state;
    const int n_cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
    const int n_compute[] = {n_cpus, n_cpus + 1, 3 * n_cpus};
    for (int i = 0; i < 3; i++) {
        hypura_patience_wish_short(n_compute[i]);
        fake_team_await(5 + i, 1);
        assert_int_equal(fake_team_size(), 2);
        hypura_patience_take_back();
        fake_team_await(5 + i, 0);
    }
}

static void wishes_may_change_at_any_rate(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++) {
        hypura_patience_wish_short(1);
        hypura_patience_take_back();
    }
    hypura_patience_wish_short(1);
    fake_team_await(-1, 1);
    hypura_patience_take_back();
    fake_team_await(-1, 0);
}

/* The thread that holds it is woken by each wish taken back, and finds another one. */
static void it_stays_when_wished_again_at_once(void **state)
{
    (void)state;
    hypura_patience_wish_short(1);
    fake_team_await(-1, 1);
    for (int i = 0; i < 100; i++) {
        hypura_patience_take_back();
        hypura_patience_wish_short(1);
        (void)usleep(1000); /* for it to end where it should not */
        fake_team_await(-1, 1);
    }
    hypura_patience_take_back();
    fake_team_await(-1, 0);
}

int main(void)
{
    if (!fake_team_open()) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_happens_before_it_is_allowed),
        cmocka_unit_test(one_team_is_there_while_anybody_wishes),
        cmocka_unit_test(it_comes_again),
        cmocka_unit_test(as_few_as_do),
        cmocka_unit_test(wishes_may_change_at_any_rate),
        cmocka_unit_test(it_stays_when_wished_again_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
