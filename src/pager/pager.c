/*
 * pager.c - opening and closing, the pager's thread, statistics.
 *
 * Owned by: the engine, one for each loaded model. pager.h states the invariants.
 *
 *     executor                      thread                       engine (io)
 *        | lease, acquire: push        |                             |
 *        |---------------------------->| submit                      |
 *        |            wake             |---------------------------->|
 *        | wait on `changed`           |             reap            |
 *        |                             |<----------------------------|
 *        |<----------------------------| state, broadcast            |
 */
#include "pager/internal.h"
#include "pager/vram.h"

#include "base/clock.h"
#include "base/status.h"
#include "base/thread.h"
#include "io/files.h"
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REAP_BATCH 64

#define SHORT_REQUEST_BYTES (UINT64_C(128) << 10)
#define MOST_DEPTH          64

static void complete(hypura_pager *pager, const hypura_io_completion *completion)
{
    switch (pager_user_owner(completion->user)) {
    case OWNER_EXPERT:
        pager_complete_expert(pager, completion);
        break;
    case OWNER_CHUNK:
        pager_complete_chunk(pager, completion);
        break;
    case OWNER_ROW:
        pager_complete_row(pager, completion);
        break;
    }
}

static void *thread_main(void *argument)
{
    hypura_pager        *pager = argument;
    hypura_io_completion completions[REAP_BATCH];
    (void)hypura_os_thread_come_first();
    pthread_mutex_lock(&pager->lock);
    while (!pager->stop || pager->n_outstanding > 0) {
        if (!pager->stop) {
            pager_submit(pager);
        }
        pager->n_passes++;
        pager->news = pager->news || pager->gives_way;
        pager_tell(pager);
        pthread_mutex_unlock(&pager->lock);
        const uint32_t n = hypura_io_reap(pager->io, completions, REAP_BATCH, UINT64_MAX);
        pthread_mutex_lock(&pager->lock);
        for (uint32_t i = 0; i < n; i++) {
            complete(pager, &completions[i]);
            pager->outstanding_bytes -= completions[i].bytes;
        }
        pager->n_outstanding -= n;
        pager_tell(pager);
        if (n > 0) {
            pager_choose_source(pager);
        }
    }
    pthread_mutex_unlock(&pager->lock);
    return NULL;
}

/* ---- failures ------------------------------------------------------------ */

void pager_note_failure(hypura_pager *pager, const hypura_io_completion *completion, int tensor, const char *part)
{
    if (pager->error.status != HYPURA_OK) {
        return;
    }
    const char *name = tensor >= 0 ? pager->map->tensors[tensor].name : "a weight";
    const char *file = tensor >= 0 ? pager->map->files[pager->map->tensors[tensor].file] : pager->map->path;
    if (pager->records && pager_user_owner(completion->user) == OWNER_EXPERT) {
        file = pager->records->path;
    }
    if (completion->errno_value == 0) {
        hypura_fail(&pager->error, HYPURA_ERR_IO,
                    "%s: the file ended at byte %llu while reading %s of tensor %s; was it truncated or replaced?", file,
                    (unsigned long long)completion->offset, part, name);
    } else {
        hypura_fail_errno(&pager->error, completion->errno_value, "%s: reading %s of tensor %s at byte %llu failed", file,
                          part, name, (unsigned long long)completion->offset);
    }
}

hypura_status hypura_pager_check_files(const hypura_pager *pager, bool opening, hypura_error *error)
{
    const hypura_status status = hypura_io_check_files(pager->io, error);
    return opening && status == HYPURA_OK ? hypura_io_check_paths(pager->io, error) : status;
}

hypura_status hypura_pager_take_error(hypura_pager *pager, hypura_error *error)
{
    pthread_mutex_lock(&pager->lock);
    const hypura_error taken = pager->error;
    hypura_error_clear(&pager->error);
    pthread_mutex_unlock(&pager->lock);
    if (error && taken.status != HYPURA_OK) {
        *error = taken;
    }
    return taken.status;
}

/* ---- open and close ------------------------------------------------------ */

