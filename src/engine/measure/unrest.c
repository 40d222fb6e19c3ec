/*
 * unrest.c - see unrest.h.
 */
#include "engine/measure/unrest.h"

#include "base/status.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

struct hypura_unrest {
    hypura_model *model;
    hypura_held held; /* at first */
    pthread_t thread;
    atomic_bool stop;
    uint64_t n_resizes;
};

static void *unrest_main(void *argument)
{
    static const struct timespec pause = {0, 1000 * 1000};
    hypura_unrest *unrest = argument;
    const uint64_t range = unrest->held.now_bytes - unrest->held.least_bytes + 1;
    uint64_t random = UINT64_C(0x9E3779B97F4A7C15);
    uint64_t last_bytes = unrest->held.now_bytes;
    while (!atomic_load(&unrest->stop)) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        const uint64_t bytes = hypura_model_resize(unrest->model, unrest->held.least_bytes + random % range);
        unrest->n_resizes += bytes != last_bytes;
        last_bytes = bytes;
        (void)nanosleep(&pause, NULL);
    }
    return NULL;
}

hypura_status hypura_unrest_begin(hypura_model *model, hypura_unrest **unrest, hypura_error *error)
{
    hypura_unrest *begun = calloc(1, sizeof(*begun));
    *unrest = NULL;
    if (!begun) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a thread that resizes");
    }
    begun->model = model;
    begun->held = hypura_model_held(model);
    const int result = pthread_create(&begun->thread, NULL, unrest_main, begun);
    if (result != 0) {
        free(begun);
        return hypura_fail_errno(error, result, "the thread that resizes could not be started");
    }
    *unrest = begun;
    return HYPURA_OK;
}

uint64_t hypura_unrest_end(hypura_unrest *unrest)
{
    if (!unrest) {
        return 0;
    }
    atomic_store(&unrest->stop, true);
    pthread_join(unrest->thread, NULL);
    hypura_model_resize(unrest->model, unrest->held.now_bytes);
    const uint64_t n_resizes = unrest->n_resizes;
    free(unrest);
    return n_resizes;
}
