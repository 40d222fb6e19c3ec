/*
 * model.h - the one model of a worker: planned before llama.cpp's server starts, and
 * loaded when the server asks libllama for it.
 *
 * The server loads through llama_model_load_from_file. This program defines that
 * function, and so takes libllama's place for that call (the dynamic linker prefers
 * the program's): the same placement as in `hypura run`, with nothing of the server
 * changed. A draft model is loaded before it: what is read later then finds its memory
 * taken. Other files are loaded as they always are.
 */
#ifndef HYPURA_WORKER_MODEL_H
#define HYPURA_WORKER_MODEL_H

#include "worker/arguments.h"

#include "engine/llama/pulse.h"
#include "engine/model/paged_gpu.h"
#include "pager/pager.h"

#include <stdatomic.h>

typedef struct hypura_worker_model {
    const hypura_worker_arguments *arguments;
    hypura_preparation prepared;
    _Atomic(hypura_pager *) pager; /* NULL until loaded, and where nothing is paged */
    hypura_gpus gpus;              /* none where no experts are paged over them */
    hypura_pulse *pulse;         /* of the GPUs; NULL: there are none, or nothing is loaded */
    struct llama_model *draft;   /* loaded, and not asked for by the server yet; NULL: none */
    atomic_bool loaded;
    atomic_bool saved; /* what was learned */
    hypura_error error;          /* why loading failed; for the thread that runs the server */
    hypura_progress_fn progress; /* of loading; by the thread that loads */
    void *progress_user;
    void (*on_loaded)(void *progress_user); /* the same thread, when it is; NULL: nobody wants to know */
} hypura_worker_model;

/* Plans. An estimate chooses how many of the conversations asked for are computed together: their caches take no more than
 * a quarter of the memory. */
hypura_status hypura_worker_model_prepare(const hypura_worker_arguments *arguments, hypura_worker_model *model,
                                          hypura_error *error);
/* Whether its draft model fits it; where not, error tells why, and the model is planned without. For an estimate. */
bool hypura_worker_model_takes_draft(hypura_worker_arguments *arguments, hypura_error *error);
/* From here on llama_model_load_from_file on this model's path loads it as planned, and on its draft's. model lives as
 * long as the process. */
void hypura_worker_model_offer(hypura_worker_model *model);
/* After the server has ended. */
void hypura_worker_model_close(hypura_worker_model *model);

#endif
