/*
 * output.h - the output matrix, which makes logits. Of a prompt too it makes those of
 * one row, so decoding alone feels its form: where all other weights stay as in the file
 * for the sake of prompts, it is repacked all the same.
 */
#ifndef HYPURA_ENGINE_OUTPUT_H
#define HYPURA_ENGINE_OUTPUT_H

#include "plan/plan.h"

/* The tensor that can be repacked alone; -1: none. An embedding that is the output too
 * cannot: rows are read from it as they lie in the file. */
int hypura_output_find(const hypura_map *map, const hypura_survey *survey);

#endif