/* Requests may be shorter than the plan's block: as many as the window holds then. */
static uint32_t engine_depth(const hypura_plan *plan)
{
    const uint64_t most = plan->io_block_bytes * plan->io_depth / SHORT_REQUEST_BYTES;
    return most < plan->io_depth ? plan->io_depth : most < MOST_DEPTH ? (uint32_t)most : MOST_DEPTH;
}

static hypura_status open_io(hypura_pager *pager, hypura_error *error)
{
    pager->io_max_reads = 256;
    const int     n_files = pager->map->n_files;
    hypura_status status = pager_open_records(pager, error);
    if (status != HYPURA_OK) {
        return status;
    }
    const char **paths = malloc(((size_t)n_files + 1) * sizeof(*paths));
    if (!paths) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the names of %d files", n_files);
    }
    for (int i = 0; i < n_files; i++) {
        paths[i] = pager->map->files[i];
    }
    paths[n_files] = pager->records ? pager->records->path : NULL;
    const hypura_io_options options = {
        .engine = pager->engine,
        .paths = paths,
        .n_paths = n_files + (pager->records != NULL),
        .block_bytes = pager->plan->io_block_bytes,
        .depth = engine_depth(pager->plan),
        .staging_bytes = pager->plan->io_block_bytes * (pager->plan->io_depth + 1), /* schedule.c keeps to the window */
        .max_reads = pager->io_max_reads,
        .limit_bytes_per_s = pager->io_limit_bytes_per_s,
        .hook = pager->hook,
        .hook_user = pager->hook_user,
    };
    status = hypura_io_open(&options, &pager->io, error);
    free(paths);
    char why[64] = "it was written to";
    if (status == HYPURA_OK && pager->records &&
        (!hypura_records_is_sealed(pager->records, pager->records->path) ||
         !hypura_records_match(pager->records, pager->records->path, why, sizeof(why)))) {
        status = hypura_fail(error, HYPURA_ERR_IO, "%s was replaced while it was opened: %s", pager->records->path, why);
    }
    return status;
}

/* The files that were opened are those that the map was read from, or those that
 * `as` has open. */
static hypura_status check_same(const hypura_pager *pager, const hypura_io *io, const hypura_io *as, hypura_error *error)
{
    const hypura_map *map = pager->map;
    if (hypura_io_files_check_known(hypura_io_files(io), map->n_files, map->file_bytes, map->file_modified_ns, error) !=
        HYPURA_OK) {
        return HYPURA_ERR_IO;
    }
    for (int i = 0; as && i < map->n_files; i++) {
        const hypura_os_identity *now = &hypura_io_files(io)[i].identity;
        const hypura_os_identity *then = &hypura_io_files(as)[i].identity;
        if (now->device != then->device || now->inode != then->inode) {
            return hypura_fail(error, HYPURA_ERR_IO, "%s was replaced or written to while it was opened: open it again",
                               map->files[i]);
        }
    }
    return HYPURA_OK;
}

static hypura_status start_threads(hypura_pager *pager, hypura_error *error)
{
    const int result = pthread_create(&pager->thread, NULL, thread_main, pager);
    if (result != 0) {
        return hypura_fail_errno(error, result, "the pager's thread could not be started");
    }
    pager->thread_started = true;
    return pager_start_helpers(pager, error);
}

static bool has_slots(const hypura_plan *plan, int gpu)
{
    for (int p = 0; p < plan->n_vram_pools; p++) {
        if (plan->vram_pools[p].gpu == gpu) {
            return true;
        }
    }
    return false;
}

static hypura_status open_vrams(hypura_pager *pager, const hypura_pager_options *options, hypura_error *error)
{
    hypura_status status = HYPURA_OK;
    for (int g = 0; g < options->n_gpus && status == HYPURA_OK; g++) {
        if (has_slots(pager->plan, g)) {
            status = hypura_vram_open(pager, options->gpus[g], g, &pager->vrams[g], error);
        }
    }
    return status;
}

/* Over a GPU little is computed by a team. */
static bool open_processors(hypura_pager *pager, hypura_error *error)
{
    const int n = pager->gpu ? 0 : hypura_os_processors(NULL, 0);
    if (!hypura_look_needs_places(n, pager->n_compute)) {
        return true;
    }
    pager->processors = malloc((size_t)n * sizeof(*pager->processors));
    if (!pager->processors || hypura_os_processors(pager->processors, n) != n) {
        (void)hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the numbers of %d processors", n);
        return false;
    }
    return true;
}

