/*
 * patience.c - see patience.h. A thread of its own begins the team, and takes it along when it ends: the library
 * keeps a team for as long as the thread that began it lives.
 */
#include "base/patience.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

typedef void (*begin_team)(void (*work)(void *), void *user, unsigned n_threads, unsigned flags);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool allowed;
static unsigned n_wishes;
static bool runs; /* the thread */
static unsigned team_size; /* with that thread */

/* So that the library manages one thread more than there are processors. */
static unsigned size_of_team(int n_compute)
{
    const long n_cpus = sysconf(_SC_NPROCESSORS_ONLN);
    return n_cpus > n_compute ? (unsigned)(n_cpus - n_compute) + 2 : 2;
}

/* What compilers call for a parallel region. Not there: another library, or none. */
static begin_team find_library(void)
{
    void *function = dlsym(RTLD_DEFAULT, "GOMP_parallel");
    begin_team begin = NULL;
    memcpy(&begin, &function, sizeof begin);
    return begin;
}

static void nothing(void *user)
{
    (void)user;
}

static void *hold_team(void *user)
{
    (void)user;
    const begin_team begin = find_library();
    pthread_mutex_lock(&lock);
    const unsigned size = team_size;
    pthread_mutex_unlock(&lock);
    begin(nothing, NULL, size, 0);
    pthread_mutex_lock(&lock);
    while (n_wishes > 0) {
        pthread_cond_wait(&changed, &lock);
    }
    runs = false;
    pthread_mutex_unlock(&lock);
    return NULL;
}

void hypura_patience_allow(bool on)
{
    pthread_mutex_lock(&lock);
    allowed = on && find_library() != NULL;
    pthread_mutex_unlock(&lock);
}

bool hypura_patience_can_change(void)
{
    return find_library() != NULL;
}

/* Where no thread can be had they stay patient, which is slower beside others, and no more. */
void hypura_patience_wish_short(int n_compute)
{
    pthread_mutex_lock(&lock);
    n_wishes++;
    if (allowed && !runs) {
        pthread_attr_t attributes;
        pthread_t thread;
        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        team_size = size_of_team(n_compute);
        runs = pthread_create(&thread, &attributes, hold_team, NULL) == 0;
        pthread_attr_destroy(&attributes);
    }
    pthread_mutex_unlock(&lock);
}

void hypura_patience_take_back(void)
{
    pthread_mutex_lock(&lock);
    if (--n_wishes == 0) {
        pthread_cond_signal(&changed);
    }
    pthread_mutex_unlock(&lock);
}
