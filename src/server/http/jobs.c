/*
 * jobs.c - see jobs.h.
 */
#include "server/http/jobs.h"

#include "base/status.h"

#include <pthread.h>
#include <stdlib.h>

/* jansson calls itself for each of the 2048 levels that it accepts, at 0.3 KiB and more. */
#define STACK_BYTES (2048 * 1024)

typedef struct job {
    struct job *next;
    void (*work)(void *user);
    void *user;
} job;

struct server_jobs {
    pthread_mutex_t lock;
    pthread_cond_t wake; /* work or closing */
    pthread_cond_t left; /* a thread ended */
    job *first;
    job **last;
    uint32_t n_waiting; /* jobs */
    uint32_t n_idle;    /* threads */
    uint32_t n_threads;
    uint32_t max_threads;
    bool closing;
};

static void *run_jobs(void *user)
{
    server_jobs *jobs = user;
    pthread_mutex_lock(&jobs->lock);
    for (;;) {
        while (!jobs->first && !jobs->closing) {
            jobs->n_idle++;
            pthread_cond_wait(&jobs->wake, &jobs->lock);
            jobs->n_idle--;
        }
        job *next = jobs->first;
        if (!next) {
            break;
        }
        jobs->first = next->next;
        if (!jobs->first) {
            jobs->last = &jobs->first;
        }
        jobs->n_waiting--;
        pthread_mutex_unlock(&jobs->lock);
        next->work(next->user);
        free(next);
        pthread_mutex_lock(&jobs->lock);
    }
    jobs->n_threads--;
    pthread_cond_signal(&jobs->left);
    pthread_mutex_unlock(&jobs->lock);
    return NULL;
}

hypura_status server_jobs_open(uint32_t max_threads, server_jobs **jobs, hypura_error *error)
{
    server_jobs *opened = calloc(1, sizeof(*opened));
    *jobs = opened;
    if (!opened) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for threads");
    }
    pthread_mutex_init(&opened->lock, NULL);
    pthread_cond_init(&opened->wake, NULL);
    pthread_cond_init(&opened->left, NULL);
    opened->last = &opened->first;
    opened->max_threads = max_threads;
    return HYPURA_OK;
}

/* With the lock held. */
static void start_thread(server_jobs *jobs)
{
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &attributes, run_jobs, jobs) == 0) {
        jobs->n_threads++;
    }
    pthread_attr_destroy(&attributes);
}

bool server_jobs_run(server_jobs *jobs, void (*work)(void *user), void *user)
{
    job *added = malloc(sizeof(*added));
    if (!added) {
        return false;
    }
    *added = (job){.work = work, .user = user};
    pthread_mutex_lock(&jobs->lock);
    if (jobs->n_idle <= jobs->n_waiting && jobs->n_threads < jobs->max_threads) {
        start_thread(jobs);
    }
    const bool taken = jobs->n_threads > 0;
    if (taken) {
        *jobs->last = added;
        jobs->last = &added->next;
        jobs->n_waiting++;
        pthread_cond_signal(&jobs->wake);
    }
    pthread_mutex_unlock(&jobs->lock);
    if (!taken) {
        free(added);
    }
    return taken;
}

void server_jobs_close(server_jobs *jobs)
{
    if (!jobs) {
        return;
    }
    pthread_mutex_lock(&jobs->lock);
    jobs->closing = true;
    pthread_cond_broadcast(&jobs->wake);
    while (jobs->n_threads > 0) {
        pthread_cond_wait(&jobs->left, &jobs->lock);
    }
    pthread_mutex_unlock(&jobs->lock);
    pthread_cond_destroy(&jobs->left);
    pthread_cond_destroy(&jobs->wake);
    pthread_mutex_destroy(&jobs->lock);
    free(jobs);
}
