/*
 * idle.h - whether a model leaves processors to nobody: it is held whole, and no reads, repacking or uploads need one
 * beside those that compute. Threads may then look for each other for longer (base/waiting.h).
 */
#ifndef HYPURA_ENGINE_PREPARE_IDLE_H
#define HYPURA_ENGINE_PREPARE_IDLE_H

#include "hypura.h"

/* As planned, on a machine of many processors; on few, looking for longer gains nothing. */
bool hypura_plan_computes_alone(const hypura_plan *plan, int n_cpus);

#endif
