/*
 * probe_storage.c - what a drive gives to random reads of the engine's own kind.
 *
 *     file (a large one that exists, or one written for this; where there is no room for it, the small one)
 *       -> 4 KiB reads, one at a time             latency, median
 *       -> grid of block sizes x depths, briefly  the shape of the curve, kept as a table
 *       -> the promising ones again, interleaved  the choice
 *       -> the choice for longer                  the rate that it sustains
 *
 * What always holds: a file written for this (probe_file.h) is gone on every way
 * out. The choice is the smallest block x depth within 5 % of the best, because whatever is in
 * flight is memory that holds no weights and latency that a miss has to wait for.
 */
#include "hw/probe.h"
#include "hw/probe_file.h"

#include "base/clock.h"
#include "base/size.h"
#include "base/status.h"
#include "io/io.h"
#include "os/os.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)

static const uint64_t blocks[] = {128 * KIB, 256 * KIB, 512 * KIB, 1 * MIB, 2 * MIB, 4 * MIB};
static const uint32_t depths[] = {1, 2, 4, 8, 16, 32};

enum { N_BLOCKS = sizeof blocks / sizeof *blocks, N_DEPTHS = sizeof depths / sizeof *depths };

/* More than this in flight is latency without gain on any drive. */
#define MAX_FLIGHT_BYTES (16 * MIB)

#define LATENCY_BYTES (4 * KIB)
#define LATENCY_US    150000u
#define COARSE_US     20000u
#define FINE_US       60000u
#define FINAL_US      400000u
enum { MAX_LATENCIES = 1024, N_COARSE_ROUNDS = 3, N_FINE = 5, N_ROUNDS = 4 };

_Static_assert(N_BLOCKS * N_DEPTHS <= HYPURA_MAX_IO_RATES, "room for the table");

/* Candidates for the second look, and the final choice, as shares of the best. */
#define COARSE_SHARE 0.85
#define FINE_SHARE   0.95

typedef struct shape {
    uint64_t block_bytes;
    uint32_t depth;
    double bytes_per_s;
} shape;

typedef struct probe {
    const char *path; /* the file that is read */
    const char *io_engine;      /* NULL: the best there is */
    uint64_t limit_bytes_per_s; /* of an emulated drive; 0: none */
    bool sequential;
    bool buffered;
    uint64_t range_bytes; /* of the file, from its begin; 0: all of it */
    uint64_t max_block_bytes; /* 0: no limit */
    uint64_t settle_us;       /* read before a rate counts */
    uint64_t next;        /* sequential: number of the next block */
    uint64_t random;
    unsigned char *memory; /* MAX_FLIGHT_BYTES */
    hypura_progress_fn progress;
    void *progress_user;
    uint64_t steps;
    uint64_t n_steps;
    hypura_error *error;
} probe;

