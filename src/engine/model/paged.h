/*
 * paged.h - the way of a model whose weights stream, from its preparation to its first token; hypura_model and the worker,
 * who own what it makes, go it alike:
 *
 *     options -> hypura_pager_open -> load (under the load lock) -> contexts -> begin
 */
#ifndef HYPURA_ENGINE_MODEL_PAGED_H
#define HYPURA_ENGINE_MODEL_PAGED_H

#include "engine/model/paged_gpu.h"
#include "engine/prepare/estimate.h"
#include "pager/pager.h"

/* Of a pager that nobody records, foretells for or tests. They point into prepared. */
hypura_pager_options hypura_paged_options(const hypura_preparation *prepared, const hypura_model_options *options);

/* With the load lock held: the weights. What streams comes to the pager, what stays to memory; trunk_bytes gets what that
 * takes. Progress is told as the options have it. Also when it fails, free *llama, then close *gpus, then the pager. */
hypura_status hypura_paged_load(const hypura_preparation *prepared, const hypura_model_options *options, hypura_pager *pager,
                                hypura_gpus *gpus, struct llama_model **llama, uint64_t *trunk_bytes, hypura_error *error);

/* When all is loaded. Fails where a file changed meanwhile. Slots are filled with what earlier runs used, and without a
 * limit what is held follows from now on from what the machine can spare. */
hypura_status hypura_paged_begin(const hypura_preparation *prepared, const hypura_model_options *options,
                                 hypura_pager *pager, hypura_error *error);

/* What this run used, for the next one. Where that fails it stays as it was: nothing depends on it. pager NULL, cache_dir
 * NULL: nothing is saved. */
void hypura_paged_save(const hypura_preparation *prepared, hypura_pager *pager, const char *cache_dir);

/* How long one token takes by the forecast, for hypura_pulse_open; 0: not known, or not held whole: then it is the drive's or
 * the link's time, perhaps. */
double hypura_held_token_s(const hypura_preparation *prepared, bool whole);

#endif
