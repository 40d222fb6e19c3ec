/*
 * iobench.c - a drive in detail: what a profile finds by itself, laid open.
 *
 *     file (the one named, or one written for this)
 *       -> direct reads: engine x order x size x depth
 *       -> through the page cache: cold, then warm
 *
 * A figure above what the link to the drive carries was answered by a cache on the
 * way, of the host below a virtual machine perhaps: it is refused, and says nothing
 * about the drive. Where the link is not known, memory is the limit.
 */
#include "hypura_measure.h"

#include "base/size.h"
#include "base/status.h"
#include "hw/probe.h"
#include "hw/probe_file.h"
#include "io/io.h"
#include "os/confine.h"
#include "os/link.h"
#include "os/os.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)

#define SPAN_US    500000u
#define FILE_BYTES (1024 * MIB) /* written where no file is named */
#define WARM_BYTES (256 * MIB)  /* kept in the page cache for the warm figure */
#define NO_SPAN_US UINT64_C(3600000000)

static const char *const engines[] = {"uring", "pool"};
static const uint64_t blocks[] = {4 * KIB, 128 * KIB, 512 * KIB, 2 * MIB};
static const uint32_t depths[] = {1, 4, 16};

enum {
    N_ENGINES = sizeof engines / sizeof *engines,
    N_BLOCKS = sizeof blocks / sizeof *blocks,
    N_DEPTHS = sizeof depths / sizeof *depths,
};

static const struct {
    hypura_io_cache cache;
    bool sequential;
    uint64_t block_bytes;
} through_cache[] = {
    {HYPURA_IO_COLD, true, 512 * KIB},
    {HYPURA_IO_COLD, false, 512 * KIB},
    {HYPURA_IO_COLD, false, 4 * KIB}, /* as page faults of a mapped file read */
    {HYPURA_IO_WARM, true, 512 * KIB},
};

enum { N_THROUGH_CACHE = sizeof through_cache / sizeof *through_cache };

_Static_assert(N_ENGINES * 2 * N_BLOCKS * N_DEPTHS + N_THROUGH_CACHE <= HYPURA_IOBENCH_ROWS, "room for every row");

const char *hypura_io_cache_name(hypura_io_cache cache)
{
    switch (cache) {
    case HYPURA_IO_DIRECT:
        return "direct";
    case HYPURA_IO_COLD:
        return "cold";
    case HYPURA_IO_WARM:
        return "warm";
    }
    return "unknown";
}

/* ---- which rows ----------------------------------------------------------- */

static void add_row(hypura_iobench_report *report, const char *engine, hypura_io_cache cache, bool sequential,
                    uint64_t block_bytes, uint32_t depth)
{
    report->rows[report->n_rows++] = (hypura_iobench_row){
        .engine = engine, .cache = cache, .sequential = sequential, .block_bytes = block_bytes, .depth = depth};
}

static void choose_rows(hypura_iobench_report *report)
{
    for (int cell = 0; cell < N_ENGINES * 2 * N_BLOCKS * N_DEPTHS; cell++) {
        const uint32_t depth = depths[cell % N_DEPTHS];
        const uint64_t block_bytes = blocks[cell / N_DEPTHS % N_BLOCKS];
        const bool sequential = cell / N_DEPTHS / N_BLOCKS % 2 == 1;
        const char *engine = engines[cell / N_DEPTHS / N_BLOCKS / 2];
        if (report->direct_io && hypura_io_engine_available(engine) && block_bytes <= report->file_bytes) {
            add_row(report, engine, HYPURA_IO_DIRECT, sequential, block_bytes, depth);
        }
    }
    for (int i = 0; i < N_THROUGH_CACHE; i++) {
        if (through_cache[i].block_bytes <= report->file_bytes) {
            add_row(report, "pool", through_cache[i].cache, through_cache[i].sequential, through_cache[i].block_bytes,
                    1);
        }
    }
}

/* ---- one row ---------------------------------------------------------------- */

