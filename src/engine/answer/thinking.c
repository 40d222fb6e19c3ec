/*
 * thinking.c - see thinking.h.
 */
#include "engine/answer/thinking.h"

hypura_thinking hypura_thinking_of(const hypura_generate_options *options)
{
    const bool has_grammar = options->grammar || options->json_schema;
    return options->thinking == HYPURA_THINKING_AUTO && has_grammar ? HYPURA_THINKING_OFF : options->thinking;
}

const char *hypura_thinking_effort(hypura_thinking thinking)
{
    switch (thinking) {
    case HYPURA_THINKING_LOW:
        return "low";
    case HYPURA_THINKING_MEDIUM:
        return "medium";
    case HYPURA_THINKING_HIGH:
        return "high";
    default:
        return NULL;
    }
}
