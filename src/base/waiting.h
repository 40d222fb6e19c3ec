/*
 * waiting.h - how threads that compute wait for each other, as a variable of the environment.
 *
 * Between two pieces of a graph, and while weights are read, the threads of GNU's OpenMP look for what comes next
 * 300,000 times, several milliseconds, before they sleep. Where another program, a helper of the pager or another
 * guest of the host has the processor of the one that all wait for, they keep it from getting one, for a time slice of
 * 3 to 4 ms each. Looking a thousand times, tens of microseconds, costs little at rest (docs/notes/0023 and 0041).
 *
 * The library reads the variable before the program begins. So it is said to programs that are started, and a
 * program that was started without it starts itself again.
 */
#ifndef HYPURA_BASE_WAITING_H
#define HYPURA_BASE_WAITING_H

#include <stdbool.h>

/* The environment for a program that computes: `variables`, and how to wait unless they say so. often: computing begins
 * anew every 100 us or so, and threads look for it for one or two milliseconds. The strings stay the caller's, the list is
 * to be freed. NULL: no memory. */
char **hypura_waiting_environment(char *const *variables, bool often);

/* The same for plain llama.cpp, which is measured as it is: without what was added above. What a user says stays. */
char **hypura_waiting_plain_environment(char *const *variables);

/* Starts this program again, with the same words, where its environment does not say how to wait. Returns when it does, when it cannot be started again, and on systems whose compilers do not come with GNU's OpenMP. To be called before
 * anything was opened or started. */
void hypura_waiting_restart(char *const *argv, bool often);

#endif
