/*
 * run.h - running mkmodel in a folder of the test's own, and looking at its files.
 */
#ifndef HYPURA_TESTS_TOOLS_RUN_H
#define HYPURA_TESTS_TOOLS_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gguf.h"

enum { MAX_ARGUMENTS = 16 };

/* cmocka group fixtures: an empty folder becomes the working directory, and is
 * removed with everything in it. */
int enter_folder(void **state);
int leave_folder(void **state);

/* Limits of a child, all off when 0. */
typedef struct limits {
    uint64_t file_bytes;  /* RLIMIT_FSIZE */
    uint64_t tmpfs_bytes; /* a file system of that size on the folder "full"; needs root */
    int signal;           /* pending when the program starts */
} limits;

/* Runs mkmodel with the words up to a NULL; its exit code, or -1 when a signal
 * ended it or the limits could not be set. Its stderr is kept for the next call. */
int run_mkmodel(const char *const words[]);
int run_mkmodel_within(const limits *l, const char *const words[]);
const char *last_stderr(void);

/* Number of entries in a folder. */
int count_files(const char *folder);

/* Whole file, freed by the caller. */
uint8_t *read_file(const char *path, size_t *bytes);
bool are_equal_files(const char *a, const char *b);

/* A GGUF with its bytes. Fails the test when it cannot be read. */
typedef struct gguf_file {
    struct gguf_context *header;
    uint8_t *bytes;
    size_t n_bytes;
} gguf_file;

gguf_file open_gguf(const char *path);
void close_gguf(gguf_file *f);
const uint8_t *tensor_data(const gguf_file *f, const char *name, size_t *bytes);

#define MKMODEL_RUN(...) run_mkmodel((const char *const[]){__VA_ARGS__, NULL})

#endif
