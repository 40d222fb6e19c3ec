/*
 * probe.h - the measurements that a profile is made of. Blocking, a few seconds
 * together; nothing is stored.
 *
 *     profile.c       what is measured and what is stored (store.c, kept.c: files that several processes change)
 *     probe_*.c       one measurement each: memory, storage (in a probe_file.c), GPUs, remote devices; and for estimates, what
 *                     products (probe_compute.c) and all else of a graph (probe_nodes.c) take, by timed_graph.c
 *     iobench.c       a drive in detail
 *     modules.c       ggml's GPU backends; patience.c: those that do not answer
 *     remote.c, rpc_link.cpp  devices of other machines
 */
#ifndef HYPURA_HW_PROBE_H
#define HYPURA_HW_PROBE_H

#include "hypura.h"

#include "hw/patience.h"

/* Sequential read of a buffer larger than the caches by n_threads threads,
 * bytes per second; takes about half a second. */
hypura_status hypura_probe_memory(int n_threads, double *bytes_per_s, hypura_error *error);

/* A file this large is measured as it is; where there is none, one of this size
 * is written, measured and removed. */
#define HYPURA_PROBE_FILE_BYTES ((uint64_t)256 << 20)

/* Measures the drive of path (a file or folder) with the pager's own I/O engine,
 * and fills the fields of the profile from storage_path to read_latency_us. Where
 * there is no room for a file of that size, a smaller path is read itself, and the
 * profile is provisional.
 * memory_bytes_per_s of the profile is set before: reads that look faster than
 * memory came from a cache, and are refused. */
hypura_status hypura_probe_storage(const char *path, hypura_progress_fn progress, void *progress_user,
                                   hypura_profile *profile, hypura_error *error);

/* Fills the rates of the device that ggml knows by the name in it; about 0.2 s. */
void hypura_probe_gpu(hypura_patience *patience, hypura_device *measured);

/* What a drive gives now: reads of that size and depth from a file, in random order
 * for about half a second where nothing else is asked for. limit_bytes_per_s and
 * buffered as in io.h. Many drives are faster for a while than for long: settle_us
 * is read before the time that counts. */
typedef struct hypura_probe_rate_options {
    const char *path;
    const char *io_engine; /* NULL: the best there is */
    uint64_t block_bytes;  /* made smaller for a smaller file */
    uint32_t depth;
    uint64_t limit_bytes_per_s;
    bool sequential;
    bool buffered;
    uint64_t range_bytes; /* read within the first bytes of the file alone; at least a block; 0: in all of it */
    uint64_t settle_us;   /* read before, without counting */
    uint64_t span_us;     /* 0: 400 ms */
    uint64_t max_bytes;   /* ends it earlier; 0: no limit */
} hypura_probe_rate_options;

/* Blocks for about settle and span. Fails naming path where it cannot be read so. */
hypura_status hypura_probe_rate(const hypura_probe_rate_options *options, double *bytes_per_s, hypura_error *error);

#endif
