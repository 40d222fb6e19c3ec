/*
 * optimize.c - makes the sidecar of a model (gguf/records.h).
 *
 *     complete? --yes--> verify, seal
 *        |no
 *     worth it? --no---> refuse, with the gain
 *        |yes
 *     MODEL.records.partial:  header -> records in batches -> verify, seal -> takes its name
 *
 * What always holds: the name without ".partial" leads to a complete and verified
 * file. In a partial one a checksum is written after its record is on the drive, so
 * that what an earlier run wrote, however it ended, can be told from what it did not.
 */
#include "hypura_measure.h"

#include "base/median.h"
#include "base/size.h"
#include "base/status.h"
#include "gguf/records.h"
#include "hw/probe.h"
#include "io/io.h"
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define BATCH_BYTES ((uint64_t)32 << 20)
#define LEAST_GAIN  1.05
#define PROBE_US    200000u
#define SPARE_BYTES ((uint64_t)16 << 20) /* of the drive, for what others write meanwhile */

enum { PROBE_ROUNDS = 5 };

typedef struct optimizer {
    const hypura_optimize_options *options;
    hypura_optimize_report *report;
    const hypura_map *map;
    const hypura_records *records;
    char partial[1100];
    int fd;          /* of the partial file; -1: none */
    uint64_t *table; /* checksums by record; 0: not written */
    char *batch;     /* BATCH_BYTES, or one record */
    uint64_t batch_bytes;
    hypura_error *error;
} optimizer;

static bool step(const optimizer *o, const char *what, uint64_t done)
{
    if (o->options->progress && !o->options->progress(o->options->progress_user, what, done, o->records->bytes)) {
        (void)hypura_fail(o->error, HYPURA_ERR_CANCELLED, "making %s was stopped; the next call goes on from there",
                          o->records->path);
        return false;
    }
    return true;
}

/* ---- whether it is worth it --------------------------------------------------- */

typedef struct read_shape {
    uint64_t block_bytes;
    uint32_t depth;
} read_shape;

/* Reads of so many bytes, `together` at once; they are cut as the pager cuts them. */
static read_shape shape_of(const hypura_profile *profile, double bytes, double together)
{
    const uint64_t whole = hypura_round_up((uint64_t)bytes, HYPURA_RECORDS_ALIGN_BYTES);
    const uint64_t block = whole < profile->io_block_bytes ? whole : profile->io_block_bytes;
    const double depth = together * ceil((double)whole / (double)block);
    return (read_shape){.block_bytes = block,
                        .depth = depth < profile->io_depth ? (uint32_t)depth : profile->io_depth};
}

static hypura_status probe(const optimizer *o, const hypura_profile *profile, const read_shape *shape,
                           double *bytes_per_s)
{
    int largest = 0;
    for (int i = 1; i < o->map->n_files; i++) {
        largest = o->map->file_bytes[i] > o->map->file_bytes[largest] ? i : largest;
    }
    const hypura_probe_rate_options read = {
        .path = o->map->files[largest],
        .io_engine = profile->io_engine,
        .block_bytes = shape->block_bytes,
        .depth = shape->depth,
        .span_us = PROBE_US,
    };
    return hypura_probe_rate(&read, bytes_per_s, o->error);
}

/* In turns, and of the turns the median, as other work makes any one of them a matter of
 * chance. Reads that are cut alike are alike, whatever a busy drive says. */
static hypura_status measure_gain(const optimizer *o)
{
    hypura_optimize_report *r = o->report;
    hypura_profile profile;
    const hypura_profile_options wanted = {.cache_dir = o->options->cache_dir,
                                           .storage_path = o->options->path,
                                           .gpu = "none",
                                           .progress = o->options->progress,
                                           .progress_user = o->options->progress_user};
    hypura_status status = hypura_profile_get(&wanted, &profile, o->error);
    if (status != HYPURA_OK) {
        return status;
    }
    /* About half of what a layer needs is missing where a pool is worth having. */
    const double misses = fmax(1.0, o->map->n_experts_used / 2.0);
    const double matrices = r->record_bytes / r->matrix_bytes;
    const read_shape matrix = shape_of(&profile, r->matrix_bytes, misses * matrices);
    const read_shape record = shape_of(&profile, r->record_bytes, misses);
    const bool alike = matrix.block_bytes == record.block_bytes && matrix.depth == record.depth;
    double by_matrix[PROBE_ROUNDS] = {0};
    double by_record[PROBE_ROUNDS] = {0};
    double gains[PROBE_ROUNDS] = {0};
    for (int round = 0; status == HYPURA_OK && round < PROBE_ROUNDS; round++) {
        status = probe(o, &profile, &matrix, &by_matrix[round]);
        by_record[round] = by_matrix[round];
        if (status == HYPURA_OK && !alike) {
            status = probe(o, &profile, &record, &by_record[round]);
        }
        gains[round] = by_record[round] / by_matrix[round];
    }
    /* A matrix begins anywhere: its read is widened by a block of the drive. */
    const double widened = 1.0 + profile.io_align_offset_bytes / r->matrix_bytes;
    r->matrix_bytes_per_s = hypura_median(by_matrix, PROBE_ROUNDS) / widened;
    r->record_bytes_per_s = hypura_median(by_record, PROBE_ROUNDS);
    r->gain = hypura_median(gains, PROBE_ROUNDS) * widened;
    return status;
}

