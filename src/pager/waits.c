/*
 * waits.c - threads that compute wait for what is read, and are told when it came.
 *
 * One alone waits for `changed`: anything new. A team waits for one thing together, and all
 * but the first, whose wait is timed, for `arrived`: its end. Where processors are to spare they
 * all look for that end in its last part, without the lock (predict/look.h).
 */
#include "pager/internal.h"

#include "base/clock.h"
#include "base/thread.h"
#include "predict/look.h"

#define LOOKS_OF_A_CLOCK 16

static void count_wait(hypura_pager *pager, uint64_t begin_us)
{
    const uint64_t waited_us = hypura_clock_us() - begin_us;
    pager->waited_us += waited_us;
    pager->statistics.read_wait_s += (double)waited_us * 1e-6;
}

void pager_wait(hypura_pager *pager)
{
    const uint64_t begin_us = hypura_clock_us();
    pager->n_waiting++;
    pthread_cond_wait(&pager->changed, &pager->lock);
    pager->n_waiting--;
    count_wait(pager, begin_us);
}

void pager_tell(hypura_pager *pager)
{
    if (pager->news && pager->n_waiting > 0) {
        pthread_cond_broadcast(&pager->changed);
    }
    if (pager->news && pager->followed && pager_has_matrices(pager->followed, pager->followed_matrices)) {
        pager->followed = NULL;
        atomic_fetch_add_explicit(&pager->n_arrivals, 1, memory_order_release);
        if (pager->n_following > 0) {
            pthread_cond_broadcast(&pager->arrived);
        }
    }
    pager->news = false;
}

/* ---- a team's wait ---------------------------------------------------------- */

/* With the lock held: all that wait now wait for this. */
static void follow(hypura_pager *pager, const pager_slot *slot, uint32_t matrices)
{
    pager->followed = slot;
    pager->followed_matrices = (uint8_t)matrices;
}

static void sleep_for(hypura_pager *pager, const pager_slot *slot, uint32_t matrices, uint64_t sleep_us)
{
    const uint64_t begin_us = hypura_clock_us();
    uint64_t       slept_us = 0;
    pager->n_following++;
    while (slept_us < sleep_us && !pager_has_matrices(slot, matrices)) {
        (void)hypura_cond_wait(&pager->arrived, &pager->lock, sleep_us - slept_us);
        slept_us = hypura_clock_us() - begin_us;
    }
    pager->n_following--;
}

/* Without the lock. */
static bool saw_arrival(hypura_pager *pager, unsigned n_seen, uint64_t look_us)
{
    const uint64_t end_us = hypura_clock_us() + look_us;
    do {
        for (int i = 0; i < LOOKS_OF_A_CLOCK; i++) {
            hypura_thread_relax();
            if (atomic_load_explicit(&pager->n_arrivals, memory_order_acquire) != n_seen) {
                return true;
            }
        }
    } while (hypura_clock_us() < end_us);
    return false;
}

/* With the lock held, and without it when true: it is there, or never will be. The lock
 * is not taken again then: all of the team would want it at once. */
static bool look_for(hypura_pager *pager, const pager_slot *slot, uint32_t matrices)
{
    if (!pager->looks || pager_has_matrices(slot, matrices)) {
        return false;
    }
    const hypura_look look = hypura_look_for(pager_pending_us(pager));
    follow(pager, slot, matrices);
    sleep_for(pager, slot, matrices, look.sleep_us);
    if (pager_has_matrices(slot, matrices)) {
        return false;
    }
    const unsigned n_seen = atomic_load_explicit(&pager->n_arrivals, memory_order_relaxed);
    pthread_mutex_unlock(&pager->lock);
    if (saw_arrival(pager, n_seen, look.look_us)) {
        return true;
    }
    pthread_mutex_lock(&pager->lock);
    return false;
}

hypura_status hypura_pager_wait_expert(hypura_pager *pager, int bundle, uint32_t slot, uint32_t matrices)
{
    const pager_slot *state = &pager->pools[pager->bundles[bundle].pool].slots[slot];
    matrices &= pager_all_matrices(pager, bundle);
    pthread_mutex_lock(&pager->lock);
    const uint64_t begin_us = hypura_clock_us();
    if (look_for(pager, state, matrices)) {
        pthread_mutex_lock(&pager->lock);
    }
    if (pager->looks) {
        count_wait(pager, begin_us);
    }
    while (!pager_has_matrices(state, matrices)) {
        pager_wait(pager);
    }
    const bool failed = state->failed;
    pthread_mutex_unlock(&pager->lock);
    return failed ? HYPURA_ERR_IO : HYPURA_OK;
}

void hypura_pager_follow_wait(hypura_pager *pager, int bundle, uint32_t slot, uint32_t matrices)
{
    const pager_slot *state = &pager->pools[pager->bundles[bundle].pool].slots[slot];
    matrices &= pager_all_matrices(pager, bundle);
    pthread_mutex_lock(&pager->lock);
    if (look_for(pager, state, matrices)) {
        return;
    }
    pager->n_following++;
    while (!pager_has_matrices(state, matrices)) {
        follow(pager, state, matrices);
        pthread_cond_wait(&pager->arrived, &pager->lock);
    }
    pager->n_following--;
    pthread_mutex_unlock(&pager->lock);
}

bool hypura_pager_is_looked_for(const hypura_pager *pager)
{
    return pager->looks;
}

void hypura_pager_wait_slot(hypura_pager *pager, int bundle)
{
    pager_pool *pool = &pager->pools[pager->bundles[bundle].pool];
    pthread_mutex_lock(&pager->lock);
    while (hypura_cache_evictable(pool->cache) == 0) {
        pager_wait(pager);
    }
    pthread_mutex_unlock(&pager->lock);
}
