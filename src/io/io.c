/*
 * io.c - what both engines share: cutting, staging, retries, faults and the
 * promise of one completion for each read. Owned by the pager.
 *
 *     submit          pump                 engine            take_result
 *     read -> FIFO -> piece -> request --> in flight --> raw result
 *                                 ^                          |
 *                                 +-- short, EINTR, EAGAIN --+
 *                                                            v
 *                               last piece of its read -> completion -> reap
 *
 * What always holds:
 *  - free reads + outstanding reads + unreaped completions <= max_reads, and free
 *    requests + requests in flight == depth: no queue below can overflow.
 *  - A read completes when nothing more of it is to be started and none of its
 *    requests is in flight; so nobody writes to its memory afterwards.
 *  - A request that cannot be read in place has a range of the staging memory until
 *    its result is taken; where there is none, it and those behind it wait.
 *  - With a limit, a raw result that came too early is held, and counts as in flight
 *    until it is due.
 *  - All fields belong to the owner thread, but the counters, which others read.
 */
#include "io/engine.h"
#include "io/files.h"
#include "io/io.h"
#include "io/limit.h"
#include "io/split.h"
#include "io/staging.h"

#include "base/clock.h"
#include "base/size.h"
#include "base/status.h"
#include "os/os.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

#define DEFAULT_BLOCK_BYTES ((uint64_t)1 << 20)
#define MAX_BLOCK_BYTES     ((uint64_t)1 << 30)
enum { DEFAULT_DEPTH = 8, DEFAULT_READS = 64, MAX_DEPTH = 1024, MAX_READS = 1 << 20, MAX_FILES = UINT16_MAX };

/* A request that makes no progress this often in a row has failed. */
enum { MAX_STALLS = 100 };

/* Raw results taken from the engine at once. */
enum { BATCH = 64 };

typedef struct pending_read {
    hypura_io_read read;
    uint64_t cut;         /* bytes already cut into requests */
    uint32_t n_in_flight; /* requests of it */
    uint32_t next;        /* in the FIFO or in the free list */
    hypura_status status; /* first failure; nothing more is started after it */
    int errno_value;
    uint64_t failed_at;
} pending_read;

typedef struct request {
    hypura_io_piece piece;
    uint64_t done; /* bytes of the piece that have arrived, aligned */
    char *address;
    uint32_t read;
    uint32_t n_stalls;
    uint32_t next; /* in the free list */
    uint32_t range; /* of the staging memory; NONE: read in place */
    uint64_t due_ns; /* with a limit: when the emulated drive is done with it */
} request;

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

    pending_read *reads;
    uint32_t free_read;
    uint32_t fifo_head; /* reads with something left to cut */
    uint32_t fifo_tail;

    request *requests;
    uint32_t free_request;
    uint32_t n_in_flight;
    hypura_io_limit limit;
    char *staging_memory;
    hypura_io_staging staging;

    hypura_io_completion *completions; /* ring of max_reads */
    uint32_t completion_head;
    uint32_t n_completions;
    uint32_t n_outstanding; /* accepted, not reaped */

    uint64_t busy_since_us;
    _Atomic uint64_t bytes_requested;
    _Atomic uint64_t bytes_read;
    _Atomic uint64_t n_requests;
    _Atomic uint64_t n_staged;
    _Atomic uint64_t busy_us;
};

static const hypura_io_engine *const engines[] = {
#ifdef HYPURA_URING
    &hypura_io_uring,
#endif
    &hypura_io_pool,
};

/* The owner is the only writer: no read-modify-write is needed. */
static void count(_Atomic uint64_t *counter, uint64_t amount)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + amount, memory_order_relaxed);
}

/* ---- open and close ----------------------------------------------------- */

static const hypura_io_engine *find_engine(const char *name)
{
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++) {
        if (name == NULL ? engines[i]->available() : strcmp(engines[i]->name, name) == 0) {
            return engines[i];
        }
    }
    return NULL;
}

bool hypura_io_engine_available(const char *engine)
{
    const hypura_io_engine *found = engine == NULL ? NULL : find_engine(engine);
    return found != NULL && found->available();
}

/* Room for the longest request at least; ranges begin at pages. */
static uint64_t staging_bytes(const hypura_io *io, uint64_t wanted)
{
    const uint64_t block = hypura_round_up(io->block_bytes, hypura_os_page_bytes());
    const uint64_t bytes = hypura_round_up(wanted, hypura_os_page_bytes());
    return wanted == 0 ? io->depth * block : bytes > block ? bytes : block;
}

