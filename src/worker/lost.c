/*
 * lost.c - see lost.h. What always holds: nothing that was thrown or aborted by a GPU's backend is taken for an answer.
 */
#include "worker/lost.h"

#include "base/clock.h"
#include "engine/llama/end.h"
#include "engine/llama/gpu.h"
#include "engine/llama/llama_log.h"
#include "hw/remote.h"
#include "worker/shim.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static hypura_control *told;
static const char *names;

/* ---- what was learned ------------------------------------------------------------ */

#define LONGEST_SAVE_US 5000000u /* a small file, for good: a busy drive takes two seconds and more */
#define LOOK_NS         1000000

static _Atomic(void *) learner;
static void (*_Atomic learned)(void *user);
static atomic_bool is_saved;

void hypura_lost_keep(void (*save)(void *user), void *user)
{
    atomic_store(&learner, user);
    atomic_store(&learned, save);
}

static void *save_learned(void *user)
{
    void (*const save)(void *) = atomic_load(&learned);
    (void)user;
    if (save) {
        save(atomic_load(&learner));
    }
    atomic_store(&is_saved, true);
    return NULL;
}

/* The thread that ends the process may hold whatever its driver let it take. */
static void keep_learned(void)
{
    static const struct timespec look = {0, LOOK_NS};
    const uint64_t until_us = hypura_clock_us() + LONGEST_SAVE_US;
    pthread_t thread;
    if (pthread_create(&thread, NULL, save_learned, NULL) != 0) {
        return;
    }
    (void)pthread_detach(thread);
    while (!atomic_load(&is_saved) && hypura_clock_us() < until_us) {
        (void)nanosleep(&look, NULL);
    }
}

/* ---- the end ------------------------------------------------------------------------ */

static void end(const hypura_error *error)
{
    keep_learned();
    hypura_control_failed(told, error);
    fprintf(stderr, "hypura-engine: %s\n", error->message);
    _exit(1);
}

static void on_silence(const char *reason)
{
    hypura_error error = {0};
    (void)hypura_log_fail(&error, HYPURA_ERR_BACKEND, "%s", reason);
    hypura_gpus_explain(names, true, &error);
    end(&error);
}

void hypura_lost_watch(hypura_control *control, const char *gpus)
{
    if (gpus[0] == '\0') {
        return;
    }
    told = control;
    names = gpus;
    hypura_end_name(gpus);
    hypura_on_end(end);
    hypura_remote_on_lost(end);
    hypura_shim_watch(on_silence);
}
