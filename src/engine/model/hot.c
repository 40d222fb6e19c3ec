/*
 * hot.c - see hot.h.
 */
#include "engine/model/hot.h"

#include "base/path.h"
#include "base/status.h"
#include "hw/kept.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES 4096

/* By the file's own name, not its folder: a model that moves stays known. */
static bool hot_path(const char *cache_dir, const hypura_map *map, char *path)
{
    const int n = snprintf(path, PATH_BYTES, "%s/%s.experts", cache_dir, hypura_path_name(map->files[0]));
    return n > 0 && n < PATH_BYTES;
}

static int64_t modified_ns(const hypura_map *map)
{
    return map->file_modified_ns ? map->file_modified_ns[0] : 0;
}

static uint32_t n_counts(const hypura_map *map)
{
    uint32_t n = 0;
    for (int b = 0; b < map->n_bundles; b++) {
        n += (uint32_t)map->bundles[b].n_experts;
    }
    return n;
}

/* ---- reading -------------------------------------------------------------------- */

static bool read_header(FILE *file, const hypura_map *map)
{
    int      version, n_bundles;
    uint64_t bytes;
    int64_t  modified;
    return fscanf(file, "hypura experts %d %" SCNu64 " %" SCNd64 " %d", &version, &bytes, &modified, &n_bundles) == 4 &&
           version == 1 && bytes == map->file_bytes[0] && modified == modified_ns(map) && n_bundles == map->n_bundles;
}

static bool read_counts(FILE *file, const hypura_map *map, uint32_t *counts)
{
    for (int b = 0; b < map->n_bundles; b++) {
        int layer;
        if (fscanf(file, "%d", &layer) != 1 || layer != map->bundles[b].layer) {
            return false;
        }
        for (int e = 0; e < map->bundles[b].n_experts; e++) {
            if (fscanf(file, "%" SCNu32, counts++) != 1) {
                return false;
            }
        }
    }
    return true;
}

/* All 0 without a file that fits. */
static void read_file(const char *path, const hypura_map *map, uint32_t *counts)
{
    FILE *file = fopen(path, "r");
    if (!file || !read_header(file, map) || !read_counts(file, map, counts)) {
        memset(counts, 0, n_counts(map) * sizeof(*counts));
    }
    if (file) {
        (void)fclose(file);
    }
}

static int compare(const void *a, const void *b)
{
    const hypura_hot_expert *first = a;
    const hypura_hot_expert *second = b;
    return (first->frequency < second->frequency) - (first->frequency > second->frequency);
}

/* Counts to shares of the tokens, the largest first. Returns how many were used. */
static uint32_t list_hot(const hypura_map *map, const uint32_t *counts, hypura_hot_expert *hot)
{
    uint32_t n = 0;
    for (int b = 0; b < map->n_bundles; b++) {
        double uses = 0.0;
        for (int e = 0; e < map->bundles[b].n_experts; e++) {
            uses += counts[e];
        }
        for (int e = 0; e < map->bundles[b].n_experts; e++) {
            if (counts[e] > 0) {
                const double share = counts[e] * (double)map->n_experts_used / uses;
                hot[n++] = (hypura_hot_expert){
                    .bundle = b, .expert = (uint32_t)e, .frequency = share < 1.0 ? (float)share : 1.0f};
            }
        }
        counts += map->bundles[b].n_experts;
    }
    qsort(hot, n, sizeof(*hot), compare);
    return n;
}

hypura_status hypura_hot_load(const char *cache_dir, const hypura_map *map, hypura_pager *pager, hypura_error *error)
{
    char           path[PATH_BYTES];
    const uint32_t n = n_counts(map);
    if (n == 0 || !hot_path(cache_dir, map, path)) {
        return HYPURA_OK;
    }
    uint32_t          *counts = calloc(n, sizeof(*counts));
    hypura_hot_expert *hot = calloc(n, sizeof(*hot));
    hypura_status      status = HYPURA_OK;
    if (!counts || !hot) {
        status = hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the counts of %u experts", n);
    } else {
        read_file(path, map, counts);
        status = hypura_pager_warm(pager, hot, list_hot(map, counts, hot), error);
    }
    free(counts);
    free(hot);
    return status;
}

/* ---- writing ---------------------------------------------------------------------- */

/* "4294967295 " */
#define COUNT_BYTES 11

static void write_text(const hypura_map *map, const uint32_t *counts, char *text, size_t bytes)
{
    size_t at = (size_t)snprintf(text, bytes, "hypura experts 1 %" PRIu64 " %" PRId64 " %d\n", map->file_bytes[0],
                                 modified_ns(map), map->n_bundles);
    for (int b = 0; b < map->n_bundles; b++) {
        at += (size_t)snprintf(text + at, bytes - at, "%d", map->bundles[b].layer);
        for (int e = 0; e < map->bundles[b].n_experts; e++) {
            at += (size_t)snprintf(text + at, bytes - at, " %" PRIu32, *counts++);
        }
        at += (size_t)snprintf(text + at, bytes - at, "\n");
    }
}

/* Half of what was there, and what came since. */
static bool add_uses(const hypura_map *map, hypura_pager *pager, uint32_t *counts)
{
    bool used = false;
    for (int b = 0; b < map->n_bundles; b++) {
        for (int e = 0; e < map->bundles[b].n_experts; e++) {
            const uint32_t uses = hypura_pager_uses(pager, b, (uint32_t)e);
            *counts = *counts / 2 + (uses < UINT32_MAX / 2 ? uses : UINT32_MAX / 2);
            used = used || uses > 0;
            counts++;
        }
    }
    return used;
}

hypura_status hypura_hot_save(const char *cache_dir, const hypura_map *map, hypura_pager *pager, hypura_error *error)
{
    char           path[PATH_BYTES];
    const uint32_t n = n_counts(map);
    if (n == 0 || !hot_path(cache_dir, map, path)) {
        return HYPURA_OK;
    }
    const size_t  bytes = 128 + (size_t)n * COUNT_BYTES + (size_t)map->n_bundles * (COUNT_BYTES + 1);
    uint32_t     *counts = calloc(n, sizeof(*counts));
    char         *text = malloc(bytes);
    hypura_status status = HYPURA_OK;
    int           turn;
    if (!counts || !text) {
        status = hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the counts of %u experts", n);
    } else if (hypura_kept_begin(cache_dir, &turn)) {
        read_file(path, map, counts);
        if (add_uses(map, pager, counts)) {
            write_text(map, counts, text, bytes);
            status = hypura_kept_write(path, text, error);
        }
        hypura_kept_end(turn);
    }
    free(counts);
    free(text);
    return status;
}
