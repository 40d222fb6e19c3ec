/*
 * trunk.c - see trunk.h.
 *
 * libllama maps each file once, from its first byte, and points the weights it
 * keeps on the CPU into that mapping. The pages under them are exchanged in place,
 * so every pointer stays right:
 *
 *     file      |.....A A A B B|. . . . .|C C|.....      weights that stay: A B C
 *     mapping   |..aaaaaaaaaaaa|         |cccc|...       a, c: anonymous, read-only
 *                page boundaries
 *
 * Runs are widened outward to whole pages and read from the same offset of the
 * file, which also makes the reads aligned and free of copies. libllama's munmap
 * at the end covers the exchanged pages like any other.
 */
#include "engine/model/trunk.h"

#include "base/size.h"
#include "base/status.h"
#include "engine/llama/llama_shim.h"
#include "os/os.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_BUFFERS = 16 }; /* of libllama's weights: one for each kind of memory and file */

typedef struct weight {
    int tensor; /* of the map */
    int file;
    uint64_t begin; /* offsets in the file */
    uint64_t end;
    char *base; /* where the mapping of that file begins */
} weight;

typedef struct collection {
    const hypura_map *map;
    const hypura_plan *plan;
    weight *weights;
    int n;
    int capacity;
    const char *streamed; /* a streamed weight found in the mapping */
    bool out_of_memory;
} collection;

static bool is_mapped(const struct ggml_tensor *tensor)
{
    return tensor->buffer && strcmp(ggml_backend_buffer_name(tensor->buffer), "CPU_Mapped") == 0;
}

static bool collect(void *user, const char *name, struct ggml_tensor *tensor)
{
    collection *c = user;
    if (!is_mapped(tensor)) {
        return true;
    }
    int at = hypura_map_find(c->map, name);
    if (at < 0) {
        return true; /* not from the file */
    }
    /* Small tensors of layers on both sides (rope factors) have a copy on each. */
    const hypura_place place = c->plan->placements[at].place;
    if (place != HYPURA_PLACE_RESIDENT && place != HYPURA_PLACE_VRAM) {
        c->streamed = c->map->tensors[at].name;
        return false;
    }
    if (c->n == c->capacity) {
        int capacity = c->capacity > 0 ? 2 * c->capacity : 256;
        weight *weights = realloc(c->weights, (size_t)capacity * sizeof(*weights));
        if (!weights) {
            c->out_of_memory = true;
            return false;
        }
        c->weights = weights;
        c->capacity = capacity;
    }
    const hypura_tensor *t = &c->map->tensors[at];
    c->weights[c->n++] = (weight){.tensor = at,
                                  .file = t->file,
                                  .begin = t->offset,
                                  .end = t->offset + t->bytes,
                                  .base = (char *)tensor->data - t->offset};
    return true;
}

static int by_offset(const void *a, const void *b)
{
    const weight *x = a;
    const weight *y = b;
    if (x->file != y->file) {
        return x->file < y->file ? -1 : 1;
    }
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

/* Widens to pages and merges what touches, in place. Returns how many runs. */
static int merge(weight *w, int n, uint64_t page, const hypura_map *map)
{
    int n_runs = 0;
    for (int i = 0; i < n; i++) {
        const uint64_t size = map->file_bytes[w[i].file];
        weight run = w[i];
        run.begin = hypura_round_down(run.begin, page);
        run.end = hypura_round_up(run.end, page);
        if (run.end > size) {
            run.end = size;
        }
        weight *last = n_runs > 0 ? &w[n_runs - 1] : NULL;
        if (last && last->file == run.file && last->base == run.base && run.begin <= last->end) {
            if (run.end > last->end) {
                last->end = run.end;
            }
        } else {
            w[n_runs++] = run;
        }
    }
    return n_runs;
}

static hypura_status exchange(const weight *runs, int n, uint64_t page, const hypura_map *map, hypura_pager *pager,
                              hypura_progress_fn progress, void *progress_user, hypura_error *error)
{
    hypura_load *loads = calloc((size_t)n, sizeof(*loads));
    if (!loads) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "%s: no memory to load %d runs of weights", map->path, n);
    }
    hypura_status status = HYPURA_OK;
    for (int i = 0; i < n && status == HYPURA_OK; i++) {
        char *at = runs[i].base + runs[i].begin;
        const size_t length = (size_t)(runs[i].end - runs[i].begin);
        if ((uintptr_t)at % page != 0) {
            status = hypura_fail(error, HYPURA_ERR_BACKEND, "%s: libllama's mapping of it is not where tensor %s says",
                                 map->files[runs[i].file], map->tensors[runs[i].tensor].name);
        } else if (!hypura_os_memory_replace(at, length, HYPURA_OS_MAP_HUGE)) {
            int code = errno;
            status = hypura_fail_errno(error, code, "%s: no memory for %zu bytes of weights from tensor %s on",
                                       map->path, length, map->tensors[runs[i].tensor].name);
            status = error ? (error->status = HYPURA_ERR_MEMORY) : HYPURA_ERR_MEMORY;
        }
        loads[i] = (hypura_load){.file = runs[i].file, .offset = runs[i].begin, .bytes = length, .dst = at};
    }
    if (status == HYPURA_OK) {
        status = hypura_pager_load(pager, loads, n, progress, progress_user, error);
    }
    /* A stray write into weights is a crash, as it was in the mapping. */
    for (int i = 0; i < n && status == HYPURA_OK; i++) {
        if (mprotect(loads[i].dst, (size_t)loads[i].bytes, PROT_READ) != 0) {
            status = hypura_fail_errno(error, errno, "%s: weights cannot be made read-only", map->path);
        }
    }
    free(loads);
    return status;
}

