/*
 * paged_gpu.h - loading a model whose weights stream, where GPUs compute with some of them.
 */
#ifndef HYPURA_ENGINE_MODEL_PAGED_GPU_H
#define HYPURA_ENGINE_MODEL_PAGED_GPU_H

#include "backend/gpu.h"
#include "engine/prepare/estimate.h"
#include "pager/pager.h"

/* The devices over GPUs that are not remote, in the plan's order, when experts are paged over them; else none. */
typedef struct hypura_gpus {
    int         n;
    hypura_gpu *list[HYPURA_MAX_GPUS];
} hypura_gpus;

/* With the load lock held: loads a model whose weights the pager streams. Close *gpus
 * after the model, also when this fails. */
hypura_status hypura_gpus_load_paged(const hypura_preparation *prepared, hypura_pager *pager,
                                     const hypura_model_options *options, hypura_gpus *gpus,
                                     struct llama_model **model, hypura_error *error);
void          hypura_gpus_close(hypura_gpus *gpus);

#endif
