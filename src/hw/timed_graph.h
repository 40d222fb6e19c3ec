/*
 * timed_graph.h - a graph on the CPU backend, and how long computing it takes.
 *
 * Owned by the probes of computing. What always holds: what was opened is to be closed,
 * also when a call between the two failed.
 */
#ifndef HYPURA_HW_TIMED_GRAPH_H
#define HYPURA_HW_TIMED_GRAPH_H

#include "hypura.h"

#include "ggml-backend.h"
#include "ggml.h"

/* What computes it, and what belongs to it. */
typedef struct timed_graph {
    ggml_backend_t          backend;
    struct ggml_threadpool *threads;
    int                     n_threads;
    struct ggml_context    *context;
    struct ggml_cgraph     *graph;
    ggml_backend_buffer_t   weights; /* or NULL */
    ggml_backend_buffer_t   values;
} timed_graph;

/* An empty one, with room for so many tensors, and for as many nodes. */
hypura_status timed_graph_open(timed_graph *g, int n_threads, size_t n_tensors, hypura_error *error);
void timed_graph_close(timed_graph *g);

/* Memory for the tensors of a context that have none: all zeros. It is the graph's. */
hypura_status timed_graph_give_values(timed_graph *g, struct ggml_context *context, hypura_error *error);

/* The same for tensors that several graphs compute with: the caller's, to be freed after them. NULL when memory is short. */
ggml_backend_buffer_t timed_graph_values(struct ggml_context *context, hypura_error *error);

/* Seconds that computing it once takes, and whether no run was free of other work on its processors: then it may take
 * less. One that is free of it is waited for as long as most_us, or a run. */
hypura_status timed_graph_run(timed_graph *g, uint64_t most_us, double *seconds, bool *disturbed, hypura_error *error);

#endif
