/*
 * bundle.h - which expert matrices one selection needs together.
 */
#ifndef HYPURA_GGUF_BUNDLE_H
#define HYPURA_GGUF_BUNDLE_H

#include "gguf/arena.h"

#include "hypura.h"

/* Groups the n tensors of role EXPERT by layer, family and number of experts, in
 * the order of layers, and stores each one's bundle in it. False when memory is
 * short. */
bool hypura_bundle_build(hypura_tensor *tensors, int n, hypura_arena *arena, const hypura_bundle **bundles,
                         int *n_bundles);

#endif
