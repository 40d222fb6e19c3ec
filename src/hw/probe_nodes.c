/*
 * probe_nodes.c - see probe_nodes.h.
 */
#include "hw/probe_nodes.h"

#include "base/status.h"
#include "hw/timed_graph.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_KINDS = 256, MAX_NODES = 16384, MAX_COPIES = 128 };

/* A kind whose tensors take more is left out: a few bytes of them are touched at most. */
#define MOST_KIND_BYTES ((size_t)256 << 20)

struct hypura_nodes {
    struct ggml_context *context; /* of all kinds and their sources */
    struct ggml_tensor  *kinds[MAX_KINDS];
    int                  n_kinds;
    int                  n_nodes;
    int64_t              n_context;
    int64_t              n_filled;
    uint16_t             order[MAX_NODES]; /* which kind */
};

hypura_nodes *hypura_nodes_open(uint32_t n_context, uint32_t n_filled)
{
    const struct ggml_init_params params = {.mem_size = ggml_tensor_overhead() * (MAX_KINDS + MAX_COPIES) * (1 + GGML_MAX_SRC),
                                            .no_alloc = true};
    hypura_nodes *nodes = calloc(1, sizeof(*nodes));
    if (nodes) {
        nodes->n_context = n_context;
        nodes->n_filled = n_filled > 0 ? n_filled : INT64_MAX;
        nodes->context = ggml_init(params);
    }
    if (nodes && !nodes->context) {
        free(nodes);
        return NULL;
    }
    return nodes;
}

void hypura_nodes_close(hypura_nodes *nodes)
{
    if (nodes) {
        ggml_free(nodes->context);
        free(nodes);
    }
}

/* ---- shapes --------------------------------------------------------------------- */

static bool same_shape(const struct ggml_tensor *a, const struct ggml_tensor *b)
{
    return a->type == b->type && memcmp(a->ne, b->ne, sizeof(a->ne)) == 0 && memcmp(a->nb, b->nb, sizeof(a->nb)) == 0;
}

/* A copy of a tensor's shape, strides included: on the stack, where it may still be cut. */
static struct ggml_tensor shape_of(const struct ggml_tensor *tensor)
{
    struct ggml_tensor shape = {.type = tensor->type};
    memcpy(shape.ne, tensor->ne, sizeof(shape.ne));
    memcpy(shape.nb, tensor->nb, sizeof(shape.nb));
    return shape;
}

static void cut(const hypura_nodes *nodes, struct ggml_tensor *shape, int dimension)
{
    if (shape->ne[dimension] < nodes->n_context || shape->ne[dimension] <= nodes->n_filled) {
        return;
    }
    const bool contiguous = ggml_is_contiguous(shape);
    shape->ne[dimension] = nodes->n_filled;
    for (int i = 1; contiguous && i < GGML_MAX_DIMS; i++) {
        shape->nb[i] = i == 1 ? ggml_row_size(shape->type, shape->ne[0]) : shape->nb[i - 1] * (size_t)shape->ne[i - 1];
    }
}

/* Of the whole context, what is filled. Attention is one node, or two products and a softmax. */
static void cut_context(const hypura_nodes *nodes, enum ggml_op op, struct ggml_tensor *result,
                        struct ggml_tensor *sources)
{
    switch (op) {
    case GGML_OP_FLASH_ATTN_EXT:
        cut(nodes, &sources[1], 1);
        cut(nodes, &sources[2], 1);
        cut(nodes, &sources[3], 0);
        break;
    case GGML_OP_MUL_MAT:
        if (sources[0].ne[1] >= nodes->n_context && result->ne[0] == sources[0].ne[1]) {
            cut(nodes, &sources[0], 1);
            cut(nodes, result, 0);
        } else if (sources[0].ne[0] >= nodes->n_context) {
            cut(nodes, &sources[0], 0);
            cut(nodes, &sources[1], 0);
        }
        break;
    case GGML_OP_SOFT_MAX:
        cut(nodes, &sources[0], 0);
        cut(nodes, &sources[1], 0);
        cut(nodes, result, 0);
        break;
    case GGML_OP_SET_ROWS: /* of a cache, of which it touches a row */
        cut(nodes, result, 1);
        break;
    default:
        break;
    }
}

