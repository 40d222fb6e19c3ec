/*
 * gpu.h - which GPU a model uses, and what libllama is told about it.
 */
#ifndef HYPURA_ENGINE_GPU_H
#define HYPURA_ENGINE_GPU_H

#include "backend/gpu.h"
#include "engine/estimate.h"
#include "plan/plan.h"

/* The GPU that ggml knows by this name, of any driver; NULL as name: of those that the
 * system shows the one with the most free memory, integrated ones last, by its vendor's
 * driver where there are two, or none; "none": none. *device is NULL for none. */
hypura_status hypura_gpu_find(const char *name, ggml_backend_dev_t *device, hypura_error *error);

/* What the plan has to know of it: rates from the profile, memory as it is now. */
void hypura_gpu_describe(ggml_backend_dev_t device, const hypura_profile *profile, uint64_t vram_bytes,
                         hypura_plan_gpu *described);

/* The overrides that send the experts which the plan streams to a buffer type: as
 * regular expressions, ended by one without pattern. NULL when memory runs out. */
struct llama_model_tensor_buft_override *hypura_gpu_overrides(const hypura_map *map, const hypura_plan *plan,
                                                              ggml_backend_buffer_type_t type);
void hypura_gpu_overrides_free(struct llama_model_tensor_buft_override *overrides);

/* With the load lock held: loads a model whose weights the pager streams, through a
 * device of ours when experts are paged over a GPU. Close *gpu, NULL without one, after
 * the model, also when this fails. */
hypura_status hypura_gpu_load_paged(const hypura_preparation *prepared, hypura_pager *pager, bool repack,
                                    hypura_gpu **gpu, struct llama_model **model, hypura_error *error);

#endif