int hypura_pager_processors(const hypura_pager *pager, const int **processors)
{
    *processors = pager->processors;
    return pager->processors ? pager->n_compute : 0;
}

hypura_status hypura_pager_open(const hypura_pager_options *options, hypura_pager **out, hypura_error *error)
{
    hypura_error local = {0};
    if (!error) {
        error = &local;
    }
    hypura_pager *pager = calloc(1, sizeof(*pager));
    if (!pager) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the pager");
    }
    pager->map = options->map;
    pager->plan = options->plan;
    pager->engine = options->io_engine;
    pager->io_limit_bytes_per_s = options->io_limit_bytes_per_s;
    pager->form = options->form;
    pager->n_helpers_wanted = options->n_repack_threads > 0 ? options->n_repack_threads : 1;
    pager->gives_way = options->gives_way;
    pager->looks = options->looks && options->n_gpus == 0;
    pager->n_compute = options->n_compute;
    pager->foresight = options->foresight;
    pager->hook = options->hook;
    pager->hook_user = options->hook_user;
    pager->on_selection = options->on_selection;
    pager->on_selection_user = options->on_selection_user;
    pager->foretell = options->foretell;
    pager->foretell_user = options->foretell_user;
    pager->last_bundle = -1;
    pager->gpu = options->n_gpus > 0 ? options->gpus[0] : NULL;
    pager->computes_misses = options->gpu_misses == HYPURA_GPU_MISSES_CPU;
    pthread_mutex_init(&pager->executor, NULL);
    pthread_mutex_init(&pager->gate, NULL);
    pthread_mutex_init(&pager->resizing, NULL);
    pthread_mutex_init(&pager->lock, NULL);
    pthread_cond_init(&pager->changed, NULL);
    hypura_cond_init(&pager->arrived);
    pthread_cond_init(&pager->jobs_changed, NULL);
    pager->layers = calloc((size_t)pager->map->n_layers + 1, sizeof(*pager->layers));
    if (!pager->layers) {
        hypura_pager_close(pager);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the hits of %d layers", options->map->n_layers);
    }
    if (!open_processors(pager, error)) {
        hypura_pager_close(pager);
        return error->status;
    }
    if (pager_open_queues(pager, error) || open_io(pager, error) || check_same(pager, pager->io, NULL, error)) {
        hypura_pager_close(pager);
        return error->status;
    }
    pager_open_source(pager);
    if (pager_open_helpers(pager, error) || pager_open_experts(pager, error) || pager_open_dense(pager, error) ||
        pager_open_routers(pager, error) || pager_open_guess(pager, error) ||
        open_vrams(pager, options, error) || start_threads(pager, error)) {
        hypura_pager_close(pager);
        return error->status;
    }
    *out = pager;
    return HYPURA_OK;
}

void hypura_pager_close(hypura_pager *pager)
{
    if (!pager) {
        return;
    }
    pager_stop_keeper(pager);
    pthread_mutex_lock(&pager->lock);
    pager->stop = true;
    pager->prefault_stop = true;
    pthread_mutex_unlock(&pager->lock);
    pager_stop_helpers(pager);
    if (pager->thread_started) {
        hypura_io_wake(pager->io);
        pthread_join(pager->thread, NULL);
    }
    hypura_io_close(pager->io);
    hypura_records_close(pager->records);
    for (int g = 0; g < HYPURA_MAX_GPUS; g++) {
        hypura_vram_close(pager->vrams[g]);
    }
    pager_close_experts(pager);
    pager_close_dense(pager);
    pager_close_helpers(pager);
    pager_close_routers(pager);
    pager_close_guess(pager);
    pager_close_queues(pager);
    free(pager->layers);
    free(pager->processors);
    pthread_cond_destroy(&pager->jobs_changed);
    pthread_cond_destroy(&pager->arrived);
    pthread_cond_destroy(&pager->changed);
    pthread_mutex_destroy(&pager->lock);
    pthread_mutex_destroy(&pager->resizing);
    pthread_mutex_destroy(&pager->gate);
    pthread_mutex_destroy(&pager->executor);
    free(pager);
}

