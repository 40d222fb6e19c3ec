/*
 * chain.c - finds chains: the products of one expert selection and the row-wise
 * operations between them, so that an expert's rows can be taken through all of
 * them at once while other experts are still being read.
 *
 *     gate = MUL_MAT_ID(w_gate, x, ids) --+
 *     up   = MUL_MAT_ID(w_up,   x, ids) --+-- GLU --- MUL_MAT_ID(w_down, ., ids)
 *
 * Products with an adapter (LoRA), whose matrices are in memory, may stand between.
 *
 * Every node of a chain has one row for each pair (token, selected expert), and
 * rows do not mix. A node that does not fit ends the chain; it then runs whole.
 */
#include "backend/internal.h"

#include <string.h>

static int index_in_chain(const backend_chain *found, const struct ggml_tensor *tensor)
{
    for (int i = 0; i < found->n; i++) {
        if (found->nodes[i].node == tensor) {
            return i;
        }
    }
    return -1;
}

static bool has_pair_rows(const backend_chain *found, const struct ggml_tensor *tensor)
{
    return tensor->type == GGML_TYPE_F32 && tensor->nb[0] == sizeof(float) && tensor->ne[1] == found->n_used &&
           tensor->ne[2] == found->n_tokens && tensor->ne[3] == 1;
}

/* Rows that products read from outside: f32; those of a token repeat over its pairs. */
static bool is_row_source(const backend_chain *found, const struct ggml_tensor *tensor)
{
    return tensor->type == GGML_TYPE_F32 && tensor->nb[0] == sizeof(float) && tensor->ne[2] == found->n_tokens &&
           tensor->ne[3] == 1;
}

static bool accept_product(const backend_chain *found, struct ggml_tensor *node, chain_node *entry)
{
    const backend_weight *weight = backend_weight_of(node);
    if (!weight || weight->place != HYPURA_PLACE_EXPERTS || weight->pager != found->weight->pager ||
        weight->bundle != found->weight->bundle || node->src[2] != found->ids || !has_pair_rows(found, node)) {
        return false;
    }
    entry->kind = CHAIN_PRODUCT;
    entry->matrix = weight->matrix;
    entry->src[1] = index_in_chain(found, node->src[1]);
    return entry->src[1] >= 0 || is_row_source(found, node->src[1]);
}

/* Its matrices are picked by the same selection as those of the weight that it is for. */
static bool accept_adapter(const backend_chain *found, struct ggml_tensor *node, chain_node *entry)
{
    if (!backend_is_adapter_product(node) || node->src[2] != found->ids || !has_pair_rows(found, node)) {
        return false;
    }
    entry->kind = CHAIN_ADAPTER;
    entry->src[1] = index_in_chain(found, node->src[1]);
    return entry->src[1] >= 0 || is_row_source(found, node->src[1]);
}

/* What an adapter makes is added to what its weight makes. */
static bool is_adapter_sum(const backend_chain *found, const struct ggml_tensor *node)
{
    const int scaled = node->op == GGML_OP_ADD ? index_in_chain(found, node->src[1]) : -1;
    const int product = scaled >= 0 ? found->nodes[scaled].src[0] : -1;
    return product >= 0 && found->nodes[product].kind == CHAIN_ADAPTER;
}

static bool accept_rowwise(const backend_chain *found, struct ggml_tensor *node, chain_node *entry)
{
    if ((!backend_is_rowwise(node) && !is_adapter_sum(found, node)) || !has_pair_rows(found, node)) {
        return false;
    }
    entry->kind = CHAIN_ROWWISE;
    entry->src[0] = index_in_chain(found, node->src[0]);
    if (entry->src[0] < 0) {
        return false;
    }
    if (node->op == GGML_OP_ADD_ID) {
        return node->src[2] == found->ids;
    }
    if (node->src[1]) {
        entry->src[1] = index_in_chain(found, node->src[1]);
        return entry->src[1] >= 0 && node->src[1]->ne[0] == node->src[0]->ne[0];
    }
    return true;
}

/* A view of part of every row, as of fused gate and up. */
static bool accept_view(const backend_chain *found, struct ggml_tensor *node, chain_node *entry)
{
    if (node->op != GGML_OP_VIEW && node->op != GGML_OP_RESHAPE) {
        return false;
    }
    entry->kind = CHAIN_VIEW;
    entry->src[0] = index_in_chain(found, node->src[0]);
    if (entry->src[0] < 0 || !has_pair_rows(found, node)) {
        return false;
    }
    const struct ggml_tensor *parent = node->src[0];
    const ptrdiff_t           offset = (const char *)node->data - (const char *)parent->data;
    return node->nb[1] == parent->nb[1] && node->nb[2] == parent->nb[2] && offset >= 0 &&
           (size_t)offset + (size_t)node->ne[0] * sizeof(float) <= (size_t)parent->ne[0] * sizeof(float);
}

static bool accept(const backend_chain *found, struct ggml_tensor *node, chain_node *entry)
{
    *entry = (chain_node){.node = node, .matrix = -1, .src = {-1, -1}};
    if ((node->flags & GGML_TENSOR_FLAG_COMPUTE) == 0) {
        return false;
    }
    if (node->op == GGML_OP_MUL_MAT_ID) {
        return accept_product(found, node, entry) || accept_adapter(found, node, entry);
    }
    return accept_view(found, node, entry) || accept_rowwise(found, node, entry);
}

/* A result stays in the chain when all its uses are there. */
static void find_kept(const struct ggml_cgraph *graph, int first, backend_chain *found)
{
    int uses[CHAIN_MAX_NODES] = {0};
    for (int i = 0; i < found->n; i++) {
        const struct ggml_tensor *node = found->nodes[i].node;
        for (int s = 0; s < GGML_MAX_SRC; s++) {
            const int at = node->src[s] ? index_in_chain(found, node->src[s]) : -1;
            if (at >= 0) {
                uses[at]++;
            }
        }
    }
    for (int i = found->n - 1; i >= 0; i--) {
        chain_node *entry = &found->nodes[i];
        entry->keep = entry->keep || uses[i] == 0 || ggml_node_get_use_count(graph, first + i) != uses[i] ||
                      (entry->node->flags & GGML_TENSOR_FLAG_OUTPUT) != 0;
        if (entry->keep && entry->kind == CHAIN_VIEW) {
            found->nodes[entry->src[0]].keep = true;
        }
    }
}

void chain_find(const struct ggml_cgraph *graph, int first, backend_chain *found)
{
    struct ggml_tensor *start = graph->nodes[first];
    found->weight = backend_weight_of(start);
    found->ids = start->src[2];
    found->n_used = (int)found->ids->ne[0];
    found->n_tokens = found->ids->ne[1];
    found->n = 0;
    int n_products_end = 0; /* the chain ends with a product: what follows it runs with the rest */
    for (int i = first; i < graph->n_nodes && found->n < CHAIN_MAX_NODES; i++) {
        if (!accept(found, graph->nodes[i], &found->nodes[found->n])) {
            break;
        }
        found->n++;
        if (graph->nodes[i]->op == GGML_OP_MUL_MAT_ID) {
            n_products_end = found->n;
        }
    }
    found->n = n_products_end;
    find_kept(graph, first, found);
}
