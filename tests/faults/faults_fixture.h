/*
 * faults_fixture.h - whole models for the tests of this folder: tiny ones that
 * `mkmodel tiny` wrote, opened at budgets that make them stream, and what plain
 * llama.cpp computes with them.
 */
#ifndef HYPURA_TEST_FAULTS_FIXTURE_H
#define HYPURA_TEST_FAULTS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/measure/replay.h"

/* One way to run a model: which file, how much of it may be held (0: plain
 * llama.cpp), and what the plan has to make of that. */
typedef struct fault_case {
    const char *file;
    uint64_t weights_bytes;
    hypura_mode mode;
    bool repack; /* weights held as the CPU backend repacks them */
} fault_case;

extern const fault_case fault_cases[];
extern const int n_fault_cases;

extern const char *const fault_engines[2]; /* the first one may be forbidden here */
/* The first one where the number is even and the kernel allows it, else the second. */
const char *faults_engine(int number);

/* The model's own file, which tests leave alone, and a new copy of it, all its parts,
 * in the folder of this process. Valid until the next call. */
const char *faults_model(const char *file);
const char *faults_copy(const char *file);

/* Where the measured profile is kept for all tests of a build. */
const char *faults_cache_dir(void);

/* Whether experts are read on a guess: with one of the engines always, else never, as what
 * is measured would decide otherwise. A guess that fails is no failure of the decode. */
bool faults_foresees(const char *engine);

/* Opens with a machine's profile made up, so that nothing is measured. The hook sees each read of
 * the pager, or, where all is held, libllama's progress while it loads. */
hypura_status faults_try_open(const fault_case *c, const char *path, const char *engine, hypura_io_hook hook,
                              void *user, hypura_model **model, hypura_error *error);
/* The same, which has to succeed, in the mode of the case. */
hypura_model *faults_open(const fault_case *c, const char *path, const char *engine, hypura_io_hook hook, void *user);

/* The script that plain llama.cpp writes: a prompt that comes in several pieces,
 * and some single tokens. */
void faults_script(const fault_case *c, hypura_script *script);

/* Plays the script, which has to succeed with no bit different. */
void faults_expect_right(hypura_model *model, const hypura_script *script);

/* Asserts this status and that the message has this text in it. */
void faults_expect(hypura_status wanted, hypura_status status, const hypura_error *error, const char *text);

/* cmocka group fixtures: the folder for copies. */
int faults_setup(void **state);
int faults_teardown(void **state);

#endif
