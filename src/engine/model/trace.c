/*
 * trace.c - see trace.h.
 */
#include "engine/model/trace.h"

#include "base/status.h"

#include "ggml-backend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct hypura_trace {
    FILE *file;
    char *path;
    uint32_t n_layers;
    uint32_t n_ubatch;
    uint32_t width; /* most experts of a token in a layer */
    int *bundle_of; /* by layer: the bundle that its lines tell of, or -1 */
    const hypura_map *map;
    uint64_t n_done;   /* tokens before those at hand */
    uint32_t n_tokens; /* at hand */
    uint32_t *n_rows;  /* by layer: of the last tokens at hand; 0: not told */
    uint32_t *n_used;  /* by layer */
    int32_t *experts;  /* [layer][row][rank] */
    bool too_wide;
    bool failed; /* to be written */
};

static hypura_status flush(hypura_trace *trace, hypura_error *error)
{
    if (fflush(trace->file) == 0 && !ferror(trace->file)) {
        return HYPURA_OK;
    }
    trace->failed = true;
    return hypura_fail_errno(error, errno, "cannot write the route %s", trace->path);
}

static hypura_status start_file(hypura_trace *trace, const hypura_map *map, hypura_error *error)
{
    trace->file = fopen(trace->path, "we");
    if (!trace->file) {
        return hypura_fail_errno(error, errno, "cannot create the route %s", trace->path);
    }
    (void)fprintf(trace->file, "# %s: %d layers, %d experts, top-%d\n# token layer expert...\n",
                  map->name[0] ? map->name : map->arch, map->n_layers, map->n_experts, map->n_experts_used);
    return flush(trace, error);
}

/* A part of a route would be taken for one. */
static void remove_file(const hypura_trace *trace)
{
    struct stat written;
    struct stat named;
    if (fstat(fileno(trace->file), &written) == 0 && lstat(trace->path, &named) == 0 && S_ISREG(named.st_mode) &&
        named.st_dev == written.st_dev && named.st_ino == written.st_ino) {
        (void)unlink(trace->path);
    }
}

static void choose_bundles(hypura_trace *trace, const hypura_map *map)
{
    for (uint32_t layer = 0; layer < trace->n_layers; layer++) {
        trace->bundle_of[layer] = -1;
    }
    for (int b = map->n_bundles; b-- > 0;) {
        const int layer = map->bundles[b].layer;
        if (layer >= 0 && (uint32_t)layer < trace->n_layers) {
            trace->bundle_of[layer] = b; /* the first one, where a layer selects twice */
        }
    }
}

hypura_status hypura_trace_open(const char *path, const hypura_map *map, uint32_t n_ubatch, hypura_trace **opened,
                                hypura_error *error)
{
    *opened = NULL;
    if (map->n_bundles == 0) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s has no experts: there is no route to record", map->path);
    }
    hypura_trace *trace = calloc(1, sizeof(*trace));
    if (!trace) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the route %s", path);
    }
    const int width = map->n_experts_used > 0 ? map->n_experts_used : map->n_experts;
    trace->map = map;
    trace->n_layers = (uint32_t)map->n_layers;
    trace->n_ubatch = n_ubatch;
    trace->width = width > 0 ? (uint32_t)width : 1;
    trace->path = strdup(path);
    trace->bundle_of = calloc(trace->n_layers, sizeof(*trace->bundle_of));
    trace->n_rows = calloc(trace->n_layers, sizeof(*trace->n_rows));
    trace->n_used = calloc(trace->n_layers, sizeof(*trace->n_used));
    trace->experts = calloc((size_t)trace->n_layers * n_ubatch, trace->width * sizeof(*trace->experts));
    hypura_status status = HYPURA_OK;
    if (!trace->path || !trace->bundle_of || !trace->n_rows || !trace->n_used || !trace->experts) {
        status = hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the route %s", path);
    } else {
        choose_bundles(trace, map);
        status = start_file(trace, map, error);
    }
    if (status != HYPURA_OK) {
        hypura_trace_close(trace);
        return status;
    }
    *opened = trace;
    return HYPURA_OK;
}

void hypura_trace_close(hypura_trace *trace)
{
    if (!trace) {
        return;
    }
    if (trace->file && trace->failed) {
        remove_file(trace);
    }
    if (trace->file) {
        (void)fclose(trace->file); /* all of it was flushed, or the failure told */
    }
    free(trace->path);
    free(trace->bundle_of);
    free(trace->n_rows);
    free(trace->n_used);
    free(trace->experts);
    free(trace);
}

