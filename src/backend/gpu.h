/*
 * gpu.h - Hypura over a GPU: a device that stands for one of ggml's and hands
 * everything to it as it is, except products with experts that the plan streams.
 *
 *     libllama ---> our device ---> the GPU's own: buffer types, operations, events
 *         '--- weights named in tensor_buft_overrides ---> our buffer type, no bytes
 *
 * Everything computes on the one instance of the GPU's backend that ours wraps, in
 * its own memory, so nothing is copied between backends and no split is added.
 * Before a layer's experts are used the graph is cut once, see gpu_executor.c.
 */
#ifndef HYPURA_BACKEND_GPU_H
#define HYPURA_BACKEND_GPU_H

#include "hypura.h"
#include "pager/pager.h"

typedef struct hypura_gpu hypura_gpu;

/* device: the ggml_backend_dev_t of the plan's GPU of that number. The pager was opened
 * for it and outlives this; this outlives every model and context that was given its
 * device. */
hypura_status hypura_gpu_open(void *device, int index, hypura_pager *pager, hypura_gpu **gpu, hypura_error *error);
/* Whether pieces are computed before it is known that their experts are there: AUTO
 * at first. */
void          hypura_gpu_set_foresight(hypura_gpu *gpu, hypura_foresight foresight);
/* Whether the processor computes what slots lack, with so many threads: not at first. The pager was
 * opened for the same. Before the first context is made. */
void          hypura_gpu_set_misses(hypura_gpu *gpu, hypura_gpu_misses misses, int n_threads);
void          hypura_gpu_close(hypura_gpu *gpu);

/* The ggml_backend_dev_t to give to libllama in place of the GPU's own, and the
 * ggml_backend_buffer_type_t for the experts that the plan streams. */
void *hypura_gpu_device(hypura_gpu *gpu);
void *hypura_gpu_expert_type(hypura_gpu *gpu);

/* Measurements: replaces the experts that a router selected before they are made
 * present; experts has n_used for each of n_tokens. Batches that pass through a
 * stage are left as they are. NULL: none. */
typedef void (*hypura_gpu_select_fn)(void *user, int layer, int32_t *experts, uint32_t n_used, uint32_t n_tokens);
void hypura_gpu_set_select(hypura_gpu *gpu, hypura_gpu_select_fn select, void *user);

/* What the host does while a token is computed that selects streamed experts. */
typedef enum hypura_gpu_work {
    HYPURA_GPU_HAND_OVER, /* a piece, to the GPU's backend */
    HYPURA_GPU_REPEAT,    /* the same piece, as experts were missing */
    HYPURA_GPU_WAIT,      /* for the ids that a router selected */
    HYPURA_GPU_FORESEE,   /* asks a router ahead, hands over uploads of what it names */
    HYPURA_GPU_PRESENT,   /* looks experts up, hands over uploads of those that are missing */
    HYPURA_GPU_COMPUTE,   /* those that are missing, by the processor */
} hypura_gpu_work;

/* Measurements: told of each such stretch of time, on the clock of base/clock.h. The
 * layer is that of the piece, or of the router. NULL: none. */
typedef void (*hypura_gpu_watch_fn)(void *user, hypura_gpu_work work, int layer, uint64_t begin_us, uint64_t end_us);
void hypura_gpu_set_watch(hypura_gpu *gpu, hypura_gpu_watch_fn watch, void *user);

#endif
