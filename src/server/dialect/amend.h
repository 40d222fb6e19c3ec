/*
 * amend.h - what llama.cpp's server answers otherwise than the API whose form it writes, put right. Pure.
 *
 *     conversations    the answer is what follows the assistant's own last message, without that (given.h)
 *     /v1/messages     blocks of a stream one after the other, each begun and ended once; "stop_sequence"
 *     /v1/responses    "incomplete" where it was cut; numbers and indexes of events, and fields that clients count on
 *     /v1/completions  probabilities in the form that they have there
 *     several answers  their tokens added up, the prompt's counted once; llama.cpp's server is asked for a stream of them
 *
 * One amendment for one answer: whole, or event by event.
 */
#ifndef HYPURA_SERVER_DIALECT_AMEND_H
#define HYPURA_SERVER_DIALECT_AMEND_H

#include <jansson.h>
#include <stdint.h>

typedef struct server_amendment server_amendment;

typedef struct amend_about {
    const char *model;  /* as answers call it */
    int64_t n_predict;  /* tokens of an answer where the request does not say; 0: no limit */
    int64_t n_context;  /* an answer ends where it is full; 0: it goes on */
} amend_about;

/* asked: by the client; sent: to llama.cpp's server. NULL: such an answer goes as it comes, or memory is short. */
server_amendment *amend_open(const char *path, const json_t *asked, const json_t *sent, const amend_about *about);
void amend_close(server_amendment *amendment);

/* Changes it. */
void amend_whole(server_amendment *amendment, json_t *answer);
/* The events in place of this one; it may be changed. A new reference: an array, empty where there are none yet. */
json_t *amend_event(server_amendment *amendment, json_t *event);

/* What goes in place of a request for several whole answers, a new reference: one for a stream, of which the answer is put
 * together by gather and gathered. NULL: it is no such request. */
json_t *amend_asks_for_stream(const char *path, const json_t *sent);
void amend_gather(server_amendment *amendment, json_t *event);
/* A new reference; NULL where nothing came. With "error", where one did. */
json_t *amend_gathered(server_amendment *amendment);

#endif
