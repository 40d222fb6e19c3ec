/*
 * call.h - the calls of llama.cpp's server, by their paths, and what is known of each. Pure.
 *
 * What a call needs before and after is its own file's (overlooked.h, amend.h, ...); which call a path is, is decided here.
 */
#ifndef HYPURA_SERVER_DIALECT_CALL_H
#define HYPURA_SERVER_DIALECT_CALL_H

#include <stdbool.h>

typedef enum call_kind {
    CALL_OTHER = 0,
    CALL_CHAT,
    CALL_COMPLETIONS, /* OpenAI's */
    CALL_COMPLETION,  /* llama.cpp's own */
    CALL_RESPONSES,
    CALL_MESSAGES,
    CALL_EMBEDDINGS, /* OpenAI's */
    CALL_TEMPLATE,   /* what a conversation is as a prompt */
} call_kind;

/* How its conversation is written. */
typedef enum call_form {
    FORM_NONE = 0, /* it has none */
    FORM_CHAT,
    FORM_RESPONSES,
    FORM_MESSAGES,
} call_form;

/* Whether "lora" tells it how much of a model's adapters applies (adapter_scale.h). */
typedef enum call_lora {
    LORA_UNUSED = 0, /* it computes nothing with them */
    LORA_TOLD,
    LORA_NOT_TOLD,
} call_lora;

typedef struct server_call {
    const char *path;
    call_kind kind;
    call_form form;
    call_lora lora;
    bool openai; /* of OpenAI's API; llama.cpp's own calls have errors of the same form */
    bool embeds; /* it takes a model that was loaded for this, */
    bool reranks; /* or for this */
} server_call;

/* Of a path, with its query or without. Never NULL. */
const server_call *call_of(const char *path);

#endif
