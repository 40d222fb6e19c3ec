/*
 * leases.h - slots of RAM that were given back while a copy to a stand-in still read of them: what is read into such a slot next
 * would go to the GPU in place of its expert, which only shows where that happens in time.
 */
#ifndef HYPURA_TEST_GPU_LEASES_H
#define HYPURA_TEST_GPU_LEASES_H

#include <stdint.h>

/* So far in this process. */
uint64_t leases_n_early(void);

#endif