static hypura_status check_worth(const optimizer *o)
{
    const hypura_optimize_report *r = o->report;
    if (o->options->force) {
        return HYPURA_OK;
    }
    hypura_status status = measure_gain(o);
    if (status == HYPURA_OK && !(r->gain >= LEAST_GAIN)) {
        char matrix[HYPURA_SIZE_TEXT];
        char record[HYPURA_SIZE_TEXT];
        char bytes[HYPURA_SIZE_TEXT];
        return hypura_fail(o->error, HYPURA_ERR_UNSUPPORTED,
                           "%s: not worth it: experts would be read %.2f times as fast (a matrix has %s, a record %s), "
                           "and the sidecar takes %s of the drive; force it to have it anyway",
                           o->map->path, r->gain, hypura_size_format((uint64_t)r->matrix_bytes, matrix, sizeof matrix),
                           hypura_size_format((uint64_t)r->record_bytes, record, sizeof record),
                           hypura_size_format(o->records->bytes, bytes, sizeof bytes));
    }
    return status;
}

/* ---- the partial file ---------------------------------------------------------- */

static hypura_status fail_writing(const optimizer *o, int errno_value)
{
    if (errno_value == ENOSPC || errno_value == EDQUOT || errno_value == EFBIG) {
        char size[HYPURA_SIZE_TEXT];
        return hypura_fail(
            o->error, HYPURA_ERR_IO,
            "%s: there is no room for it: it takes %s; free some space and run it again, it goes on from "
            "there, or remove the file",
            o->partial, hypura_size_format(o->records->bytes, size, sizeof size));
    }
    return hypura_fail_errno(o->error, errno_value, "cannot write %s", o->partial);
}

static hypura_status write_at(const optimizer *o, const void *data, uint64_t bytes, uint64_t offset)
{
    for (uint64_t at = 0; at < bytes;) {
        const ssize_t n = pwrite(o->fd, (const char *)data + at, (size_t)(bytes - at), (off_t)(offset + at));
        if (n < 0 && errno != EINTR) {
            return fail_writing(o, errno);
        }
        at += n > 0 ? (uint64_t)n : 0;
    }
    return HYPURA_OK;
}

static bool read_table(const optimizer *o)
{
    char *to = (char *)o->table;
    const size_t bytes = o->records->n_records * sizeof(*o->table);
    for (size_t at = 0; at < bytes;) {
        const ssize_t n = pread(o->fd, to + at, bytes - at, (off_t)(o->records->table_offset + at));
        if (n == 0 || (n < 0 && errno != EINTR)) {
            return false;
        }
        at += n > 0 ? (size_t)n : 0;
    }
    return true;
}

