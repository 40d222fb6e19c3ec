/*
 * io.c - reads on their way, with either engine: cutting, staging, retries, faults and the
 * promise of one completion for each read. Owned by the pager.
 *
 *     submit          pump                 engine            take_result
 *     read -> FIFO -> piece -> request --> in flight --> raw result
 *                                 ^                          |
 *                                 +-- short, EINTR, EAGAIN --+
 *                                                            v
 *                               last piece of its read -> completion -> reap
 *
 * What always holds stands in internal.h.
 */
#include "io/internal.h"

#include "base/clock.h"
#include "base/size.h"
#include "os/os.h"

#include <errno.h>
#include <string.h>

/* A request that makes no progress this often in a row has failed. */
enum { MAX_STALLS = 100 };

/* The owner is the only writer: no read-modify-write is needed. */
static void count(_Atomic uint64_t *counter, uint64_t amount)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + amount, memory_order_relaxed);
}

/* ---- one read ----------------------------------------------------------- */

static void fail_read(io_pending *r, hypura_status status, int errno_value, uint64_t offset)
{
    if (r->status == HYPURA_OK) {
        r->status = status;
        r->errno_value = errno_value;
        r->failed_at = offset;
    }
}

static bool wants_more(const io_pending *r)
{
    return r->status == HYPURA_OK && r->cut < r->read.bytes;
}

/* The read leaves the tables and its completion waits to be reaped. */
static void complete_read(hypura_io *io, uint32_t index)
{
    io_pending *r = &io->reads[index];
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
    io->reads[index].next = IO_NONE;
    if (io->fifo_head == IO_NONE) {
        io->fifo_head = index;
    } else {
        io->reads[io->fifo_tail].next = index;
    }
    io->fifo_tail = index;
}

static void fifo_pop(hypura_io *io)
{
    io->fifo_head = io->reads[io->fifo_head].next;
}

static bool is_valid(const hypura_io *io, const hypura_io_read *read)
{
    uint64_t end;
    return read->file < io->table.n && hypura_size_add(read->offset, read->bytes, &end) &&
           end <= INT64_MAX - IO_MAX_BLOCK_BYTES;
}

/* ---- one request -------------------------------------------------------- */

static uint64_t clock_ns(void)
{
    return hypura_clock_us() * 1000;
}

static void start_request(hypura_io *io, uint32_t index)
{
    io_request *q = &io->requests[index];
    int fd = io->table.files[io->reads[q->read].read.file].fd;
    if (io->limit.bytes_per_s > 0) {
        q->due_ns = hypura_io_limit_add(&io->limit, clock_ns(), q->piece.bytes - q->done);
    }
    io->engine->start(io->state, index, fd, q->piece.offset + q->done, q->address + q->done,
                      (uint32_t)(q->piece.bytes - q->done));
    count(&io->n_requests, 1);
}

/* Where the piece of a request is read to; false when staging memory has to come back first. */
static bool find_address(hypura_io *io, io_request *q)
{
    q->range = IO_NONE;
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
    while (io->fifo_head != IO_NONE) {
        uint32_t read_index = io->fifo_head;
        io_pending *r = &io->reads[read_index];
        if (!wants_more(r)) {
            fifo_pop(io);
            r->cut = r->read.bytes;
            if (r->n_in_flight == 0) {
                complete_read(io, read_index);
            }
            continue;
        }
        uint32_t index = io->free_request;
        if (index == IO_NONE) {
            return;
        }
        io_request *q = &io->requests[index];
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
    io_request *q = &io->requests[index];
    uint32_t read_index = q->read;
    io_pending *r = &io->reads[read_index];
    q->next = io->free_request;
    io->free_request = index;
    if (q->range != IO_NONE) {
        hypura_io_staging_give_back(&io->staging, q->range);
    }
    const uint64_t now_us = hypura_clock_us(); /* at each end: a drive that never rests is told of too */
    count(&io->busy_us, now_us - io->busy_since_us);
    io->busy_since_us = now_us;
    io->n_in_flight--;
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
    io_request *q = &io->requests[raw->tag];
    io_pending *r = &io->reads[q->read];
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
    hypura_io_raw results[IO_BATCH];
    pump(io);
    const uint64_t due_us = hypura_io_limit_wait_us(&io->limit, clock_ns());
    uint32_t n = io->engine->finish(io->state, results, IO_BATCH, due_us < timeout_us ? due_us : timeout_us);
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
        io->reads[index] = (io_pending){.read = reads[accepted]};
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
    for (uint32_t index = io->fifo_head; index != IO_NONE; index = io->reads[index].next) {
        io_pending *r = &io->reads[index];
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
