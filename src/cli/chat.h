/*
 * chat.h - what a person tells the program, not the model, in a conversation on a terminal: /set, /show, /save, /load,
 * /clear and the like, by the names that `ollama run` has for them.
 */
#ifndef HYPURA_CLI_CHAT_H
#define HYPURA_CLI_CHAT_H

#include "cli/run_arguments.h"

typedef struct hypura_chat {
    hypura_model *model; /* NULL: the server of run is asked */
    hypura_run_arguments *run;
    bool ended; /* by /bye */
} hypura_chat;

/* True when the line was for the program. What it could not do is told on standard error; the conversation goes on as it
 * was then. */
bool hypura_chat_command(hypura_chat *chat, const char *line);

#endif
