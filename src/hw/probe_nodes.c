/*
 * probe_nodes.c - see probe_nodes.h.
 */
#include "hw/probe_nodes.h"

#include "base/status.h"
#include "hw/cold.h"
#include "hw/timed_graph.h"

#include "ggml-backend.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_KINDS = 256, MAX_NODES = 16384, MAX_COPIES = 512, LOOK_BACK = 16, N_ROUNDS = 3, FEW_THREADS = 8 };

/* What a node reads of a cache comes from memory, since a token's weights pass through the
 * processor's caches in between: its large sources are repeated until together they do,
 * and the graph until it has used all of them. */
#define LEAST_COLD_BYTES ((size_t)128 << 20)
#define LARGE_SOURCE     ((size_t)64 << 10)

/* So do weights of products beside: a part of a token that reads so many bytes of them shows what a node costs among them. */
#define LEAST_PRODUCT_BYTES ((size_t)256 << 20)

/* A kind whose tensors take more is left out: a few bytes of them are touched at most. */
#define MOST_KIND_BYTES ((size_t)256 << 20)

struct hypura_nodes {
    struct ggml_context *context; /* of all kinds and their sources */
    struct ggml_tensor  *kinds[MAX_KINDS];
    bool                 is_product[MAX_KINDS]; /* with a weight */
    int                  n_kinds;
    int                  n_nodes;
    bool                 takes_products;
    int64_t              n_context;
    int64_t              n_filled;
    uint16_t             order[MAX_NODES]; /* which kind */
};

hypura_nodes *hypura_nodes_open(uint32_t n_context, uint32_t n_filled, int n_threads)
{
    const struct ggml_init_params params = {.mem_size = ggml_tensor_overhead() * (MAX_KINDS + MAX_COPIES) * (1 + GGML_MAX_SRC),
                                            .no_alloc = true};
    hypura_nodes *nodes = calloc(1, sizeof(*nodes));
    if (nodes) {
        nodes->takes_products = n_threads > FEW_THREADS;
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

/* What a node reads that others wrote a moment before lies in the caches of the processors that wrote it: it reads the
 * memory of the last node whose result is as long. What is longer is of a cache or a weight. */
static struct ggml_tensor *new_source(hypura_nodes *nodes, const struct ggml_tensor *shape)
{
    const size_t bytes = ggml_nbytes(shape);
    for (int i = nodes->n_nodes - 1; i >= 0 && i >= nodes->n_nodes - LOOK_BACK && bytes < LARGE_SOURCE; i--) {
        struct ggml_tensor *result = nodes->kinds[nodes->order[i]];
        if (result->type == shape->type && ggml_is_contiguous(result) && ggml_nbytes(result) == bytes) {
            struct ggml_tensor *view = new_tensor(nodes, shape);
            view->view_src = result->view_src ? result->view_src : result;
            return view;
        }
    }
    return new_tensor(nodes, shape);
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
                    const struct ggml_tensor *sources, bool is_product)
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
        kind->src[i] = node->src[i] ? new_source(nodes, &sources[i]) : NULL;
    }
    nodes->kinds[nodes->n_kinds] = kind;
    nodes->is_product[nodes->n_kinds] = is_product;
    return nodes->n_kinds++;
}

/* Functions of their owner's, with what they point to. */
static bool is_foreign(enum ggml_op op)
{
    return op == GGML_OP_CUSTOM || op == GGML_OP_MAP_CUSTOM1 || op == GGML_OP_MAP_CUSTOM2 || op == GGML_OP_MAP_CUSTOM3;
}

/* Of all experts, as many as a token selects. */
static void cut_experts(struct ggml_tensor *sources)
{
    sources[0].ne[2] = sources[2].ne[0] < sources[0].ne[2] ? sources[2].ne[0] : sources[0].ne[2];
    sources[0].nb[3] = sources[0].nb[2] * (size_t)sources[0].ne[2];
}

static void add(hypura_nodes *nodes, const struct ggml_tensor *node, bool is_product)
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
    if (!is_product) {
        cut_context(nodes, node->op, &result, sources);
    } else if (node->op == GGML_OP_MUL_MAT_ID) {
        cut_experts(sources);
    }
    int at = 0;
    while (at < nodes->n_kinds && (nodes->is_product[at] != is_product || !same_kind(nodes->kinds[at], node, &result, sources))) {
        at++;
    }
    at = at < nodes->n_kinds ? at : add_kind(nodes, node, &result, sources, is_product);
    if (at >= 0 && nodes->n_nodes < MAX_NODES) {
        nodes->order[nodes->n_nodes++] = (uint16_t)at;
    }
}

void hypura_nodes_add(hypura_nodes *nodes, const struct ggml_tensor *node)
{
    add(nodes, node, false);
}

