/*
 * standin_queue.c - see standin_queue.h. In the order in which it was asked for, and not before somebody waits for it.
 */
#include "standin_queue.h"

#include "standin_memory.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_OPERATIONS = 65536 };

typedef enum operation_kind { COPY, GRAPH, WAIT } operation_kind;

/* A graph and all that its nodes read, by value: what was swapped for the call is swapped back behind it. */
typedef struct late_graph {
    struct ggml_context *ctx;
    struct ggml_cgraph  *graph;
    struct ggml_tensor  *tensors;
} late_graph;

typedef struct operation {
    operation_kind kind;
    void        *to;
    const void  *from;
    size_t       bytes;
    late_graph   late;
    standin_mark mark;
} operation;

struct standin_queue {
    ggml_backend_t cpu;
    uint64_t       n_done;
    uint64_t       n_asked;
    operation      operations[MAX_OPERATIONS]; /* n_done up to n_asked, in turn */
};

standin_queue *standin_queue_open(ggml_backend_t cpu)
{
    standin_queue *queue = malloc(sizeof(*queue)); /* of megabytes, of which most stay untouched */
    if (queue) {
        queue->cpu = cpu;
        queue->n_done = 0;
        queue->n_asked = 0;
    }
    return queue;
}

void standin_queue_close(standin_queue *queue)
{
    standin_queue_run(standin_queue_end(queue));
    free(queue);
}

bool standin_queue_is_empty(const standin_queue *queue)
{
    return queue->n_done == queue->n_asked;
}

standin_mark standin_queue_end(standin_queue *queue)
{
    return (standin_mark){queue, queue->n_asked};
}

static operation *add(standin_queue *queue, operation_kind kind)
{
    if (queue->n_asked - queue->n_done == MAX_OPERATIONS) {
        standin_queue_run(standin_queue_end(queue));
    }
    operation *added = &queue->operations[queue->n_asked++ % MAX_OPERATIONS];
    *added = (operation){.kind = kind};
    return added;
}

void standin_queue_copy(standin_queue *queue, void *to, const void *from, size_t bytes)
{
    operation *added = add(queue, COPY);
    added->to = to;
    added->from = from;
    added->bytes = bytes;
}

void standin_queue_wait(standin_queue *queue, standin_mark mark)
{
    add(queue, WAIT)->mark = mark;
}

/* ---- graphs ---------------------------------------------------------------------- */

static size_t count_sources(const struct ggml_cgraph *graph)
{
    size_t n = 0;
    for (int i = 0; i < graph->n_nodes; i++) {
        for (int s = 0; s < GGML_MAX_SRC; s++) {
            n += graph->nodes[i]->src[s] != NULL;
        }
    }
    return n;
}

/* The copy of what a node reads: the latest node before it that is the same tensor, or another one. */
static struct ggml_tensor *copy_of(const struct ggml_cgraph *graph, int node, const struct ggml_tensor *source, late_graph *late,
                                   size_t *n)
{
    for (int i = node - 1; i >= 0; i--) {
        if (graph->nodes[i] == source) {
            return &late->tensors[i];
        }
    }
    late->tensors[*n] = *source;
    return &late->tensors[(*n)++];
}

void standin_queue_graph(standin_queue *queue, const struct ggml_cgraph *graph)
{
    const size_t n_nodes = (size_t)graph->n_nodes;
    const struct ggml_init_params params = {.mem_size = ggml_graph_overhead_custom(n_nodes + 1, false) + 4096, .no_alloc = true};
    late_graph late = {.ctx = ggml_init(params), .tensors = calloc(n_nodes + count_sources(graph) + 1, sizeof(*late.tensors))};
    if (!late.ctx || !late.tensors) {
        GGML_ABORT("standin: no memory for a graph of %zu nodes", n_nodes);
    }
    late.graph = ggml_new_graph_custom(late.ctx, n_nodes + 1, false);
    size_t n = n_nodes;
    for (int i = 0; i < graph->n_nodes; i++) {
        struct ggml_tensor *copy = &late.tensors[i];
        *copy = *graph->nodes[i];
        for (int s = 0; s < GGML_MAX_SRC; s++) {
            copy->src[s] = copy->src[s] ? copy_of(graph, i, copy->src[s], &late, &n) : NULL;
        }
        late.graph->nodes[i] = copy;
        const size_t at = ggml_hash_insert(&late.graph->visited_hash_set, copy);
        const size_t known = graph->visited_hash_set.size > 0 ? ggml_hash_find(&graph->visited_hash_set, graph->nodes[i]) : GGML_HASHSET_FULL;
        const bool counted = known != GGML_HASHSET_FULL && ggml_bitset_get(graph->visited_hash_set.used, known);
        late.graph->use_counts[at] = counted ? graph->use_counts[known] : 2; /* nobody fuses it */
    }
    late.graph->n_nodes = graph->n_nodes;
    add(queue, GRAPH)->late = late;
}

static void free_late(late_graph *late)
{
    ggml_free(late->ctx);
    free(late->tensors);
}

static void compute(const standin_queue *queue, late_graph *late)
{
    standin_move_all(late->graph, true);
    if (ggml_backend_graph_compute(queue->cpu, late->graph) != GGML_STATUS_SUCCESS) {
        GGML_ABORT("standin: a graph failed");
    }
    free_late(late);
}

/* ---- doing it -------------------------------------------------------------------- */

void standin_queue_run(standin_mark mark)
{
    standin_queue *queue = mark.queue;
    while (queue && queue->n_done < mark.until) {
        operation next = queue->operations[queue->n_done++ % MAX_OPERATIONS];
        switch (next.kind) {
        case COPY:
            memcpy(standin_seen(next.to), standin_seen(next.from), next.bytes);
            break;
        case GRAPH:
            compute(queue, &next.late);
            break;
        case WAIT:
            standin_queue_run(next.mark);
            break;
        }
    }
}

void standin_queue_forget(standin_queue *queue)
{
    for (; queue->n_done < queue->n_asked; queue->n_done++) {
        operation *next = &queue->operations[queue->n_done % MAX_OPERATIONS];
        if (next->kind == GRAPH) {
            free_late(&next->late);
        }
    }
}
