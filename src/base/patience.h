/*
 * patience.h - how long threads that compute wait for each other awake, changed while a program runs.
 *
 * GNU's OpenMP reads that from the environment once (base/waiting.h). But while it manages more threads than there are
 * processors they look a thousand times alone, as each might hold the processor that another one needs. So a few
 * threads that never compute make all others impatient for as long as they are there: asleep, at a few dozen KB each.
 *
 * One for a program, as the library is. Without GNU's OpenMP, or before it is said to be of use, nothing happens.
 */
#ifndef HYPURA_BASE_PATIENCE_H
#define HYPURA_BASE_PATIENCE_H

#include <stdbool.h>

/* Whether the library is there. */
bool hypura_patience_can_change(void);

/* Once, before models are opened: whether the environment says how long a patient thread looks (base/waiting.h). Until
 * then wishes are counted alone. */
void hypura_patience_allow(bool on);

/* Threads wait shortly while anybody wishes so; n_compute: how many do. Each wish is taken back once. Returns at once:
 * the threads come and go by themselves within a millisecond, which is what a change costs. */
void hypura_patience_wish_short(int n_compute);
void hypura_patience_take_back(void);

#endif
