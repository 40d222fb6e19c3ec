/* standin_queue.h - what an instance of a stand-in was asked for and has not done yet. For standin.c alone. */
#ifndef HYPURA_TEST_GPU_STANDIN_QUEUE_H
#define HYPURA_TEST_GPU_STANDIN_QUEUE_H

#include "ggml-backend-impl.h"
#include "ggml-impl.h"

#include <stddef.h>
#include <stdint.h>

typedef struct standin_queue standin_queue;

/* How far another instance had been asked to go. */
typedef struct standin_mark {
    standin_queue *queue; /* NULL: nowhere */
    uint64_t       until;
} standin_mark;

/* cpu: what computes its graphs. NULL when memory is short. */
standin_queue *standin_queue_open(ggml_backend_t cpu);
/* Does what is left. */
void           standin_queue_close(standin_queue *queue);

void standin_queue_copy(standin_queue *queue, void *to, const void *from, size_t bytes);
/* As the graph is now, whatever becomes of its nodes. */
void standin_queue_graph(standin_queue *queue, const struct ggml_cgraph *graph);
void standin_queue_wait(standin_queue *queue, standin_mark mark);

bool         standin_queue_is_empty(const standin_queue *queue);
standin_mark standin_queue_end(standin_queue *queue);
void         standin_queue_run(standin_mark mark);
/* All that is left is never done. */
void         standin_queue_forget(standin_queue *queue);
/* Whether a copy that any of them has not done yet reads of this memory. */
bool         standin_queue_reads(const void *from, size_t bytes);

#endif
