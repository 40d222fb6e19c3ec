/*
 * refusal.h - one of the allocations, mappings and threads that our code asks for is refused.
 *
 * The linker's --wrap catches the calls of our own objects (hypura_refuse in CMake); llama.cpp is another library and is
 * not disturbed. Mappings of files take no memory and do not count: the pager makes some every few seconds.
 */
#ifndef HYPURA_TEST_REFUSAL_H
#define HYPURA_TEST_REFUSAL_H

#include <stdint.h>

/* From now on calls count from 1, and this one is refused; 0: none. Any thread's. */
void refusal_begin(uint64_t nth);
/* None is refused any more. Returns how many calls there were since it began. */
uint64_t refusal_end(void);

#endif
