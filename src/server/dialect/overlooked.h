/*
 * overlooked.h - what requests of OpenAI's and Anthropic's APIs say and llama.cpp's server passes over without a word:
 * told it in other words, or refused. Pure.
 *
 *     /v1/responses          "text": {"format"}    "response_format"
 *                            "instructions": null     none
 *     all with tools         "tool_choice": a tool's name, or several: these tools alone, one of which is to be called
 *     all with calls         arguments that are ""    "{}"
 *     all with stops         one that is ""           left out
 *     /v1/chat/completions   "top_logprobs": 0        1
 *     /v1/completions        "logprobs": 0            1
 *     /v1/messages           "tool_choice": none      no tools
 *                            "thinking": disabled     a model that could does not think
 *                            documents of text        text
 */
#ifndef HYPURA_SERVER_DIALECT_OVERLOOKED_H
#define HYPURA_SERVER_DIALECT_OVERLOOKED_H

#include "hypura.h"

#include <jansson.h>

/* The body for llama.cpp's server in place of this one, of a request with that path. *made: a new reference; NULL: it
 * goes as it is. HYPURA_ERR_USAGE: it wants what nobody here does. */
hypura_status overlooked_translate(const char *path, const json_t *body, json_t **made, hypura_error *error);

/* Whether a translated request lets the model call tools, or counts them for it. */
bool overlooked_calls_tools(const char *path, const json_t *body);

#endif