static hypura_status check_room(const optimizer *o)
{
    struct stat st;
    hypura_os_drive drive;
    hypura_status status = hypura_os_drive_read(o->partial, &drive, o->error);
    if (status != HYPURA_OK) {
        return status;
    }
    const uint64_t taken = fstat(o->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
    const uint64_t missing = o->records->bytes > taken ? o->records->bytes - taken : 0;
    return drive.free_bytes < missing + SPARE_BYTES ? fail_writing(o, ENOSPC) : HYPURA_OK;
}

/* What a file system does not allow everybody, or at all. */
static hypura_status fail_sealing(const optimizer *o, int errno_value, const char *path)
{
    return hypura_fail_errno(o->error, errno_value,
                             "%s: its time cannot be set to that of the model, by which it is seen that nobody wrote to it",
                             path);
}

/* Goes on with what an earlier run left, when it was made for the same model. */
static hypura_status open_partial(optimizer *o)
{
    char why[64];
    o->fd = open(o->partial, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (o->fd < 0) {
        return fail_writing(o, errno);
    }
    if (flock(o->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) { /* some file systems have no locks */
        return hypura_fail(o->error, HYPURA_ERR_IO, "%s is being written by another process", o->partial);
    }
    if (!hypura_records_seal(o->records, o->fd)) { /* told before all the work; what is written ends it again */
        return fail_sealing(o, errno, o->partial);
    }
    if (hypura_records_match(o->records, o->partial, why, sizeof why) && read_table(o)) {
        for (uint32_t i = 0; i < o->records->n_records; i++) {
            o->report->n_resumed += o->table[i] != 0;
        }
        return check_room(o);
    }
    memset(o->table, 0, o->records->n_records * sizeof(*o->table));
    if (ftruncate(o->fd, 0) != 0 || ftruncate(o->fd, (off_t)o->records->bytes) != 0) {
        return fail_writing(o, errno);
    }
    hypura_status status = check_room(o);
    return status == HYPURA_OK ? write_at(o, o->records->header, sizeof o->records->header, 0) : status;
}

/* ---- batches ----------------------------------------------------------------------- */

/* Records [first, first + n) of one bundle, which lie one after the other. */
typedef struct record_run {
    const hypura_records_bundle *place;
    int bundle;
    uint32_t first; /* expert */
    uint32_t n;
} record_run;

static uint64_t run_offset(const record_run *run)
{
    return run->place->offset + run->first * run->place->stride_bytes;
}

/* The next records from *bundle and *expert on whose checksum is there, or is not. */
static bool next_run(const optimizer *o, int *bundle, uint32_t *expert, bool written, record_run *run)
{
    for (; *bundle < o->records->n_bundles; (*bundle)++, *expert = 0) {
        const hypura_records_bundle *place = &o->records->bundles[*bundle];
        const uint32_t n_experts = (uint32_t)o->map->bundles[*bundle].n_experts;
        const uint64_t most = o->batch_bytes / place->stride_bytes;
        *run = (record_run){.place = place, .bundle = *bundle};
        for (; *expert < n_experts && run->n < most; (*expert)++) {
            const bool fits = (o->table[place->first + *expert] != 0) == written;
            if (!fits && run->n > 0) {
                break;
            }
            run->first = fits && run->n == 0 ? *expert : run->first;
            run->n += fits;
        }
        if (run->n > 0) {
            return true;
        }
    }
    return false;
}

static hypura_status write_run(const optimizer *o, hypura_io *io, const record_run *run, hypura_io_read *reads)
{
    const hypura_bundle *bundle = &o->map->bundles[run->bundle];
    const uint64_t bytes = run->n * run->place->stride_bytes;
    uint32_t n_reads = 0;
    memset(o->batch, 0, (size_t)bytes); /* the padding */
    for (uint32_t i = 0; i < run->n; i++) {
        for (int m = 0; m < bundle->n_tensors; m++) {
            const hypura_tensor *tensor = &o->map->tensors[bundle->tensors[m]];
            reads[n_reads++] = (hypura_io_read){
                .file = (uint16_t)tensor->file,
                .offset = tensor->offset + (run->first + i) * tensor->expert_bytes,
                .bytes = tensor->expert_bytes,
                .dst = o->batch + i * run->place->stride_bytes + run->place->matrix_offset[m],
            };
        }
    }
    hypura_status status = hypura_io_read_all(io, reads, n_reads, NULL, NULL, o->error);
    if (status == HYPURA_OK) {
        status = write_at(o, o->batch, bytes, run_offset(run));
    }
    if (status == HYPURA_OK && fsync(o->fd) != 0) {
        status = fail_writing(o, errno);
    }
    if (status != HYPURA_OK) {
        return status;
    }
    hypura_os_file_uncache(o->fd);
    uint64_t *sums = o->table + run->place->first + run->first;
    for (uint32_t i = 0; i < run->n; i++) {
        sums[i] = hypura_records_checksum(o->batch + i * run->place->stride_bytes, (size_t)run->place->record_bytes);
    }
    return write_at(o, sums, run->n * sizeof(*sums),
                    o->records->table_offset + sizeof(*sums) * (size_t)(sums - o->table));
}

static hypura_status open_reader(const char *const *paths, int n_paths, hypura_io **io, hypura_error *error)
{
    const hypura_io_options options = {.paths = paths, .n_paths = n_paths};
    return hypura_io_open(&options, io, error);
}

static hypura_status write_records(optimizer *o)
{
    hypura_io *io = NULL;
    record_run run;
    int bundle = 0;
    uint32_t expert = 0;
    uint64_t smallest = o->batch_bytes;
    for (int b = 0; b < o->records->n_bundles; b++) {
        const uint64_t stride_bytes = o->records->bundles[b].stride_bytes;
        smallest = stride_bytes < smallest ? stride_bytes : smallest;
    }
    const size_t n_reads = (size_t)(o->batch_bytes / smallest + 1) * HYPURA_MAX_BUNDLE;
    hypura_io_read *reads = calloc(n_reads, sizeof(*reads));
    hypura_status status = reads ? open_reader(o->map->files, o->map->n_files, &io, o->error)
                                 : hypura_fail(o->error, HYPURA_ERR_MEMORY, "no memory for %zu reads", n_reads);
    while (status == HYPURA_OK && next_run(o, &bundle, &expert, false, &run)) {
        status = step(o, "writing records", run_offset(&run)) ? write_run(o, io, &run, reads) : o->error->status;
    }
    if (status == HYPURA_OK) {
        status = hypura_io_check_files(io, o->error);
    }
    hypura_io_close(io);
    free(reads);
    return status;
}

/* ---- verifying ------------------------------------------------------------------------ */

static hypura_status verify_run(const optimizer *o, hypura_io *io, const record_run *run, const char *path)
{
    const hypura_io_read read = {
        .offset = run_offset(run), .bytes = run->n * run->place->stride_bytes, .dst = o->batch};
    hypura_status status = hypura_io_read_all(io, &read, 1, NULL, NULL, o->error);
    for (uint32_t i = 0; status == HYPURA_OK && i < run->n; i++) {
        uint64_t *sum = &o->table[run->place->first + run->first + i];
        if (*sum ==
            hypura_records_checksum(o->batch + i * run->place->stride_bytes, (size_t)run->place->record_bytes)) {
            continue;
        }
        status = hypura_fail(o->error, HYPURA_ERR_FORMAT,
                             "%s: expert %u of layer %d does not read back as it was written: %s", path, run->first + i,
                             o->map->bundles[run->bundle].layer,
                             o->fd >= 0 ? "run it again to write it anew; the drive may be failing"
                                        : "remove the file and make it anew");
        if (o->fd >= 0) {
            *sum = 0;
            (void)pwrite(o->fd, sum, sizeof(*sum),
                         (off_t)(o->records->table_offset + sizeof(*sum) * (size_t)(sum - o->table)));
        }
    }
    return status;
}

static hypura_status verify_records(optimizer *o, const char *path)
{
    hypura_io *io = NULL;
    record_run run;
    int bundle = 0;
    uint32_t expert = 0;
    hypura_status status = open_reader(&path, 1, &io, o->error);
    while (status == HYPURA_OK && next_run(o, &bundle, &expert, true, &run)) {
        status = step(o, "verifying records", run_offset(&run)) ? verify_run(o, io, &run, path) : o->error->status;
    }
    hypura_io_close(io);
    return status;
}

/* ---- all of it --------------------------------------------------------------------------- */

/* The folder is written too, so that the name is there after a power failure. */
static hypura_status take_name(const optimizer *o)
{
    char folder[sizeof o->partial];
    (void)snprintf(folder, sizeof folder, "%s", o->records->path);
    char *slash = strrchr(folder, '/');
    (void)snprintf(slash ? slash + 1 : folder, 2, ".");
    if (!hypura_records_seal(o->records, o->fd)) {
        return fail_sealing(o, errno, o->partial);
    }
    if (fsync(o->fd) != 0 || rename(o->partial, o->records->path) != 0) {
        return fail_writing(o, errno);
    }
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        (void)close(fd);
    }
    return HYPURA_OK;
}

/* What would be in the way is told before all the work. */
static hypura_status check_place(const optimizer *o)
{
    struct stat there;
    const bool folder = stat(o->records->path, &there) == 0 && S_ISDIR(there.st_mode);
    return folder ? hypura_fail_errno(o->error, EISDIR, "cannot write %s", o->records->path) : HYPURA_OK;
}

static hypura_status make(optimizer *o)
{
    hypura_status status = check_place(o);
    if (status == HYPURA_OK) {
        status = check_worth(o);
    }
    if (status == HYPURA_OK) {
        status = open_partial(o);
    }
    if (status == HYPURA_OK) {
        status = write_records(o);
    }
    if (status == HYPURA_OK) {
        status = verify_records(o, o->partial);
    }
    if (status == HYPURA_OK) {
        status = take_name(o);
    }
    if (o->fd >= 0) {
        (void)close(o->fd);
    }
    return status;
}

/* One that was verified, and had lost its seal. */
static hypura_status seal_existing(const optimizer *o)
{
    if (hypura_records_is_sealed(o->records, o->records->path)) {
        return HYPURA_OK;
    }
    const int fd = open(o->records->path, O_RDONLY | O_CLOEXEC);
    const bool sealed = fd >= 0 && hypura_records_seal(o->records, fd);
    const int e = errno;
    if (fd >= 0) {
        (void)close(fd);
    }
    return sealed ? HYPURA_OK : fail_sealing(o, e, o->records->path);
}

/* One that is complete: its table is read like that of a partial file. */
static hypura_status verify_existing(optimizer *o)
{
    o->report->existed = true;
    o->fd = open(o->records->path, O_RDONLY | O_CLOEXEC);
    const bool read = o->fd >= 0 && read_table(o);
    const int e = errno;
    if (o->fd >= 0) {
        (void)close(o->fd);
    }
    o->fd = -1;
    for (uint32_t i = 0; read && i < o->records->n_records; i++) {
        if (o->table[i] == 0) {
            return hypura_fail(o->error, HYPURA_ERR_FORMAT, "%s is damaged: remove the file and make it anew",
                               o->records->path);
        }
    }
    if (!read) {
        return hypura_fail_errno(o->error, e, "cannot read %s", o->records->path);
    }
    const hypura_status status = verify_records(o, o->records->path);
    return status == HYPURA_OK ? seal_existing(o) : status;
}

static hypura_status allocate(optimizer *o)
{
    o->batch_bytes = BATCH_BYTES;
    double bytes = 0.0;
    double n_matrices = 0.0;
    for (int b = 0; b < o->records->n_bundles; b++) {
        const hypura_bundle *bundle = &o->map->bundles[b];
        const uint64_t stride_bytes = o->records->bundles[b].stride_bytes;
        o->batch_bytes = stride_bytes > o->batch_bytes ? stride_bytes : o->batch_bytes;
        bytes += (double)bundle->expert_bytes * bundle->n_experts;
        n_matrices += (double)bundle->n_tensors * bundle->n_experts;
    }
    o->report->matrix_bytes = bytes / n_matrices;
    o->report->record_bytes = bytes / o->records->n_records;
    o->report->n_records = o->records->n_records;
    o->report->bytes = o->records->bytes;
    o->table = calloc(o->records->n_records, sizeof(*o->table));
    o->batch = malloc((size_t)o->batch_bytes);
    return o->table && o->batch
               ? HYPURA_OK
               : hypura_fail(o->error, HYPURA_ERR_MEMORY, "no memory to make %s with", o->records->path);
}

hypura_status hypura_optimize(const hypura_optimize_options *options, hypura_optimize_report *report,
                              hypura_error *error)
{
    hypura_error local;
    hypura_map *map = NULL;
    hypura_records *records = NULL;
    optimizer o = {.options = options, .report = report, .fd = -1, .error = error ? error : &local};
    char why[64];
    *report = (hypura_optimize_report){.gain = NAN};
    hypura_status status = hypura_map_open(options->path, &map, o.error);
    if (status == HYPURA_OK) {
        status = hypura_records_plan(map, &records, o.error);
    }
    if (status == HYPURA_OK) {
        o.map = map;
        o.records = records;
        const int n = snprintf(o.partial, sizeof o.partial, "%s.partial", records->path);
        (void)snprintf(report->path, sizeof report->path, "%s", records->path);
        status = n > 0 && (size_t)n < sizeof o.partial && strlen(records->path) < sizeof report->path
                     ? allocate(&o)
                     : hypura_fail(o.error, HYPURA_ERR_USAGE, "the path is too long: %s", options->path);
    }
    if (status == HYPURA_OK) {
        status = hypura_records_match(records, records->path, why, sizeof why) ? verify_existing(&o) : make(&o);
    }
    free(o.table);
    free(o.batch);
    hypura_records_close(records);
    hypura_map_close(map);
    return status;
}
