/*
 * open.c - opening and closing, and telling what went wrong in words. How reads go on in
 * between: io.c.
 */
#include "io/internal.h"

#include "base/size.h"
#include "base/status.h"
#include "os/os.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_BLOCK_BYTES ((uint64_t)1 << 20)
enum { DEFAULT_DEPTH = 8, DEFAULT_READS = 64, MAX_DEPTH = 1024, MAX_READS = 1 << 20, MAX_FILES = UINT16_MAX };

static const hypura_io_engine *const engines[] = {
#ifdef HYPURA_URING
    &hypura_io_uring,
#endif
    &hypura_io_pool,
};

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
        io->reads[i].next = i + 1 < io->max_reads ? i + 1 : IO_NONE;
    }
    for (uint32_t i = 0; i < io->depth; i++) {
        io->requests[i].next = i + 1 < io->depth ? i + 1 : IO_NONE;
    }
    io->fifo_head = IO_NONE;
    io->fifo_tail = IO_NONE;
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
    errno = 0;
    if (!engine->available()) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "the I/O engine \"%s\" does not work here (%s); try \"%s\"",
                           engine->name, errno != 0 ? strerror(errno) : "the kernel is too old", hypura_io_pool.name);
    }
    if (options->n_paths < 1 || options->n_paths > MAX_FILES || options->depth > MAX_DEPTH ||
        options->max_reads > MAX_READS || options->block_bytes > IO_MAX_BLOCK_BYTES) {
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
            hypura_io_raw results[IO_BATCH];
            io->n_in_flight -= io->engine->finish(io->state, results, IO_BATCH, UINT64_MAX);
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
