/*
 * overlooked_internal.h - what the files overlooked*.c share.
 */
#ifndef HYPURA_SERVER_DIALECT_OVERLOOKED_INTERNAL_H
#define HYPURA_SERVER_DIALECT_OVERLOOKED_INTERNAL_H

#include "server/dialect/overlooked.h"
#include "server/dialect/text.h"

typedef enum api_form {
    API_NONE = 0,
    API_CHAT,
    API_RESPONSES,
    API_MESSAGES,
} api_form;

api_form overlooked_api(const char *path);
/* *made: a copy of body, made here where there is none yet. Returns it. */
json_t *overlooked_own(const json_t *body, json_t **made);

hypura_status overlooked_tools(api_form api, const json_t *body, json_t **made, hypura_error *error);
hypura_status overlooked_conversation(api_form api, const json_t *body, json_t **made, hypura_error *error);

#endif
