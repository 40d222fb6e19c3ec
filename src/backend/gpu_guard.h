/*
 * gpu_guard.h - calls and returns what was returned; what is thrown on the way
 * becomes GGML_STATUS_FAILED, and its text goes to ggml's log.
 */
#ifndef HYPURA_BACKEND_GPU_GUARD_H
#define HYPURA_BACKEND_GPU_GUARD_H

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

enum ggml_status gpu_guard(enum ggml_status (*call)(void *user), void *user);

#ifdef __cplusplus
}
#endif

#endif
