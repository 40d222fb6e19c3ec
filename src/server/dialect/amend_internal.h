/*
 * amend_internal.h - an amendment, as its files share it.
 */
#ifndef HYPURA_SERVER_DIALECT_AMEND_INTERNAL_H
#define HYPURA_SERVER_DIALECT_AMEND_INTERNAL_H

#include "server/dialect/amend.h"
#include "server/dialect/call.h"
#include "server/dialect/given.h"
#include "server/dialect/text.h"

#include <stdbool.h>

#define AMEND_MAX_CHOICES 64

typedef struct amend_form {
    call_kind kind;
    const char *messages; /* the key of the conversation; NULL: there is none */
    bool always;          /* also where nothing was given */
    bool counts;          /* there may be several answers */
    void (*whole)(server_amendment *amendment, json_t *answer);
    void (*event)(server_amendment *amendment, json_t *event, json_t *to);
} amend_form;

struct server_amendment {
    const amend_form *form;
    amend_about about;
    char *model;
    json_t *asked;
    json_t *sent;
    given_parts given;
    /* of several answers */
    json_int_t n_each;    /* to a prompt */
    json_int_t n_results; /* to all of them */
    json_int_t n_usages;  /* that were told */
    json_int_t completion_tokens, prompt_tokens, cached_tokens;
    json_t *whole; /* that is put together; NULL: nothing of it yet */
    /* of a stream */
    uint64_t text_begun; /* by choice: its first text has come */
    uint64_t thought_begun;
    /* of /v1/completions */
    json_int_t offsets[AMEND_MAX_CHOICES]; /* characters so far */
    /* of /v1/messages */
    bool begun;
    bool thinks;      /* the open block is a thought */
    json_int_t block; /* that is open; -1: none */
    uint64_t blocks;  /* that have begun */
    /* of /v1/responses */
    json_int_t created_s;
    json_int_t n_events;
    json_t *items;     /* the ids of those that have begun */
    json_t *held;      /* events, until it is known how the answer ended */
    size_t text_bytes; /* of its text, passed on */
};

/* NULL: answers to that path go as they come. */
const amend_form *amend_form_of(const char *path);

/* object[key] without what was given. */
void amend_skip(const json_t *given, json_t *object, const char *key);
/* The same of the pieces of a stream. begun: whether its first piece has come. */
void amend_skip_first(const json_t *given, uint64_t *begun, json_int_t choice, json_t *object, const char *key);

/* amend_several.c: of the request. */
json_int_t amend_count_prompts(const json_t *sent);
json_int_t amend_count_each(const json_t *sent);
/* Puts the usage of all in place of the last one's, and takes off the others. False: there is nothing else in the event. */
bool amend_several_event(server_amendment *amendment, json_t *event);

void amend_completions_whole(server_amendment *amendment, json_t *answer);
void amend_completions_event(server_amendment *amendment, json_t *event, json_t *to);
void amend_messages_whole(server_amendment *amendment, json_t *answer);
void amend_messages_event(server_amendment *amendment, json_t *event, json_t *to);
void amend_responses_whole(server_amendment *amendment, json_t *answer);
void amend_responses_event(server_amendment *amendment, json_t *event, json_t *to);

#endif
