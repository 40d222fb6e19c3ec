/*
 * progress.h - one bar on the terminal for a call that lasts over a second.
 *
 * What always holds: nothing is drawn when standard error is no terminal; after
 * close the line is empty again. Belongs to the thread that opened it.
 */
#ifndef HYPURA_CLI_PROGRESS_H
#define HYPURA_CLI_PROGRESS_H

#include "cli/environment.h"

typedef struct hypura_progress {
    bool enabled;
    bool drawn;
    uint64_t opened_us;
    uint64_t drawn_us;
} hypura_progress;

void hypura_progress_open(hypura_progress *progress, const hypura_environment *environment);
void hypura_progress_close(hypura_progress *progress);

/* A hypura_progress_fn; user is the hypura_progress. Asks the call to stop once
 * a signal came. */
bool hypura_progress_update(void *user, const char *what, uint64_t done, uint64_t total);

#endif
