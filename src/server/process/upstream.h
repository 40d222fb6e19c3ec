/*
 * upstream.h - HTTP to an engine over its socket, for one thread each: its last connection is kept for the thread's next
 * call.
 */
#ifndef HYPURA_SERVER_PROCESS_UPSTREAM_H
#define HYPURA_SERVER_PROCESS_UPSTREAM_H

#include "hypura.h"

#include <jansson.h>

/* Before the first call, and after the last thread that called has ended. */
hypura_status upstream_begin(hypura_error *error);
void upstream_end(void);

typedef struct upstream_call {
    const char *socket;
    const char *method; /* "GET", "POST" */
    const char *path;   /* with its query */
    const char *content_type;
    const char *body; /* of POST */
    size_t body_bytes;
    /* The answer as it comes: head once, then data as often as needed. false breaks off. */
    bool (*on_head)(void *user, int code, const char *content_type);
    bool (*on_data)(void *user, const char *data, size_t bytes);
    /* Asked about once a second: true breaks off. */
    bool (*gone)(void *user);
    void *user;
} upstream_call;

/* Blocks until the answer is complete. HYPURA_ERR_CANCELLED when a callback broke it off; when the engine did,
 * HYPURA_ERR_IO as long as nothing of an answer had come, else HYPURA_ERR_BACKEND. */
hypura_status upstream_run(const upstream_call *call, hypura_error *error);

/* A call that answers with JSON, held whole. gone may be NULL. *answer is a new reference, NULL when the body is no
 * JSON. */
hypura_status upstream_json(const char *socket, const char *method, const char *path, const json_t *body,
                            bool (*gone)(void *user), void *user, int *code, json_t **answer, hypura_error *error);

/* `gone` of calls that may take until a time of hypura_clock_us: user is its uint64_t, or begins with that. */
bool upstream_is_late(void *end_us);

/* Whether the engine answers requests, now: its model is loaded. */
bool upstream_healthy(const char *socket);

#endif
