/*
 * gpu_pieces.c - what a graph of one token is cut into, and which of these pieces may be computed
 * twice:
 *
 *     ... router | experts, attention, router | experts, ...
 *                  cut .................. end
 *
 * A piece may be computed twice when it overwrites nothing that it has read. Memory of what it
 * reads is therefore kept until its end (graph_optimize), caches are written before they are
 * read, and what cannot be repeated (a recurrent state is read, then written) is found by its
 * addresses.
 *
 * What always holds: pieces follow each other without a gap, and are found once for a graph that
 * comes again.
 */
#include "backend/gpu_internal.h"

#include <stdlib.h>

/* ---- what stays, and what may be repeated ---------------------------------------- */

static bool writes_into(const struct ggml_tensor *node, int source)
{
    return (node->op == GGML_OP_SET_ROWS && source == 2) || (node->op == GGML_OP_CPY && source == 1);
}

static struct ggml_tensor *owner_of(struct ggml_tensor *tensor)
{
    return tensor->view_src ? tensor->view_src : tensor;
}

static bool is_computed_in(const struct ggml_cgraph *graph, int first, int last, const struct ggml_tensor *tensor)
{
    for (int i = first; i < last; i++) {
        if (graph->nodes[i] == tensor) {
            return true;
        }
    }
    return false;
}

/* What nodes [first, last) read of others stays until their end. */
static void keep_sources(struct ggml_cgraph *graph, int first, int last, struct ggml_backend_graph_optimize_params *params)
{
    for (int i = first; i < last; i++) {
        for (int s = 0; s < GGML_MAX_SRC; s++) {
            struct ggml_tensor *source = graph->nodes[i]->src[s] ? owner_of(graph->nodes[i]->src[s]) : NULL;
            if (source && !source->buffer && !source->data && !is_computed_in(graph, first, last, source)) {
                params->add_alloc_dep(params->user_data, source, graph->nodes[last - 1]);
            }
        }
    }
}

/* What follows a chain may be computed a second time alone, with what the chain put out. */
static void keep_inputs_behind_chain(struct ggml_cgraph *graph, const gpu_cut *cut, int end,
                                     struct ggml_backend_graph_optimize_params *params)
{
    backend_chain chain;
    chain_find(graph, cut->at, &chain);
    keep_sources(graph, cut->at + chain.n, end, params);
}

void gpu_keep_inputs(const gpu_instance *instance, struct ggml_cgraph *graph,
                     struct ggml_backend_graph_optimize_params *params)
{
    gpu_cut cut = gpu_next_cut(instance, graph, 0, NULL);
    while (cut.at < graph->n_nodes && cut.ids->ne[1] == 1) {
        const gpu_cut next = gpu_next_cut(instance, graph, cut.at + 1, &cut);
        keep_sources(graph, cut.at, next.at, params);
        if (instance->hybrid) {
            keep_inputs_behind_chain(graph, &cut, next.at, params);
        }
        cut = next;
    }
}

/* Addresses say nothing without the buffer: those of ggml-vulkan all begin at the same. */
typedef struct range {
    ggml_backend_buffer_t buffer;
    const char           *begin;
    const char           *end;
} range;

/* Ranges of memory; those of a piece that does not fit here are not repeatable. */
typedef struct ranges {
    int n;
    range list[512];
} ranges;

static range range_of(const struct ggml_tensor *tensor)
{
    return (range){tensor->view_src ? tensor->view_src->buffer : tensor->buffer, tensor->data,
                   (const char *)tensor->data + ggml_nbytes(tensor)};
}

static bool add_range(ranges *all, range one)
{
    if (all->n == (int)(sizeof(all->list) / sizeof(*all->list))) {
        return false;
    }
    all->list[all->n++] = one;
    return true;
}

static bool covers(const ranges *all, range one)
{
    for (int i = 0; i < all->n; i++) {
        const range *other = &all->list[i];
        if (other->buffer == one.buffer && other->begin <= one.begin && one.end <= other->end) {
            return true;
        }
    }
    return false;
}

static bool overlaps(const ranges *all, range one)
{
    for (int i = 0; i < all->n; i++) {
        const range *other = &all->list[i];
        if (other->buffer == one.buffer && other->begin < one.end && one.begin < other->end) {
            return true;
        }
    }
    return false;
}

/* No node overwrites what was there when the piece began and was read by then. */
static bool is_repeatable(const struct ggml_cgraph *graph, int first, int last)
{
    ranges read = {.n = 0};
    ranges written = {.n = 0};
    bool ok = true;
    for (int i = first; i < last && ok; i++) {
        const struct ggml_tensor *node = graph->nodes[i];
        if (ggml_op_is_empty(node->op)) {
            continue;
        }
        for (int s = 0; s < GGML_MAX_SRC && ok; s++) {
            const struct ggml_tensor *source = node->src[s];
            if (source && !writes_into(node, s) && !covers(&written, range_of(source))) {
                ok = add_range(&read, range_of(source));
            }
        }
        ok = ok && !overlaps(&read, range_of(node));
        /* Of a cache few rows are written: what is read of it afterwards is not the piece's own. */
        ok = ok && (node->op == GGML_OP_SET_ROWS || add_range(&written, range_of(node)));
    }
    return ok;
}

