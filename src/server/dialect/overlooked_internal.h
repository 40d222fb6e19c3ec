/*
 * overlooked_internal.h - what the files overlooked*.c share.
 */
#ifndef HYPURA_SERVER_DIALECT_OVERLOOKED_INTERNAL_H
#define HYPURA_SERVER_DIALECT_OVERLOOKED_INTERNAL_H

#include "server/dialect/call.h"
#include "server/dialect/overlooked.h"
#include "server/dialect/text.h"

/* *made: a copy of body, made here where there is none yet. Returns it. */
json_t *overlooked_own(const json_t *body, json_t **made);

hypura_status overlooked_tools(call_form api, const json_t *body, json_t **made, hypura_error *error);
hypura_status overlooked_conversation(call_form api, const json_t *body, json_t **made, hypura_error *error);

#endif
