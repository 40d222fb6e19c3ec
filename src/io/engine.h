/*
 * engine.h - what io.c asks of an engine. An engine knows nothing of reads,
 * alignment, retries or faults: it starts raw requests and hands back what the
 * kernel said of each, once.
 */
#ifndef HYPURA_IO_ENGINE_H
#define HYPURA_IO_ENGINE_H

#include "hypura.h"

typedef struct hypura_io_raw {
    uint32_t tag;
    int64_t result; /* bytes read, or a negative errno */
} hypura_io_raw;

typedef struct hypura_io_engine {
    const char *name;

    /* Whether open can be expected to work here. */
    bool (*available)(void);

    /* At most depth requests will ever be in flight. */
    hypura_status (*open)(uint32_t depth, void **state, hypura_error *error);

    /* Nothing is in flight any more. */
    void (*close)(void *state);

    /* Queues one request; its memory stays valid until its result is handed
     * back. Owner thread. tag < depth, and unique among those in flight. */
    void (*start)(void *state, uint32_t tag, int fd, uint64_t offset, void *address, uint32_t bytes);

    /* Starts what was queued. Owner thread. */
    void (*flush)(void *state);

    /* Flushes, then hands back up to n results; waits for the
     * first one up to timeout_us (0: not at all, UINT64_MAX: until there is one
     * or a wake). Returns 0 on timeout or wake. Owner thread. */
    uint32_t (*finish)(void *state, hypura_io_raw *results, uint32_t n, uint64_t timeout_us);

    /* Makes a waiting finish, or else the next one that would wait, return. Any
     * thread. */
    void (*wake)(void *state);
} hypura_io_engine;

extern const hypura_io_engine hypura_io_pool;
#ifdef HYPURA_URING
extern const hypura_io_engine hypura_io_uring;
#endif

#endif
