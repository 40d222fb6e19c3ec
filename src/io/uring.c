/*
 * uring.c - the Linux engine: one io_uring, touched by the owner thread alone.
 *
 *     start -> submission queue --submit--> kernel -> completion queue -> finish
 *
 * What always holds:
 *  - At most depth reads and one poll are in flight, and the completion queue has
 *    room for more than that: it never overflows.
 *  - `unsent` lists the user data of what lies in the submission queue, in order.
 *  - wake writes an eventfd that the ring polls; poll and not read, so that the
 *    kernel never holds an address inside this engine.
 *  - When the kernel refuses to take submissions for good, `broken` is that errno;
 *    what it had not taken, and everything after, fails with it. What it had
 *    taken still completes. The eventfd is then polled beside the ring, which takes
 *    no poll of it any more.
 */
#include "io/engine.h"

#include "base/clock.h"
#include "base/status.h"

#include <errno.h>
#include <limits.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define WAKE_DATA (UINT64_C(1) << 32)

/* Resubmitting when the kernel is short of memory: how often, how far apart. */
enum { RETRY_US = 1000, MAX_RETRIES = 5000 };

typedef struct uring {
    struct io_uring ring;
    int event_fd;
    int broken; /* errno, 0 while it works */
    bool woken;
    uint32_t n_retries;
    uint32_t n_unsent;
    uint64_t *unsent; /* depth + 1 entries */
} uring;

static bool uring_available(void)
{
    struct io_uring ring;
    const int refused = io_uring_queue_init(2, &ring, 0);
    if (refused != 0) {
        errno = -refused;
        return false;
    }
    struct io_uring_probe *probe = io_uring_get_probe_ring(&ring);
    bool reads = probe != NULL && io_uring_opcode_supported(probe, IORING_OP_READ);
    io_uring_free_probe(probe);
    io_uring_queue_exit(&ring);
    return reads;
}

/* A free submission entry: there always is one, because the queue is larger than
 * what may be in flight. */
static struct io_uring_sqe *next_entry(uring *u, uint64_t data)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    if (sqe != NULL) {
        u->unsent[u->n_unsent++] = data;
    }
    return sqe;
}

static void arm_wake(uring *u)
{
    struct io_uring_sqe *sqe = next_entry(u, WAKE_DATA);
    if (sqe != NULL) {
        io_uring_prep_poll_add(sqe, u->event_fd, POLLIN);
        sqe->user_data = WAKE_DATA;
    }
}

static void uring_close(void *state)
{
    uring *u = state;
    io_uring_queue_exit(&u->ring);
    (void)close(u->event_fd);
    free(u->unsent);
    free(u);
}

static hypura_status uring_open(uint32_t depth, void **state, hypura_error *error)
{
    uring *u = calloc(1, sizeof *u);
    uint64_t *unsent = calloc((size_t)depth + 1, sizeof *unsent);
    if (u == NULL || unsent == NULL) {
        free(unsent);
        free(u);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for an io_uring of depth %u", depth);
    }
    u->unsent = unsent;
    u->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (u->event_fd < 0) {
        int e = errno;
        free(unsent);
        free(u);
        return hypura_fail_errno(error, e, "cannot make an eventfd");
    }
    /* Reads, the poll, and the timeout entry of kernels before 5.11. */
    int e = -io_uring_queue_init(depth + 2, &u->ring, 0);
    if (e != 0) {
        (void)close(u->event_fd);
        free(unsent);
        free(u);
        return hypura_fail_errno(error, e, "cannot make an io_uring of depth %u; the engine \"pool\" does without",
                                 depth);
    }
    arm_wake(u);
    *state = u;
    return HYPURA_OK;
}

static void uring_start(void *state, uint32_t tag, int fd, uint64_t offset, void *address, uint32_t bytes)
{
    uring *u = state;
    if (u->broken != 0) {
        u->unsent[u->n_unsent++] = tag;
        return;
    }
    struct io_uring_sqe *sqe = next_entry(u, tag);
    if (sqe == NULL) {
        u->broken = ENOBUFS;
        u->unsent[u->n_unsent++] = tag;
        return;
    }
    io_uring_prep_read(sqe, fd, address, bytes, offset);
    sqe->user_data = tag;
}

