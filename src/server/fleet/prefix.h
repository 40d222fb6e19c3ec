/*
 * prefix.h - conversations that outlive an engine: the state of a slot (its tokens and their part of the KV cache)
 * saved to disk after an answer, and put back before a request that goes on where it ended.
 *
 * One session for each engine. While an engine runs, llama.cpp's server finds by itself what its slots hold, and what it
 * put aside in memory when other conversations came between; a session brings back what earlier engines left.
 *
 *     answer --> (a second at rest) --> slots that changed are saved    FOLDER/MODEL/TOKENS.state
 *     request --> tokens --> the saved state with the longest common beginning --> a slot at rest
 *
 * What always holds: a state belongs to one version of one model (its digest names the folder) and llama.cpp's server
 * compares its tokens with the request's before it uses any of it, so a wrong guess costs time and nothing else. All
 * states together take at most the limit; the oldest go first. A disk that is full loses a state, never an answer.
 */
#ifndef HYPURA_SERVER_FLEET_PREFIX_H
#define HYPURA_SERVER_FLEET_PREFIX_H

#include "server/models/store.h"

typedef struct prefix_session prefix_session;

/* The folder for the states of a model, made where it is missing. False when it cannot be made. */
bool prefix_folder(const char *root, const hypura_model_entry *entry, char *path, size_t capacity);

/* The engine at that socket has just been started with that folder. NULL when memory is short: nothing is kept then. */
prefix_session *prefix_open(const char *root, uint64_t limit_bytes, const char *folder, const char *socket);
/* Saves what changed; the engine still runs, or is gone already. NULL is allowed. */
void prefix_close(prefix_session *session);

/* What slots hold from now on is not to be kept, and nothing is put back any more. */
void prefix_stop(prefix_session *session);

/* Before a request of the engine: path and body as it will get them, body NULL when it is no JSON. */
void prefix_restore(prefix_session *session, const char *path, const json_t *body);
/* After its answer. */
void prefix_used(prefix_session *session);

#endif
