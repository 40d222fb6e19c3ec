/*
 * recall.h - what earlier runs of a model say of a token with another share of its weights in memory.
 * Pure.
 */
#ifndef HYPURA_PLAN_RECALL_H
#define HYPURA_PLAN_RECALL_H

#include "plan/plan.h"

/* A token, as it is known without runs, and then with them. */
typedef struct plan_token {
    double held;      /* weights in memory / all, 0 to 1 */
    double compute_s; /* with nothing missed; 0: not known */
    double read_bytes;
    double most_bytes;  /* that it reads when all is missed */
    double read_factor; /* see hypura_lesson */
} plan_token;

/* There is at least one lesson. expected_bytes: what a token would have been said to read with as much held as in
 * each of them; 0: nothing. */
void plan_recall(const hypura_lessons *lessons, const double *expected_bytes, plan_token *token);

/* From a to b. */
double plan_mix(double a, double b, double part);

#endif
