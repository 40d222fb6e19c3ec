/*
 * gpu_internal.h - what the files over a GPU share.
 */
#ifndef HYPURA_BACKEND_GPU_INTERNAL_H
#define HYPURA_BACKEND_GPU_INTERNAL_H

#include "backend/gpu.h"
#include "backend/gpu_guard.h"
#include "backend/internal.h"
#include "pager/vram.h"

struct hypura_gpu {
    struct ggml_backend_device      device; /* context is this structure */
    struct ggml_backend_reg         registry;
    struct ggml_backend_buffer_type experts;
    ggml_backend_dev_t              inner;
    hypura_pager                   *pager;
    char                            name[64];
    bool                            records_late; /* ggml-vulkan: see gpu_executor.c */
    hypura_gpu_select_fn            select;
    void                           *select_user;
};

ggml_backend_t gpu_new_instance(hypura_gpu *gpu);
/* The GPU's own instance behind one of ours, any other as it is. */
ggml_backend_t gpu_inner_instance(ggml_backend_t backend);

#endif
