/*
 * refusal.h - one of the allocations, mappings and threads that our code asks for is refused.
 *
 * The linker's --wrap catches the calls of our own objects (hypura_refuse in CMake); llama.cpp is another library and is
 * not disturbed. Mappings of files take no memory and do not count: the pager makes some every few seconds.
 */
#ifndef HYPURA_TEST_REFUSAL_H
#define HYPURA_TEST_REFUSAL_H

#include "hypura.h"

#include <stdint.h>

/* From now on calls count from 1, and this one is refused; 0: none. Any thread's. */
void refusal_begin(uint64_t nth);
/* None is refused any more. Returns how many calls there were since it began. */
uint64_t refusal_end(void);

/* What is tried. HYPURA_OK only where the result is complete and right. */
typedef hypura_status (*refusal_attempt)(const void *what, hypura_error *error);
/* Tries with call after call refused until none of them is reached any more, which has to work. What fails has an error of that
 * status with a message, which `expect` looks at, unless it is NULL. Returns how many failed; *n_calls is how many there were. */
uint64_t refusal_each(refusal_attempt try, const void *what, void (*expect)(const hypura_error *error, uint64_t nth),
                      uint64_t *n_calls);

#endif