static bool same_kind(const struct ggml_tensor *kind, const struct ggml_tensor *node, const struct ggml_tensor *result,
                      const struct ggml_tensor *sources)
{
    if (kind->op != node->op || memcmp(kind->op_params, node->op_params, sizeof(kind->op_params)) != 0 ||
        !same_shape(kind, result)) {
        return false;
    }
    for (int i = 0; i < GGML_MAX_SRC; i++) {
        if (!kind->src[i] != !node->src[i] || (kind->src[i] && !same_shape(kind->src[i], &sources[i]))) {
            return false;
        }
    }
    return true;
}

static struct ggml_tensor *new_tensor(hypura_nodes *nodes, const struct ggml_tensor *shape)
{
    struct ggml_tensor *tensor = ggml_new_tensor(nodes->context, shape->type, GGML_MAX_DIMS, shape->ne);
    memcpy(tensor->nb, shape->nb, sizeof(tensor->nb));
    return tensor;
}

static struct ggml_tensor *new_node(hypura_nodes *nodes, const struct ggml_tensor *node, const struct ggml_tensor *shape)
{
    struct ggml_tensor *copy = new_tensor(nodes, shape);
    copy->op = node->op;
    copy->flags = node->flags;
    memcpy(copy->op_params, node->op_params, sizeof(copy->op_params));
    return copy;
}

static int add_kind(hypura_nodes *nodes, const struct ggml_tensor *node, const struct ggml_tensor *result,
                    const struct ggml_tensor *sources)
{
    size_t bytes = ggml_nbytes(result);
    for (int i = 0; i < GGML_MAX_SRC; i++) {
        bytes += node->src[i] ? ggml_nbytes(&sources[i]) : 0;
    }
    if (nodes->n_kinds == MAX_KINDS || bytes > MOST_KIND_BYTES) {
        return -1;
    }
    struct ggml_tensor *kind = new_node(nodes, node, result);
    for (int i = 0; i < GGML_MAX_SRC; i++) {
        kind->src[i] = node->src[i] ? new_tensor(nodes, &sources[i]) : NULL;
    }
    nodes->kinds[nodes->n_kinds] = kind;
    return nodes->n_kinds++;
}

/* Functions of their owner's, with what they point to. */
static bool is_foreign(enum ggml_op op)
{
    return op == GGML_OP_CUSTOM || op == GGML_OP_MAP_CUSTOM1 || op == GGML_OP_MAP_CUSTOM2 || op == GGML_OP_MAP_CUSTOM3;
}

void hypura_nodes_add(hypura_nodes *nodes, const struct ggml_tensor *node)
{
    if (is_foreign(node->op)) {
        return;
    }
    struct ggml_tensor result = shape_of(node);
    struct ggml_tensor sources[GGML_MAX_SRC];
    memset(sources, 0, sizeof(sources));
    for (int i = 0; i < GGML_MAX_SRC; i++) {
        if (node->src[i]) {
            sources[i] = shape_of(node->src[i]);
        }
    }
    cut_context(nodes, node->op, &result, sources);
    int at = 0;
    while (at < nodes->n_kinds && !same_kind(nodes->kinds[at], node, &result, sources)) {
        at++;
    }
    at = at < nodes->n_kinds ? at : add_kind(nodes, node, &result, sources);
    if (at >= 0 && nodes->n_nodes < MAX_NODES) {
        nodes->order[nodes->n_nodes++] = (uint16_t)at;
    }
}

const struct ggml_tensor *hypura_nodes_kind(const hypura_nodes *nodes, int kind)
{
    return kind < nodes->n_kinds ? nodes->kinds[kind] : NULL;
}

/* ---- measured --------------------------------------------------------------------- */

/* What a node reads of a cache comes from memory, since a token's weights pass through the
 * processor's caches in between: its large sources are repeated until together they are
 * larger than any of these, and the graph until it has used all of them. */
#define COLD_BYTES   ((size_t)128 << 20)
#define LARGE_SOURCE ((size_t)64 << 10)

