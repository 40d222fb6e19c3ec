/*
 * trace.h - records which experts a model selects, as a route that replay and
 * bench read.
 *
 * Selections are seen where they are at hand: the pager is handed them anyway, for
 * what it pages; where some experts are not paged, libllama is asked to stop at
 * each router, which cuts its graphs there and changes no result.
 *
 *     begin(n tokens) -> selections of the layers, in any order -> end: lines
 *
 * What always holds: between open and close nothing is allocated; lines are written
 * in the order of tokens, then layers, each selection in the order of the router.
 * A layer that computes the last tokens of a batch alone, as the last one of a
 * prompt does, has lines for these alone.
 */
#ifndef HYPURA_ENGINE_MODEL_TRACE_H
#define HYPURA_ENGINE_MODEL_TRACE_H

#include "pager/pager.h"

#include "ggml.h"

typedef struct hypura_trace hypura_trace;

/* Creates or empties the file, which is removed when it cannot be written to the end.
 * n_ubatch: tokens between begin and end at most. HYPURA_ERR_USAGE for a model without experts. */
hypura_status hypura_trace_open(const char *path, const hypura_map *map, uint32_t n_ubatch, hypura_trace **trace,
                                hypura_error *error);
void hypura_trace_close(hypura_trace *trace);

/* Before n tokens are computed, and after: ok tells whether they were. The end
 * leaves a complete file behind, or fails with HYPURA_ERR_IO. A NULL trace is no
 * trace; nothing happens then. */
void hypura_trace_begin(hypura_trace *trace, uint32_t n_tokens);
hypura_status hypura_trace_end(hypura_trace *trace, bool ok, hypura_error *error);

/* Whether every layer's selection passes through the pager of such a plan. */
bool hypura_trace_is_paged(const hypura_map *map, const hypura_plan *plan);

/* For the pager (hypura_selection_fn) and for libllama (an eval callback); user is
 * the trace. A layer is told of by one of them, as often as it likes. */
void hypura_trace_on_selection(void *user, const hypura_selection *selection);
bool hypura_trace_on_node(struct ggml_tensor *tensor, bool ask, void *user);

#endif
