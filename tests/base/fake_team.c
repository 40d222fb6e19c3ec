/*
 * fake_team.c - see fake_team.h.
 */
#include "fake_team.h"

#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_key_t thread_of_team;
static int n_begun, n_there;
static unsigned n_threads;

static void team_ends(void *user)
{
    (void)user;
    pthread_mutex_lock(&lock);
    n_there--;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

void GOMP_parallel(void (*work)(void *), void *user, unsigned n, unsigned flags);

void GOMP_parallel(void (*work)(void *), void *user, unsigned n, unsigned flags)
{
    (void)flags;
    work(user);
    (void)pthread_setspecific(thread_of_team, &thread_of_team);
    pthread_mutex_lock(&lock);
    n_threads = n;
    n_begun++;
    n_there++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

bool fake_team_open(void)
{
    return pthread_key_create(&thread_of_team, team_ends) == 0;
}

void fake_team_await(int begun, int there)
{
    pthread_mutex_lock(&lock);
    while ((begun >= 0 && n_begun != begun) || n_there != there) {
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
}

static int read_locked(const int *number)
{
    pthread_mutex_lock(&lock);
    const int now = *number;
    pthread_mutex_unlock(&lock);
    return now;
}

int fake_team_begun(void)
{
    return read_locked(&n_begun);
}

int fake_team_there(void)
{
    return read_locked(&n_there);
}

unsigned fake_team_size(void)
{
    pthread_mutex_lock(&lock);
    const unsigned now = n_threads;
    pthread_mutex_unlock(&lock);
    return now;
}
