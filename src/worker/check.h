/*
 * check.h - whether a chat template or a grammar can be used, for the front: what it was sent may be anything.
 */
#ifndef HYPURA_WORKER_CHECK_H
#define HYPURA_WORKER_CHECK_H

#include "hypura.h"

#include <stdio.h>

/* Reads it, and writes one message in it as llama.cpp's server would. HYPURA_ERR_USAGE tells what is wrong. */
hypura_status hypura_worker_check_template(FILE *from, hypura_error *error);
/* The same of {"grammar": TEXT} or {"json_schema": ANY}, as requests have them. */
hypura_status hypura_worker_check_grammar(FILE *from, hypura_error *error);

#endif
