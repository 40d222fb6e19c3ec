/*
 * unrest.h - test instrument: a thread that changes how much a model holds, all the
 * time and at random, while the model computes.
 */
#ifndef HYPURA_ENGINE_MEASURE_UNREST_H
#define HYPURA_ENGINE_MEASURE_UNREST_H

#include "hypura.h"

typedef struct hypura_unrest hypura_unrest;

/* Between the least that the model can hold and what it holds now. The model outlives
 * the unrest. */
hypura_status hypura_unrest_begin(hypura_model *model, hypura_unrest **unrest, hypura_error *error);
/* Ends the thread; the model holds what it held at first. Returns how often that
 * changed meanwhile. NULL is allowed. */
uint64_t hypura_unrest_end(hypura_unrest *unrest);

#endif
