/*
 * engine_fixture.h - models for the tests of the engine, where they have been made.
 */
#ifndef HYPURA_TEST_ENGINE_FIXTURE_H
#define HYPURA_TEST_ENGINE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hypura.h"
#include "hypura_measure.h"

/* Paths of a demonstration model (build/models, or HYPURA_TEST_MODELS), of one that
 * test-llama-archs wrote, and of one of words. Skip the running test, saying why, when it is not there. Valid until
 * the next call. */
const char *fixture_model(const char *name);
const char *fixture_arch(const char *name);
const char *fixture_words(const char *name);

/* Where the measured profile is kept for all tests of a build. */
const char *fixture_cache_dir(void);

/* A file in the temporary folder of this process; removed at the end. */
const char *fixture_path(const char *name);
void fixture_write(const char *path, const void *bytes, size_t n);
/* The whole file; free() it. */
char *fixture_read(const char *path, size_t *n);

/* Asserts HYPURA_OK, printing the message otherwise. */
void fixture_ok(hypura_status status, const hypura_error *error);
/* Asserts this status and that the message has this text in it. */
void fixture_fails(hypura_status wanted, hypura_status status, const hypura_error *error, const char *text);

/* Three tokens behind prompts of any length, by two threads in parts of 16 tokens, read by the pool: with weights repacked
 * or as in the file, and with what is held changing all the time. */
hypura_verify_options fixture_verify_options(const char *path, bool repack, bool resize);
/* Verifies it, with the profile of all tests, and asserts that no bit differs. Clear the report. */
hypura_verify_report fixture_verify(hypura_verify_options options);

/* The least weights that a model needs so; an estimate would measure the processor for it. */
uint64_t fixture_floor(const hypura_model_options *options);

/* An open model, with the profile of all tests, one thread, and a context of 256 where none is wanted; and an answer of it. */
hypura_model *fixture_open(const hypura_model_options *wanted);
hypura_result fixture_generate(hypura_model *model, const hypura_generate_options *wanted);

int fixture_setup(void **state);
int fixture_teardown(void **state);

#endif
