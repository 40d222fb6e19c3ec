/*
 * route.h - a recorded route forced on a model: which experts each token uses in
 * each layer, so that a model of random weights has the locality of a real one.
 *
 * A route is text, one line for each token and layer, "token layer expert ...";
 * lines that begin with # are comments. Immutable once open. Read twice when it is opened.
 */
#ifndef HYPURA_ENGINE_MEASURE_ROUTE_H
#define HYPURA_ENGINE_MEASURE_ROUTE_H

#include "hypura.h"

#include "ggml.h"

typedef struct hypura_route hypura_route;

hypura_status hypura_route_open(const char *path, hypura_route **route, hypura_error *error);
void hypura_route_close(hypura_route *route);

/* Tokens and layers from 0 to the largest that the file names; experts likewise. */
void hypura_route_sizes(const hypura_route *route, uint32_t *n_tokens, uint32_t *n_layers, uint32_t *n_experts);
/* What the file says of a token in a layer, as it says it: *n experts, 0 where it
 * says nothing. */
const uint32_t *hypura_route_row(const hypura_route *route, uint32_t token, uint32_t layer, uint32_t *n);

/* The experts of a token in a layer: n distinct ones below n_experts. Tokens and
 * layers beyond the route begin again at its start, experts are taken modulo
 * n_experts. Where the route names too few, experts follow that the layer used
 * half a route away (as frequent as in the route, and no locality in time is
 * made up), then the lowest that are free. n <= n_experts. */
void hypura_route_pick(const hypura_route *route, uint64_t token, uint32_t layer, uint32_t n_experts, uint32_t *experts,
                       uint32_t n);

/* What the callback below works on; set position and n_tokens before each decode. */
typedef struct hypura_route_forcing {
    const hypura_route *route;
    uint32_t n_experts;
    uint64_t position; /* tokens decoded before */
    uint64_t n_tokens; /* decoded now, in one ubatch */
    uint64_t stride;   /* from one of these to the next on the route; 0: 1 */
    uint64_t n_forced; /* selections overwritten so far */
    double recall;     /* of hypura_route_foretell */
} hypura_route_forcing;

/* A ggml_backend_sched_eval_callback; user is a hypura_route_forcing. Asks for the
 * nodes named ffn_moe_topk-LAYER alone and overwrites what they hold. */
bool hypura_route_force(struct ggml_tensor *tensor, bool ask, void *user);

/* A hypura_foretell_fn that stands for a router asked a layer ahead, which a forced route
 * makes impossible: of what the route will select each expert is named with probability
 * `recall`, others that the layer often selects in place of the rest. The same for the
 * same token. */
void hypura_route_foretell(void *user, int layer, uint32_t token, uint32_t n_used, uint32_t *experts, uint32_t n);

/* The same as a hypura_gpu_select_fn. */
void hypura_route_select(void *user, int layer, int32_t *experts, uint32_t n_used, uint32_t n_tokens);

#endif
