/*
 * go_template.h - the part of Go's templates that prompts of one turn are written in, as Ollama takes them in a request:
 *
 *     {{ .System }} {{ .Prompt }} {{ .Suffix }} {{ .Response }}   {{ if .X }} {{ else }} {{ end }}   {{- -}}
 *
 * Pure. What follows .Response is left out: the model writes from there.
 */
#ifndef HYPURA_SERVER_GO_TEMPLATE_H
#define HYPURA_SERVER_GO_TEMPLATE_H

#include "hypura.h"

typedef struct go_template_values {
    const char *system;
    const char *prompt;
    const char *suffix;
} go_template_values;

/* *text: to be freed. HYPURA_ERR_UNSUPPORTED names what is not understood. */
hypura_status go_template_render(const char *source, const go_template_values *values, char **text,
                                 hypura_error *error);

#endif
