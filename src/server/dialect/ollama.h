/*
 * ollama.h - Ollama's API in terms of llama.cpp's server: pure translation, of requests there and of answers back.
 *
 *     /api/chat, /api/generate            --> /v1/chat/completions
 *     /api/generate with "raw", "template" or "context"     --> /completion
 *     both, of a model made with a template of one turn     --> /completion
 *     /api/generate with "suffix"         --> /infill
 *
 * Upstream every answer is a stream; whether the client wants one is decided at the end of the way back.
 */
#ifndef HYPURA_SERVER_DIALECT_OLLAMA_H
#define HYPURA_SERVER_DIALECT_OLLAMA_H

#include "hypura.h"

#include <jansson.h>

/* ---- requests (ollama_request.c) --------------------------------------------- */

/* "5m", "1h30m", 300, -1: seconds, below 0 for ever. False when it is none of these. */
bool ollama_parse_duration(const json_t *value, double *seconds);

/* What all requests share. */
typedef struct ollama_common {
    bool stream;
    double keep_alive_s; /* NAN: not said */
    uint32_t n_context;  /* these are chosen when a model is loaded; 0: not said */
    uint32_t n_batch;
    uint32_t n_threads;
} ollama_common;

/* settings: of the model (store.h). Fails with HYPURA_ERR_USAGE. */
hypura_status ollama_read_common(const json_t *body, const json_t *settings, ollama_common *common,
                                 hypura_error *error);

/* The parameters that the model was made with, as llama.cpp's server calls them: for its requests that say nothing else.
 * *defaults: a new reference; NULL where there are none. */
hypura_status ollama_defaults(const json_t *settings, json_t **defaults, hypura_error *error);

typedef enum ollama_kind {
    OLLAMA_CHAT = 0,
    OLLAMA_GENERATE,
} ollama_kind;

/* A request to llama.cpp's server: where, and its body. Clear it.
 *
 * An answer of /api/generate ends with the conversation as tokens, "context", which the next request may bring along.
 * These are tokens of the text that the model was given and wrote: `before`, then the prompt, then the answer. The prompt's
 * text is `text`, or what the server's /apply-template makes of `chat`. With tokens before it, body has no prompt yet:
 * ollama_request_continue adds it. */
typedef struct ollama_request {
    const char *path;
    json_t *body;   /* NULL: nothing to compute, the model is just to be loaded */
    json_t *before; /* NULL: none */
    json_t *text;   /* a string; NULL: not known here */
    json_t *chat;   /* a body with messages; NULL: text is known, or the answer has no context */
} ollama_request;

hypura_status ollama_translate(ollama_kind kind, const json_t *body, const json_t *settings, ollama_request *request,
                               hypura_error *error);
void ollama_request_clear(ollama_request *request);
/* Once text is known, where there are tokens before it. */
void ollama_request_continue(ollama_request *request);
/* The content for the server's /tokenize whose tokens are the conversation's, answer included. A new reference. */
json_t *ollama_request_conversation(const ollama_request *request, const char *answer);

/* Whether the request, or one of its messages, comes with pictures. */
bool ollama_has_images(const json_t *body);

/* ---- messages (ollama_message.c) ------------------------------------------------ */

/* The model's own system text, unless the conversation begins with one, then its own messages, then these. */
hypura_status ollama_make_messages(const json_t *messages, const json_t *settings, json_t **made, hypura_error *error);

/* A request of another API (its path) with the model's own system text and messages before its own, as that API writes
 * them. A new reference; NULL: it is to go as it is. */
json_t *ollama_add_own(const char *path, const json_t *body, const json_t *settings);

/* These, made before, in a template of one turn (go_template.h), turn after turn. *text: to be freed. */
hypura_status ollama_render_turns(const char *source, const json_t *messages, char **text, hypura_error *error);

/* Removes the oldest of a request's messages, a share of all text or more; system messages and the last one stay.
 * False when nothing can go. */
bool ollama_shorten(json_t *messages, double share);

/* ---- answers (ollama_answer.c) ------------------------------------------------ */

typedef struct ollama_answer {
    ollama_kind kind;
    const char *model; /* as the client named it */
    bool stream;
    const json_t *given; /* what a conversation ends with (given.h), for the answer's first text; or NULL */
    const json_t *given_thought;
    /* so far, where it is not passed on at once */
    json_t *content; /* strings, to be joined; of OLLAMA_GENERATE also those passed on */
    json_t *thinking;
    json_t *tools; /* of calls: {"id", "name", "arguments" (text)} */
    json_t *logprobs;
    /* the end */
    bool done;
    char done_reason[16];
    int64_t n_prompt;
    int64_t n_tokens;
    double prompt_ms;
    double decode_ms;
    char error[512]; /* the server reported one in the middle */
} ollama_answer;

/* content, tools and so on are made; False when memory is short. */
bool ollama_answer_open(ollama_answer *answer, ollama_kind kind, const char *model, bool stream);
void ollama_answer_clear(ollama_answer *answer);

/* Takes one event of the server's stream. *line: what the client gets for it now, a new reference, or NULL. */
void ollama_answer_take(ollama_answer *answer, const char *event, size_t bytes, json_t **line);

/* A line for a client that waits while nothing can be told yet: it says nothing. */
json_t *ollama_answer_wait(const ollama_answer *answer);

/* It ends here, as nothing more fits into the context. */
void ollama_answer_cut(ollama_answer *answer);

/* The last line, or the whole answer where it was not streamed. Durations in nanoseconds. */
json_t *ollama_answer_end(const ollama_answer *answer, uint64_t total_us, uint64_t load_us);

/* All text of an answer of OLLAMA_GENERATE; a string. */
json_t *ollama_answer_text(const ollama_answer *answer);

/* The answer to a request that just loads ("load") or unloads ("unload") a model. */
json_t *ollama_answer_nothing(ollama_kind kind, const char *model, const char *reason);

#endif