static hypura_status measure_row(const char *path, const hypura_iobench_options *options,
                                 const hypura_iobench_report *report, hypura_iobench_row *row, hypura_error *error)
{
    hypura_probe_rate_options read = {
        .path = path,
        .io_engine = row->engine,
        .block_bytes = row->block_bytes,
        .depth = row->depth,
        .sequential = row->sequential,
        .buffered = row->cache != HYPURA_IO_DIRECT,
        .span_us = options->read_bytes > 0 ? NO_SPAN_US : SPAN_US,
        .max_bytes = options->read_bytes,
    };
    if (row->cache == HYPURA_IO_COLD) {
        /* What was read once is warm: a quarter of the file in random order hardly meets itself. */
        const uint64_t most = row->sequential ? report->file_bytes : report->file_bytes / 4;
        read.max_bytes = read.max_bytes > 0 && read.max_bytes < most ? read.max_bytes : most;
        hypura_os_cache_drop(path);
    } else if (row->cache == HYPURA_IO_WARM) {
        hypura_probe_rate_options warm_up = read;
        double ignored;
        read.range_bytes = warm_up.range_bytes = warm_up.max_bytes =
            report->file_bytes < WARM_BYTES ? report->file_bytes : WARM_BYTES;
        warm_up.span_us = NO_SPAN_US;
        hypura_status status = hypura_probe_rate(&warm_up, &ignored, error);
        if (status != HYPURA_OK) {
            return status;
        }
    }
    hypura_status status = hypura_probe_rate(&read, &row->bytes_per_s, error);
    const bool from_memory = row->cache == HYPURA_IO_WARM;
    row->refused = row->bytes_per_s > (from_memory ? report->memory_bytes_per_s : report->ceiling_bytes_per_s);
    return status;
}

static hypura_status measure_rows(const char *path, const hypura_iobench_options *options,
                                  hypura_iobench_report *report, hypura_error *error)
{
    for (int i = 0; i < report->n_rows; i++) {
        hypura_iobench_row *row = &report->rows[i];
        if (options->progress &&
            !options->progress(options->progress_user, "reading", (uint64_t)i, (uint64_t)report->n_rows)) {
            return hypura_fail(error, HYPURA_ERR_CANCELLED, "measuring %s was stopped", report->path);
        }
        hypura_status status = measure_row(path, options, report, row, error);
        if (status != HYPURA_OK) {
            return status;
        }
        const bool counts = row->cache == HYPURA_IO_DIRECT && !row->refused;
        if (counts && (report->best < 0 || row->bytes_per_s > report->rows[report->best].bytes_per_s)) {
            report->best = i;
        }
    }
    return HYPURA_OK;
}

/* ---- all of it ---------------------------------------------------------------- */

static void find_ceiling(const char *path, hypura_iobench_report *report)
{
    hypura_os_link link;
    report->ceiling_bytes_per_s = report->memory_bytes_per_s;
    (void)snprintf(report->ceiling, sizeof report->ceiling, "memory");
    if (hypura_os_link_read(path, &link) && link.bytes_per_s < report->memory_bytes_per_s) {
        report->ceiling_bytes_per_s = link.bytes_per_s;
        (void)snprintf(report->ceiling, sizeof report->ceiling, "%s", link.name);
    }
}

static hypura_status bench_file(const char *path, const hypura_iobench_options *options, hypura_iobench_report *report,
                                hypura_error *error)
{
    hypura_os_file file;
    hypura_status status = hypura_os_file_open(path, true, &file, error);
    if (status != HYPURA_OK) {
        return status;
    }
    report->file_bytes = file.bytes;
    report->direct_io = file.direct;
    hypura_os_file_close(&file);
    if (report->file_bytes < blocks[0]) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "%s is too small to measure its drive with: name a folder, or a file "
                           "of some gigabytes",
                           path);
    }
    status = hypura_probe_memory(hypura_os_cpu_count(), &report->memory_bytes_per_s, error);
    if (status == HYPURA_OK) {
        find_ceiling(options->path, report);
        choose_rows(report);
        status = measure_rows(path, options, report, error);
    }
    return status;
}

hypura_status hypura_iobench(const hypura_iobench_options *options, hypura_iobench_report *report, hypura_error *error)
{
    *report = (hypura_iobench_report){.best = -1};
    struct stat st;
    if (stat(options->path, &st) != 0) {
        return hypura_fail_errno(error, errno, "cannot stat %s", options->path);
    }
    const int n = snprintf(report->path, sizeof report->path, "%s", options->path);
    if (n < 0 || (size_t)n >= sizeof report->path) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the path is too long: %s", options->path);
    }
    if (!S_ISDIR(st.st_mode)) {
        return bench_file(options->path, options, report, error);
    }
    const uint64_t bytes =
        options->read_bytes > FILE_BYTES ? hypura_round_up(options->read_bytes, 4 * MIB) : FILE_BYTES;
    hypura_probe_file file;
    hypura_status status =
        hypura_probe_file_open(options->path, bytes, options->progress, options->progress_user, &file, error);
    if (status == HYPURA_OK) {
        status = bench_file(file.path, options, report, error);
        hypura_probe_file_close(&file);
    }
    return status;
}
