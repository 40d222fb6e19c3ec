/*
 * patience.c - see patience.h. The lock of each guards what its two threads share.
 */
#include "hw/patience.h"

#include "base/clock.h"
#include "base/status.h"
#include "base/thread.h"
#include "os/os.h"

#include <stdatomic.h>
#include <stdio.h>

#define S_US          UINT64_C(1000000)
#define LONGEST_US    (300 * S_US)
#define MOST_WAIT_US  (3600000 * S_US)
#define TICK_US       S_US
#define TICKS         10 /* at least, in a wait */
#define BUSY_SHARE    10 /* one part of so many of the time is no rest */

static _Atomic(uint64_t) wished_us; /* 0: none */
static void (*_Atomic told)(const char *device, const hypura_error *error);

void hypura_gpu_wait(double seconds)
{
    const double most = (double)MOST_WAIT_US;
    const double us = seconds * (double)S_US;
    atomic_store(&wished_us, us >= 1.0 ? (uint64_t)(us < most ? us : most) : 0);
}

uint64_t hypura_patience_wished_us(void)
{
    return atomic_load(&wished_us);
}

void hypura_patience_on_end(void (*end)(const char *device, const hypura_error *error))
{
    atomic_store(&told, end);
}

uint64_t hypura_patience_count(uint64_t waited_us, uint64_t us, uint64_t busy_us)
{
    if (busy_us * BUSY_SHARE <= us) {
        return waited_us + us;
    }
    return waited_us > BUSY_SHARE * us ? waited_us - BUSY_SHARE * us : 0;
}

/* With the lock, which it gives back. */
static void tell(hypura_patience *p)
{
    void (*const end)(const char *, const hypura_error *) = atomic_load(&told);
    hypura_error error = {0};
    char device[sizeof(p->device)];
    (void)snprintf(device, sizeof(device), "%s", p->device);
    (void)hypura_fail(&error, HYPURA_ERR_BACKEND,
                      "in %.0f s of waiting %s it gave no sign of life (HYPURA_GPU_SECONDS gives one as slow more)",
                      (double)p->waited_us / (double)S_US, p->what);
    pthread_mutex_unlock(&p->lock);
    if (end) {
        end(device, &error);
    }
    pthread_mutex_lock(&p->lock);
}

static uint64_t busy_since(uint64_t thread, uint64_t then_us)
{
    const uint64_t now_us = hypura_os_other_threads_us(thread);
    return now_us > then_us ? now_us - then_us : 0;
}

static void *watch(void *user)
{
    hypura_patience *p = user;
    const uint64_t wished = hypura_patience_wished_us();
    const uint64_t wait_us = wished > 0 ? wished : LONGEST_US;
    const uint64_t tick_us = wait_us / TICKS < TICK_US ? wait_us / TICKS : TICK_US;
    pthread_mutex_lock(&p->lock);
    while (!p->closing && p->waited_us < wait_us) {
        const uint64_t begin_us = hypura_clock_us();
        const uint64_t begin_busy_us = hypura_os_other_threads_us(p->waiter);
        const bool turned = hypura_cond_wait(&p->changed, &p->lock, tick_us);
        const uint64_t us = hypura_clock_us() - begin_us;
        if (!turned) {
            p->waited_us = hypura_patience_count(p->waited_us, us < 2 * tick_us ? us : 2 * tick_us,
                                                 busy_since(p->waiter, begin_busy_us));
        }
        if (!p->closing && p->waited_us >= wait_us) {
            tell(p);
        }
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void wait_for(hypura_patience *p, const char *device, const char *what)
{
    (void)snprintf(p->device, sizeof(p->device), "%s", device ? device : "");
    p->what = what;
    p->waited_us = 0;
}

hypura_status hypura_patience_open(hypura_patience *p, bool any, const char *device, const char *what, hypura_error *error)
{
    *p = (hypura_patience){.waiter = hypura_os_thread()};
    wait_for(p, device, what);
    if (!any) {
        return HYPURA_OK;
    }
    if (hypura_cond_init(&p->changed) != 0) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to watch GPUs");
    }
    (void)pthread_mutex_init(&p->lock, NULL);
    if (pthread_create(&p->watcher, NULL, watch, p) != 0) {
        (void)pthread_cond_destroy(&p->changed);
        (void)pthread_mutex_destroy(&p->lock);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no thread to watch GPUs");
    }
    p->watched = true;
    return HYPURA_OK;
}

void hypura_patience_turn(hypura_patience *p, const char *device, const char *what)
{
    if (p->watched) {
        pthread_mutex_lock(&p->lock);
        wait_for(p, device, what);
        pthread_mutex_unlock(&p->lock);
    }
}

void hypura_patience_close(hypura_patience *p)
{
    if (p->watched) {
        hypura_thread_end(p->watcher, &p->lock, &p->changed, &p->closing);
        (void)pthread_cond_destroy(&p->changed);
        (void)pthread_mutex_destroy(&p->lock);
        p->watched = false;
    }
}
