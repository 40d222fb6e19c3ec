/*
 * load.h - loading through libllama, one load in the process at a time.
 *
 * A load touches state that libllama and ggml keep per process: the abort
 * callback, the prefetch switch of the file mapping, and the devices that claim
 * weights. So everything from the model to its context happens between lock and
 * unlock. Running a loaded model needs no lock.
 */
#ifndef HYPURA_ENGINE_LLAMA_LOAD_H
#define HYPURA_ENGINE_LLAMA_LOAD_H

#include "hypura.h"

#include "llama.h"

/* Waits for the load that another thread is at; not twice by one thread. */
void hypura_load_lock(void);
void hypura_load_unlock(void);

typedef enum hypura_load_kind {
    HYPURA_LOAD_SURVEY,   /* no weight is read and none allocated */
    HYPURA_LOAD_SHAPES,   /* the same, and tokens have no text: reading that takes longer than all the rest */
    HYPURA_LOAD_VOCAB,    /* there are no weights, and no context can be made */
    HYPURA_LOAD_PLAIN,    /* as stock libllama: the file mapped and read ahead */
    HYPURA_LOAD_RESIDENT, /* all weights read past the page cache; nothing of the file is needed later */
    HYPURA_LOAD_PAGED,    /* the file mapped, nothing read: see trunk.h */
} hypura_load_kind;

/* The GPUs that a model is loaded for, as libllama is told. */
typedef struct hypura_load_gpu {
    int n;      /* 0: none, the CPU computes everything */
    int n_here; /* the first ones; the others are of other machines */
    ggml_backend_dev_t devices[HYPURA_MAX_GPUS];
    int layers[HYPURA_MAX_GPUS]; /* that each computes, in their order; all 0: as libllama divides them */
    int n_layers;                /* on all: the last ones, the output counted; INT_MAX: all */
    const struct llama_model_tensor_buft_override *overrides; /* NULL: none */
} hypura_load_gpu;

/* With the lock held. form is that of the weights which libllama holds (FILE for
 * SURVEY, SHAPES and VOCAB); OUTPUT is for where no GPU is used. Reasons for failure are llama.cpp's. */
hypura_status hypura_load_model(const hypura_map *map, hypura_load_kind kind, const hypura_load_gpu *gpu,
                                hypura_form form, hypura_progress_fn progress, void *progress_user,
                                struct llama_model **model, hypura_error *error);

typedef struct hypura_context_options {
    uint32_t n_context;   /* of all sequences together */
    uint32_t n_sequences; /* that share the context; 0: 1 */
    bool one_cache;       /* of all sequences: llama.cpp computes their tokens in one piece */
    uint32_t n_ubatch;
    uint32_t n_outputs; /* rows of logits at most in one ubatch */
    hypura_kv_cache kv_cache; /* checked before, see kv_cache.h */
    int n_threads;
    bool sends_weights; /* prompts of layers that the host holds are computed on a GPU: other bits than without */
    ggml_backend_sched_eval_callback on_node; /* NULL: none; one makes libllama cut its graphs */
    void *on_node_user;
    const hypura_adapter *adapters; /* that the context's graphs have */
    int n_adapters;
} hypura_context_options;

/* With the lock held. Adapters are loaded first; they belong to the model. */
hypura_status hypura_load_context(struct llama_model *model, const hypura_context_options *options,
                                  struct llama_context **ctx, hypura_error *error);

/* Fills in what the caller left to us: n_context and n_ubatch of 0. Fails when
 * they are out of range. over_gpus: GPUs with memory of their own may be used. */
hypura_status hypura_load_sizes(const hypura_map *map, bool over_gpus, uint32_t *n_context, uint32_t *n_ubatch,
                                hypura_error *error);

/* The next one to try where there is no memory for an n_ubatch that was left to us; 0: none, it is the least. */
uint32_t hypura_load_smaller_ubatch(uint32_t n_ubatch);

#endif
