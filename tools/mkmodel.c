/*
 * mkmodel.c - makes models for tests and benchmarks: the table of its subcommands.
 */
#include "mkmodel.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ggml.h"

static const mk_command commands[] = {
    {"upcycle", "SRC OUT --experts N --top-k K [--seed S] [--type T] [--progress]",
     "a mixture of experts from the dense llama model SRC, that talks like it", mk_upcycle},
    {"widen", "SRC OUT --hidden N [--type T] [--progress]",
     "the dense llama model SRC with N hidden units, which says what SRC says", mk_widen},
    {"lora", "BASE OUT [--rank R] [--seed S] [--type f32|f16] [--embeddings]",
     "a LoRA adapter of random weights for the model BASE", mk_lora},
    {"shape",
     "NAME OUT [--layers N] [--type T] [--seed S] [--parts N] [--vocab-from GGUF | --no-vocab | --words]\n"
     "      [--progress]",
     "random weights in the shape of a real model; with --words it says words alone, and never ends by itself", mk_shape},
    {"tiny", "DIR", "small models of every kind that tests need", mk_tiny},
    {"list", "", "the names for 'shape'", mk_list},
};

volatile sig_atomic_t mk_interrupted;

static void on_signal(int signal_number)
{
    (void)signal_number;
    mk_interrupted = 1;
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    /* A parent may have left them blocked. */
    sigset_t stopping;
    sigemptyset(&stopping);
    sigaddset(&stopping, SIGINT);
    sigaddset(&stopping, SIGTERM);
    sigprocmask(SIG_UNBLOCK, &stopping, NULL);
    /* A file larger than the limit then fails as a write that names it. */
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGXFSZ, &ignore, NULL);
}

static void print_error(const char *format, va_list arguments)
{
    fputs("mkmodel: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
}

int mk_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_error(format, arguments);
    va_end(arguments);
    return MK_FAILURE;
}

int mk_usage_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_error(format, arguments);
    va_end(arguments);
    fputs("try 'mkmodel --help'\n", stderr);
    return MK_USAGE;
}

int mk_parse_u64(const char *option, const char *text, uint64_t low, uint64_t high, uint64_t *value)
{
    char *end = NULL;
    errno = 0;
    unsigned long long parsed = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || parsed < low || parsed > high) {
        return mk_usage_error("%s: '%s' is not a number from %" PRIu64 " to %" PRIu64, option, text, low, high);
    }
    *value = parsed;
    return MK_OK;
}

int mk_parse_words(const mk_words *words, int argc, char **argv, const char *found[2])
{
    int rc = MK_OK;
    int option;
    while (rc == MK_OK && (option = getopt_long(argc, argv, "", words->options, NULL)) != -1) {
        rc = option == '?' ? mk_usage_error("%s: wrong option", argv[0]) : words->take(words->user, option, optarg);
    }
    if (rc == MK_OK && argc - optind != 2) {
        rc = mk_usage_error("%s: %s and %s are needed, %d arguments were given", argv[0], words->names[0], words->names[1],
                            argc - optind);
    }
    for (int i = 0; rc == MK_OK && i < 2; i++) {
        found[i] = argv[optind + i];
    }
    return rc;
}

static void print_help(void)
{
    puts("usage: mkmodel COMMAND ...\n\nMakes GGUF models for tests and benchmarks.\n");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        printf("  %s %s\n      %s\n", commands[i].name, commands[i].arguments, commands[i].summary);
    }
    puts("\nThe same arguments give the same bytes. Exit status: 0 done, 1 failed, 2 wrong usage.");
}

/* ggml's own remarks would repeat ours without naming the file. */
static void discard_log(enum ggml_log_level level, const char *text, void *user)
{
    (void)level;
    (void)text;
    (void)user;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        return mk_usage_error("no command given");
    }
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help();
            return fflush(stdout) == 0 ? MK_OK : mk_fail("cannot write to standard output");
        }
    }
    catch_signals();
    ggml_log_set(discard_log, NULL);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    return mk_usage_error("unknown command '%s'", argv[1]);
}
