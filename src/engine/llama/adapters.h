/*
 * adapters.h - LoRA adapters: looked at before a model is loaded, loaded with it, applied to its contexts.
 *
 * llama.cpp does the last two. It holds an adapter where the weights lie that it is for; for weights that the pager streams
 * that is plain memory of whatever computes with them (backend/buffer.c, backend/gpu_device.c).
 */
#ifndef HYPURA_ENGINE_LLAMA_ADAPTERS_H
#define HYPURA_ENGINE_LLAMA_ADAPTERS_H

#include "hypura.h"

#include "llama.h"

/* Numbers alone: HYPURA_ERR_USAGE. */
hypura_status hypura_adapters_check(const hypura_adapter *adapters, int n, hypura_error *error);

/* Their files, against the model's map. */
hypura_status hypura_adapters_check_files(const hypura_adapter *adapters, int n, const hypura_map *map, hypura_error *error);

/* With the load lock held: into a model that is loaded, which frees them with itself. */
hypura_status hypura_adapters_load(const hypura_adapter *adapters, int n, struct llama_model *model,
                                   struct llama_adapter_lora **loaded, hypura_error *error);
hypura_status hypura_adapters_apply(const hypura_adapter *adapters, int n, struct llama_adapter_lora **loaded,
                                    struct llama_context *ctx, hypura_error *error);

#endif
