/*
 * mkmodel.h - what the subcommands of mkmodel share.
 *
 * A subcommand returns an exit code. Whoever meets an error prints it, once, by
 * mk_fail or mk_usage_error, and hands that code up; nobody else prints it again.
 */
#ifndef HYPURA_TOOLS_MKMODEL_H
#define HYPURA_TOOLS_MKMODEL_H

#include <signal.h>
#include <stdint.h>

#if defined(__GNUC__)
#define MK_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define MK_PRINTF(f, a)
#endif

enum { MK_OK = 0, MK_FAILURE = 1, MK_USAGE = 2 };

/* One subcommand: argv[0] is its name. */
typedef struct mk_command {
    const char *name;
    const char *arguments; /* synopsis after the name */
    const char *summary;
    int (*run)(int argc, char **argv);
} mk_command;

int mk_upcycle(int argc, char **argv);
int mk_widen(int argc, char **argv);
int mk_lora(int argc, char **argv);
int mk_shape(int argc, char **argv);
int mk_tiny(int argc, char **argv);
int mk_list(int argc, char **argv);

/* Prints "mkmodel: message" to stderr; return MK_FAILURE and MK_USAGE. */
int mk_fail(const char *format, ...) MK_PRINTF(1, 2);
int mk_usage_error(const char *format, ...) MK_PRINTF(1, 2);

/* Parses a whole decimal number within [low, high]; a usage error names option and text. */
int mk_parse_u64(const char *option, const char *text, uint64_t low, uint64_t high, uint64_t *value);

/* What may stand behind the name of a subcommand: options, and two words, whose names are for messages. */
typedef struct mk_words {
    const struct option *options; /* of getopt_long */
    int (*take)(void *user, int option, const char *text); /* told of each; an exit code */
    void *user;
    const char *names[2];
} mk_words;

int mk_parse_words(const mk_words *words, int argc, char **argv, const char *found[2]);

/* Set by SIGINT and SIGTERM: writers stop, remove what they began and fail. */
extern volatile sig_atomic_t mk_interrupted;

#endif
