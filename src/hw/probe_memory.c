/*
 * probe_memory.c - how fast all cores together read memory, as matrix products
 * with a single row do. Like STREAM's kernels without the store.
 *
 * What always holds: each thread has its own part of the buffer, touched by that
 * thread first, so that on several NUMA nodes it is local.
 */
#include "hw/probe.h"

#include "base/clock.h"
#include "base/status.h"
#include "hw/cold.h"
#include "os/os.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Of each thread's part, and of all where the last-level cache is not known. */
#define PART_BYTES          ((uint64_t)8 << 20)
#define UNKNOWN_CACHE_BYTES ((uint64_t)256 << 20)

#define MEASURE_US 300000u

typedef struct worker {
    pthread_t thread;
    size_t bytes;
    _Atomic int *n_ready;
    int n_threads;
    double bytes_per_s; /* 0 when it had no memory */
    uint64_t sum;       /* keeps the loop alive */
} worker;

/* A build for finding races would measure its own bookkeeping here. */
__attribute__((no_sanitize("thread", "address", "undefined"))) static uint64_t sum_words(const uint64_t *words,
                                                                                         size_t n)
{
    uint64_t a = 0;
    uint64_t b = 0;
    uint64_t c = 0;
    uint64_t d = 0;
    for (size_t i = 0; i + 8 <= n; i += 8) {
        a += words[i] ^ words[i + 4];
        b += words[i + 1] ^ words[i + 5];
        c += words[i + 2] ^ words[i + 6];
        d += words[i + 3] ^ words[i + 7];
    }
    return a + b + c + d;
}

/* Time that the core was really ours: waiting for memory counts, waiting for
 * other programs does not. */
static uint64_t thread_cpu_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static void *measure(void *argument)
{
    worker *w = argument;
    uint64_t *words = hypura_os_memory_map(w->bytes, HYPURA_OS_MAP_HUGE);
    if (words != NULL) {
        memset(words, 1, w->bytes);
    }
    /* All begin together: a core alone gets more than its share. */
    atomic_fetch_add(w->n_ready, 1);
    while (atomic_load(w->n_ready) < w->n_threads) {
        (void)sched_yield();
    }
    if (words == NULL) {
        return NULL;
    }
    uint64_t begin = hypura_clock_us();
    uint64_t begin_cpu = thread_cpu_us();
    uint64_t n_passes = 0;
    do {
        w->sum += sum_words(words, w->bytes / sizeof *words);
        n_passes++;
    } while (hypura_clock_us() - begin < MEASURE_US);
    uint64_t spent = thread_cpu_us() - begin_cpu;
    w->bytes_per_s = (double)(n_passes * w->bytes) / ((double)(spent > 0 ? spent : 1) / 1e6);
    hypura_os_memory_unmap(words, w->bytes);
    return NULL;
}

static size_t part_bytes(int n_threads)
{
    const uint64_t part = hypura_cold_bytes(PART_BYTES * (uint64_t)n_threads, UNKNOWN_CACHE_BYTES) / (uint64_t)n_threads;
    return (size_t)(part < 4096 ? 4096 : part);
}

hypura_status hypura_probe_memory(int n_threads, double *bytes_per_s, hypura_error *error)
{
    worker *workers = calloc((size_t)n_threads, sizeof *workers);
    if (workers == NULL) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to measure with %d threads", n_threads);
    }
    _Atomic int n_ready = 0;
    size_t bytes = part_bytes(n_threads);
    int n_started = 0;
    int e = 0;
    for (; n_started < n_threads; n_started++) {
        worker *w = &workers[n_started];
        *w = (worker){.bytes = bytes, .n_ready = &n_ready, .n_threads = n_threads};
        e = pthread_create(&w->thread, NULL, measure, w);
        if (e != 0) {
            break;
        }
    }
    /* Those that did not start are counted as ready, or the others wait for ever. */
    atomic_fetch_add(&n_ready, n_threads - n_started);
    *bytes_per_s = 0;
    bool complete = true;
    for (int i = 0; i < n_started; i++) {
        pthread_join(workers[i].thread, NULL);
        *bytes_per_s += workers[i].bytes_per_s;
        complete = complete && workers[i].bytes_per_s > 0;
    }
    free(workers);
    if (e != 0) {
        return hypura_fail_errno(error, e, "cannot start %d threads to measure memory", n_threads);
    }
    if (!complete) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to measure memory: %zu bytes for each of %d threads",
                           bytes, n_threads);
    }
    return HYPURA_OK;
}
