/*
 * thread.h - the few things that POSIX threads lack or spell differently.
 */
#ifndef HYPURA_BASE_THREAD_H
#define HYPURA_BASE_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* A condition whose timed waits run on the monotonic clock. 0 or an errno. */
static inline int hypura_cond_init(pthread_cond_t *cond)
{
#ifdef __APPLE__
    return pthread_cond_init(cond, NULL);
#else
    pthread_condattr_t attributes;
    int e = pthread_condattr_init(&attributes);
    if (e == 0) {
        e = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        if (e == 0) {
            e = pthread_cond_init(cond, &attributes);
        }
        (void)pthread_condattr_destroy(&attributes);
    }
    return e;
#endif
}

/* Waits until signalled or until timeout_us have passed (UINT64_MAX: for ever);
 * false on timeout. Spurious returns happen, as with every condition. */
static inline bool hypura_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t timeout_us)
{
    /* Longer than a century is for ever: the sum below cannot overflow. */
    if (timeout_us > UINT64_C(3000000000000000)) {
        return pthread_cond_wait(cond, mutex) == 0;
    }
#ifdef __APPLE__
    struct timespec span = {(time_t)(timeout_us / 1000000u), (long)(timeout_us % 1000000u) * 1000};
    return pthread_cond_timedwait_relative_np(cond, mutex, &span) == 0;
#else
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(timeout_us / 1000000u);
    until.tv_nsec += (long)(timeout_us % 1000000u) * 1000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    return pthread_cond_timedwait(cond, mutex, &until) == 0;
#endif
}

/* For a thread that looks for something again and again: lets the other one of its core go ahead. */
static inline void hypura_thread_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Ends a thread that runs until *stop, which the lock guards; it and others may wait for
 * `changed` meanwhile. The caller does not hold the lock. */
static inline void hypura_thread_end(pthread_t thread, pthread_mutex_t *lock, pthread_cond_t *changed, bool *stop)
{
    pthread_mutex_lock(lock);
    *stop = true;
    pthread_cond_broadcast(changed);
    pthread_mutex_unlock(lock);
    pthread_join(thread, NULL);
}

#endif