/* What libllama read through the mapping to keep elsewhere (repacked weights) is
 * given back: the pages between the runs, which nothing needs any more. What lies
 * before the first and after the last one libllama has unmapped already: it may be
 * somebody else's memory by now. */
static void give_back(const weight *runs, int n, uint64_t page)
{
    for (int i = 1; i < n; i++) {
        const uint64_t begin = hypura_round_up(runs[i - 1].end, page);
        if (runs[i - 1].file == runs[i].file && runs[i - 1].base == runs[i].base && begin < runs[i].begin) {
            (void)madvise(runs[i].base + begin, (size_t)(runs[i].begin - begin), MADV_DONTNEED);
        }
    }
}

hypura_status hypura_trunk_load(const struct llama_model *model, const hypura_map *map, const hypura_plan *plan,
                                hypura_pager *pager, hypura_progress_fn progress, void *progress_user, uint64_t *bytes,
                                hypura_error *error)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    collection c = {.map = map, .plan = plan};
    hypura_status status = HYPURA_OK;

    *bytes = 0;
    hypura_shim_weights(model, collect, &c);
    if (c.out_of_memory) {
        status = hypura_fail(error, HYPURA_ERR_MEMORY, "%s: no memory to list %d tensors", map->path, map->n_tensors);
    } else if (c.streamed) {
        status = hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                             "%s: tensor %s was planned to be streamed, but llama.cpp wants it in memory; "
                             "please report this model",
                             map->path, c.streamed);
    } else if (c.n > 0) {
        qsort(c.weights, (size_t)c.n, sizeof(*c.weights), by_offset);
        const int n_runs = merge(c.weights, c.n, page, map);
        for (int i = 0; i < n_runs; i++) {
            *bytes += c.weights[i].end - c.weights[i].begin;
        }
        status = exchange(c.weights, n_runs, page, map, pager, progress, progress_user, error);
        give_back(c.weights, n_runs, page);
        hypura_pager_uncache(pager);
    }
    free(c.weights);
    return status;
}

typedef struct allocation {
    ggml_backend_buffer_t buffers[MAX_BUFFERS];
    int n;
} allocation;

static bool collect_buffer(void *user, const char *name, struct ggml_tensor *tensor)
{
    allocation *a = user;
    const ggml_backend_buffer_t buffer = tensor->buffer;
    (void)name;
    if (!buffer || is_mapped(tensor)) {
        return true;
    }
    /* The CPU's own buffer type names no device. */
    const ggml_backend_dev_t device = ggml_backend_buft_get_device(ggml_backend_buffer_get_type(buffer));
    if (device && ggml_backend_dev_type(device) != GGML_BACKEND_DEVICE_TYPE_CPU) {
        return true;
    }
    for (int i = 0; i < a->n; i++) {
        if (a->buffers[i] == buffer) {
            return true;
        }
    }
    a->buffers[a->n++] = buffer;
    return a->n < MAX_BUFFERS;
}

void hypura_trunk_collapse(const struct llama_model *model)
{
    allocation a = {.n = 0};
    hypura_shim_weights(model, collect_buffer, &a);
    for (int i = 0; i < a.n; i++) {
        (void)hypura_os_memory_collapse(ggml_backend_buffer_get_base(a.buffers[i]),
                                        ggml_backend_buffer_get_size(a.buffers[i]));
    }
}
