/*
 * place.c - a processor for each thread of the team, where it has one for each. No state but the instance's.
 *
 * Threads that slept while something was read are given a processor anew as they wake. Where all have one to compute on, the
 * system now and then puts two on the same, with another one idle, and does not see it before the next time slice: all
 * others wait for the second of them at a barrier. So each keeps to one of its own (docs/notes/0074). The calling
 * thread is its program's, and threads that it starts would keep there too: it does so while it computes, and is let go
 * where libllama waits for what was computed. ggml's scheduler waits too, once or twice for what one backend hands to the next;
 * behind the last part libllama does so again and again, to hand out logits and before the next batch.
 *
 * Once a second it is looked at anew: threads that were started since go to their places, and where others have most of
 * the time of all processors the team may run anywhere, as there each of them would share with somebody.
 *
 * Where the calling thread may run is looked at before it is told: a user who has said otherwise since (taskset) is followed, with
 * the whole team, for as long as the instance lives.
 */
#include "backend/internal.h"

#include "base/clock.h"
#include "os/os.h"
#include "predict/look.h"

#include "ggml-cpu.h"

#include <string.h>

#define AGAIN_US 1000000u
#define LAST_WAIT 3
#define MOST_PROCESSORS 1024 /* that a user may have left */

typedef struct places {
    const int *processors;
    int n;
    int n_threads; /* of the team; of another one nothing is told */
    bool kept;     /* n is n_threads then */
} places;

/* Each of the team's threads. */
static void place(struct ggml_tensor *node, int thread, int n_threads, void *user)
{
    const places *all = user;
    (void)node;
    if (n_threads == all->n_threads) {
        (void)hypura_os_thread_keep_to(all->kept ? &all->processors[thread] : all->processors, all->kept ? 1 : all->n);
    }
}

/* Whether the processors are left to others, by what these had since. */
static bool are_others_many(const hypura_since *then, const hypura_since *now)
{
    return then->at_us > 0 && then->known && now->known && now->counted_us > then->counted_us &&
           hypura_look_gives_places_up(now->at_us - then->at_us, now->counted_us - then->counted_us);
}

static bool run_place(backend_instance *instance, places *all)
{
    const struct ggml_custom_op_params params = {.fun = place, .n_tasks = GGML_N_TASKS_MAX, .userdata = all};
    struct ggml_tensor *node = shadow_tensor(instance, GGML_TYPE_I32, 1, 1, 1, all);
    node->op = GGML_OP_CUSTOM;
    memcpy(node->op_params, &params, sizeof(params));
    shadow_add(instance, node);
    return shadow_run(instance) == GGML_STATUS_SUCCESS;
}

/* Where the calling thread may run: as it was told last, or where nobody here told it to. */
typedef enum whereabouts { ON_ITS_OWN, ON_ALL, ELSEWHERE } whereabouts;

static whereabouts find_caller(const backend_instance *instance)
{
    return hypura_os_thread_keeps_to(instance->processors, 1)                        ? ON_ITS_OWN
           : hypura_os_thread_keeps_to(instance->processors, instance->n_processors) ? ON_ALL
                                                                                     : ELSEWHERE;
}

static void follow_user(backend_instance *instance)
{
    int left[MOST_PROCESSORS];
    const int n = hypura_os_processors(left, MOST_PROCESSORS);
    places all = {left, n, instance->n_processors, false};
    instance->moved = true;
    instance->keeps_places = false;
    if (n > 0 && n <= MOST_PROCESSORS) {
        (void)run_place(instance, &all);
    }
}

void backend_place_team(backend_instance *instance, const int *processors, int n)
{
    if (n == 0 || instance->n_threads != n || instance->graph.n_nodes > 0 || instance->moved) {
        return;
    }
    const whereabouts caller = instance->placed.at_us > 0 ? find_caller(instance) : ON_ALL;
    if (caller == ELSEWHERE) {
        follow_user(instance);
        return;
    }
    instance->n_waits = 0;
    if (instance->placed.at_us > 0 && hypura_clock_us() - instance->placed.at_us < AGAIN_US) {
        if (instance->keeps_places && caller == ON_ALL) {
            (void)hypura_os_thread_keep_to(&processors[0], 1);
        }
        return;
    }
    const hypura_since now = hypura_since_look(hypura_os_others_us);
    places all = {processors, n, n, !are_others_many(&instance->placed, &now)};
    if (run_place(instance, &all)) {
        instance->placed = now;
        instance->processors = processors;
        instance->n_processors = n;
        instance->keeps_places = all.kept;
    }
}

static void let_caller_go(const backend_instance *instance)
{
    if (find_caller(instance) == ON_ITS_OWN) {
        (void)hypura_os_thread_keep_to(instance->processors, instance->n_processors);
    }
}

void backend_wait_ends(backend_instance *instance)
{
    if (instance->keeps_places && ++instance->n_waits == LAST_WAIT) {
        let_caller_go(instance);
    }
}

void backend_let_team_go(backend_instance *instance)
{
    places all = {instance->processors, instance->n_processors, instance->n_processors, false};
    if (instance->keeps_places) {
        instance->abort = NULL;
        instance->read_failed = false;
        shadow_begin(instance);
        if (find_caller(instance) == ELSEWHERE) {
            follow_user(instance);
            return;
        }
        (void)run_place(instance, &all);
        let_caller_go(instance);
        instance->keeps_places = false;
    }
}
