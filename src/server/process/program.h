/*
 * program.h - the program hypura-engine: its command line, and running it. Shared by engine.c and ask.c.
 */
#ifndef HYPURA_SERVER_PROCESS_PROGRAM_H
#define HYPURA_SERVER_PROCESS_PROGRAM_H

#include "server/process/engine.h"

#include <sys/types.h>

#define ENGINE_MAX_WORDS 128

/* A command line. Zeroed and with the program's name it is one; what is added lives as long as it does. */
typedef struct engine_words {
    int n;
    const char *items[ENGINE_MAX_WORDS + 1];
    char numbers[16][24];
    char share[24];
    int n_numbers;
    char sizes[HYPURA_MAX_GPUS * 24]; /* joined by + */
    char shares[HYPURA_MAX_GPUS][128];
    hypura_waiting waits; /* threads for each other */
} engine_words;

/* An option and its value; nothing where that is NULL. */
void engine_words_add(engine_words *to, const char *option, const char *value);
/* Begins one, with what every use of a model says. */
void engine_words_common(const engine_options *options, engine_words *to);

/* in, out and error_to become its standard input, output and error. */
hypura_status engine_spawn(const engine_words *line, int in, int out, int error_to, pid_t *pid, hypura_error *error);

/* Runs it to its end, for what it prints; of that the last line without the program's name, *message in text. in: its
 * standard input; errors: its standard error, below 0: with what it prints. It is killed after the time given; 0: never. */
typedef struct engine_answer {
    char text[4096];
    const char *message;
    int wait_status; /* as waitpid gives it */
    bool late;       /* it was killed */
} engine_answer;

hypura_status engine_ask(const engine_words *line, int in, int errors, uint64_t timeout_us, engine_answer *answer,
                         hypura_error *error);

#endif