void hypura_nodes_add_product(hypura_nodes *nodes, const struct ggml_tensor *product)
{
    if (nodes->takes_products) {
        add(nodes, product, true);
    }
}

const struct ggml_tensor *hypura_nodes_kind(const hypura_nodes *nodes, int kind)
{
    return kind < nodes->n_kinds ? nodes->kinds[kind] : NULL;
}

/* ---- measured --------------------------------------------------------------------- */

typedef struct copies {
    struct ggml_tensor *nodes[MAX_COPIES]; /* the kind itself first */
    int                 n;
    int                 next;
    int                 n_uses; /* in one graph */
} copies;

static bool is_large(const hypura_nodes *nodes, int kind, int src)
{
    const struct ggml_tensor *node = nodes->kinds[kind];
    const bool may_be = nodes->is_product[kind] ? src == 0 : node->op != GGML_OP_SET_ROWS;
    return may_be && node->src[src] && ggml_nbytes(node->src[src]) >= LARGE_SOURCE;
}

static size_t large_bytes(const hypura_nodes *nodes, int kind)
{
    size_t bytes = 0;
    for (int i = 0; i < GGML_MAX_SRC; i++) {
        bytes += is_large(nodes, kind, i) ? ggml_nbytes(nodes->kinds[kind]->src[i]) : 0;
    }
    return bytes;
}

static struct ggml_tensor *copy_kind(hypura_nodes *nodes, int kind)
{
    const struct ggml_tensor *node = nodes->kinds[kind];
    struct ggml_tensor *copy = new_node(nodes, node, node);
    for (int i = 0; i < GGML_MAX_SRC; i++) {
        copy->src[i] = is_large(nodes, kind, i) ? new_tensor(nodes, node->src[i]) : node->src[i];
    }
    return copy;
}

/* Of those of one class, which share room for bytes. */
static void make_copies_of(hypura_nodes *nodes, bool products, size_t bytes, copies *all)
{
    int n_large = 0;
    for (int k = 0; k < nodes->n_kinds; k++) {
        n_large += nodes->is_product[k] == products && large_bytes(nodes, k) > 0;
    }
    for (int k = 0; k < nodes->n_kinds && n_large > 0; k++) {
        const size_t each = large_bytes(nodes, k);
        const size_t most = (size_t)(MAX_COPIES / n_large);
        while (nodes->is_product[k] == products && each > 0 && (size_t)all[k].n < most &&
               (size_t)all[k].n * each < bytes / (size_t)n_large && (!products || all[k].n < all[k].n_uses)) {
            all[k].nodes[all[k].n++] = copy_kind(nodes, k);
        }
    }
}

static void make_copies(hypura_nodes *nodes, size_t product_bytes, copies *all)
{
    for (int k = 0; k < nodes->n_kinds; k++) {
        all[k] = (copies){.nodes = {nodes->kinds[k]}, .n = 1};
    }
    for (int i = 0; i < nodes->n_nodes; i++) {
        all[nodes->order[i]].n_uses++;
    }
    make_copies_of(nodes, false, (size_t)hypura_cold_bytes(LEAST_COLD_BYTES, LEAST_COLD_BYTES), all);
    make_copies_of(nodes, true, product_bytes, all);
}

/* How often a graph without products is to be repeated. */
static int times_to_use_all(const hypura_nodes *nodes, const copies *all)
{
    int n_times = 1;
    for (int k = 0; k < nodes->n_kinds; k++) {
        const int times = all[k].n_uses > 0 && !nodes->is_product[k] ? (all[k].n + all[k].n_uses - 1) / all[k].n_uses : 1;
        n_times = times > n_times ? times : n_times;
    }
    const int most_times = MAX_NODES / nodes->n_nodes;
    return n_times < most_times ? n_times : most_times;
}

/* As a router would: each row to another expert. */
static void give_experts(const hypura_nodes *nodes)
{
    for (int k = 0; k < nodes->n_kinds; k++) {
        struct ggml_tensor *ids = nodes->kinds[k]->op == GGML_OP_MUL_MAT_ID ? nodes->kinds[k]->src[2] : NULL;
        for (int64_t i = 0; ids && nodes->is_product[k] && i < ids->ne[0]; i++) {
            const int32_t expert = (int32_t)(i % nodes->kinds[k]->src[0]->ne[2]);
            ggml_backend_tensor_set(ids, &expert, (size_t)i * sizeof(expert), sizeof(expert));
        }
    }
}

/* What is measured: the first n nodes of the order, of which those without weights, with, or all. */
typedef struct part {
    int  n;
    bool others;
    bool products;
    int  n_times;
} part;

typedef struct timing {
    hypura_nodes *nodes;
    copies       *all;
    int           n_threads;
    uint64_t      most_us;
    size_t        product_bytes;
    bool          disturbed; /* of one at least */
} timing;

