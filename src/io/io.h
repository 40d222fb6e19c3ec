/*
 * io.h - asynchronous positioned reads: the contract of both engines.
 *
 * An engine reads byte ranges of files into memory without passing through the
 * page cache. "uring" is Linux io_uring; "pool" is a pread thread pool for
 * everything else. Owned by the pager, one engine per pager.
 *
 * What always holds:
 *  1. Exactly one completion for every read that submit accepted, also after
 *     hypura_io_cancel (HYPURA_ERR_CANCELLED then). None for a rejected one.
 *  2. One owner thread submits and reaps. hypura_io_wake alone may be called
 *     from any thread.
 *  3. A completion with HYPURA_OK means: all `bytes` bytes of the range lie at
 *     `dst`. Short reads are continued, EINTR and EAGAIN retried, inside the engine.
 *     The end of the file inside the range is an error that says so.
 *     Otherwise the destination holds anything.
 *  4. Submitting and reaping allocate nothing.
 *  5. From submit to completion the destination and its slack belong to the
 *     engine; it writes nowhere else.
 *
 * Alignment. Direct reads demand aligned offsets and addresses. The engine
 * widens a range to the file's offset alignment when the caller's slack allows,
 * (dst - head_slack .. dst + bytes + tail_slack is the caller's to lose), and
 * when dst is congruent with the offset; otherwise it reads through a staging
 * block of its own and copies. Callers that want zero copies lay out their
 * memory so that dst % memory_align == offset % memory_align holds, and on huge
 * pages (HYPURA_OS_MAP_HUGE): a direct read of 1 MiB into 4 KiB pages is a list of
 * 256 segments for the drive, and up to four times slower on virtual machines.
 */
#ifndef HYPURA_IO_IO_H
#define HYPURA_IO_IO_H

#include "hypura.h"
#include "os/os.h"

typedef struct hypura_io hypura_io;

typedef struct hypura_io_file {
    const char *path;
    int         fd;        /* opened by hypura_io_open */
    uint64_t    bytes;     /* size when opened */
    hypura_os_identity identity; /* when opened */
    bool        direct;    /* reads bypass the page cache */
    uint32_t    offset_align; /* power of two; 1 when not direct */
    uint32_t    memory_align;
} hypura_io_file;

typedef struct hypura_io_read {
    uint16_t file;       /* index of the file given at open */
    uint16_t head_slack; /* bytes before dst that may be overwritten */
    uint16_t tail_slack; /* bytes after dst + bytes that may be overwritten */
    uint64_t offset;
    uint64_t bytes;
    void    *dst;
    uint64_t user; /* returned in the completion */
} hypura_io_read;

typedef struct hypura_io_completion {
    uint64_t      user;
    uint64_t      bytes;  /* of the read, as asked for */
    hypura_status status; /* OK or ERR_IO, ERR_CANCELLED */
    int           errno_value; /* 0 when the file ended early */
    uint64_t      offset;      /* where it failed */
} hypura_io_completion;

/* Test instrument: sees every raw result before the engine does and may replace
 * it (by a negative errno or a shorter count, never by a better one) or sleep.
 * nth counts from 0. Called on the owner thread. */
typedef int64_t (*hypura_io_hook)(void *user, uint64_t nth, int64_t result);

typedef struct hypura_io_options {
    const char        *engine; /* "uring", "pool" or NULL for the best there is */
    const char *const *paths;
    int                n_paths;
    uint64_t           block_bytes; /* a read is cut into requests of this size; 0: 1 MiB; rounded up to the alignment */
    uint32_t           depth;       /* requests in flight at most; 0: 8 */
    uint64_t           staging_bytes; /* memory for what cannot be read in place, a block at least; 0: depth blocks */
    uint32_t           max_reads;   /* reads accepted and not yet reaped at most; 0: 64 */
    bool               buffered;    /* go through the page cache on purpose */
    uint64_t           limit_bytes_per_s; /* emulates a drive of this rate: no read completes before it would have
                                             there; 0: the drive as it is */
    hypura_io_hook     hook;
    void              *hook_user;
} hypura_io_options;

typedef struct hypura_io_counters {
    uint64_t bytes_requested; /* as asked for */
    uint64_t bytes_read;      /* as read, widening included */
    uint64_t n_requests;
    uint64_t n_staged; /* requests that went through a staging block */
    uint64_t busy_us;  /* time with at least one request in flight; with a limit, as the emulated drive would be */
} hypura_io_counters;

/* Opens every path read-only. Fails naming the path. Falls back from direct to
 * buffered reads only where the file system refuses them; `direct` tells. */
hypura_status hypura_io_open(const hypura_io_options *options, hypura_io **io, hypura_error *error);

/* Waits for what the kernel is still reading, so that memory may be freed
 * afterwards, and drops every read and completion that was not reaped. */
void hypura_io_close(hypura_io *io);

const char           *hypura_io_engine_name(const hypura_io *io); /* "uring", "pool" */
const hypura_io_file *hypura_io_files(const hypura_io *io);

/* Accepts up to n reads in order and returns how many; fewer when max_reads are
 * outstanding. Accepted reads start at once, in order, as depth allows; those
 * beyond the depth start while the owner reaps. A read that makes no sense (file
 * out of range, offset overflow) is accepted and completes with EINVAL. */
uint32_t hypura_io_submit(hypura_io *io, const hypura_io_read *reads, uint32_t n);

/* Starts nothing more of the reads accepted so far. They complete with
 * HYPURA_ERR_CANCELLED, or OK where all of one was already under way, once the
 * kernel is done with their memory. Later submits work as ever. */
void hypura_io_cancel(hypura_io *io);

/* Returns up to n completions. Waits for the first one up to timeout_us
 * (UINT64_MAX: until there is one or a wake); returns 0 on timeout or wake. */
uint32_t hypura_io_reap(hypura_io *io, hypura_io_completion *completions, uint32_t n, uint64_t timeout_us);

/* Reads submitted from now on go through the page cache, or past it again. By the owner
 * thread. False when the system refuses. */
bool hypura_io_set_buffered(hypura_io *io, bool buffered);

/* Makes a reap that is waiting, or else the next one, return. Any thread. */
void hypura_io_wake(hypura_io *io);

/* Since open. Any thread. */
void hypura_io_read_counters(const hypura_io *io, hypura_io_counters *counters);

/* True when the engine of that name works on this machine. */
bool hypura_io_engine_available(const char *engine);

/* HYPURA_ERR_IO, naming the file, when one is no longer what it was when it was
 * opened: written to, longer or shorter. Renaming and deleting change nothing.
 * What was read before a call that returned OK, was read from unchanged files.
 * Any thread; takes one system call for each file. */
hypura_status hypura_io_check_files(const hypura_io *io, hypura_error *error);

/* The same when a path no longer leads to the file that was opened under it. */
hypura_status hypura_io_check_paths(const hypura_io *io, hypura_error *error);

/* Fills error from a failed completion of a read of that file: path, offset and
 * reason. Returns its status. */
hypura_status hypura_io_fail(const hypura_io *io, uint16_t file, const hypura_io_completion *completion,
                             hypura_error *error);

/* Reads whole ranges now, blocking, direct where possible: for loading what
 * stays. dst needs no alignment. Nothing else may be outstanding. Progress counts
 * bytes. When it fails, nothing is being read any more and the destinations hold
 * anything. */
hypura_status hypura_io_read_all(hypura_io *io, const hypura_io_read *reads, uint32_t n,
                                 hypura_progress_fn progress, void *progress_user, hypura_error *error);

#endif
