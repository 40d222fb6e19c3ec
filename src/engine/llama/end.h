/*
 * end.h - where llama.cpp ends the process (hypura_on_end): what drivers refuse is aborted by some backends, CUDA's above
 * all, and thrown by others, also where something is freed and nothing may be thrown.
 */
#ifndef HYPURA_ENGINE_LLAMA_END_H
#define HYPURA_ENGINE_LLAMA_END_H

#include "hypura.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the GPUs are called that are used from now on: "CUDA0,CUDA1"; "" keeps what was said before. */
void hypura_end_name(const char *gpus);

/* What nobody is left to return is told as where llama.cpp ends the process. May return. */
void hypura_end_now(const hypura_error *error);

#ifdef __cplusplus
}
#endif

#endif
