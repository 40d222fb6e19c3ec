/*
 * internal.h - the state behind hypura_io, as open.c (its life) and io.c (reads on their
 * way) see it.
 *
 * What always holds:
 *  - Reads that are not complete and completions that were not reaped are n_outstanding
 *    together, max_reads at most; free requests + requests in flight == depth: no queue
 *    below can overflow.
 *  - A read completes when nothing more of it is to be started and none of its
 *    requests is in flight; so nobody writes to its memory afterwards.
 *  - A request that cannot be read in place has a range of the staging memory until
 *    its result is taken; where there is none, it and those behind it wait.
 *  - With a limit, a raw result that came too early is held, and counts as in flight
 *    until it is due.
 *  - All fields belong to the owner thread, but the counters, which others read.
 */
#ifndef HYPURA_IO_INTERNAL_H
#define HYPURA_IO_INTERNAL_H

#include "io/engine.h"
#include "io/files.h"
#include "io/io.h"
#include "io/limit.h"
#include "io/split.h"
#include "io/staging.h"

#include <stdatomic.h>

#define IO_NONE            UINT32_MAX
#define IO_MAX_BLOCK_BYTES ((uint64_t)1 << 30)

/* Raw results taken from the engine at once. */
enum { IO_BATCH = 64 };

typedef struct io_pending {
    hypura_io_read read;
    uint64_t cut;         /* bytes already cut into requests */
    uint32_t n_in_flight; /* requests of it */
    uint32_t next;        /* in the FIFO or in the free list */
    hypura_status status; /* first failure; nothing more is started after it */
    int errno_value;
    uint64_t failed_at;
} io_pending;

typedef struct io_request {
    hypura_io_piece piece;
    uint64_t done; /* bytes of the piece that have arrived, aligned */
    char *address;
    uint32_t read;
    uint32_t n_stalls;
    uint32_t next; /* in the free list */
    uint32_t range; /* of the staging memory; IO_NONE: read in place */
    uint64_t due_ns; /* with a limit: when the emulated drive is done with it */
} io_request;

struct hypura_io {
    const hypura_io_engine *engine;
    void *state;
    uint64_t block_bytes;
    uint32_t depth;
    uint32_t max_reads;
    hypura_io_hook hook;
    void *hook_user;
    uint64_t n_results; /* seen by the hook */

    hypura_io_table table;

    io_pending *reads;
    uint32_t free_read;
    uint32_t fifo_head; /* reads with something left to cut */
    uint32_t fifo_tail;

    io_request *requests;
    uint32_t free_request;
    uint32_t n_in_flight;
    hypura_io_limit limit;
    char *staging_memory;
    hypura_io_staging staging;

    hypura_io_completion *completions; /* ring of max_reads */
    uint32_t completion_head;
    uint32_t n_completions;
    uint32_t n_outstanding; /* accepted, not reaped */

    uint64_t busy_since_us; /* what was before is in busy_us; while a request is in flight */
    _Atomic uint64_t bytes_requested;
    _Atomic uint64_t bytes_read;
    _Atomic uint64_t n_requests;
    _Atomic uint64_t n_staged;
    _Atomic uint64_t busy_us;
};

#endif