static uint64_t next_random(probe *p)
{
    /* splitmix64 (Steele, Lea, Flood 2014) */
    uint64_t x = p->random += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

static hypura_status step(probe *p)
{
    p->steps++;
    if (p->progress != NULL && !p->progress(p->progress_user, "measuring storage",
                                            p->steps < p->n_steps ? p->steps : p->n_steps, p->n_steps)) {
        return hypura_fail(p->error, HYPURA_ERR_CANCELLED, "measuring the drive was stopped");
    }
    return HYPURA_OK;
}

/* ---- reading ------------------------------------------------------------ */

static hypura_status open_engine(probe *p, uint64_t block_bytes, uint32_t depth, hypura_io **io)
{
    const char *const paths[] = {p->path};
    hypura_io_options options = {.engine = p->io_engine,
                                 .paths = paths,
                                 .n_paths = 1,
                                 .block_bytes = block_bytes,
                                 .depth = depth,
                                 .max_reads = depth,
                                 .buffered = p->buffered,
                                 .limit_bytes_per_s = p->limit_bytes_per_s};
    return hypura_io_open(&options, io, p->error);
}

static void submit_next(probe *p, hypura_io *io, uint64_t block_bytes, uint64_t slot)
{
    uint64_t file_bytes = hypura_io_files(io)[0].bytes;
    uint64_t range_bytes = p->range_bytes > 0 && p->range_bytes < file_bytes ? p->range_bytes : file_bytes;
    uint64_t n_blocks = range_bytes / block_bytes;
    uint64_t block = p->sequential ? p->next++ : next_random(p);
    hypura_io_read read = {.offset = block % n_blocks * block_bytes,
                           .bytes = block_bytes,
                           .dst = p->memory + slot * block_bytes,
                           .user = slot};
    (void)hypura_io_submit(io, &read, 1);
}

/* Reads of this shape for about span_us, or until max_bytes were asked for, from the first
 * request to the end of the last one. */
static hypura_status read_for(probe *p, hypura_io *io, const shape *s, uint64_t span_us, uint64_t max_bytes,
                              uint64_t *bytes, uint64_t *passed_us)
{
    const uint64_t begin = hypura_clock_us();
    uint64_t asked = 0;
    uint32_t in_flight = 0;
    *bytes = 0;
    for (; in_flight < s->depth && asked < max_bytes; in_flight++, asked += s->block_bytes) {
        submit_next(p, io, s->block_bytes, in_flight);
    }
    while (in_flight > 0) {
        hypura_io_completion c;
        if (hypura_io_reap(io, &c, 1, UINT64_MAX) == 0) {
            continue;
        }
        in_flight--;
        if (c.status != HYPURA_OK) {
            return hypura_io_fail(io, 0, &c, p->error);
        }
        *bytes += s->block_bytes;
        if (hypura_clock_us() - begin < span_us && asked < max_bytes) {
            submit_next(p, io, s->block_bytes, c.user);
            asked += s->block_bytes;
            in_flight++;
        }
    }
    *passed_us = hypura_clock_us() - begin;
    return HYPURA_OK;
}

/* Fills the rate of a shape. Reads that do not count come before those that do, and none of
 * them ends in their time. */
static hypura_status measure_rate(probe *p, shape *s, uint64_t span_us, uint64_t max_bytes)
{
    hypura_io *io;
    uint64_t bytes = 0;
    uint64_t passed_us = 0;
    hypura_status status = open_engine(p, s->block_bytes, s->depth, &io);
    if (status != HYPURA_OK) {
        return status;
    }
    if (p->settle_us > 0) {
        status = read_for(p, io, s, p->settle_us, max_bytes, &bytes, &passed_us);
    }
    if (status == HYPURA_OK) {
        status = read_for(p, io, s, span_us, max_bytes, &bytes, &passed_us);
    }
    hypura_io_close(io);
    s->bytes_per_s = (double)bytes / ((double)(passed_us > 0 ? passed_us : 1) / 1e6);
    return status;
}

static int compare_times(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Also tells which engine ran and how. */
static hypura_status measure_latency(probe *p, hypura_profile *profile)
{
    hypura_io *io;
    hypura_status status = open_engine(p, LATENCY_BYTES, 1, &io);
    if (status != HYPURA_OK) {
        return status;
    }
    const hypura_io_file *file = hypura_io_files(io);
    (void)snprintf(profile->io_engine, sizeof profile->io_engine, "%s", hypura_io_engine_name(io));
    profile->direct_io = file->direct;
    profile->io_align_offset_bytes = file->offset_align;
    profile->io_align_memory_bytes = file->memory_align;

    static const uint64_t no_time = 0;
    uint32_t times[MAX_LATENCIES];
    uint32_t n = 0;
    uint64_t begin = hypura_clock_us();
    while (n < MAX_LATENCIES && (n == 0 || hypura_clock_us() - begin < LATENCY_US)) {
        uint64_t before = hypura_clock_us();
        submit_next(p, io, LATENCY_BYTES, no_time);
        hypura_io_completion c;
        while (hypura_io_reap(io, &c, 1, UINT64_MAX) == 0) {
        }
        if (c.status != HYPURA_OK) {
            status = hypura_io_fail(io, 0, &c, p->error);
            break;
        }
        times[n++] = (uint32_t)(hypura_clock_us() - before);
    }
    hypura_io_close(io);
    if (status == HYPURA_OK) {
        qsort(times, n, sizeof *times, compare_times);
        profile->read_latency_us = times[n / 2] > 0 ? times[n / 2] : 1;
    }
    return status;
}

/* ---- choosing ----------------------------------------------------------- */

static double best_rate(const shape *shapes, size_t n)
{
    double best = 0;
    for (size_t i = 0; i < n; i++) {
        best = shapes[i].bytes_per_s > best ? shapes[i].bytes_per_s : best;
    }
    return best;
}

/* Less in flight first; of two alike, the faster one first. */
static int compare_shapes(const void *a, const void *b)
{
    const shape *x = a;
    const shape *y = b;
    uint64_t flight_x = x->block_bytes * x->depth;
    uint64_t flight_y = y->block_bytes * y->depth;
    if (flight_x != flight_y) {
        return flight_x < flight_y ? -1 : 1;
    }
    return (x->bytes_per_s < y->bytes_per_s) - (x->bytes_per_s > y->bytes_per_s);
}

/* Keeps those at or above share of the best, in order; returns how many. */
static size_t keep_best(shape *shapes, size_t n, double share)
{
    double least = best_rate(shapes, n) * share;
    qsort(shapes, n, sizeof *shapes, compare_shapes);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (shapes[i].bytes_per_s >= least) {
            shapes[kept++] = shapes[i];
        }
    }
    return kept;
}

/* Each shape in turn, and that n_rounds times; the mean of its rounds counts. Not
 * the best one: drives with a rate limit, as virtual machines have, answer in
 * bursts above what they sustain. */
static hypura_status measure_all(probe *p, shape *shapes, size_t n, int n_rounds, uint64_t span_us)
{
    for (size_t i = 0; i < n; i++) {
        shapes[i].bytes_per_s = 0;
    }
    for (size_t i = 0; i < n * (size_t)n_rounds; i++) {
        shape measured = shapes[i % n];
        hypura_status status = measure_rate(p, &measured, span_us, UINT64_MAX);
        if (status == HYPURA_OK) {
            status = step(p);
        }
        if (status != HYPURA_OK) {
            return status;
        }
        shapes[i % n].bytes_per_s += measured.bytes_per_s / n_rounds;
    }
    return HYPURA_OK;
}

static hypura_status choose_shape(probe *p, hypura_profile *profile)
{
    shape shapes[N_BLOCKS * N_DEPTHS];
    size_t n = 0;
    for (int b = 0; b < N_BLOCKS; b++) {
        for (int d = 0; d < N_DEPTHS; d++) {
            if (blocks[b] * depths[d] <= MAX_FLIGHT_BYTES &&
                (p->max_block_bytes == 0 || blocks[b] <= p->max_block_bytes)) {
                shapes[n++] = (shape){.block_bytes = blocks[b], .depth = depths[d]};
            }
        }
    }
    p->n_steps = n * N_COARSE_ROUNDS + N_FINE * N_ROUNDS + 1;
    hypura_status status = measure_all(p, shapes, n, N_COARSE_ROUNDS, COARSE_US);
    if (status != HYPURA_OK) {
        return status;
    }
    profile->n_io_rates = (int)n;
    for (size_t i = 0; i < n; i++) {
        profile->io_rates[i] = (hypura_io_rate){shapes[i].block_bytes, shapes[i].depth, shapes[i].bytes_per_s};
    }
    /* The fastest of the coarse look is among the second look in any case. */
    n = keep_best(shapes, n, COARSE_SHARE);
    if (n > N_FINE) {
        size_t fastest = 0;
        for (size_t i = 0; i < n; i++) {
            fastest = shapes[i].bytes_per_s > shapes[fastest].bytes_per_s ? i : fastest;
        }
        if (fastest >= N_FINE) {
            shapes[N_FINE - 1] = shapes[fastest];
        }
        n = N_FINE;
    }
    status = measure_all(p, shapes, n, N_ROUNDS, FINE_US);
    if (status != HYPURA_OK) {
        return status;
    }
    (void)keep_best(shapes, n, FINE_SHARE);
    status = measure_all(p, shapes, 1, 1, FINAL_US);
    if (status != HYPURA_OK) {
        return status;
    }
    profile->io_block_bytes = shapes[0].block_bytes;
    profile->io_depth = shapes[0].depth;
    profile->direct_bytes_per_s = shapes[0].bytes_per_s;
    return HYPURA_OK;
}

/* ---- all of it ---------------------------------------------------------- */

static hypura_status measure_file(probe *p, hypura_profile *profile)
{
    hypura_status status = measure_latency(p, profile);
    if (status == HYPURA_OK) {
        status = choose_shape(p, profile);
    }
    if (status == HYPURA_OK && profile->provisional && profile->direct_bytes_per_s > profile->memory_bytes_per_s) {
        profile->direct_bytes_per_s = profile->memory_bytes_per_s;
    }
    if (status == HYPURA_OK && profile->direct_bytes_per_s > profile->memory_bytes_per_s) {
        char storage[HYPURA_SIZE_TEXT];
        char memory[HYPURA_SIZE_TEXT];
        return hypura_fail(p->error, HYPURA_ERR_UNSUPPORTED,
                           "reads of %s seem to run at %s/s, faster than memory (%s/s): a cache answered them; measure "
                           "again, or with a larger file",
                           p->path, hypura_size_format((uint64_t)profile->direct_bytes_per_s, storage, sizeof storage),
                           hypura_size_format((uint64_t)profile->memory_bytes_per_s, memory, sizeof memory));
    }
    return status;
}

/* Folder part of a path, which is cut in place. */
static void cut_to_folder(char *path)
{
    char *slash = strrchr(path, '/');
    if (slash == NULL) {
        memcpy(path, ".", 2);
    } else {
        slash[slash == path] = '\0';
    }
}

/* A file of its own, written into the folder of path. */
static hypura_status measure_folder(probe *p, hypura_profile *profile)
{
    hypura_probe_file file;
    hypura_status status = hypura_probe_file_open(profile->storage_path, HYPURA_PROBE_FILE_BYTES, p->progress,
                                                  p->progress_user, &file, p->error);
    if (status == HYPURA_OK) {
        p->path = file.path;
        status = measure_file(p, profile);
        hypura_probe_file_close(&file);
    }
    return status;
}

/* path itself, which only has to be read. */
static hypura_status measure_small(probe *p, const char *path, uint64_t bytes, hypura_profile *profile)
{
    (void)snprintf(profile->storage_path, sizeof profile->storage_path, "%s", path);
    profile->provisional = true;
    p->path = path;
    p->max_block_bytes = bytes;
    hypura_error_clear(p->error);
    return measure_file(p, profile);
}

hypura_status hypura_probe_storage(const char *path, hypura_progress_fn progress, void *progress_user,
                                   hypura_profile *profile, hypura_error *error)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return hypura_fail_errno(error, errno, "cannot stat %s", path);
    }
    int n = snprintf(profile->storage_path, sizeof profile->storage_path, "%s", path);
    if (n < 0 || (size_t)n >= sizeof profile->storage_path) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the path is too long: %s", path);
    }
    probe p = {.random = hypura_clock_us(), .progress = progress, .progress_user = progress_user, .error = error};
    /* Huge pages as the pager's slots have them: they decide about the rate. */
    p.memory = hypura_os_memory_map(MAX_FLIGHT_BYTES, HYPURA_OS_MAP_HUGE);
    if (p.memory == NULL || !hypura_os_memory_populate(p.memory, MAX_FLIGHT_BYTES)) {
        hypura_os_memory_unmap(p.memory, MAX_FLIGHT_BYTES);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory (16 MiB) to measure storage with");
    }
    hypura_status status;
    if (S_ISREG(st.st_mode) && (uint64_t)st.st_size >= HYPURA_PROBE_FILE_BYTES) {
        p.path = path;
        status = measure_file(&p, profile);
    } else {
        if (!S_ISDIR(st.st_mode)) {
            cut_to_folder(profile->storage_path);
        }
        status = measure_folder(&p, profile);
        if (status == HYPURA_ERR_IO && S_ISREG(st.st_mode) && (uint64_t)st.st_size >= blocks[0]) {
            status = measure_small(&p, path, (uint64_t)st.st_size, profile);
        }
    }
    hypura_os_memory_unmap(p.memory, MAX_FLIGHT_BYTES);
    return status;
}

