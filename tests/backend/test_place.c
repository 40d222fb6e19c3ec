/*
 * test_place.c - where the threads of a team are, that the calling one can be let go, and that all are where others have most
 * of the processors; and that a user who moves them is followed.
 */
#include "backend/internal.h"
#include "base/clock.h"
#include "os/os.h"

#include "ggml-cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MOST = 1024 };

typedef struct seen {
    int n_allowed[MOST];
    int first[MOST];
} seen;

static void look(struct ggml_tensor *node, int thread, int n_threads, void *user)
{
    (void)node;
    (void)n_threads;
    seen *all = user;
    all->n_allowed[thread] = hypura_os_processors(&all->first[thread], 1);
}

/* A graph of the team's, which notes where its threads may run. */
static void look_around(backend_instance *instance, seen *all)
{
    const struct ggml_custom_op_params params = {.fun = look, .n_tasks = GGML_N_TASKS_MAX, .userdata = all};
    shadow_begin(instance);
    struct ggml_tensor *node = shadow_tensor(instance, GGML_TYPE_I32, 1, 1, 1, all);
    node->op = GGML_OP_CUSTOM;
    memcpy(node->op_params, &params, sizeof(params));
    shadow_add(instance, node);
    assert_int_equal(shadow_run(instance), GGML_STATUS_SUCCESS);
}

static void each_has_a_processor_of_its_own(void **state)
{
    (void)state;
    static int  processors[MOST];
    static seen all;
    const int   n = hypura_os_processors(processors, MOST);
    if (n < 2 || n > MOST) {
        skip(); /* one thread makes no team */
    }
    backend_instance instance = {.n_threads = 0};
    assert_true(backend_open_worker(&instance));
    backend_set_worker_threads(&instance, n);

    shadow_begin(&instance);
    backend_place_team(&instance, NULL, 0);
    backend_place_team(&instance, processors, n - 1); /* of another team */
    look_around(&instance, &all);
    for (int i = 0; i < n; i++) {
        assert_int_equal(all.n_allowed[i], n);
    }

    for (int time = 0; time < 2; time++) { /* the second time it is the calling one alone that goes back */
        shadow_begin(&instance);
        backend_place_team(&instance, processors, n);
        look_around(&instance, &all);
        for (int i = 0; i < n; i++) {
            assert_int_equal(all.n_allowed[i], 1);
            assert_int_equal(all.first[i], processors[i]);
        }
        backend_wait_ends(&instance); /* between two parts of a graph */
        backend_wait_ends(&instance);
        look_around(&instance, &all);
        assert_int_equal(all.n_allowed[0], 1);
        backend_wait_ends(&instance);
        look_around(&instance, &all);
        assert_int_equal(all.n_allowed[0], n);
        assert_int_equal(all.n_allowed[1], 1);
    }

    /* Two seconds later: others had most of the processors meanwhile; then nothing. */
    uint64_t others_us;
    const bool known = hypura_os_others_us(&others_us) && others_us > 2000000;
    for (int time = 0; time < 2 && known; time++) {
        const int n_expected = time == 0 ? n : 1;
        assert_true(hypura_os_others_us(&others_us));
        instance.placed = (hypura_since){hypura_clock_us() - 2000000, time == 0 ? others_us - 2000000 : others_us, true};
        shadow_begin(&instance);
        backend_place_team(&instance, processors, n);
        look_around(&instance, &all);
        for (int i = 0; i < n; i++) {
            assert_int_equal(all.n_allowed[i], n_expected);
        }
        shadow_begin(&instance);
        backend_place_team(&instance, processors, n); /* the calling thread stays as it was told */
        look_around(&instance, &all);
        assert_int_equal(all.n_allowed[0], n_expected);
    }
    backend_let_team_go(&instance);
    look_around(&instance, &all);
    for (int i = 0; i < n; i++) {
        assert_int_equal(all.n_allowed[i], n);
    }
    backend_close_worker(&instance);
}

/* As taskset does it, at any moment. */
static void who_is_moved_stays_there(void **state)
{
    (void)state;
    static int  processors[MOST];
    static seen all;
    const int   n = hypura_os_processors(processors, MOST);
    if (n < 2 || n > MOST) {
        skip();
    }
    for (int when = 0; when < 3; when++) {
        backend_instance instance = {.n_threads = 0};
        assert_true(backend_open_worker(&instance));
        backend_set_worker_threads(&instance, n);
        shadow_begin(&instance);
        backend_place_team(&instance, processors, n);
        look_around(&instance, &all);
        for (int i = 0; when == 1 && i < 3; i++) {
            backend_wait_ends(&instance);
        }
        assert_true(hypura_os_thread_keep_to(&processors[1], 1));
        for (int i = 0; when != 1 && i < 3; i++) {
            backend_wait_ends(&instance);
        }
        for (int time = 0; time < 2; time++) {
            if (when == 2) {
                backend_let_team_go(&instance);
            } else {
                shadow_begin(&instance);
                backend_place_team(&instance, processors, n);
            }
            look_around(&instance, &all);
            for (int i = 0; i < n; i++) {
                assert_int_equal(all.n_allowed[i], 1);
                assert_int_equal(all.first[i], processors[1]);
            }
        }
        assert_true(hypura_os_thread_keep_to(processors, n));
        backend_close_worker(&instance);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_has_a_processor_of_its_own),
                                       cmocka_unit_test(who_is_moved_stays_there)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