/* ---- pieces ---------------------------------------------------------------------- */

static bool add_piece(gpu_pieces *pieces, const gpu_piece *piece)
{
    if (pieces->n == pieces->capacity) {
        const int more = pieces->capacity > 0 ? 2 * pieces->capacity : 64;
        gpu_piece *list = realloc(pieces->list, (size_t)more * sizeof(*list));
        if (!list) {
            return false;
        }
        pieces->list = list;
        pieces->capacity = more;
    }
    pieces->list[pieces->n++] = *piece;
    return true;
}

/* Room for the nodes of the largest piece, its lookup and reports, or of what comes before the first. */
static bool reserve_nodes(gpu_pieces *pieces)
{
    int most = pieces->n > 0 ? pieces->list[0].cut.at : 0;
    for (int i = 0; i < pieces->n; i++) {
        const int n = pieces->list[i].end - pieces->list[i].cut.at;
        most = n > most ? n : most;
    }
    most += 1 + GPU_MAX_REPORTS;
    if (most > pieces->max_nodes) {
        struct ggml_tensor **nodes = realloc(pieces->nodes, (size_t)most * sizeof(struct ggml_tensor *));
        if (!nodes) {
            return false;
        }
        pieces->nodes = nodes;
        pieces->max_nodes = most;
    }
    return true;
}

/* Where the last product of a piece begins, if no other one reads its matrix: what comes before
 * can be computed while that matrix is uploaded. */
static void find_middle(const gpu_walk *walk, gpu_piece *piece)
{
    int                   middle = piece->cut.at;
    const backend_weight *late = piece->cut.weight;
    for (int i = piece->cut.at; i < piece->end; i++) {
        const backend_weight *weight = gpu_streamed_weight(walk->instance, walk->graph->nodes[i]);
        if (weight) {
            middle = i;
            late = weight;
        }
    }
    bool alone = middle > piece->cut.at;
    for (int i = piece->cut.at; i < middle && alone; i++) {
        const backend_weight *weight = gpu_streamed_weight(walk->instance, walk->graph->nodes[i]);
        alone = !weight || weight->matrix != late->matrix;
    }
    piece->middle = alone ? middle : piece->end;
    piece->late_matrix = alone ? late->matrix : -1;
    piece->first_uid = ggml_graph_next_uid();
    piece->rest_uid = ggml_graph_next_uid();
}

/* What the processor may compute of a piece; the GPU then computes the chain and what follows apart. */
static void find_chain(const gpu_walk *walk, gpu_piece *piece)
{
    gpu_find_chain(walk, &piece->cut, piece->end, &piece->chain);
    if (piece->chain.known) {
        piece->chain.known = is_repeatable(walk->graph, piece->cut.at, piece->chain.end);
        piece->rest_repeatable = is_repeatable(walk->graph, piece->chain.end, piece->end);
    }
    if (piece->chain.known) {
        piece->middle = piece->chain.end;
        piece->late_matrix = -1;
    }
}

/* A chain's rows are copied, and its ids come behind them. */
static void find_reports(const gpu_walk *walk, gpu_piece *piece)
{
    piece->reports = !piece->chain.known && hypura_vram_can_report(walk->vram, piece->cut.weight->bundle, piece->cut.ids);
    piece->reports_row =
        piece->reports && piece->row && !piece->gpu_asks && hypura_vram_can_report_state(walk->vram, piece->row);
}

static bool find_pieces(const gpu_walk *walk)
{
    gpu_pieces *pieces = &walk->instance->pieces;
    gpu_cut cut = gpu_next_cut(walk->instance, walk->graph, 0, NULL);
    pieces->n = 0;
    pieces->uid = 0;
    while (cut.at < walk->graph->n_nodes) {
        if (cut.ids->ne[1] != 1 || cut.ids->ne[0] > (int64_t)hypura_vram_max_pairs(walk->vram, cut.weight->bundle)) {
            return false;
        }
        const gpu_cut next = gpu_next_cut(walk->instance, walk->graph, cut.at + 1, &cut);
        gpu_piece piece = {.cut = cut,
                           .end = next.at,
                           .uid = ggml_graph_next_uid(),
                           .repeatable = is_repeatable(walk->graph, cut.at, next.at)};
        find_middle(walk, &piece);
        find_chain(walk, &piece);
        if (!add_piece(pieces, &piece)) {
            return false;
        }
        cut = next;
    }
    if (!reserve_nodes(pieces)) {
        return false;
    }
    for (int i = 0; i + 1 < pieces->n; i++) {
        gpu_find_router(walk, &pieces->list[i]);
    }
    for (int i = 0; i < pieces->n; i++) {
        find_reports(walk, &pieces->list[i]);
    }
    pieces->uid = walk->graph->uid;
    pieces->given = walk->instance->gpu->select != NULL;
    return true;
}

bool gpu_find_pieces(const gpu_walk *walk)
{
    const gpu_pieces *last = &walk->instance->pieces;
    const bool given = walk->instance->gpu->select != NULL;
    return (last->uid != 0 && last->uid == walk->graph->uid && last->given == given) || find_pieces(walk);
}