typedef struct copies {
    struct ggml_tensor *nodes[MAX_COPIES]; /* the kind itself first */
    int                 n;
    int                 next;
    int                 n_uses; /* in one graph */
} copies;

static bool is_large(const struct ggml_tensor *kind, int src)
{
    return kind->op != GGML_OP_SET_ROWS && kind->src[src] && ggml_nbytes(kind->src[src]) >= LARGE_SOURCE;
}

static size_t large_bytes(const struct ggml_tensor *kind)
{
    size_t bytes = 0;
    for (int i = 0; i < GGML_MAX_SRC; i++) {
        bytes += is_large(kind, i) ? ggml_nbytes(kind->src[i]) : 0;
    }
    return bytes;
}

static struct ggml_tensor *copy_kind(hypura_nodes *nodes, const struct ggml_tensor *kind)
{
    struct ggml_tensor *copy = new_node(nodes, kind, kind);
    for (int i = 0; i < GGML_MAX_SRC; i++) {
        copy->src[i] = is_large(kind, i) ? new_tensor(nodes, kind->src[i]) : kind->src[i];
    }
    return copy;
}

/* How often the graph is to be repeated. */
static int make_copies(hypura_nodes *nodes, copies *all)
{
    int n_large = 0;
    int n_times = 1;
    for (int k = 0; k < nodes->n_kinds; k++) {
        all[k] = (copies){.nodes = {nodes->kinds[k]}, .n = 1};
        n_large += large_bytes(nodes->kinds[k]) > 0;
    }
    for (int i = 0; i < nodes->n_nodes; i++) {
        all[nodes->order[i]].n_uses++;
    }
    for (int k = 0; k < nodes->n_kinds; k++) {
        const size_t bytes = large_bytes(nodes->kinds[k]);
        const size_t room = n_large > 0 ? COLD_BYTES / (size_t)n_large : 0;
        const size_t most = (size_t)(MAX_COPIES / (n_large > 0 ? n_large : 1));
        while (bytes > 0 && (size_t)all[k].n < most && (size_t)all[k].n * bytes < room) {
            all[k].nodes[all[k].n++] = copy_kind(nodes, nodes->kinds[k]);
        }
        const int times = all[k].n_uses > 0 ? (all[k].n + all[k].n_uses - 1) / all[k].n_uses : 1;
        n_times = times > n_times ? times : n_times;
    }
    const int most_times = MAX_NODES / nodes->n_nodes;
    return n_times < most_times ? n_times : most_times;
}

hypura_status hypura_probe_nodes(hypura_nodes *nodes, int n_threads, uint64_t most_us, double *seconds, bool *disturbed,
                                 hypura_error *error)
{
    timed_graph g;
    *seconds = 0.0;
    *disturbed = false;
    copies *all = nodes->n_nodes > 0 ? calloc(MAX_KINDS, sizeof(*all)) : NULL;
    if (!all) {
        return nodes->n_nodes == 0 ? HYPURA_OK
                                   : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to measure a graph with");
    }
    const int n_times = make_copies(nodes, all);
    hypura_status status = timed_graph_open(&g, n_threads, (size_t)(n_times * nodes->n_nodes), error);
    if (status != HYPURA_OK) {
        free(all);
        return status;
    }
    status = timed_graph_give_values(&g, nodes->context, error);
    for (int i = 0; status == HYPURA_OK && i < n_times * nodes->n_nodes; i++) {
        copies *kind = &all[nodes->order[i % nodes->n_nodes]];
        struct ggml_tensor *node = kind->nodes[kind->next];
        kind->next = (kind->next + 1) % kind->n;
        if (ggml_backend_dev_supports_op(ggml_backend_get_device(g.backend), node)) {
            ggml_graph_add_node(g.graph, node);
        }
    }
    if (status == HYPURA_OK && ggml_graph_n_nodes(g.graph) > 0) {
        status = timed_graph_run(&g, most_us, seconds, disturbed, error);
        *seconds /= n_times;
    }
    timed_graph_close(&g);
    free(all);
    return status;
}
