/*
 * helpers.c - threads beside the pager's own: one that touches the pools first, and
 * those that repack what was read.
 *
 * A read that ended and whose weight has a repacked form is not visible yet: its
 * slot stays FILLING while a job for it waits here, and becomes READY when helpers
 * have repacked all of it. So nobody else ever sees the bytes in between.
 */
#include "pager/internal.h"

#include "base/status.h"
#include "os/os.h"
#include "predict/look.h"

#include <assert.h>
#include <stdlib.h>

/* ---- first touch --------------------------------------------------------- */

static void *prefault_main(void *argument)
{
    pager_prefault(argument);
    return NULL;
}

/* ---- repacking ------------------------------------------------------------- */

void pager_push_job(hypura_pager *pager, const pager_job *job)
{
    pager_jobs *jobs = &pager->jobs;
    assert(jobs->tail - jobs->head < jobs->capacity);
    jobs->jobs[jobs->tail++ & (jobs->capacity - 1)] = *job;
    pthread_cond_signal(&pager->jobs_changed);
}

/* With the lock held, which it drops meanwhile: the job that waits longest. */
static void run_job(hypura_pager *pager, char *scratch)
{
    pager_jobs     *jobs = &pager->jobs;
    const pager_job job = jobs->jobs[jobs->head++ & (jobs->capacity - 1)];
    const bool      chunk = pager_user_owner(job.user) == OWNER_CHUNK;
    const bool      wake = jobs->full;
    jobs->full = false;
    pthread_mutex_unlock(&pager->lock);
    if (wake) {
        hypura_io_wake(pager->io);
    }
    (chunk ? pager_repack_chunk : pager_repack_expert)(pager, &job, scratch);
    pthread_mutex_lock(&pager->lock);
    (chunk ? pager_finish_chunk : pager_finish_expert)(pager, job.user);
    pager_tell(pager);
}

static void *helper_main(void *argument)
{
    hypura_pager *pager = argument;
    pager_jobs   *jobs = &pager->jobs;
    hypura_os_thread_be_prompt();
    pthread_mutex_lock(&pager->lock);
    char *scratch = pager->scratch + (size_t)pager->n_helpers++ * hypura_repacker_scratch_bytes(pager->repacker);
    while (!pager->stop) {
        if (jobs->head == jobs->tail) {
            pthread_cond_wait(&pager->jobs_changed, &pager->lock);
        } else {
            run_job(pager, scratch);
        }
    }
    pthread_mutex_unlock(&pager->lock);
    return NULL;
}

/* ---- open, start, stop, close ------------------------------------------------ */

int hypura_pager_repack_threads(int n_compute_threads)
{
    const int idle = hypura_os_cpu_count() - n_compute_threads;
    const int least = (n_compute_threads + 3) / 4;
    const int wanted = idle > least ? idle : least;
    return wanted < PAGER_MAX_HELPERS ? wanted : PAGER_MAX_HELPERS;
}

bool hypura_pager_gives_way(int n_compute_threads)
{
    return n_compute_threads >= hypura_os_cpu_count();
}

bool hypura_pager_looks(int n_compute_threads, hypura_form form)
{
    const int n_helpers = form == HYPURA_FORM_FILE ? 0 : hypura_pager_repack_threads(n_compute_threads);
    return hypura_look_has_room(hypura_os_cpu_count(), n_compute_threads, n_helpers + 1);
}

hypura_status pager_open_helpers(hypura_pager *pager, hypura_error *error)
{
    if (pager->form == HYPURA_FORM_FILE) {
        return HYPURA_OK;
    }
    if (pager->n_helpers_wanted > PAGER_MAX_HELPERS) {
        pager->n_helpers_wanted = PAGER_MAX_HELPERS;
    }
    if (hypura_repacker_open(pager->map, pager->plan, pager->form, &pager->repacker, error) != HYPURA_OK) {
        return error->status;
    }
    const size_t bytes = hypura_repacker_scratch_bytes(pager->repacker);
    if (bytes == 0) {
        return HYPURA_OK;
    }
    pager->jobs.capacity = pager->io_max_reads * PAGER_JOBS_OF_READ;
    pager->jobs.jobs = malloc(pager->jobs.capacity * sizeof(*pager->jobs.jobs));
    pager->scratch = malloc(bytes * (size_t)pager->n_helpers_wanted);
    if (!pager->jobs.jobs || !pager->scratch) {
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
    for (int i = 0; pager->jobs.jobs && i < pager->n_helpers_wanted && result == 0; i++) {
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
    free(pager->jobs.jobs);
    free(pager->scratch);
}

const hypura_repack *hypura_pager_repack(const hypura_pager *pager, int tensor)
{
    return hypura_repacker_of(pager->repacker, tensor);
}
