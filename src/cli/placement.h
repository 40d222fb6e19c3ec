/*
 * placement.h - a plan in words: the same lines for `estimate`, which prints them
 * as its result, and for `run`, which tells them before it starts; and in JSON, for
 * `estimate` and `inspect`.
 */
#ifndef HYPURA_CLI_PLACEMENT_H
#define HYPURA_CLI_PLACEMENT_H

#include "hypura.h"

#include <jansson.h>

/* Calls print with mode, memory, weights and pools, one line (no newline) each. */
void hypura_placement_describe(const hypura_plan *plan, void (*print)(const char *line));

/* In words, the layers from first on, of which the last may be what comes after all others: norm and output. */
#define HYPURA_LAYERS_TEXT 48
const char *hypura_placement_layers(int first, int n, bool with_output, char text[HYPURA_LAYERS_TEXT]);

/* What each GPU holds; NULL without memory, as in cli/json.h. */
json_t *hypura_placement_gpus(const hypura_plan *plan);
/* All of it, with the model's path in front. */
json_t *hypura_placement_json(const char *path, const hypura_plan *plan);

#endif
