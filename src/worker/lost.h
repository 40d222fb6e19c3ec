/*
 * lost.h - a GPU that is lost ends the worker, with why: the front then starts another one for the next request.
 *
 * A driver that has lost its GPU for a process answers nothing in it any more. CUDA's backend ends the process then, which
 * engine/llama/end.h tells; other backends throw, and llama.cpp's server would go on and fail with every request. So this
 * program takes the place of libllama's llama_process and llama_synchronize, as model.h tells.
 */
#ifndef HYPURA_WORKER_LOST_H
#define HYPURA_WORKER_LOST_H

#include "worker/control.h"

/* From here on, for good; nothing without GPUs. control lives as long as the process. */
void hypura_lost_watch(hypura_control *control, const char *gpus);

/* Called, on a thread of its own, before the worker ends so: what was learned until then. It takes no lock that is held while a GPU
 * is waited for; what takes longer than five seconds is not waited for. NULL: nothing any more. */
void hypura_lost_keep(void (*save)(void *user), void *user);

#endif
