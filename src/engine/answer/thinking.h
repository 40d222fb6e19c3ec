/*
 * thinking.h - whether a model is to think before it answers, as options ask for it and as chat templates hear it. Pure.
 */
#ifndef HYPURA_ENGINE_ANSWER_THINKING_H
#define HYPURA_ENGINE_ANSWER_THINKING_H

#include "hypura.h"

/* What has a grammar has it from its first token on, where thoughts would be: all of it is text. */
hypura_thinking hypura_thinking_of(const hypura_generate_options *options);
/* What some templates call reasoning_effort; NULL: nothing is said of it. */
const char *hypura_thinking_effort(hypura_thinking thinking);

#endif
