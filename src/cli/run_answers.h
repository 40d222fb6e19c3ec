/*
 * run_answers.h - the answers of `hypura run`: one, or those of a conversation, printed as they come.
 */
#ifndef HYPURA_CLI_RUN_ANSWERS_H
#define HYPURA_CLI_RUN_ANSWERS_H

#include "cli/run_arguments.h"
#include "cli/run_statistics.h"

/* Of the model, or where that is NULL of run->client. totals counts what was answered, also where it fails. */
hypura_status hypura_run_answer(hypura_model *model, hypura_run_arguments *run, hypura_run_totals *totals,
                                hypura_error *error);

#endif
