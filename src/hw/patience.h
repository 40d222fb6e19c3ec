/*
 * patience.h - GPUs that are looked at before a model is loaded: listed, measured, asked what is free, planned with. A call into a
 * driver cannot be ended from outside, and one that never returns is told to who can end the process. From when a model is
 * loaded on engine/llama/pulse.h watches, which also asks for signs of life: here all takes a second, and it need not.
 *
 * What always holds: what returns in time costs a thread that sleeps, and nothing else. Time does not count in which the process
 * was stopped, or another of its threads than the one that waits computed: drivers that compute on processors also compile then.
 */
#ifndef HYPURA_HW_PATIENCE_H
#define HYPURA_HW_PATIENCE_H

#include "hypura.h"

#include <pthread.h>

/* One wait, or several that follow each other, of the thread that opened it. */
typedef struct hypura_patience {
    pthread_mutex_t lock;
    pthread_cond_t  changed;
    pthread_t       watcher;
    bool            watched;
    bool            closing;
    uint64_t        waiter;
    uint64_t        waited_us;
    char            device[64];
    const char     *what;
} hypura_patience;

/* any: there may be a GPU to wait for; else nothing is watched. device: its name, copied, or NULL where none is known; what:
 * "for ...", which stays valid until close. To be closed also where it failed. */
hypura_status hypura_patience_open(hypura_patience *patience, bool any, const char *device, const char *what,
                                   hypura_error *error);
/* What was waited for came, and this is next. */
void hypura_patience_turn(hypura_patience *patience, const char *device, const char *what);
void hypura_patience_close(hypura_patience *patience);

/* Called once for each that was opened, where it waits too long, on a thread of its own; device: as above, "" for NULL. It may end
 * the process; where it returns the call waits on. NULL: nobody. */
void hypura_patience_on_end(void (*told)(const char *device, const hypura_error *error));

/* What hypura_gpu_wait wishes; 0: nothing. */
uint64_t hypura_patience_wished_us(void);
/* A wait without a sign of life, so long already, behind another stretch of us, in which other threads had a processor for
 * busy_us: that is no rest. */
uint64_t hypura_patience_count(uint64_t waited_us, uint64_t us, uint64_t busy_us);

#endif
