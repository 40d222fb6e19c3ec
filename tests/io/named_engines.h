/* named_engines.h - in the environment of a program that is run a second time without io_uring (forbid_io_uring.c): what its
 * tests show of engines that they name the first run has shown, of the pool too. What takes the best engine there is, is left. */
#ifndef HYPURA_TEST_NAMED_ENGINES_H
#define HYPURA_TEST_NAMED_ENGINES_H

#define ENGINES_ARE_NAMED_ELSEWHERE "HYPURA_TEST_NO_NAMED_ENGINES"

#endif
