/*
 * gpu_share.h - what a server whose models share GPUs says of one of these: several processes count on its memory, and a driver
 * knows only what is taken already.
 */
#ifndef HYPURA_ENGINE_LLAMA_GPU_SHARE_H
#define HYPURA_ENGINE_LLAMA_GPU_SHARE_H

#include "hypura.h"

typedef struct hypura_gpu_share {
    char     name[64];   /* ggml's, of the device */
    uint64_t lent_bytes; /* that others hold now and would give back: they count as free */
    uint64_t bytes;      /* that were free, with these, when the model was planned: layers are shared out by that; 0: as it is now */
    uint64_t most_bytes; /* that the model may take; 0: as much as there is */
} hypura_gpu_share;

typedef struct hypura_gpu_shares {
    int              n;
    hypura_gpu_share list[HYPURA_MAX_GPUS];
} hypura_gpu_shares;

#endif
