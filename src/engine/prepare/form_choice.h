/*
 * form_choice.h - the form that a model's weights are computed with: as the options ask for it, and where they leave it
 * open as rates measured on this processor say (plan/form.h decides). What is needed of the processor is measured here
 * once for each type of weights, and stored.
 *
 * What always holds: the same model with the same budget and the same stored rates has the same form. Lessons of runs
 * have no say.
 */
#ifndef HYPURA_ENGINE_PREPARE_FORM_CHOICE_H
#define HYPURA_ENGINE_PREPARE_FORM_CHOICE_H

#include "plan/plan.h"

typedef struct hypura_form_question {
    const hypura_model_options *options;
    const hypura_map           *map;
    const hypura_survey        *survey;
    const hypura_profile       *profile;
    const hypura_plan_options  *wanted; /* what the plan that is there was made with */
    int n_threads;
} hypura_form_question;

/* Without measurement. Beside a GPU libllama puts the host's weights into memory that the GPU's
 * driver pins, as they lie in the file, also where repacked ones are asked for: what streams is
 * computed with in the same form, or bits would depend on how much of it is held. */
hypura_form hypura_form_asked(const hypura_model_options *options, bool over_gpus);

/* Whether the form asked for can be had. */
hypura_status hypura_form_check(const hypura_model_options *options, const hypura_map *map, const hypura_survey *survey,
                                bool over_gpus, hypura_error *error);

/* *plan is that of the form asked for. Where that is repacked and the file's is clearly faster, its plan takes the place. */
hypura_status hypura_form_choose(const hypura_form_question *question, hypura_plan **plan, hypura_error *error);

#endif