const hypura_map *hypura_pager_map(const hypura_pager *pager)
{
    return pager->map;
}

const hypura_plan *hypura_pager_plan(const hypura_pager *pager)
{
    return pager->plan;
}

hypura_vram *hypura_pager_vram(const hypura_pager *pager, int gpu)
{
    return pager->vrams[gpu];
}

void hypura_pager_enter(hypura_pager *pager)
{
    pthread_mutex_lock(&pager->gate);
    pthread_mutex_lock(&pager->executor);
    pthread_mutex_unlock(&pager->gate);
}

void hypura_pager_leave(hypura_pager *pager)
{
    pthread_mutex_unlock(&pager->executor);
}

/* ---- loading what stays -------------------------------------------------- */

hypura_status hypura_pager_load(hypura_pager *pager, const hypura_load *loads, int n, hypura_progress_fn progress,
                                void *progress_user, hypura_error *error)
{
    if (n == 0) {
        return HYPURA_OK;
    }
    hypura_io_read *reads = calloc((size_t)n, sizeof(*reads));
    if (!reads) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %d reads", n);
    }
    uint64_t total = 0;
    for (int i = 0; i < n; i++) {
        reads[i] = (hypura_io_read){
            .file = (uint16_t)loads[i].file,
            .offset = loads[i].offset,
            .bytes = loads[i].bytes,
            .dst = loads[i].dst,
        };
        total += loads[i].bytes;
    }
    /* an engine of its own: the pager's belongs to the pager's thread */
    const hypura_io_options options = {
        .engine = pager->engine,
        .paths = pager->map->files,
        .n_paths = pager->map->n_files,
        .block_bytes = pager->plan->io_block_bytes,
        .depth = pager->plan->io_depth,
        .max_reads = 64,
        .hook = pager->hook,
        .hook_user = pager->hook_user,
    };
    hypura_io    *io = NULL;
    hypura_status status = hypura_io_open(&options, &io, error);
    if (status == HYPURA_OK) {
        status = check_same(pager, io, pager->io, error);
    }
    if (status == HYPURA_OK) {
        status = hypura_io_read_all(io, reads, (uint32_t)n, progress, progress_user, error);
    }
    hypura_io_close(io);
    free(reads);
    if (status == HYPURA_OK) {
        pthread_mutex_lock(&pager->lock);
        pager->statistics.trunk_bytes_read += total;
        pthread_mutex_unlock(&pager->lock);
    }
    return status;
}

void hypura_pager_uncache(hypura_pager *pager)
{
    if (pager->source.reads == HYPURA_READS_ON_TRIAL) {
        return; /* it was there before, and may be of use */
    }
    for (int i = 0; i < pager->map->n_files; i++) {
        hypura_os_file_uncache(hypura_io_files(pager->io)[i].fd);
    }
}

/* ---- statistics ---------------------------------------------------------- */

void hypura_pager_add_readback(hypura_pager *pager, uint64_t wait_us)
{
    pthread_mutex_lock(&pager->lock);
    pager->statistics.n_readbacks++;
    pager->statistics.readback_s += (double)wait_us * 1e-6;
    pthread_mutex_unlock(&pager->lock);
}

void hypura_pager_add_submit(hypura_pager *pager, uint64_t submit_us)
{
    pthread_mutex_lock(&pager->lock);
    pager->statistics.submit_s += (double)submit_us * 1e-6;
    pthread_mutex_unlock(&pager->lock);
}

void hypura_pager_add_ahead(hypura_pager *pager, bool again)
{
    pthread_mutex_lock(&pager->lock);
    pager->statistics.n_ahead++;
    pager->statistics.n_repeated += again;
    pthread_mutex_unlock(&pager->lock);
}

void hypura_pager_add_asked(hypura_pager *pager, bool by_gpu)
{
    pthread_mutex_lock(&pager->lock);
    pager->statistics.n_asked_by_gpu += by_gpu;
    pager->statistics.n_asked_by_host += !by_gpu;
    pthread_mutex_unlock(&pager->lock);
}