static hypura_status make_tables(hypura_io *io, hypura_error *error)
{
    io->reads = calloc(io->max_reads, sizeof *io->reads);
    io->requests = calloc(io->depth, sizeof *io->requests);
    io->completions = calloc(io->max_reads, sizeof *io->completions);
    io->limit.held = calloc(io->depth, sizeof *io->limit.held);
    /* Small pages: what needs no staging, or little at once, takes no more of it. */
    io->staging_memory = hypura_os_memory_map((size_t)io->staging.bytes, HYPURA_OS_MAP_NORESERVE);
    io->staging.ranges = calloc(io->depth, sizeof *io->staging.ranges);
    io->staging.capacity = io->depth;
    if (io->reads == NULL || io->requests == NULL || io->completions == NULL || io->limit.held == NULL ||
        io->staging_memory == NULL || io->staging.ranges == NULL) {
        return hypura_fail(error, HYPURA_ERR_MEMORY,
                           "no memory to read with %u requests of %" PRIu64 " bytes; try a smaller block or depth",
                           io->depth, io->block_bytes);
    }
    for (uint32_t i = 0; i < io->max_reads; i++) {
        io->reads[i].next = i + 1 < io->max_reads ? i + 1 : NONE;
    }
    for (uint32_t i = 0; i < io->depth; i++) {
        io->requests[i].next = i + 1 < io->depth ? i + 1 : NONE;
    }
    io->fifo_head = NONE;
    io->fifo_tail = NONE;
    return HYPURA_OK;
}

hypura_status hypura_io_open(const hypura_io_options *options, hypura_io **opened, hypura_error *error)
{
    *opened = NULL;
    const hypura_io_engine *engine = find_engine(options->engine);
    if (engine == NULL) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "there is no I/O engine \"%s\" in this build; try \"%s\"",
                           options->engine == NULL ? "" : options->engine, hypura_io_pool.name);
    }
    if (!engine->available()) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "the I/O engine \"%s\" does not work here (kernel too old, or forbidden); try \"%s\"",
                           engine->name, hypura_io_pool.name);
    }
    if (options->n_paths < 1 || options->n_paths > MAX_FILES || options->depth > MAX_DEPTH ||
        options->max_reads > MAX_READS || options->block_bytes > MAX_BLOCK_BYTES) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "reading %d files in blocks of %" PRIu64 " at depth %u with %u reads is out of range",
                           options->n_paths, options->block_bytes, options->depth, options->max_reads);
    }
    hypura_io *io = calloc(1, sizeof *io);
    if (io == NULL) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for an I/O engine");
    }
    io->depth = options->depth == 0 ? DEFAULT_DEPTH : options->depth;
    io->max_reads = options->max_reads == 0 ? DEFAULT_READS : options->max_reads;
    io->hook = options->hook;
    io->hook_user = options->hook_user;
    io->limit.bytes_per_s = options->limit_bytes_per_s;
    hypura_status status = hypura_io_files_open(&io->table, options->paths, options->n_paths, !options->buffered, error);
    if (status == HYPURA_OK) {
        uint64_t block = options->block_bytes == 0 ? DEFAULT_BLOCK_BYTES : options->block_bytes;
        io->block_bytes = hypura_round_up(block, io->table.step);
        io->staging.bytes = staging_bytes(io, options->staging_bytes);
        status = make_tables(io, error);
    }
    if (status == HYPURA_OK) {
        status = engine->open(io->depth, &io->state, error);
        io->engine = status == HYPURA_OK ? engine : NULL;
    }
    if (status != HYPURA_OK) {
        hypura_io_close(io);
        return status;
    }
    *opened = io;
    return HYPURA_OK;
}

bool hypura_io_set_buffered(hypura_io *io, bool buffered)
{
    return hypura_io_files_set_direct(&io->table, !buffered);
}

