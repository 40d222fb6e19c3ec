/*
 * form.h - what fields of a form say (multipart/form-data), as uploads of files come in one. Pure.
 */
#ifndef HYPURA_SERVER_DIALECT_FORM_H
#define HYPURA_SERVER_DIALECT_FORM_H

#include <stdbool.h>
#include <stddef.h>

/* Whether a header Content-Type is that of such a form; NULL is allowed. */
bool form_is_one(const char *content_type);
/* The text of the first field of that name, to be freed; NULL: there is none, or the form cannot be read. */
char *form_field(const char *content_type, const char *body, size_t bytes, const char *name);

#endif
