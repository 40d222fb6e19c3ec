/* A worker's two threads: what the front says is carried out, and told, and nothing of it is under way when the model is
 * closed. Standard input is a pipe. */
#include "fixture.h"

#include "worker/control.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int front; /* writes to our standard input */
static hypura_control *control; /* stays until the process ends: the thread that hears may be in a read */

static void say(const char *line)
{
    assert_int_equal(write(front, line, strlen(line)), strlen(line));
}

/* Who computes: has slots in use from when it is ready until a moment after it is told to release them. */
typedef struct user {
    hypura_pager *pager;
    atomic_bool ready;
    atomic_bool go;
    atomic_bool released;
} user;

static void lease(hypura_pager *pager, int layer, const uint32_t *experts, uint32_t n, uint32_t *slots)
{
    assert_int_equal(hypura_pager_lease_experts(pager, layer, experts, n, slots), n);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(hypura_pager_wait_expert(pager, layer, slots[i], UINT32_MAX), HYPURA_OK);
    }
}

static void *compute(void *argument)
{
    user *u = argument;
    uint32_t all[FIXTURE_EXPERTS], slots[FIXTURE_EXPERTS], held[2];
    for (uint32_t i = 0; i < FIXTURE_EXPERTS; i++) {
        all[i] = i;
    }
    hypura_pager_enter(u->pager);
    for (int layer = 0; layer < FIXTURE_LAYERS - 1; layer++) { /* the first slots, which stay, are others' */
        lease(u->pager, layer, all, FIXTURE_EXPERTS, slots);
        for (uint32_t i = 0; i < FIXTURE_EXPERTS; i++) {
            hypura_pager_release_expert(u->pager, layer, slots[i]);
        }
    }
    lease(u->pager, FIXTURE_LAYERS - 1, all, 2, held);
    assert_true(held[0] > 0 && held[1] > 0);
    atomic_store(&u->ready, true);
    while (!atomic_load(&u->go)) {
        usleep(100);
    }
    usleep(50000); /* only a control that does not wait is done by then */
    atomic_store(&u->released, true);
    hypura_pager_release_expert(u->pager, FIXTURE_LAYERS - 1, held[0]);
    hypura_pager_release_expert(u->pager, FIXTURE_LAYERS - 1, held[1]);
    hypura_pager_leave(u->pager);
    return NULL;
}

static hypura_live_record told(const hypura_live *live)
{
    hypura_live_record record = {0};
    while (!hypura_live_read(live, &record)) {
        usleep(100); /* the writer was interrupted in the middle of it */
    }
    return record;
}

static uint32_t n_commands(const hypura_live *live)
{
    return told(live).n_commands;
}

static void a_command_ends_before_the_model_does(void **state)
{
    (void)state;
    fixture f;
    char path[] = "./hypura-live-XXXXXX";
    hypura_live *live = NULL;
    hypura_error error = {0};
    fixture_open(&f, &fixture_defaults);
    for (int t = 0; t < FIXTURE_DENSE; t++) { /* experts alone: what shrinks while a graph runs */
        f.placements[fixture_dense(t)] = (hypura_placement){.place = HYPURA_PLACE_RESIDENT, .pool = -1};
    }
    f.plan.n_ring_slots = 0;
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(hypura_live_create(path, &live, &error), HYPURA_OK);
    hypura_worker_model model = {.prepared = {.plan = &f.plan, .context = {.n_sequences = 1}}};
    atomic_store(&model.pager, fixture_open_pager(&f, NULL, NULL, NULL));
    user u = {.pager = atomic_load(&model.pager)};
    assert_int_equal(hypura_control_open(&model, live, &control, &error), HYPURA_OK);

    /* What is loaded is told at once, and not with the next look. */
    assert_int_equal(told(live).state, HYPURA_LIVE_LOADING);
    atomic_store(&model.loaded, true);
    model.on_loaded(model.progress_user);
    assert_int_equal(told(live).state, HYPURA_LIVE_LOADED);

    say("resize 1000000000\n");
    while (n_commands(live) < 1) {
        usleep(100);
    }
    const uint64_t most_bytes = hypura_pager_held(u.pager).now_bytes;
    assert_int_equal(most_bytes, hypura_pager_held(u.pager).most_bytes);

    /* Who hears is in a read by then, and holds nothing that exit() would wait for. */
    usleep(20000);
    assert_int_equal(ftrylockfile(stdin), 0);
    funlockfile(stdin);

    /* Shrinking waits for slots in use: it is under way until they are released. */
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, compute, &u), 0);
    while (!atomic_load(&u.ready)) {
        usleep(100);
    }
    say("resi");
    usleep(1000);
    say("ze 0\n");
    while (hypura_pager_held(u.pager).now_bytes == most_bytes) {
        usleep(100);
    }
    atomic_store(&u.go, true);
    hypura_control_close(control);
    assert_true(atomic_load(&u.released));
    assert_int_equal(n_commands(live), 2);
    pthread_join(thread, NULL);

    say("resize 1000000000\n"); /* heard by nobody */
    hypura_pager_close(u.pager);
    assert_int_equal(n_commands(live), 2);
    hypura_live_close(live);
    unlink(path);
    fixture_close(&f);
}

static atomic_uint_fast64_t turn;

static uint64_t count(void)
{
    return atomic_load(&turn);
}

/* Another process, which looks at turns for two seconds, of half a second at most; its exit code. busy: it is told something
 * all the time. */
static int watch(const char *path, uint64_t step, bool busy)
{
    const pid_t child = fork();
    if (child == 0) {
        hypura_live *live = NULL;
        hypura_error error = {0};
        hypura_plan plan = {.mode = HYPURA_MODE_RESIDENT};
        hypura_worker_model model = {.prepared = {.plan = &plan, .context = {.n_sequences = 1}}};
        if (hypura_live_open(path, &live, &error) != HYPURA_OK ||
            hypura_control_open(&model, live, &control, &error) != HYPURA_OK) {
            _exit(2);
        }
        atomic_store(&turn, 1);
        hypura_control_watch(control, count, 500000);
        for (int i = 0; i < 20; i++) {
            for (int k = 0; k < 20; k++) {
                if (busy) {
                    say("resize 0\n");
                }
                usleep(5000);
            }
            atomic_fetch_add(&turn, step);
        }
        _exit(0);
    }
    int status = 0;
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void a_choice_without_an_end_ends_the_engine(void **state)
{
    (void)state;
    char path[] = "./hypura-live-XXXXXX";
    hypura_live *live = NULL;
    hypura_live_record record = {0};
    hypura_error error = {0};
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(hypura_live_create(path, &live, &error), HYPURA_OK);
    assert_int_equal(watch(path, 2, false), 0); /* each time it looks another one is under way */
    assert_int_equal(watch(path, 2, true), 0);  /* it looks more often, and no more time has passed */
    assert_int_equal(watch(path, 0, false), 1);
    assert_true(hypura_live_read(live, &record));
    assert_int_equal(record.state, HYPURA_LIVE_FAILED);
    assert_int_equal(record.error.status, HYPURA_ERR_UNSUPPORTED);
    assert_non_null(strstr(record.error.message, "takes more than"));
    hypura_live_close(live);
    unlink(path);
}

int main(void)
{
    int ends[2];
    if (pipe(ends) != 0 || dup2(ends[0], STDIN_FILENO) < 0) {
        return 1;
    }
    front = ends[1];
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_choice_without_an_end_ends_the_engine),
                                       cmocka_unit_test(a_command_ends_before_the_model_does)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
