/*
 * options.h - the one option parser of the program. A command declares a table
 * of options; parsing, range checks, lists, help text and hints for misspelled
 * names all come from that table.
 *
 * What always holds: parsing prints nothing and writes only to the destinations
 * of the table, to `given` and to the operands; an argument that cannot be taken
 * as it stands is an error that names the option and the value.
 */
#ifndef HYPURA_CLI_OPTIONS_H
#define HYPURA_CLI_OPTIONS_H

#include "hypura_measure.h"

#include <stdio.h>

#define HYPURA_MAX_LIST     32
#define HYPURA_MAX_OPERANDS 64

/* A limit on weights: bytes, or per cent of the model's files when percent > 0. */
typedef struct hypura_budget {
    uint64_t bytes;
    double percent;
} hypura_budget;

/* A limit on GPU memory: one on all GPUs, or, where a first one is given, one on each. */
typedef struct hypura_vram_limit {
    hypura_budget all;
    uint64_t each[HYPURA_MAX_GPUS];
} hypura_vram_limit;

typedef struct hypura_vram_list {
    int n;
    hypura_vram_limit items[HYPURA_MAX_LIST];
} hypura_vram_list;

typedef struct hypura_budget_list {
    int n;
    hypura_budget items[HYPURA_MAX_LIST];
} hypura_budget_list;

typedef struct hypura_count_list {
    int n;
    hypura_slot_count items[HYPURA_MAX_LIST];
} hypura_count_list;

typedef struct hypura_unsigned_list {
    int n;
    uint32_t items[HYPURA_MAX_LIST];
} hypura_unsigned_list;

typedef struct hypura_choice_list {
    int n;
    const char *items[HYPURA_MAX_LIST]; /* literals of the option's choices */
} hypura_choice_list;

#define HYPURA_ADAPTER_PATH_BYTES 4096

/* Of FILE, FILE:SCALE. Items point into paths: it is not to be copied. */
typedef struct hypura_adapter_list {
    int n;
    hypura_adapter items[HYPURA_MAX_ADAPTERS];
    char paths[HYPURA_MAX_ADAPTERS][HYPURA_ADAPTER_PATH_BYTES];
} hypura_adapter_list;

typedef struct hypura_string_list {
    int n;
    const char *items[HYPURA_MAX_LIST]; /* point into argv */
} hypura_string_list;

typedef enum hypura_option_kind {
    HYPURA_OPTION_FLAG,     /* no argument; to.flag becomes true */
    HYPURA_OPTION_SIZE,     /* bytes or K, M, G (1024); never 0 */
    HYPURA_OPTION_BUDGET,   /* a SIZE or N% */
    HYPURA_OPTION_UNSIGNED, /* within min..max */
    HYPURA_OPTION_INT,      /* within min..max */
    HYPURA_OPTION_FLOAT,    /* within min..max */
    HYPURA_OPTION_STRING,   /* points into argv */
    HYPURA_OPTION_CHOICE,   /* one of `choices` */
    HYPURA_OPTION_VRAM,     /* a budget, or sizes joined by + */
    HYPURA_OPTION_STRINGS,  /* one more each time that the option occurs; never "" */
    HYPURA_OPTION_BUDGETS,  /* the lists: items parted by commas */
    HYPURA_OPTION_COUNTS,   /* each a number within min..max, or N% */
    HYPURA_OPTION_VRAMS,
    HYPURA_OPTION_UNSIGNEDS, /* each within min..max */
    HYPURA_OPTION_CHOICES,   /* each one of `choices` */
    HYPURA_OPTION_ADAPTERS,  /* files, each with a number behind a colon or without; given again, more of them */
} hypura_option_kind;

typedef struct hypura_option {
    const char *name;     /* without the dashes */
    const char *argument; /* its name in the help text; NULL for a flag */
    const char *help;     /* one line */
    hypura_option_kind kind;
    union {
        bool *flag;
        uint64_t *size;
        hypura_budget *budget;
        hypura_vram_limit *vram;
        uint32_t *unsigned_integer;
        int *integer;
        float *real;
        const char **string;
        hypura_string_list *strings;
        hypura_budget_list *budgets;
        hypura_count_list *counts;
        hypura_vram_list *vrams;
        hypura_unsigned_list *unsigneds;
        hypura_choice_list *choice_list;
        hypura_adapter_list *adapters;
    } to;
    double min; /* inclusive; UNSIGNED, INT, FLOAT, UNSIGNEDS, COUNTS */
    double max;
    bool zero;                  /* SIZE: 0 means none, and may be given */
    const char *const *choices; /* CHOICE, CHOICES: ends with NULL */
    bool *given;                /* set when the option occurs; NULL: not told */
    const char *also;           /* what others call it, dashes included, parted by spaces; NULL: nothing else */
} hypura_option;

/* What a command accepts. `--help` and `-h` are understood everywhere. */
typedef struct hypura_syntax {
    const char *command;
    const char *operands; /* their names in the usage line, "" for none */
    int n_operands;
    const char *about; /* paragraph below the usage line; ends with a newline */
    const hypura_option *options;
    int n_options;
    const char *notes; /* below the options; NULL: none */
    int n_optional;    /* so many operands, the last ones, may be left out */
} hypura_syntax;

typedef struct hypura_arguments {
    bool help; /* --help was met; nothing after it was looked at */
    int n_operands;
    const char *operands[HYPURA_MAX_OPERANDS]; /* point into argv */
} hypura_arguments;

/* Reads argv[0..argc-1], the words after the command's name. `--opt=value` and
 * `--opt value` are the same; a lone `--` ends the options; of an option given
 * twice the last counts, but of adapters and STRINGS all. Fails with HYPURA_ERR_USAGE. */
hypura_status hypura_options_parse(const hypura_syntax *syntax, int argc, char *const *argv,
                                   hypura_arguments *arguments, hypura_error *error);

/* Which of the choices, ended by NULL, a word is, counted from 0; NULL is the first. -1: none of them. */
int hypura_option_choice(const char *const *choices, const char *word);

/* option_values.c: reads what is behind an option, of any kind but FLAG, into where that goes. */
hypura_status hypura_option_take(const hypura_option *option, const char *text, hypura_error *error);

/* option_adapters.c: what ADAPTERS takes. */
hypura_status hypura_option_take_adapters(const hypura_option *option, const char *text, hypura_error *error);

/* Prints usage, about, options and notes. */
void hypura_options_help(const hypura_syntax *syntax, FILE *to);

/* The one of `names` (n of them) that is nearest to `word` by edit distance, or
 * NULL when none is near enough to be what was meant. */
const char *hypura_nearest_name(const char *word, const char *const *names, int n);

#endif
