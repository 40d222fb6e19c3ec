/*
 * test_patience.c - threads that compute wait for each other shortly while much is read, and for longer while the
 * drive rests. GNU's OpenMP is played by this program: its team is there while they wait shortly.
 */
#include "fixture.h"

#include "../base/fake_team.h"

#include "base/patience.h"
#include "pager/pager.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

static const fixture_options shape = {
    .expert_bytes = {8192, 16384, 12320}, .n_slots = 2, .n_ring_slots = 3, .pinned_rows = 0};

static int64_t be_slow(void *user, uint64_t nth, int64_t result)
{
    (void)user;
    (void)nth;
    (void)usleep(2000);
    return result;
}

static hypura_pager *open_pager(fixture *f, int n_compute)
{
    hypura_pager *pager = NULL;
    hypura_error  error = {0};
    const hypura_pager_options options = {.map = &f->map, .plan = &f->plan, .hook = be_slow, .n_compute = n_compute};
    if (hypura_pager_open(&options, &pager, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    return pager;
}

/* Each of them is read again, as two have slots. */
static void read_one(hypura_pager *pager, uint32_t expert)
{
    uint32_t slot;
    assert_int_equal(hypura_pager_lease_experts(pager, 0, &expert, 1, &slot), 1);
    assert_int_equal(hypura_pager_wait_expert(pager, 0, slot, UINT32_MAX), HYPURA_OK);
    hypura_pager_release_expert(pager, 0, slot);
}

static void many_threads_wait_as_the_drive_does(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &shape);
    hypura_pager *pager = open_pager(&f, 8);
    fake_team_await(-1, 1);
    for (int twice = 0; twice < 2; twice++) {
        while (fake_team_there() > 0) {
            (void)usleep(1000);
            hypura_pager_add_time(pager, 0, 0, false);
        }
        hypura_pager_enter(pager);
        for (uint32_t i = 0; fake_team_there() == 0; i++) {
            read_one(pager, i % FIXTURE_EXPERTS);
            hypura_pager_add_time(pager, 0, 0, false);
        }
        hypura_pager_leave(pager);
    }
    hypura_pager_close(pager);
    fake_team_await(-1, 0);
    fixture_close(&f);
}

static void few_threads_wait_shortly(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &shape);
    const int n_begun = fake_team_begun();
    hypura_pager *pager = open_pager(&f, 7);
    fake_team_await(n_begun + 1, 1);
    for (int i = 0; i < 1000; i++) {
        (void)usleep(1000);
        hypura_pager_add_time(pager, 0, 0, false);
    }
    fake_team_await(n_begun + 1, 1);
    hypura_pager_close(pager);
    fake_team_await(n_begun + 1, 0);
    fixture_close(&f);
}

static void a_pager_that_waits_for_longer_takes_nothing_back(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, &shape);
    hypura_patience_wish_short(1); /* somebody else's */
    hypura_pager *pager = open_pager(&f, 8);
    for (int i = 0; i < 1000; i++) {
        (void)usleep(1000);
        hypura_pager_add_time(pager, 0, 0, false);
    }
    hypura_pager_close(pager);
    assert_int_equal(fake_team_there(), 1);
    hypura_patience_take_back();
    fake_team_await(-1, 0);
    fixture_close(&f);
}

int main(void)
{
    if (!fake_team_open()) {
        return 1;
    }
    hypura_patience_allow(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_threads_wait_as_the_drive_does),
        cmocka_unit_test(few_threads_wait_shortly),
        cmocka_unit_test(a_pager_that_waits_for_longer_takes_nothing_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
