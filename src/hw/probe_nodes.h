/*
 * probe_nodes.h - what a graph computes beside products with its weights: attention,
 * norms, rotations, the choice of experts. Shapes are copied from a graph that libllama
 * built, and measured with zeros for values, by the CPU backend.
 *
 * What always holds: nothing of the graph is kept but shapes, so it may go. Nodes of one
 * kind and shape share their tensors, whatever their number.
 */
#ifndef HYPURA_HW_PROBE_NODES_H
#define HYPURA_HW_PROBE_NODES_H

#include "hypura.h"

struct ggml_tensor;

typedef struct hypura_nodes hypura_nodes;

/* For the graph of one token in a context of n_context, of which n_filled are taken
 * (0: all); about so many threads will compute it. NULL when memory is short. */
hypura_nodes *hypura_nodes_open(uint32_t n_context, uint32_t n_filled, int n_threads);
void          hypura_nodes_close(hypura_nodes *nodes);

/* Adds a node that computes, in the order of the graph. One that reads more of the
 * context than is filled is cut to that. What the CPU backend has no kernel for is left
 * out when it is measured, and so is what exceeds some hundreds of kinds. */
void hypura_nodes_add(hypura_nodes *nodes, const struct ggml_tensor *node);

/* The same of a product with a weight. What it takes is not told: the others take longer among products, as threads that
 * come from one wait for each other, and read what others of them wrote. Of few threads (8) that is nothing that can be
 * told from noise, and products are left out. */
void hypura_nodes_add_product(hypura_nodes *nodes, const struct ggml_tensor *product);

/* The shapes of a kind, as they are measured; NULL where there are not as many. */
const struct ggml_tensor *hypura_nodes_kind(const hypura_nodes *nodes, int kind);

/* Seconds that all but the products take, among these; 0 when there are none. disturbed and most_us as in
 * probe_compute.h. May be asked once. */
hypura_status hypura_probe_nodes(hypura_nodes *nodes, int n_threads, uint64_t most_us, double *seconds, bool *disturbed,
                                 hypura_error *error);

#endif