/* Hands what was queued to the kernel. What it cannot take now stays queued. */
static void uring_flush(void *state)
{
    uring *u = state;
    while (u->n_unsent > 0 && u->broken == 0) {
        if (io_uring_sq_ready(&u->ring) == 0) {
            u->n_unsent = 0; /* a wait with an old kernel's timeout entry took them along */
            return;
        }
        int sent = io_uring_submit(&u->ring);
        if (sent > 0) {
            uint32_t n = (uint32_t)sent < u->n_unsent ? (uint32_t)sent : u->n_unsent;
            u->n_unsent -= n;
            memmove(u->unsent, u->unsent + n, u->n_unsent * sizeof *u->unsent);
            u->n_retries = 0;
        } else if (sent == 0 || sent == -EAGAIN || sent == -EBUSY) {
            if (++u->n_retries > MAX_RETRIES) {
                u->broken = sent == 0 ? EIO : -sent;
            }
            return;
        } else if (sent != -EINTR) {
            u->broken = -sent;
        }
    }
}

/* Results for requests that the kernel will never see. */
static uint32_t fail_unsent(uring *u, hypura_io_raw *results, uint32_t n)
{
    uint32_t count = 0;
    while (u->n_unsent > 0 && count < n) {
        uint64_t data = u->unsent[--u->n_unsent];
        if (data != WAKE_DATA) {
            results[count++] = (hypura_io_raw){.tag = (uint32_t)data, .result = -u->broken};
        }
    }
    return count;
}

static void take_wake(uring *u)
{
    uint64_t value;
    u->woken = read(u->event_fd, &value, sizeof value) == (ssize_t)sizeof value || u->woken;
}

static uint32_t collect(uring *u, hypura_io_raw *results, uint32_t n)
{
    uint32_t count = u->broken != 0 ? fail_unsent(u, results, n) : 0;
    struct io_uring_cqe *cqe;
    while (count < n && io_uring_peek_cqe(&u->ring, &cqe) == 0) {
        uint64_t data = cqe->user_data;
        int result = cqe->res;
        io_uring_cqe_seen(&u->ring, cqe);
        if (data == WAKE_DATA) {
            take_wake(u);
            if (u->broken == 0) {
                arm_wake(u);
            }
        } else {
            results[count++] = (hypura_io_raw){.tag = (uint32_t)data, .result = result};
        }
    }
    return count;
}

static void wait_broken(uring *u, uint64_t timeout_us)
{
    struct pollfd either[] = {{.fd = u->ring.ring_fd, .events = POLLIN}, {.fd = u->event_fd, .events = POLLIN}};
    const uint64_t timeout_ms = timeout_us / 1000 + (timeout_us % 1000 > 0);
    (void)poll(either, 2, timeout_ms > INT_MAX ? -1 : (int)timeout_ms);
    take_wake(u);
}

static void wait_for_one(uring *u, uint64_t timeout_us)
{
    if (u->broken != 0) {
        wait_broken(u, timeout_us);
        return;
    }
    if (u->n_unsent > 0 && timeout_us > RETRY_US) {
        timeout_us = RETRY_US; /* the kernel was short of memory: ask again soon */
    }
    struct io_uring_cqe *cqe;
    if (timeout_us > (uint64_t)INT64_MAX / 1000) {
        (void)io_uring_wait_cqe(&u->ring, &cqe);
    } else {
        struct __kernel_timespec span = {.tv_sec = (long long)(timeout_us / 1000000u),
                                         .tv_nsec = (long long)(timeout_us % 1000000u) * 1000};
        (void)io_uring_wait_cqe_timeout(&u->ring, &cqe, &span);
    }
}

static uint32_t uring_finish(void *state, hypura_io_raw *results, uint32_t n, uint64_t timeout_us)
{
    uring *u = state;
    uring_flush(u);
    uint32_t count = collect(u, results, n);
    if (timeout_us == 0 || count > 0) {
        return count;
    }
    uint64_t begin = hypura_clock_us();
    uint64_t passed = 0;
    while (count == 0 && !u->woken && passed < timeout_us) {
        wait_for_one(u, timeout_us == UINT64_MAX ? UINT64_MAX : timeout_us - passed);
        count = collect(u, results, n);
        uring_flush(u);
        passed = hypura_clock_us() - begin;
    }
    /* A wake is used up only where it can be seen: results would hide it. */
    if (count == 0) {
        u->woken = false;
    }
    return count;
}

static void uring_wake(void *state)
{
    uring *u = state;
    uint64_t one = 1;
    (void)!write(u->event_fd, &one, sizeof one);
}

const hypura_io_engine hypura_io_uring = {
    .name = "uring",
    .available = uring_available,
    .open = uring_open,
    .close = uring_close,
    .start = uring_start,
    .flush = uring_flush,
    .finish = uring_finish,
    .wake = uring_wake,
};