hypura_status hypura_probe_rate(const hypura_probe_rate_options *options, double *bytes_per_s, hypura_error *error)
{
    struct stat st;
    if (stat(options->path, &st) != 0) {
        return hypura_fail_errno(error, errno, "cannot stat %s", options->path);
    }
    shape s = {.block_bytes = options->block_bytes < MAX_FLIGHT_BYTES ? options->block_bytes : MAX_FLIGHT_BYTES,
               .depth = options->depth > 0 ? options->depth : 1};
    while (s.block_bytes > LATENCY_BYTES && s.block_bytes > (uint64_t)st.st_size) {
        s.block_bytes = s.block_bytes / 2 & ~(LATENCY_BYTES - 1);
    }
    if (s.block_bytes < LATENCY_BYTES || s.block_bytes > (uint64_t)st.st_size) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%s is too small to measure its drive with", options->path);
    }
    const size_t memory_bytes = (size_t)(s.block_bytes * s.depth);
    probe p = {.path = options->path,
               .io_engine = options->io_engine,
               .limit_bytes_per_s = options->limit_bytes_per_s,
               .sequential = options->sequential,
               .buffered = options->buffered,
               .range_bytes = options->range_bytes,
               .settle_us = options->settle_us,
               .random = hypura_clock_us(),
               .error = error};
    p.memory = hypura_os_memory_map(memory_bytes, HYPURA_OS_MAP_HUGE);
    if (p.memory == NULL || !hypura_os_memory_populate(p.memory, memory_bytes)) {
        hypura_os_memory_unmap(p.memory, memory_bytes);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory (%zu bytes) to measure storage with", memory_bytes);
    }
    hypura_status status = measure_rate(&p, &s, options->span_us > 0 ? options->span_us : FINAL_US,
                                        options->max_bytes > 0 ? options->max_bytes : UINT64_MAX);
    hypura_os_memory_unmap(p.memory, memory_bytes);
    *bytes_per_s = s.bytes_per_s;
    return status;
}