void hypura_io_close(hypura_io *io)
{
    if (io == NULL) {
        return;
    }
    if (io->engine != NULL) {
        io->n_in_flight -= io->limit.n_held;
        while (io->n_in_flight > 0) {
            hypura_io_raw results[BATCH];
            io->n_in_flight -= io->engine->finish(io->state, results, BATCH, UINT64_MAX);
        }
        io->engine->close(io->state);
    }
    hypura_io_files_close(&io->table);
    hypura_os_memory_unmap(io->staging_memory, (size_t)io->staging.bytes);
    free(io->staging.ranges);
    free(io->limit.held);
    free(io->completions);
    free(io->requests);
    free(io->reads);
    free(io);
}

const char *hypura_io_engine_name(const hypura_io *io)
{
    return io->engine->name;
}

const hypura_io_file *hypura_io_files(const hypura_io *io)
{
    return io->table.files;
}

/* ---- one read ----------------------------------------------------------- */

static void fail_read(pending_read *r, hypura_status status, int errno_value, uint64_t offset)
{
    if (r->status == HYPURA_OK) {
        r->status = status;
        r->errno_value = errno_value;
        r->failed_at = offset;
    }
}

static bool wants_more(const pending_read *r)
{
    return r->status == HYPURA_OK && r->cut < r->read.bytes;
}

/* The read leaves the tables and its completion waits to be reaped. */
static void complete_read(hypura_io *io, uint32_t index)
{
    pending_read *r = &io->reads[index];
    io->completions[(io->completion_head + io->n_completions++) % io->max_reads] = (hypura_io_completion){
        .user = r->read.user,
        .bytes = r->read.bytes,
        .status = r->status,
        .errno_value = r->errno_value,
        .offset = r->failed_at};
    r->next = io->free_read;
    io->free_read = index;
}

static void fifo_push(hypura_io *io, uint32_t index)
{
    io->reads[index].next = NONE;
    if (io->fifo_head == NONE) {
        io->fifo_head = index;
    } else {
        io->reads[io->fifo_tail].next = index;
    }
    io->fifo_tail = index;
}

static uint32_t fifo_pop(hypura_io *io)
{
    uint32_t index = io->fifo_head;
    io->fifo_head = io->reads[index].next;
    return index;
}

static bool is_valid(const hypura_io *io, const hypura_io_read *read)
{
    uint64_t end;
    return read->file < io->table.n && hypura_size_add(read->offset, read->bytes, &end) &&
           end <= INT64_MAX - MAX_BLOCK_BYTES;
}

/* ---- one request -------------------------------------------------------- */

static uint64_t clock_ns(void)
{
    return hypura_clock_us() * 1000;
}

static void start_request(hypura_io *io, uint32_t index)
{
    request *q = &io->requests[index];
    int fd = io->table.files[io->reads[q->read].read.file].fd;
    if (io->limit.bytes_per_s > 0) {
        q->due_ns = hypura_io_limit_add(&io->limit, clock_ns(), q->piece.bytes - q->done);
    }
    io->engine->start(io->state, index, fd, q->piece.offset + q->done, q->address + q->done,
                      (uint32_t)(q->piece.bytes - q->done));
    count(&io->n_requests, 1);
}

/* Where the piece of a request is read to; false when staging memory has to come back first. */
static bool find_address(hypura_io *io, request *q)
{
    q->range = NONE;
    q->address = q->piece.direct;
    if (q->address == NULL) {
        if (!hypura_io_staging_take(&io->staging, hypura_round_up(q->piece.bytes, hypura_os_page_bytes()), &q->range)) {
            return false;
        }
        q->address = io->staging_memory + io->staging.ranges[q->range].begin;
        count(&io->n_staged, 1);
    }
    return true;
}

/* Starts pieces of the waiting reads, in order, as far as depth and staging memory go. */
static void pump(hypura_io *io)
{
    while (io->fifo_head != NONE) {
        uint32_t read_index = io->fifo_head;
        pending_read *r = &io->reads[read_index];
        if (!wants_more(r)) {
            fifo_pop(io);
            r->cut = r->read.bytes;
            if (r->n_in_flight == 0) {
                complete_read(io, read_index);
            }
            continue;
        }
        uint32_t index = io->free_request;
        if (index == NONE) {
            return;
        }
        request *q = &io->requests[index];
        q->piece = hypura_io_cut(&io->table.files[r->read.file], &r->read, io->block_bytes, r->cut);
        if (!find_address(io, q)) {
            return;
        }
        io->free_request = q->next;
        q->done = 0;
        q->n_stalls = 0;
        q->read = read_index;
        r->cut += q->piece.wanted;
        r->n_in_flight++;
        if (io->n_in_flight++ == 0) {
            io->busy_since_us = hypura_clock_us();
        }
        if (!wants_more(r)) {
            fifo_pop(io); /* from here on its last request completes it */
        }
        start_request(io, index);
    }
}

