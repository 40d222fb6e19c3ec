/*
 * go_template.h - the part of Go's templates that prompts of one turn are written in, as Ollama takes them in a request:
 *
 *     {{ .System }} {{ .Prompt }} {{ .Suffix }} {{ .Response }}   {{ if .X }} {{ else }} {{ end }}   {{- -}}
 *
 * Pure. Where .Response is still to be written, what follows it is left out: the model writes from there.
 */
#ifndef HYPURA_SERVER_DIALECT_GO_TEMPLATE_H
#define HYPURA_SERVER_DIALECT_GO_TEMPLATE_H

#include "hypura.h"

#include <stdbool.h>

typedef struct go_template_values {
    const char *system;
    const char *prompt;
    const char *suffix;
    const char *response; /* NULL: the model's, from there on */
} go_template_values;

/* *text: to be freed. HYPURA_ERR_UNSUPPORTED names what is not understood. */
hypura_status go_template_render(const char *source, const go_template_values *values, char **text,
                                 hypura_error *error);

/* Whether a template that came with a model is in the other language: Jinja's, which llama.cpp's server reads. */
bool go_template_is_jinja(const char *source);

/* HYPURA_ERR_UNSUPPORTED, with the same message, for what cannot be rendered. */
hypura_status go_template_check(const char *source, hypura_error *error);

#endif
