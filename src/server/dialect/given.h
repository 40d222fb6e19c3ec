/*
 * given.h - what a conversation ends with, where that is the assistant's: the model goes on from it, and llama.cpp's
 * server repeats it first. The answer is what follows. Pure.
 */
#ifndef HYPURA_SERVER_DIALECT_GIVEN_H
#define HYPURA_SERVER_DIALECT_GIVEN_H

#include <jansson.h>

/* How many bytes of a text that begins an answer are what was given, with or without the space before that; 0: none. */
size_t given_bytes(const json_t *given, const json_t *text);
/* The text without it. A new reference. */
json_t *given_skip(const json_t *given, const json_t *text);

/* Texts and thoughts as llama.cpp's server joins them; NULL: there are none. */
typedef struct given_parts {
    json_t *text;
    json_t *thought;
} given_parts;

/* Of the last message, as OpenAI, Anthropic or Ollama write them; nothing unless it is the assistant's. Clear it. */
given_parts given_of_messages(const json_t *messages);
/* Of the input of /v1/responses: all items at its end that are one message of the assistant's. */
given_parts given_of_input(const json_t *input);
void given_clear(given_parts *given);

#endif