static void end_request(hypura_io *io, uint32_t index)
{
    request *q = &io->requests[index];
    uint32_t read_index = q->read;
    pending_read *r = &io->reads[read_index];
    q->next = io->free_request;
    io->free_request = index;
    if (q->range != NONE) {
        hypura_io_staging_give_back(&io->staging, q->range);
    }
    if (--io->n_in_flight == 0) {
        count(&io->busy_us, hypura_clock_us() - io->busy_since_us);
    }
    /* While something is left to cut it is in the FIFO, and pump completes it. */
    if (--r->n_in_flight == 0 && r->cut == r->read.bytes) {
        complete_read(io, read_index);
    }
}

/* What a hook takes away has not been read: it must not be there either. */
static void spoil(char *address, int64_t hooked, int64_t result)
{
    const int64_t kept = hooked > 0 ? hooked : 0;
    if (result > kept) {
        memset(address + kept, 0xA5, (size_t)(result - kept));
    }
}

/* Decides what a raw result means: the piece is whole, goes on, or failed. */
static void take_result(hypura_io *io, const hypura_io_raw *raw)
{
    request *q = &io->requests[raw->tag];
    pending_read *r = &io->reads[q->read];
    int64_t result = raw->result;
    if (io->hook != NULL) {
        int64_t hooked = io->hook(io->hook_user, io->n_results++, result);
        if (result < 0 ? hooked < 0 : hooked < result) {
            spoil(q->address + q->done, hooked, result);
            result = hooked;
        }
    }
    uint64_t needed = q->piece.skip + q->piece.wanted;
    if (result < 0) {
        int e = (int)-result;
        if ((e == EINTR || e == EAGAIN) && ++q->n_stalls <= MAX_STALLS) {
            start_request(io, raw->tag);
            return;
        }
        fail_read(r, HYPURA_ERR_IO, e, q->piece.offset + q->done);
    } else if (q->done + (uint64_t)result < needed) {
        uint64_t reached = q->done + (uint64_t)result;
        uint64_t aligned = hypura_round_down(reached, io->table.step);
        count(&io->bytes_read, aligned - q->done);
        q->n_stalls = aligned > q->done ? 0 : q->n_stalls + 1;
        q->done = aligned;
        if (hypura_io_file_ends_before(&io->table.files[r->read.file], q->piece.offset + reached)) {
            fail_read(r, HYPURA_ERR_IO, 0, q->piece.offset + reached);
        } else if (q->n_stalls > MAX_STALLS) {
            fail_read(r, HYPURA_ERR_IO, EIO, q->piece.offset + reached);
        } else {
            start_request(io, raw->tag);
            return;
        }
    } else {
        count(&io->bytes_read, (uint64_t)result);
        if (q->piece.direct == NULL) {
            memcpy(q->piece.dst, q->address + q->piece.skip, (size_t)q->piece.wanted);
        }
    }
    end_request(io, raw->tag);
}

/* ---- submit and reap ---------------------------------------------------- */

/* Takes a result, unless the emulated drive would not have it yet. */
static void take_or_hold(hypura_io *io, const hypura_io_raw *raw)
{
    const uint64_t due_ns = io->requests[raw->tag].due_ns;
    if (io->limit.bytes_per_s > 0 && due_ns > clock_ns()) {
        hypura_io_limit_hold(&io->limit, *raw, due_ns);
    } else {
        take_result(io, raw);
    }
}

/* Takes the held results that are due; how many. */
static uint32_t take_due(hypura_io *io)
{
    uint32_t n = 0;
    const uint64_t now_ns = io->limit.n_held > 0 ? clock_ns() : 0;
    for (hypura_io_raw raw; hypura_io_limit_take(&io->limit, now_ns, &raw); n++) {
        take_result(io, &raw);
    }
    return n;
}

/* Starts what can be started and takes in what has ended, waiting for the first
 * result up to timeout_us; false when there was none. */
