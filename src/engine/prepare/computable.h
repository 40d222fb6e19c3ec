/*
 * computable.h - whether the CPU backend can compute a node with weights of the types that a file gives them.
 *
 * ggml ends the process at the first node that it cannot compute, from a thread of its own, where nothing can be caught:
 * what a file may ask for is looked at before anything is computed.
 */
#ifndef HYPURA_ENGINE_PREPARE_COMPUTABLE_H
#define HYPURA_ENGINE_PREPARE_COMPUTABLE_H

#include "ggml.h"

#include <stdbool.h>

/* False when its source number `src`, a weight or a view of one, is of a type that the node cannot be computed with. What
 * is not known here counts as computable. */
bool hypura_computable(const struct ggml_tensor *node, int src);

#endif
