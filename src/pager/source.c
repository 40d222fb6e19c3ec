/*
 * source.c - reads past the page cache or through it, as plan/source.h decides. By the
 * pager's thread, which alone touches the engine.
 */
#include "pager/internal.h"

#include "base/clock.h"
#include "os/os.h"

static int n_files(const hypura_pager *pager)
{
    return pager->map->n_files + (pager->records != NULL);
}

static double cached_share(const hypura_pager *pager)
{
    double share = 0;
    double bytes = 0;
    for (int i = 0; i < n_files(pager); i++) {
        const hypura_io_file *file = &hypura_io_files(pager->io)[i];
        share += hypura_os_file_cached_share(file->fd, file->bytes) * (double)file->bytes;
        bytes += (double)file->bytes;
    }
    return bytes > 0 ? share / bytes : 0;
}

/* Reads that are direct can be made to go through the page cache; where they never
 * were, or a drive is emulated, there is nothing to choose. */
static bool can_choose(const hypura_pager *pager)
{
    bool can = pager->io_limit_bytes_per_s == 0;
    for (int i = 0; i < n_files(pager); i++) {
        can = can && hypura_io_files(pager->io)[i].direct;
    }
    return can;
}

void pager_open_source(hypura_pager *pager)
{
    if (can_choose(pager)) {
        hypura_source_begin(&pager->source, cached_share(pager));
    }
}

void pager_choose_source(hypura_pager *pager)
{
    const uint64_t now_us = hypura_clock_us();
    if (pager->source.reads != HYPURA_READS_ON_TRIAL && !pager->source.through) {
        return;
    }
    double share = -1;
    if (hypura_source_asks(&pager->source, now_us)) {
        pthread_mutex_unlock(&pager->lock);
        share = cached_share(pager);
        pthread_mutex_lock(&pager->lock);
    }
    if (hypura_source_decide(&pager->source, now_us, pager->statistics.bytes_needed, share) &&
        !hypura_io_set_buffered(pager->io, pager->source.through)) {
        pager->source = (hypura_source){.reads = HYPURA_READS_FIXED};
    }
}