static bool turn(hypura_io *io, uint64_t timeout_us)
{
    hypura_io_raw results[BATCH];
    pump(io);
    const uint64_t due_us = hypura_io_limit_wait_us(&io->limit, clock_ns());
    uint32_t n = io->engine->finish(io->state, results, BATCH, due_us < timeout_us ? due_us : timeout_us);
    for (uint32_t i = 0; i < n; i++) {
        take_or_hold(io, &results[i]);
    }
    n += take_due(io);
    pump(io);
    io->engine->flush(io->state);
    /* A wait cut short for a held result, and not by a wake, is no timeout. */
    return n > 0 || (due_us < timeout_us && hypura_io_limit_wait_us(&io->limit, clock_ns()) <= 1);
}

uint32_t hypura_io_submit(hypura_io *io, const hypura_io_read *reads, uint32_t n)
{
    uint32_t accepted = 0;
    while (accepted < n && io->n_outstanding < io->max_reads) {
        uint32_t index = io->free_read;
        io->free_read = io->reads[index].next;
        io->reads[index] = (pending_read){.read = reads[accepted]};
        if (is_valid(io, &reads[accepted])) {
            count(&io->bytes_requested, reads[accepted].bytes);
        } else {
            fail_read(&io->reads[index], HYPURA_ERR_IO, EINVAL, reads[accepted].offset);
        }
        fifo_push(io, index);
        io->n_outstanding++;
        accepted++;
    }
    if (accepted > 0) {
        (void)turn(io, 0);
    }
    return accepted;
}

uint32_t hypura_io_reap(hypura_io *io, hypura_io_completion *completions, uint32_t n, uint64_t timeout_us)
{
    uint64_t begin = hypura_clock_us();
    uint64_t left = timeout_us;
    while (turn(io, io->n_completions > 0 ? 0 : left) && io->n_completions == 0 && left > 0) {
        if (timeout_us != UINT64_MAX) {
            uint64_t passed = hypura_clock_us() - begin;
            left = passed < timeout_us ? timeout_us - passed : 0;
        }
    }
    uint32_t taken = 0;
    for (; taken < n && io->n_completions > 0; taken++) {
        completions[taken] = io->completions[io->completion_head];
        io->completion_head = (io->completion_head + 1) % io->max_reads;
        io->n_completions--;
        io->n_outstanding--;
    }
    return taken;
}

void hypura_io_cancel(hypura_io *io)
{
    for (uint32_t index = io->fifo_head; index != NONE; index = io->reads[index].next) {
        pending_read *r = &io->reads[index];
        fail_read(r, HYPURA_ERR_CANCELLED, ECANCELED, r->read.offset + r->cut);
    }
    pump(io);
}

void hypura_io_wake(hypura_io *io)
{
    io->engine->wake(io->state);
}

void hypura_io_read_counters(const hypura_io *io, hypura_io_counters *counters)
{
    counters->bytes_requested = atomic_load_explicit(&io->bytes_requested, memory_order_relaxed);
    counters->bytes_read = atomic_load_explicit(&io->bytes_read, memory_order_relaxed);
    counters->n_requests = atomic_load_explicit(&io->n_requests, memory_order_relaxed);
    counters->n_staged = atomic_load_explicit(&io->n_staged, memory_order_relaxed);
    counters->busy_us = atomic_load_explicit(&io->busy_us, memory_order_relaxed);
}

hypura_status hypura_io_check_files(const hypura_io *io, hypura_error *error)
{
    return hypura_io_files_check(&io->table, error);
}

hypura_status hypura_io_check_paths(const hypura_io *io, hypura_error *error)
{
    return hypura_io_files_check_paths(&io->table, error);
}

hypura_status hypura_io_fail(const hypura_io *io, uint16_t file, const hypura_io_completion *completion,
                             hypura_error *error)
{
    if (file >= io->table.n) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a read names file %u of %d", file, io->table.n);
    }
    const char *path = io->table.files[file].path;
    if (completion->status == HYPURA_ERR_CANCELLED) {
        return hypura_fail(error, HYPURA_ERR_CANCELLED, "reading %s was stopped", path);
    }
    if (completion->errno_value == 0) {
        return hypura_fail(error, completion->status,
                           "%s ends at byte %" PRIu64 ", before the data that was asked for: it is truncated, or was "
                           "replaced while in use",
                           path, completion->offset);
    }
    return hypura_fail_errno(error, completion->errno_value, "cannot read %s at byte %" PRIu64, path,
                             completion->offset);
}