void hypura_trace_begin(hypura_trace *trace, uint32_t n_tokens)
{
    if (trace) {
        trace->n_tokens = n_tokens;
        memset(trace->n_rows, 0, trace->n_layers * sizeof(*trace->n_rows));
    }
}

static void write_token(const hypura_trace *trace, uint32_t token)
{
    for (uint32_t layer = 0; layer < trace->n_layers; layer++) {
        const uint32_t left_out = trace->n_tokens - trace->n_rows[layer];
        if (token < left_out) {
            continue;
        }
        const int32_t *row = trace->experts + ((size_t)layer * trace->n_ubatch + token - left_out) * trace->width;
        (void)fprintf(trace->file, "%llu %u", (unsigned long long)(trace->n_done + token), layer);
        for (uint32_t rank = 0; rank < trace->n_used[layer]; rank++) {
            (void)fprintf(trace->file, " %d", row[rank]);
        }
        (void)fputc('\n', trace->file);
    }
}

hypura_status hypura_trace_end(hypura_trace *trace, bool ok, hypura_error *error)
{
    if (!trace || !ok) {
        return HYPURA_OK;
    }
    if (trace->too_wide) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "the route %s cannot be recorded: a layer selects more than %u "
                           "experts for a token",
                           trace->path, trace->width);
    }
    for (uint32_t token = 0; token < trace->n_tokens; token++) {
        write_token(trace, token);
    }
    trace->n_done += trace->n_tokens;
    return flush(trace, error);
}

bool hypura_trace_is_paged(const hypura_map *map, const hypura_plan *plan)
{
    bool paged = map->n_bundles > 0 && plan->n_vram_pools == 0; /* batches over a GPU are not looked at */
    for (int b = 0; b < map->n_bundles; b++) {
        paged = paged && plan->placements[map->bundles[b].tensors[0]].place == HYPURA_PLACE_EXPERTS;
    }
    return paged;
}

/* Where the rows of a layer go; NULL when they cannot be kept. */
static int32_t *rows_of(hypura_trace *trace, uint32_t layer, uint64_t n_used, uint64_t n_rows)
{
    if (n_used > trace->width || n_rows > trace->n_tokens) {
        trace->too_wide = true;
        return NULL;
    }
    trace->n_rows[layer] = (uint32_t)n_rows;
    trace->n_used[layer] = (uint32_t)n_used;
    return trace->experts + (size_t)layer * trace->n_ubatch * trace->width;
}

void hypura_trace_on_selection(void *user, const hypura_selection *selection)
{
    hypura_trace *trace = user;
    const int layer = trace->map->bundles[selection->bundle].layer;
    if (layer < 0 || (uint32_t)layer >= trace->n_layers || trace->bundle_of[layer] != selection->bundle) {
        return;
    }
    const hypura_selected *selected = &selection->selected;
    int32_t *rows = rows_of(trace, (uint32_t)layer, selected->n_used, selected->n_tokens);
    for (uint32_t token = 0; rows && token < selected->n_tokens; token++) {
        const char *from = selected->ids + token * selected->token_stride_bytes;
        for (uint32_t rank = 0; rank < selected->n_used; rank++) {
            memcpy(&rows[token * trace->width + rank], from + rank * selected->rank_stride_bytes, sizeof(*rows));
        }
    }
}

bool hypura_trace_on_node(struct ggml_tensor *tensor, bool ask, void *user)
{
    static const char prefix[] = "ffn_moe_topk-"; /* the layer follows */
    hypura_trace *trace = user;
    if (strncmp(tensor->name, prefix, sizeof(prefix) - 1) != 0 || tensor->type != GGML_TYPE_I32) {
        return !ask; /* not asked for, and nothing to stop for */
    }
    const unsigned long layer = strtoul(tensor->name + sizeof(prefix) - 1, NULL, 10);
    if (ask || layer >= trace->n_layers || trace->bundle_of[layer] < 0) {
        return true;
    }
    int32_t *rows = rows_of(trace, (uint32_t)layer, (uint64_t)tensor->ne[0], (uint64_t)tensor->ne[1]);
    for (int64_t token = 0; rows && token < tensor->ne[1]; token++) {
        ggml_backend_tensor_get(tensor, rows + token * trace->width, (size_t)token * tensor->nb[1],
                                (size_t)tensor->ne[0] * sizeof(*rows));
    }
    return true;
}