static hypura_status time_part(timing *t, const part *wanted, double *seconds, hypura_error *error)
{
    timed_graph g;
    bool disturbed = false;
    *seconds = 0.0;
    hypura_status status = timed_graph_open(&g, t->n_threads, (size_t)(wanted->n_times * wanted->n), error);
    if (status != HYPURA_OK) {
        return status;
    }
    for (int i = 0; i < wanted->n_times * wanted->n; i++) {
        const int at = t->nodes->order[i % wanted->n];
        copies *kind = &t->all[at];
        struct ggml_tensor *node = kind->nodes[kind->next];
        const bool is_wanted = t->nodes->is_product[at] ? wanted->products : wanted->others;
        if (is_wanted && ggml_backend_dev_supports_op(ggml_backend_get_device(g.backend), node)) {
            ggml_graph_add_node(g.graph, node);
            kind->next = (kind->next + 1) % kind->n;
        }
    }
    if (ggml_graph_n_nodes(g.graph) > 0) {
        status = timed_graph_run(&g, t->most_us, seconds, &disturbed, error);
        *seconds /= wanted->n_times;
    }
    t->disturbed = t->disturbed || disturbed;
    timed_graph_close(&g);
    return status;
}

/* How many nodes of the order a part has that reads so many bytes of weights; 0: there are no weights. */
static int nodes_of_a_part(const hypura_nodes *nodes, size_t product_bytes)
{
    size_t bytes = 0;
    int n = 0;
    while (n < nodes->n_nodes && bytes < product_bytes) {
        const int kind = nodes->order[n++];
        bytes += nodes->is_product[kind] ? ggml_nbytes(nodes->kinds[kind]->src[0]) : 0;
    }
    return bytes > 0 ? n : 0;
}

/* What the others take more among products than by themselves, in a whole token: a difference of long times, of which
 * the shortest of a few rounds count, as what disturbs one of them would be all of it. */
static hypura_status time_among_products(timing *t, double *seconds, hypura_error *error)
{
    enum { ALL, PRODUCTS, OTHERS, N_PARTS };
    const int n = nodes_of_a_part(t->nodes, t->product_bytes);
    const part parts[N_PARTS] = {
        [ALL] = {.n = n, .n_times = 1, .others = true, .products = true},
        [PRODUCTS] = {.n = n, .n_times = 1, .products = true},
        [OTHERS] = {.n = n, .n_times = 1, .others = true},
    };
    double        least_s[N_PARTS] = {INFINITY, INFINITY, INFINITY};
    hypura_status status = HYPURA_OK;
    *seconds = 0.0;
    for (int i = 0; n > 0 && status == HYPURA_OK && i < N_ROUNDS * N_PARTS; i++) {
        double now_s;
        status = time_part(t, &parts[i % N_PARTS], &now_s, error);
        least_s[i % N_PARTS] = fmin(least_s[i % N_PARTS], now_s);
    }
    if (n > 0 && status == HYPURA_OK) {
        *seconds = fmax(least_s[ALL] - least_s[PRODUCTS] - least_s[OTHERS], 0.0) * t->nodes->n_nodes / n;
    }
    return status;
}

hypura_status hypura_probe_nodes(hypura_nodes *nodes, int n_threads, uint64_t most_us, double *seconds, bool *disturbed,
                                 hypura_error *error)
{
    *seconds = 0.0;
    *disturbed = false;
    copies *all = nodes->n_nodes > 0 ? calloc(MAX_KINDS, sizeof(*all)) : NULL;
    if (!all) {
        return nodes->n_nodes == 0 ? HYPURA_OK
                                   : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to measure a graph with");
    }
    timing t = {.nodes = nodes, .all = all, .n_threads = n_threads, .most_us = most_us,
                .product_bytes = (size_t)hypura_cold_bytes(LEAST_PRODUCT_BYTES, LEAST_PRODUCT_BYTES)};
    make_copies(nodes, t.product_bytes, all);
    double alone_s = 0.0;
    double among_s = 0.0;
    ggml_backend_buffer_t values = timed_graph_values(nodes->context, error);
    hypura_status status = values ? HYPURA_OK : HYPURA_ERR_MEMORY;
    if (status == HYPURA_OK) {
        give_experts(nodes);
        status = time_part(&t, &(part){.n = nodes->n_nodes, .others = true, .n_times = times_to_use_all(nodes, all)}, &alone_s,
                           error);
    }
    if (status == HYPURA_OK && alone_s > 0.0) {
        status = time_among_products(&t, &among_s, error);
    }
    *seconds = alone_s + among_s;
    *disturbed = t.disturbed;
    ggml_backend_buffer_free(values);
    free(all);
    return status;
}
