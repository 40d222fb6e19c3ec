/*
 * read_all.c - blocking reads, on top of the asynchronous contract.
 */
#include "io/io.h"

#include "base/size.h"
#include "base/status.h"

#include <inttypes.h>

/* Longest time between two calls of the progress callback. */
#define PROGRESS_US 100000u

/* Reads are cut so that progress moves and a cancel is quick. */
#define PART_BYTES ((uint64_t)8 << 20)

enum { BATCH = 32 };

/* Where the next part comes from. */
typedef struct cursor {
    const hypura_io_read *reads;
    uint32_t n;
    uint32_t index;
    uint64_t done; /* of reads[index] */
} cursor;

static bool skip_finished(cursor *c)
{
    while (c->index < c->n && c->done == c->reads[c->index].bytes) {
        c->index++;
        c->done = 0;
    }
    return c->index < c->n;
}

/* A part of the current read. Parts end on multiples of PART_BYTES in the file,
 * so that inner ones need no widening: slack is the caller's at its ends only. */
static hypura_io_read current_part(const cursor *c)
{
    hypura_io_read part = c->reads[c->index];
    uint64_t left = part.bytes - c->done;
    uint64_t room = PART_BYTES - (part.offset + c->done) % PART_BYTES;
    part.offset += c->done;
    part.dst = (char *)part.dst + c->done;
    part.bytes = left < room ? left : room;
    part.head_slack = c->done == 0 ? part.head_slack : 0;
    part.tail_slack = part.bytes == left ? part.tail_slack : 0;
    part.user = c->index;
    return part;
}

static hypura_status read_parts(hypura_io *io, const hypura_io_read *reads, uint32_t n, uint64_t total,
                                hypura_progress_fn progress, void *progress_user, hypura_error *error)
{
    cursor c = {.reads = reads, .n = n};
    hypura_status status = HYPURA_OK;
    uint64_t n_outstanding = 0;
    hypura_io_counters before;
    hypura_io_read_counters(io, &before);

    while (n_outstanding > 0 || (status == HYPURA_OK && skip_finished(&c))) {
        while (status == HYPURA_OK && skip_finished(&c)) {
            hypura_io_read part = current_part(&c);
            if (hypura_io_submit(io, &part, 1) == 0) {
                break;
            }
            c.done += part.bytes;
            n_outstanding++;
        }
        hypura_io_completion completions[BATCH];
        uint32_t reaped = hypura_io_reap(io, completions, BATCH, PROGRESS_US);
        n_outstanding -= reaped;
        for (uint32_t i = 0; i < reaped; i++) {
            if (completions[i].status != HYPURA_OK && status == HYPURA_OK) {
                status = hypura_io_fail(io, reads[completions[i].user].file, &completions[i], error);
                hypura_io_cancel(io);
            }
        }
        if (progress != NULL && status == HYPURA_OK) {
            hypura_io_counters now;
            hypura_io_read_counters(io, &now);
            uint64_t done = now.bytes_read - before.bytes_read;
            if (!progress(progress_user, "reading", done < total ? done : total, total)) {
                status = hypura_fail(error, HYPURA_ERR_CANCELLED, "reading was stopped");
                hypura_io_cancel(io);
            }
        }
    }
    return status;
}

hypura_status hypura_io_read_all(hypura_io *io, const hypura_io_read *reads, uint32_t n, hypura_progress_fn progress,
                                 void *progress_user, hypura_error *error)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t end;
        if (!hypura_size_add(reads[i].offset, reads[i].bytes, &end) ||
            !hypura_size_add(total, reads[i].bytes, &total)) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "a read of %" PRIu64 " bytes at %" PRIu64 " overflows",
                               reads[i].bytes, reads[i].offset);
        }
    }
    return read_parts(io, reads, n, total, progress, progress_user, error);
}
