/*
 * estimate.h - everything that is known about a model before a weight is read:
 * map, survey, profile, plan. Opening and estimating share it.
 */
#ifndef HYPURA_ENGINE_PREPARE_ESTIMATE_H
#define HYPURA_ENGINE_PREPARE_ESTIMATE_H

#include "engine/llama/gpu_share.h"
#include "engine/llama/load.h"
#include "pager/pager.h"

/* What a process with any model takes besides weights, KV, compute buffers, the vocabulary and its tensors' share:
 * libraries, queues and staging of the reads. */
#define HYPURA_PREPARE_LEAST_BYTES (UINT64_C(32) << 20)

typedef struct hypura_preparation {
    hypura_map *map;
    hypura_plan *plan;
    hypura_context_options context;
    char io_engine[16]; /* "uring", "pool", or empty for the best there is */
    double direct_bytes_per_s; /* that the forecast took: the profile's, or an emulated drive's */
    uint32_t n_checkpoints; /* of a server's conversations, that their memory was planned with; see below */
    uint32_t n_guessed;     /* tokens that speculation guesses at once at most; 0: there is none */
    hypura_load_gpu gpus; /* those used, without overrides */
} hypura_preparation;

/* profile: already measured, or NULL. all_logits: as hypura_model_extras. */
hypura_status hypura_prepare(const hypura_model_options *options, const hypura_profile *profile, bool all_logits,
                             hypura_preparation *prepared, hypura_error *error);
/* The same for n_sequences of n_context tokens each, computed together, with logits of one token of each. */
hypura_status hypura_prepare_sequences(const hypura_model_options *options, const hypura_profile *profile,
                                       uint32_t n_sequences, hypura_preparation *prepared, hypura_error *error);

/* For a server: n_sequences conversations of n_context tokens each, computed together, and reserve_bytes of memory
 * for what the server keeps beside the model. prepared->context.n_context is that of all of them. Where a model has
 * windows or recurrent state, which cannot be taken back token by token, the server copies them now and then: up to
 * n_checkpoints copies of each conversation are planned for, as many as take no more than a sixteenth of the memory.
 * shares: what its other models leave of GPUs; NULL: there are none. */
hypura_status hypura_prepare_shared(const hypura_model_options *options, uint32_t n_sequences, uint64_t reserve_bytes,
                                    const hypura_gpu_shares *shares, hypura_preparation *prepared, hypura_error *error);
/* Once the model is loaded, where nobody gave a limit: the pager follows free memory. */
hypura_status hypura_prepare_keep(const hypura_preparation *prepared, hypura_pager *pager, hypura_error *error);

/* Asks for a form. Where the options name a cache folder, rates may still speak against repacked. */
void hypura_prepare_in_form(hypura_model_options *options, hypura_form form);

/* Safe on a zeroed or failed preparation. */
void hypura_prepare_clear(hypura_preparation *prepared);

#endif
