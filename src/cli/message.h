/*
 * message.h - what a person says in a conversation: a line of standard input, or, on
 * a terminal, several between two """.
 */
#ifndef HYPURA_CLI_MESSAGE_H
#define HYPURA_CLI_MESSAGE_H

#include "base/buffer.h"
#include "cli/environment.h"
#include "cli/prompt.h"

/* Initialise the environment and zero the rest; close frees. */
typedef struct hypura_messages {
    const hypura_environment *environment;
    hypura_lines lines;
    hypura_buffer text;
    bool quoted; /* the last message stood between """: it is for the model, whatever it says */
} hypura_messages;

/* Asks on a terminal, and waits for the next message, which stays valid until the next call;
 * lines with nothing on them are none. What was typed of a message is dropped when a signal
 * comes, and when a line of it was cut by the terminal. */
hypura_line_event hypura_messages_next(hypura_messages *messages, const char **message, hypura_error *error);
/* True, and told, when a line begins with / and a word: it was meant for the program, which has no
 * such command, and not for the model. */
bool hypura_message_refuse(const char *line);

void hypura_messages_close(hypura_messages *messages);

#endif
