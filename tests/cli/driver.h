/*
 * driver.h - runs the program under test and looks at what came of it, for the
 * tests that see it from outside. Every function fails the running test when it
 * cannot do its work.
 */
#ifndef HYPURA_TESTS_CLI_DRIVER_H
#define HYPURA_TESTS_CLI_DRIVER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define DRIVER_MAX_WORDS 16

/* The program under test, and the working folder of every run, in which the
 * models of the fake library lie; it is also cache and models folder. */
extern const char *driver_program;
extern char driver_folder[];

/* Takes the one argument of a test, the program; false when it is not there. */
bool driver_main(int argc, char **argv);
/* Setup and teardown of a cmocka group: make and remove the folder. */
int driver_setup(void **state);
int driver_teardown(void **state);

/* ---- programs -------------------------------------------------------------- */

typedef struct process {
    int code;     /* exit code, or 256 + the signal that ended it */
    char *output; /* standard output and error, each terminated */
    char *error;
    size_t output_bytes;
    pid_t child; /* between start and finish */
    FILE *streams[2];
} process;

/* Starts the program with words (ends with NULL). Standard input is `input`, or
 * /dev/null when NULL; standard output goes to the file `to`, or is kept when
 * NULL. */
process driver_start(const char *const *words, const char *input, const char *to);
/* Waits for the end. */
void driver_finish(process *run);
/* Both at once. */
process driver_run(const char *const *words, const char *input, const char *to);
#define RUN(...)              driver_run((const char *[]){__VA_ARGS__, NULL}, NULL, NULL)
#define RUN_INPUT(input, ...) driver_run((const char *[]){__VA_ARGS__, NULL}, input, NULL)

/* Runs a line of shell, to which the program is "$PROGRAM": its path may have blanks. */
process driver_shell(const char *line);

/* The exit code has to be code, and output and error, where not NULL, have to
 * occur in what was written. */
void driver_expect(const process *run, int code, const char *output, const char *error);
void driver_clear(process *run);

/* ---- files and JSON --------------------------------------------------------- */

void driver_write(const char *name, const char *text, size_t bytes);
/* The file's first 8 KiB, terminated; valid until the next call. */
const char *driver_read(const char *name);

/* The text has to be one object whose keys are `keys`, a list parted by spaces,
 * in that order. The caller drops the reference. */
json_t *driver_object(const char *text, const char *keys);
int64_t driver_integer(const json_t *object, const char *key);
double driver_real(const json_t *object, const char *key);
const char *driver_string(const json_t *object, const char *key);

/* ---- terminals -------------------------------------------------------------- */

/* The program on a terminal of its own, 80 columns wide. */
typedef struct terminal {
    pid_t child;
    int master;
    char *screen; /* everything written to the terminal so far, terminated */
    size_t used;
} terminal;

void terminal_open(terminal *on, const char *const *words);
/* Types text as a person would. */
void terminal_type(terminal *on, const char *text);
/* Reads until `text` has been written after offset `from`; false after ten
 * seconds of silence or when the program ended without. */
bool terminal_expect(terminal *on, const char *text, size_t from);
/* Waits for the end of the program, ends it after ten seconds of silence; the
 * exit code as in process. The screen is complete then. */
int terminal_wait(terminal *on);
void terminal_close(terminal *on);

#endif
