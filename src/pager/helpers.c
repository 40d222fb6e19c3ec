/*
 * helpers.c - threads beside the pager's own: one that touches the pools first, and
 * those that repack what was read.
 *
 * A read that ended and whose weight has a repacked form is not visible yet: its
 * slot stays FILLING while a job for it waits here, and becomes READY when a
 * helper has repacked it. So nobody else ever sees the bytes in between.
 */
#include "pager/internal.h"

#include "base/status.h"

#include <stdlib.h>

/* ---- first touch --------------------------------------------------------- */

static void *prefault_main(void *argument)
{
    pager_prefault(argument);
    return NULL;
}

/* ---- repacking ------------------------------------------------------------- */

void pager_push_job(hypura_pager *pager, uint64_t user)
{
    pager_jobs *jobs = &pager->jobs;
    jobs->users[jobs->tail++ & (jobs->capacity - 1)] = user;
    pthread_cond_signal(&pager->jobs_changed);
}

static void *helper_main(void *argument)
{
    hypura_pager *pager = argument;
    pager_jobs   *jobs = &pager->jobs;
    pthread_mutex_lock(&pager->lock);
    char *scratch = pager->scratch + (size_t)pager->n_helpers++ * hypura_repacker_scratch_bytes(pager->repacker);
    for (;;) {
        while (!pager->stop && jobs->head == jobs->tail) {
            pthread_cond_wait(&pager->jobs_changed, &pager->lock);
        }
        if (pager->stop) {
            break;
        }
        const uint64_t user = jobs->users[jobs->head++ & (jobs->capacity - 1)];
        const bool     chunk = pager_user_owner(user) == OWNER_CHUNK;
        pthread_mutex_unlock(&pager->lock);
        (chunk ? pager_repack_chunk : pager_repack_expert)(pager, user, scratch);
        pthread_mutex_lock(&pager->lock);
        (chunk ? pager_finish_chunk : pager_finish_expert)(pager, user);
        if (pager->n_waiting > 0) {
            pthread_cond_broadcast(&pager->changed);
        }
    }
    pthread_mutex_unlock(&pager->lock);
    return NULL;
}

/* ---- open, start, stop, close ------------------------------------------------ */

hypura_status pager_open_helpers(hypura_pager *pager, hypura_error *error)
{
    if (!pager->repack) {
        return HYPURA_OK;
    }
    if (pager->n_helpers_wanted > PAGER_MAX_HELPERS) {
        pager->n_helpers_wanted = PAGER_MAX_HELPERS;
    }
    if (hypura_repacker_open(pager->map, pager->plan, &pager->repacker, error) != HYPURA_OK) {
        return error->status;
    }
    const size_t bytes = hypura_repacker_scratch_bytes(pager->repacker);
    if (bytes == 0) {
        return HYPURA_OK;
    }
    pager->jobs.capacity = pager->queues[PAGER_DEMAND].capacity; /* what can be read can wait here */
    pager->jobs.users = malloc(pager->jobs.capacity * sizeof(*pager->jobs.users));
    pager->scratch = malloc(bytes * (size_t)pager->n_helpers_wanted);
    if (!pager->jobs.users || !pager->scratch) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %d threads that repack", pager->n_helpers_wanted);
    }
    return HYPURA_OK;
}

hypura_status pager_start_helpers(hypura_pager *pager, hypura_error *error)
{
    int result = 0;
    if (pager->n_pools > 0 && !pager->gpu) { /* memory that a GPU copies from is touched by its driver */
        result = pthread_create(&pager->prefault, NULL, prefault_main, pager);
        pager->prefault_started = result == 0;
    }
    for (int i = 0; pager->jobs.users && i < pager->n_helpers_wanted && result == 0; i++) {
        result = pthread_create(&pager->helpers[i], NULL, helper_main, pager);
        pager->n_helpers_started += result == 0;
    }
    return result == 0 ? HYPURA_OK : hypura_fail_errno(error, result, "a helper thread of the pager could not be started");
}

void pager_stop_helpers(hypura_pager *pager)
{
    if (pager->prefault_started) {
        pthread_join(pager->prefault, NULL);
    }
    pthread_mutex_lock(&pager->lock);
    pthread_cond_broadcast(&pager->jobs_changed);
    pthread_mutex_unlock(&pager->lock);
    for (int i = 0; i < pager->n_helpers_started; i++) {
        pthread_join(pager->helpers[i], NULL);
    }
}

void pager_close_helpers(hypura_pager *pager)
{
    hypura_repacker_close(pager->repacker);
    free(pager->jobs.users);
    free(pager->scratch);
}

const hypura_repack *hypura_pager_repack(const hypura_pager *pager, int tensor)
{
    return hypura_repacker_of(pager->repacker, tensor);
}
