/*
 * io_fixture.h - a temporary file whose every byte is known from its offset, and
 * tests that run once for each engine.
 */
#ifndef HYPURA_TESTS_IO_FIXTURE_H
#define HYPURA_TESTS_IO_FIXTURE_H

#include "io/io.h"
#include "named_engines.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define KIB           ((size_t)1 << 10)
#define MIB           ((size_t)1 << 20)
#define FIXTURE_BYTES (3 * MIB + 12345) /* ends inside a block of any size */
#define CANARY        0xA5

static char fixture_path[64];

static inline unsigned char fixture_byte(uint64_t offset)
{
    uint64_t x = (offset + 1) * UINT64_C(0x9E3779B97F4A7C15);
    return (unsigned char)(x >> 56);
}

/* In the working folder and not in /tmp, which may be memory. */
static inline int fixture_make(void **state)
{
    (void)state;
    snprintf(fixture_path, sizeof fixture_path, "./hypura-io-XXXXXX");
    int fd = mkstemp(fixture_path);
    unsigned char *data = malloc(FIXTURE_BYTES);
    if (fd < 0 || data == NULL) {
        return -1;
    }
    for (size_t i = 0; i < FIXTURE_BYTES; i++) {
        data[i] = fixture_byte(i);
    }
    ssize_t written = write(fd, data, FIXTURE_BYTES);
    fsync(fd);
    close(fd);
    free(data);
    return written == (ssize_t)FIXTURE_BYTES ? 0 : -1;
}

static inline int fixture_remove(void **state)
{
    (void)state;
    return unlink(fixture_path);
}

static inline void *fixture_wake(void *io)
{
    usleep(20000);
    hypura_io_wake(io);
    return NULL;
}

/* A wait that another thread's wake ends, with nothing reaped. */
static inline void fixture_expect_wake(hypura_io *io)
{
    pthread_t thread;
    hypura_io_completion c;
    assert_int_equal(pthread_create(&thread, NULL, fixture_wake, io), 0);
    assert_int_equal(hypura_io_reap(io, &c, 1, UINT64_MAX), 0);
    pthread_join(thread, NULL);
}

/* Same numbers on every run. */
static inline uint32_t fixture_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

static inline bool fixture_matches(const unsigned char *data, uint64_t offset, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++) {
        if (data[i] != fixture_byte(offset + i)) {
            return false;
        }
    }
    return true;
}

static inline bool fixture_untouched(const unsigned char *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (data[i] != CANARY) {
            return false;
        }
    }
    return true;
}

/* Skips the test where the engine does not work, or another run of the program has shown it. */
static inline void fixture_require(const char *engine)
{
    if (getenv(ENGINES_ARE_NAMED_ELSEWHERE)) {
        skip();
    }
    if (!hypura_io_engine_available(engine)) {
        print_message("engine %s does not work here\n", engine);
        skip();
    }
}

/* Opens the fixture with this engine, or skips the test. */
static inline hypura_io *fixture_open(hypura_io_options options, const char *engine)
{
    fixture_require(engine);
    const char *const paths[] = {fixture_path};
    options.engine = engine;
    options.paths = paths;
    options.n_paths = 1;
    hypura_io *io = NULL;
    hypura_error error;
    if (hypura_io_open(&options, &io, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    assert_string_equal(hypura_io_engine_name(io), engine);
    return io;
}

/* Reaps exactly n completions into a table by user number, each once. */
static inline void fixture_reap_all(hypura_io *io, uint32_t n, hypura_io_completion *by_user)
{
    bool *seen = calloc(n == 0 ? 1 : n, sizeof *seen);
    for (uint32_t reaped = 0; reaped < n;) {
        hypura_io_completion c[7];
        uint32_t got = hypura_io_reap(io, c, 7, UINT64_MAX);
        for (uint32_t i = 0; i < got; i++) {
            assert_true(c[i].user < n);
            assert_false(seen[c[i].user]);
            seen[c[i].user] = true;
            by_user[c[i].user] = c[i];
        }
        reaped += got;
    }
    free(seen);
    hypura_io_completion extra;
    assert_int_equal(hypura_io_reap(io, &extra, 1, 0), 0);
}

#define FOR_EACH_ENGINE(test)                                                                                          \
    {#test "(uring)", test, NULL, NULL, (void *)"uring"},                                                              \
    {                                                                                                                  \
#test "(pool)", test, NULL, NULL, (void *)"pool"                                                               \
    }

#endif
