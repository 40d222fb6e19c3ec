/*
 * waiting.h - how threads that compute wait for each other, as a variable of the environment.
 *
 * Between two pieces of a graph, and while weights are read, the threads of GNU's OpenMP look for what comes next
 * 300,000 times, several milliseconds, before they sleep. Where another program, a helper of the pager or another
 * guest of the host has the processor of the one that all wait for, they keep it from getting one, for a time slice of
 * 3 to 4 ms each. Looking a thousand times, tens of microseconds, costs little at rest (docs/notes/0070 and 0106), but for
 * threads on each of many processors: there a tenth of a millisecond is better, alone and beside others, and a millisecond or
 * two where nobody else needs the processors and nothing is read.
 *
 * The library reads the variable before the program begins. So it is said to programs that are started, and a
 * program that was started without it starts itself again.
 */
#ifndef HYPURA_BASE_WAITING_H
#define HYPURA_BASE_WAITING_H

typedef enum hypura_waiting {
    HYPURA_WAITING_SHORT,  /* tens of microseconds */
    HYPURA_WAITING_MEDIUM, /* a tenth of a millisecond */
    HYPURA_WAITING_LONG    /* a millisecond or two */
} hypura_waiting;

/* For what pages weights: medium where this machine has many processors, else short. */
hypura_waiting hypura_waiting_usual(void);

/* The environment for a program that computes: `variables`, and how to wait unless a user says so in them. What was added
 * here before gives way to what is longer. The strings stay the caller's, the list is to be freed. NULL: no memory. */
char **hypura_waiting_environment(char *const *variables, hypura_waiting how);

/* The same for plain llama.cpp, which is measured as it is: without what was added above. What a user says stays. */
char **hypura_waiting_plain_environment(char *const *variables);

/* Starts this program again, with the same words, where its environment does not say how to wait, or says what was added
 * here and is to be longer. Returns when there is nothing to change, when it cannot be started again, and on systems whose
 * compilers do not come with GNU's OpenMP. To be called before anything was read or started that would be missed. */
void hypura_waiting_restart(char *const *argv, hypura_waiting how);

#endif
