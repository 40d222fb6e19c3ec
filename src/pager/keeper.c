/*
 * keeper.c - keeps what the pager holds within what the machine can spare, while the
 * model is in use. A thread samples memory and the pager's own figures, asks plan/knee.h
 * and resizes.
 *
 * Owned by the pager: started once the model is loaded, ended before anything else is.
 *
 *        sample (10 to 50 times a second) --> knee --> resize
 *              memory that is left, stalls, faults, weights asked for and missed
 *
 * What always holds: it only asks for sizes; what somebody else asked for stays until
 * the next sample says otherwise.
 */
#include "pager/internal.h"

#include "base/clock.h"
#include "base/status.h"
#include "base/thread.h"
#include "os/os.h"
#include "os/watch.h"
#include "plan/knee.h"

#include <stdlib.h>

/* Somebody who takes memory as fast as it can be touched, 3 GB a second, takes 30 MB
 * within the short pause: a fraction of the least reserve. */
#define SHORT_PAUSE_US UINT64_C(10000)
#define LONG_PAUSE_US  UINT64_C(100000)

/* Growing takes a third of a processor. */
#define PIECE_PAUSE_US UINT64_C(4000)

struct pager_keeper {
    hypura_os_watch *watch;
    hypura_knee      knee;
    uint64_t         planned_bytes; /* that this process takes besides what is held, once all of it was touched */
    pthread_t        thread;
    pthread_cond_t   wake;
    bool             stop; /* with the pager's lock */
};

/* taken_bytes: of what is not held yet. */
static void take_sample(hypura_pager *pager, pager_keeper *keeper, uint64_t taken_bytes, hypura_knee_sample *sample)
{
    hypura_os_scarcity now;
    hypura_os_watch_read(keeper->watch, &now);
    pthread_mutex_lock(&pager->lock);
    const uint64_t held = pager_pool_bytes(pager) + pager_pinned_bytes(pager) + taken_bytes;
    const uint64_t needed = pager->statistics.bytes_needed;
    const uint64_t hit = pager->statistics.bytes_hit;
    pthread_mutex_unlock(&pager->lock);
    const uint64_t planned = keeper->planned_bytes + held; /* pools that nobody has touched yet are free memory still */
    *sample = (hypura_knee_sample){
        .now_us = hypura_clock_us(),
        .held_bytes = held,
        .available_bytes = now.available_bytes,
        .promised_bytes = planned > now.rss_bytes ? planned - now.rss_bytes : 0,
        .stall_us = now.stall_us,
        .n_faults = now.n_faults,
        .needed_bytes = needed,
        .missed_bytes = needed - hit,
    };
}

/* Little is left to others: what they do now has to be seen soon. */
static uint64_t pause_us(const hypura_knee *knee, uint64_t held_bytes)
{
    const uint64_t reserve = hypura_knee_first_reserve(knee->total_bytes);
    return knee->room_bytes < held_bytes + 4 * reserve ? SHORT_PAUSE_US : LONG_PAUSE_US;
}

static bool wait_for_next(hypura_pager *pager, uint64_t us)
{
    pthread_mutex_lock(&pager->lock);
    if (!pager->keeper->stop) {
        (void)hypura_cond_wait(&pager->keeper->wake, &pager->lock, us);
    }
    const bool stop = pager->keeper->stop;
    pthread_mutex_unlock(&pager->lock);
    return !stop;
}

bool pager_keeper_goes_on(hypura_pager *pager, uint64_t taken_bytes)
{
    hypura_knee_sample sample;
    if (!wait_for_next(pager, PIECE_PAUSE_US)) {
        return false;
    }
    take_sample(pager, pager->keeper, taken_bytes, &sample);
    return hypura_knee_goes_on(&pager->keeper->knee, &sample);
}

static void *keeper_main(void *argument)
{
    hypura_pager      *pager = argument;
    pager_keeper      *keeper = pager->keeper;
    hypura_knee_sample sample;
    uint64_t           goal = 0; /* not yet reached: growing goes in pieces, with a look at memory after each */
    /* Behind threads that compute on a busy machine it would look, and give back, too
     * late. Where this is not permitted, the knee sees that and leaves more. */
    const bool first = hypura_os_thread_come_first();
    do {
        take_sample(pager, keeper, 0, &sample);
        hypura_budget_reason reason;
        const uint64_t       target = hypura_knee_decide(&keeper->knee, &sample, &reason);
        if (target < sample.held_bytes) {
            goal = 0;
            pager_resize(pager, target, reason);
        } else if (target > sample.held_bytes) {
            goal = target;
        }
        if (goal > sample.held_bytes) {
            /* No less than one more slot, or chunk, of any kind: less would be nothing. */
            const uint64_t unit = keeper->knee.unit_bytes;
            const uint64_t piece = sample.held_bytes + (unit > PAGER_PIECE_BYTES ? unit : PAGER_PIECE_BYTES);
            if (first) {
                hypura_os_thread_be_ordinary(); /* taking memory is work, and nobody waits for it */
            }
            const uint64_t held = pager_resize(pager, goal < piece ? goal : piece, HYPURA_BUDGET_ROOM);
            if (first) {
                (void)hypura_os_thread_come_first();
            }
            goal = held > sample.held_bytes && held < goal ? goal : 0;
        }
    } while (wait_for_next(pager, goal > 0 ? PIECE_PAUSE_US : pause_us(&keeper->knee, sample.held_bytes)));
    return NULL;
}

hypura_status hypura_pager_keep(hypura_pager *pager, uint64_t planned_bytes, hypura_error *error)
{
    if (pager->gpu) {
        return HYPURA_OK; /* its pools keep their size, see pieces.c */
    }
    const hypura_held  held = hypura_pager_held(pager);
    hypura_os_scarcity now;
    pager_keeper      *keeper = calloc(1, sizeof(*keeper));
    if (!keeper || hypura_cond_init(&keeper->wake) != 0) {
        free(keeper);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to keep the budget");
    }
    pager->keeper = keeper;
    keeper->planned_bytes = planned_bytes;
    hypura_status status = hypura_os_watch_open("", &keeper->watch, error);
    if (status == HYPURA_OK) {
        hypura_os_watch_read(keeper->watch, &now);
        hypura_knee_begin(&keeper->knee, held.least_bytes, held.most_bytes, now.limit_bytes,
                          pager_unit_bytes(pager));
        pthread_mutex_lock(&pager->lock);
        pager->budget_reason = HYPURA_BUDGET_START; /* before the thread has reasons of its own */
        pthread_mutex_unlock(&pager->lock);
        const int result = pthread_create(&keeper->thread, NULL, keeper_main, pager);
        if (result == 0) {
            return HYPURA_OK;
        }
        status = hypura_fail_errno(error, result, "the thread that keeps the budget could not be started");
    }
    hypura_os_watch_close(keeper->watch);
    pthread_cond_destroy(&keeper->wake);
    free(keeper);
    pager->keeper = NULL;
    return status;
}

void pager_stop_keeper(hypura_pager *pager)
{
    pager_keeper *keeper = pager->keeper;
    if (!keeper) {
        return;
    }
    hypura_thread_end(keeper->thread, &pager->lock, &keeper->wake, &keeper->stop);
    hypura_os_watch_close(keeper->watch);
    pthread_cond_destroy(&keeper->wake);
    free(keeper);
    pager->keeper = NULL;
}
