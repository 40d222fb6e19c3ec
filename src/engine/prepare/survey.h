/*
 * survey.h - what libllama's own graph says about a model, without its weights.
 */
#ifndef HYPURA_ENGINE_PREPARE_SURVEY_H
#define HYPURA_ENGINE_PREPARE_SURVEY_H

#include "engine/llama/load.h"
#include "hw/probe_nodes.h"
#include "plan/plan.h"

/* Loads the model without weights, builds its graphs for one token and for a
 * whole ubatch, and records how each tensor of the map is used. vocab_bytes gets
 * an estimate of what the vocabulary takes in memory. others: gets what the graph of
 * one token computes beside products with weights, or is NULL. Takes the load lock.
 * look: sees the model before it is surveyed; NULL: nobody does, and its tokens need no text. Free with hypura_survey_free. */
typedef hypura_status (*hypura_survey_look_fn)(void *user, const struct llama_model *model, hypura_error *error);
hypura_status hypura_survey_take(const hypura_map *map, const hypura_context_options *options,
                                 const hypura_load_gpu *gpu, hypura_nodes *others, hypura_survey_look_fn look,
                                 void *look_user, hypura_survey **survey, uint64_t *vocab_bytes, hypura_error *error);
void hypura_survey_free(hypura_survey *survey);

#endif