void hypura_pager_add_computed(hypura_pager *pager, uint32_t n_rows, uint64_t us)
{
    pthread_mutex_lock(&pager->lock);
    pager->statistics.n_cpu_layers++;
    pager->statistics.n_cpu_rows += n_rows;
    pager->statistics.cpu_rows_s += (double)us * 1e-6;
    pthread_mutex_unlock(&pager->lock);
}

void hypura_pager_add_not_computed(hypura_pager *pager, hypura_not_computed why)
{
    pthread_mutex_lock(&pager->lock);
    pager->statistics.n_not_cpu_chain += why == HYPURA_UNKNOWN_CHAIN;
    pager->statistics.n_not_cpu_ram += why == HYPURA_NO_ROOM_IN_RAM;
    pthread_mutex_unlock(&pager->lock);
}

void hypura_pager_add_time(hypura_pager *pager, uint64_t compute_us, uint64_t total_us, bool placed)
{
    pthread_mutex_lock(&pager->lock);
    pager->statistics.compute_s += (double)compute_us * 1e-6;
    pager->statistics.overhead_s += (double)total_us * 1e-6; /* the parts known are taken off when asked for */
    pager->statistics.placed_s += placed ? (double)total_us * 1e-6 : 0.0;
    pthread_mutex_unlock(&pager->lock);
}

void hypura_pager_statistics(hypura_pager *pager, hypura_statistics *statistics)
{
    hypura_io_counters counters;
    bool               direct = true;
    hypura_io_read_counters(pager->io, &counters);
    for (int i = 0; i < pager->map->n_files + (pager->records != NULL); i++) {
        direct = direct && hypura_io_files(pager->io)[i].direct;
    }
    pthread_mutex_lock(&pager->lock);
    *statistics = pager->statistics;
    statistics->pool_bytes = pager_pool_bytes(pager);
    statistics->pinned_bytes = pager_pinned_bytes(pager);
    statistics->n_resizes = pager->n_resized;
    statistics->reads = pager->source.reads;
    const bool through = pager->source.through;
    statistics->budget_reason = pager->budget_reason;
    statistics->bytes_read = counters.bytes_read - pager->counters_base.bytes_read;
    statistics->device_busy_s = (double)(counters.busy_us - pager->counters_base.busy_us) * 1e-6;
    if (pager->n_pools > 0) {
        snprintf(statistics->cache_policy, sizeof(statistics->cache_policy), "%s",
                 hypura_cache_policy(pager->pools[0].cache));
        pager_tell_foresight(pager, statistics);
    }
    pthread_mutex_unlock(&pager->lock);
    const double known = statistics->compute_s + statistics->read_wait_s;
    statistics->overhead_s = statistics->overhead_s > known ? statistics->overhead_s - known : 0;
    snprintf(statistics->io_engine, sizeof(statistics->io_engine), "%s", hypura_io_engine_name(pager->io));
    statistics->direct_io = direct && !through;
    statistics->records = pager->records != NULL;
    snprintf(statistics->records_note, sizeof(statistics->records_note), "%s", pager->records_note);
}

void hypura_pager_layer_hits(hypura_pager *pager, hypura_layer_hits *layers, int n)
{
    pthread_mutex_lock(&pager->lock);
    for (int i = 0; i < n; i++) {
        layers[i] = i < pager->map->n_layers ? pager->layers[i] : (hypura_layer_hits){.bytes_needed = 0};
    }
    pthread_mutex_unlock(&pager->lock);
}

void hypura_pager_reset_statistics(hypura_pager *pager)
{
    hypura_io_counters counters;
    hypura_io_read_counters(pager->io, &counters);
    pthread_mutex_lock(&pager->lock);
    const hypura_statistics kept = {.trunk_bytes_read = pager->statistics.trunk_bytes_read,
                                    .locked_bytes = pager->statistics.locked_bytes,
                                    .ahead_bytes_read = pager_expected_bytes(pager)}; /* whether of use, or dropped, is told later */
    pager->statistics = kept;
    memset(pager->layers, 0, (size_t)pager->map->n_layers * sizeof(*pager->layers));
    pager->counters_base = counters;
    pthread_mutex_unlock(&pager->lock);
}
