/*
 * pool.c - the portable engine: one thread per request in flight, each in pread.
 *
 *     start -> todo (ring of tags) -> worker: pread -> done (ring) -> finish
 *
 * One mutex guards both rings, the stop flag and the wake flag. A request's
 * fields are written by the owner before its tag enters todo and are not
 * touched by it until the tag has left done, so the worker reads them unlocked.
 * Whoever is told is told after the mutex was left: one that wakes and finds it
 * held sleeps again, which costs as much as the read of a few pages.
 */
#include "io/engine.h"

#include "base/clock.h"
#include "base/status.h"
#include "base/thread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* pread needs little stack; the default of 8 MiB would be reserved per thread. */
#define STACK_BYTES ((size_t)256 << 10)

typedef struct request {
    int fd;
    uint32_t bytes;
    uint64_t offset;
    void *address;
    int64_t result;
} request;

typedef struct ring {
    uint32_t *tags;
    uint32_t head;
    uint32_t n;
} ring;

typedef struct pool {
    pthread_mutex_t mutex;
    pthread_cond_t work;
    pthread_cond_t finished;
    uint32_t depth;
    request *requests;
    ring todo;
    ring done;
    bool stop;
    bool woken;
    uint32_t n_threads;
    pthread_t *threads;
} pool;

static void ring_push(pool *p, ring *r, uint32_t tag)
{
    r->tags[(r->head + r->n++) % p->depth] = tag;
}

static uint32_t ring_pop(pool *p, ring *r)
{
    uint32_t tag = r->tags[r->head];
    r->head = (r->head + 1) % p->depth;
    r->n--;
    return tag;
}

static void *work(void *argument)
{
    pool *p = argument;
    pthread_mutex_lock(&p->mutex);
    for (;;) {
        while (p->todo.n == 0 && !p->stop) {
            pthread_cond_wait(&p->work, &p->mutex);
        }
        if (p->stop) {
            break;
        }
        uint32_t tag = ring_pop(p, &p->todo);
        pthread_mutex_unlock(&p->mutex);

        request *r = &p->requests[tag];
        ssize_t got = pread(r->fd, r->address, r->bytes, (off_t)r->offset);
        r->result = got < 0 ? -errno : got;

        pthread_mutex_lock(&p->mutex);
        ring_push(p, &p->done, tag);
        if (p->done.n == 1) { /* else the owner has been told, or does not wait */
            pthread_mutex_unlock(&p->mutex);
            pthread_cond_signal(&p->finished);
            pthread_mutex_lock(&p->mutex);
        }
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

static bool pool_available(void)
{
    return true;
}

static void pool_close(void *state)
{
    pool *p = state;
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mutex);
    for (uint32_t i = 0; i < p->n_threads; i++) {
        pthread_join(p->threads[i], NULL);
    }
    pthread_cond_destroy(&p->finished);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->mutex);
    free(p->threads);
    free(p->requests);
    free(p->todo.tags);
    free(p->done.tags);
    free(p);
}

static int start_threads(pool *p)
{
    pthread_attr_t attributes;
    int e = pthread_attr_init(&attributes);
    if (e != 0) {
        return e;
    }
    e = pthread_attr_setstacksize(&attributes, STACK_BYTES);
    while (e == 0 && p->n_threads < p->depth) {
        e = pthread_create(&p->threads[p->n_threads], &attributes, work, p);
        p->n_threads += e == 0;
    }
    pthread_attr_destroy(&attributes);
    return e;
}

static hypura_status pool_open(uint32_t depth, void **state, hypura_error *error)
{
    pool *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the read threads");
    }
    p->depth = depth;
    p->requests = calloc(depth, sizeof *p->requests);
    p->todo.tags = calloc(depth, sizeof *p->todo.tags);
    p->done.tags = calloc(depth, sizeof *p->done.tags);
    p->threads = calloc(depth, sizeof *p->threads);
    if (p->requests == NULL || p->todo.tags == NULL || p->done.tags == NULL || p->threads == NULL) {
        free(p->requests);
        free(p->todo.tags);
        free(p->done.tags);
        free(p->threads);
        free(p);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %u read threads", depth);
    }
    (void)pthread_mutex_init(&p->mutex, NULL);
    (void)pthread_cond_init(&p->work, NULL);
    (void)hypura_cond_init(&p->finished);
    int e = start_threads(p);
    if (e != 0) {
        pool_close(p);
        return hypura_fail_errno(error, e, "cannot start %u read threads; try a smaller depth", depth);
    }
    *state = p;
    return HYPURA_OK;
}

static void pool_start(void *state, uint32_t tag, int fd, uint64_t offset, void *address, uint32_t bytes)
{
    pool *p = state;
    p->requests[tag] = (request){.fd = fd, .bytes = bytes, .offset = offset, .address = address};
    pthread_mutex_lock(&p->mutex);
    ring_push(p, &p->todo, tag);
    pthread_mutex_unlock(&p->mutex);
    pthread_cond_signal(&p->work);
}

static void pool_flush(void *state)
{
    (void)state; /* start already told a worker */
}

static uint32_t pool_finish(void *state, hypura_io_raw *results, uint32_t n, uint64_t timeout_us)
{
    pool *p = state;
    uint32_t count = 0;
    pthread_mutex_lock(&p->mutex);
    if (timeout_us > 0) {
        uint64_t begin = hypura_clock_us();
        uint64_t passed = 0;
        while (p->done.n == 0 && !p->woken && passed < timeout_us) {
            uint64_t left = timeout_us == UINT64_MAX ? UINT64_MAX : timeout_us - passed;
            (void)hypura_cond_wait(&p->finished, &p->mutex, left);
            passed = hypura_clock_us() - begin;
        }
    }
    while (count < n && p->done.n > 0) {
        uint32_t tag = ring_pop(p, &p->done);
        results[count++] = (hypura_io_raw){.tag = tag, .result = p->requests[tag].result};
    }
    /* A wake is used up only where it can be seen: results would hide it. */
    if (count == 0 && timeout_us > 0) {
        p->woken = false;
    }
    pthread_mutex_unlock(&p->mutex);
    return count;
}

static void pool_wake(void *state)
{
    pool *p = state;
    pthread_mutex_lock(&p->mutex);
    p->woken = true;
    pthread_mutex_unlock(&p->mutex);
    pthread_cond_signal(&p->finished);
}

const hypura_io_engine hypura_io_pool = {
    .name = "pool",
    .available = pool_available,
    .open = pool_open,
    .close = pool_close,
    .start = pool_start,
    .flush = pool_flush,
    .finish = pool_finish,
    .wake = pool_wake,
};
