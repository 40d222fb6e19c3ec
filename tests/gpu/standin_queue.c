/*
 * standin_queue.c - see standin_queue.h. In the order in which it was asked for, and not before somebody waits for it; or, where
 * they are scrambled, whenever it may: each time that anything is asked of any, some of them go on, each as fast as it is. The lock
 * guards all of them: two contexts that compute at once scramble each other's.
 */
#include "standin_queue.h"

#include "standin_memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OPERATIONS = 65536, MOST_STEPS = 6, MOST_QUEUES = 256 };

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
    bool           open;
    uint32_t       percent; /* of the times that it may go on by itself it does */
    uint64_t       n_done;
    uint64_t       n_asked;
    operation      operations[MAX_OPERATIONS]; /* n_done up to n_asked, in turn */
};

/* Every one that ever was: marks of one that is closed are behind what it did, also once it is another one. */
static standin_queue *queues[MOST_QUEUES];
static int            n_queues;
static uint64_t       scramble_state;

static pthread_mutex_t lock; /* recursive: a queue that goes on runs what it waits for */
static pthread_once_t  lock_once = PTHREAD_ONCE_INIT;

static void make_lock(void)
{
    pthread_mutexattr_t kind;
    (void)pthread_mutexattr_init(&kind);
    (void)pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);
    (void)pthread_mutex_init(&lock, &kind);
    (void)pthread_mutexattr_destroy(&kind);
}

static void take_lock(void)
{
    (void)pthread_once(&lock_once, make_lock);
    (void)pthread_mutex_lock(&lock);
}

static void give_lock(void)
{
    (void)pthread_mutex_unlock(&lock);
}

/* ---- in any order that what they wait for allows ------------------------------------ */

static uint32_t draw(uint32_t below)
{
    scramble_state = (scramble_state ^ standin_wrong.scrambles) * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(scramble_state >> 33) % below;
}

static void run_next(standin_queue *queue);

static bool is_held_up(const standin_queue *queue)
{
    const operation *next = &queue->operations[queue->n_done % MAX_OPERATIONS];
    return next->kind == WAIT && next->mark.queue && next->mark.queue->n_done < next->mark.until;
}

static void scramble(void)
{
    if (standin_wrong.scrambles == 0) {
        return;
    }
    for (int i = 0; i < n_queues; i++) {
        standin_queue *queue = queues[i];
        const bool     goes_on = queue->open && draw(100) < queue->percent;
        for (uint32_t step = goes_on ? draw(MOST_STEPS) : 0; step > 0 && queue->n_done < queue->n_asked && !is_held_up(queue); step--) {
            run_next(queue);
        }
    }
}

/* All but the last ones of a queue that lags. */
static void catch_up(standin_queue *queue)
{
    while (standin_wrong.lags > 0 && queue->n_asked - queue->n_done > standin_wrong.lags) {
        run_next(queue);
    }
}

bool standin_queue_reads(const void *from, size_t bytes)
{
    bool found = false;
    take_lock();
    for (int i = 0; i < n_queues && !found; i++) {
        for (uint64_t at = queues[i]->n_done; at < queues[i]->n_asked && !found; at++) {
            const operation *one = &queues[i]->operations[at % MAX_OPERATIONS];
            found = one->kind == COPY && (const char *)one->from < (const char *)from + bytes &&
                    (const char *)from < (const char *)one->from + one->bytes;
        }
    }
    give_lock();
    return found;
}

/* ---- queues ---------------------------------------------------------------------------- */

standin_queue *standin_queue_open(ggml_backend_t cpu)
{
    static const uint32_t percents[] = {0, 5, 30, 100};
    standin_queue *queue = NULL;
    take_lock();
    for (int i = 0; i < n_queues && !queue; i++) {
        queue = queues[i]->open ? NULL : queues[i];
    }
    if (!queue && n_queues < MOST_QUEUES) {
        queue = malloc(sizeof(*queue)); /* of megabytes, of which most stay untouched */
        if (queue) {
            queue->n_done = queue->n_asked = 0;
            queues[n_queues++] = queue;
        }
    }
    if (queue) {
        queue->cpu = cpu;
        queue->open = true;
        queue->percent = percents[draw(sizeof(percents) / sizeof(*percents))];
    }
    give_lock();
    return queue;
}

void standin_queue_close(standin_queue *queue)
{
    take_lock();
    standin_queue_run(standin_queue_end(queue));
    queue->open = false;
    give_lock();
}

bool standin_queue_is_empty(const standin_queue *queue)
{
    take_lock();
    const bool empty = queue->n_done == queue->n_asked;
    give_lock();
    return empty;
}

standin_mark standin_queue_end(standin_queue *queue)
{
    take_lock();
    const standin_mark mark = {queue, queue->n_asked};
    give_lock();
    return mark;
}

/* With the lock. */
static operation *add(standin_queue *queue, operation_kind kind)
{
    scramble();
    catch_up(queue);
    if (queue->n_asked - queue->n_done == MAX_OPERATIONS) {
        standin_queue_run(standin_queue_end(queue));
    }
    operation *added = &queue->operations[queue->n_asked++ % MAX_OPERATIONS];
    *added = (operation){.kind = kind};
    return added;
}

void standin_queue_copy(standin_queue *queue, void *to, const void *from, size_t bytes)
{
    take_lock();
    operation *added = add(queue, COPY);
    added->to = to;
    added->from = from;
    added->bytes = bytes;
    give_lock();
}

void standin_queue_wait(standin_queue *queue, standin_mark mark)
{
    take_lock();
    add(queue, WAIT)->mark = mark;
    give_lock();
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
        const size_t known =
            graph->visited_hash_set.size > 0 ? ggml_hash_find(&graph->visited_hash_set, graph->nodes[i]) : GGML_HASHSET_FULL;
        const bool counted = known != GGML_HASHSET_FULL && ggml_bitset_get(graph->visited_hash_set.used, known);
        late.graph->use_counts[at] = counted ? graph->use_counts[known] : 2; /* nobody fuses it */
    }
    late.graph->n_nodes = graph->n_nodes;
    take_lock();
    add(queue, GRAPH)->late = late;
    give_lock();
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

static void run_next(standin_queue *queue)
{
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

void standin_queue_run(standin_mark mark)
{
    take_lock();
    while (mark.queue && mark.queue->n_done < mark.until) {
        run_next(mark.queue);
    }
    give_lock();
}

void standin_queue_forget(standin_queue *queue)
{
    take_lock();
    for (; queue->n_done < queue->n_asked; queue->n_done++) {
        operation *next = &queue->operations[queue->n_done % MAX_OPERATIONS];
        if (next->kind == GRAPH) {
            free_late(&next->late);
        }
    }
    give_lock();
}
