/*
 * interrupt.h - Ctrl-C and requests to end, as flags that loops look at.
 *
 *     SIGINT            ends what runs now (an answer, a measurement)
 *     SIGTERM, SIGHUP   end what runs now, and the session after it
 *     a third SIGINT before the first was taken ends the program at once
 *     SIGBUS            a mapped file is gone from under llama.cpp: says so and ends
 *                       the program as a failure
 *
 * What always holds: the handlers touch one atomic, one pipe, standard error and
 * _exit alone; SIGPIPE is ignored, so a closed pipe is an error of the write that
 * met it.
 */
#ifndef HYPURA_CLI_INTERRUPT_H
#define HYPURA_CLI_INTERRUPT_H

#include "hypura.h"

/* Writing to a pipe that nobody reads, or beyond a limit on the size of files, fails from now on
 * and does not end the program. Its first call; programs that it starts have it from it. */
void hypura_interrupt_let_writes_fail(void);

/* From here on the signals above set flags instead of ending the program. */
hypura_status hypura_interrupt_open(hypura_error *error);

/* From here on a SIGBUS for memory that a file backs is told as a failure to read
 * this one. */
void hypura_interrupt_watch(const char *path);

/* A signal came since the last clear. Any thread. */
bool hypura_interrupted(void);
/* SIGTERM or SIGHUP came, ever. */
bool hypura_terminated(void);
/* How many signals came, ever. */
int hypura_interrupts(void);
/* Takes a SIGINT: the next one counts as the first again. */
void hypura_interrupt_clear(void);

/* Waits until descriptor can be read (or is at its end): true; or until a signal
 * comes or had come: false. */
bool hypura_interrupt_wait(int descriptor);

#endif
