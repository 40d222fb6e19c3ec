/*
 * ollama.h - Ollama's API in terms of llama.cpp's server: pure translation, of requests there and of answers back.
 *
 *     /api/chat, /api/generate            --> /v1/chat/completions
 *     /api/generate with "raw"            --> /completion
 *     /api/generate with "suffix"         --> /infill
 *
 * Upstream every answer is a stream; whether the client wants one is decided at the end of the way back.
 */
#ifndef HYPURA_SERVER_OLLAMA_H
#define HYPURA_SERVER_OLLAMA_H

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

typedef enum ollama_kind {
    OLLAMA_CHAT = 0,
    OLLAMA_GENERATE,
} ollama_kind;

/* A request to llama.cpp's server: where, and its body (a new reference). */
typedef struct ollama_request {
    const char *path;
    json_t *body; /* NULL: nothing to compute, the model is just to be loaded */
} ollama_request;

hypura_status ollama_translate(ollama_kind kind, const json_t *body, const json_t *settings, ollama_request *request,
                               hypura_error *error);

/* ---- answers (ollama_answer.c) ------------------------------------------------ */

typedef struct ollama_answer {
    ollama_kind kind;
    const char *model; /* as the client named it */
    bool stream;
    /* so far, where it is not passed on at once */
    json_t *content; /* strings, to be joined */
    json_t *thinking;
    json_t *tools; /* of calls: {"name", "arguments" (text)} */
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

/* The last line, or the whole answer where it was not streamed. Durations in nanoseconds. */
json_t *ollama_answer_end(const ollama_answer *answer, uint64_t total_us, uint64_t load_us);

/* The answer to a request that just loads ("load") or unloads ("unload") a model. */
json_t *ollama_answer_nothing(ollama_kind kind, const char *model, const char *reason);

#endif
