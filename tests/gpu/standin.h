/*
 * standin.h - two devices of type GPU for tests on machines without one: the CPU backend
 * with memory of its own. That memory allows no access except while the device itself
 * works, so that a host pointer into it ends the test. Copies that were asked for as
 * asynchronous happen as late as they may, so that what was reused too early shows; or, on
 * demand, graphs are computed as late as they may be, so that what they still read shows.
 */
#ifndef HYPURA_TEST_GPU_STANDIN_H
#define HYPURA_TEST_GPU_STANDIN_H

#include "hypura.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STANDIN_NAME "Standin0"
#define STANDIN_SECOND "Standin2"
#define STANDIN_BOTH "Standin0,Standin2"
#define STANDIN_N 2
/* Another one, which ggml lists before it: it has next to no memory and cannot be used. */
#define STANDIN_SMALL "Standin1"
/* The first one again through another backend, which says that it has more memory. */
#define STANDIN_TWIN "Twin0"

#ifdef __cplusplus
extern "C" {
#endif

/* Makes ggml know the devices; once a process. */
void standin_register(void);

/* Makes them the devices of a profile, with rates of no machine, as what is measured of them is noise: the second one's
 * link is so many times slower than the first one's, and all else of them the same. */
void standin_set_rates(hypura_profile *profile, double slower);

/* What goes wrong from now on. Zeroed: nothing. */
typedef struct standin_faults {
    uint64_t memory_bytes;    /* all that the first one has; 0: 64 GiB */
    uint64_t second_memory_bytes; /* the same of the second one */
    int      refuses_buffer;  /* buffers of a device's memory until one is refused; 0: never */
    uint64_t max_buffer_bytes; /* of one buffer; 0: no limit */
    bool     no_pinned;       /* host buffers are refused */
    bool     no_events;
    bool     unified;         /* integrated, as they say of themselves: the host's memory is theirs */
    bool     addressable;     /* the same, as Metal says it: the host may write into theirs */
    int      event_fails;     /* events until one cannot be made; 0: never */
    bool     single_rows;     /* instances made from now on copy one row a call */
    bool     asks_no_routers; /* nodes that ask a router ahead of its layer are refused */
    int      fail_after;      /* graphs until one fails; 0: never */
    bool     computes_late;   /* graphs wait as long as nobody waits for them, and copies that wait for no graph do not */
    bool     copies_overtake; /* as ggml-vulkan's copy queue, and said to be it: copies to the device wait for no graph */
    uint32_t lags;            /* graphs and copies are done when so many more were asked of the same instance, or somebody waits; 0: no */
    uint32_t scrambles;       /* of this seed: graphs and copies wait for what they have to and happen whenever they may; 0: no */
    int      copy_throws_after; /* copies to the device until one throws; 0: never */
    int      lose_after;      /* graphs until a device is lost, which throws; 0: never */
    int      lost_device;     /* which: 0 or 1; its own graphs alone are counted */
    bool     stays_lost;      /* then whatever it is asked for ends the process, as with CUDA */
    bool     losing_aborts;   /* it is told as CUDA's backend does: an error is logged, and the process ends */
    bool     waiting_throws;  /* it is told by what is thrown, as by Vulkan's, and nothing ends the process */
    int      wait_throws_after; /* waits until one throws, with all forgotten that its instance was asked for; 0: never */
    int      silent_after;    /* graphs until a device never answers any more: whoever waits for it waits for good; 0: never */
    bool     silence_is_told; /* to who waits for an event: that throws */
    int      slow_after;      /* graphs until one takes slow_us, for whoever waits; 0: never */
    uint64_t slow_us;
    uint64_t pace_us;         /* how much longer each graph takes, without work for a processor */
    int      abort_after;     /* graphs until one would end the process, as CUDA's backend does; 0: never */
} standin_faults;

void standin_set_faults(const standin_faults *faults);

typedef struct standin_counts {
    uint64_t bytes_to_device; /* by copies, asynchronous or not */
    uint64_t n_copies_to_device; /* calls of asynchronous ones */
    uint64_t n_graphs;
    uint64_t n_asked; /* of these, that ask a router ahead of its layer */
    uint64_t n_reported; /* that bring ids to the host themselves */
    uint64_t n_graphs_of[STANDIN_N];
    uint64_t n_optimized;
    uint64_t bytes_used; /* now, of the device's memory */
    uint64_t bytes_mapped; /* of the host's memory, ever */
} standin_counts;

standin_counts standin_read_counts(void);

/* Whether a copy that was asked for and has not happened yet reads of this memory of the host. */
bool standin_reads(const void *from, size_t bytes);

/* Throws a C++ exception, as backends of GPUs do. */
void standin_throw(const char *what);

#ifdef __cplusplus
}
#endif

#endif
