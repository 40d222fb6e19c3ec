/* Both engines under faults: every Nth raw result replaced, files that shrink
 * or vanish while being read. Data is right or the error clear; never neither. */
#include "io_fixture.h"

#include <errno.h>

enum { N_READS = 12, READ_BYTES = 100000 };

typedef enum fault_kind { FAULT_EIO, FAULT_EINTR, FAULT_EAGAIN, FAULT_SHORT, FAULT_NOTHING, FAULT_LATE } fault_kind;

typedef struct fault {
    fault_kind kind;
    uint64_t every; /* 0: never */
    uint64_t seed;
    uint64_t n_hit;
} fault;

static int64_t inject(void *user, uint64_t nth, int64_t result)
{
    fault *f = user;
    if (f->every == 0 || (nth + 1) % f->every != 0) {
        return result;
    }
    f->n_hit++;
    switch (f->kind) {
    case FAULT_EIO:
        return -EIO;
    case FAULT_EINTR:
        return -EINTR;
    case FAULT_EAGAIN:
        return -EAGAIN;
    case FAULT_SHORT:
        return result <= 0 ? result : (int64_t)(fixture_random(&f->seed) % (uint64_t)result);
    case FAULT_NOTHING:
        return 0;
    case FAULT_LATE:
        usleep(300);
        return result;
    }
    return result;
}

/* Reads the same ranges under one fault; returns how many reads failed. */
static uint32_t read_under(const char *engine, fault *f, bool buffered, hypura_io_completion *completions)
{
    hypura_io *io = fixture_open((hypura_io_options){.block_bytes = 16 * KIB,
                                                     .depth = 3,
                                                     .max_reads = N_READS,
                                                     .buffered = buffered,
                                                     .hook = inject,
                                                     .hook_user = f},
                                 engine);
    unsigned char *arena;
    size_t stride = READ_BYTES + 3 * 4096;
    assert_int_equal(posix_memalign((void **)&arena, 4096, N_READS * stride), 0);
    hypura_io_read reads[N_READS];
    for (uint32_t i = 0; i < N_READS; i++) {
        uint64_t offset = i * 250000 + i;
        uint16_t slack = i % 2 == 0 ? 4096 : 0;
        reads[i] = (hypura_io_read){.offset = offset, .bytes = READ_BYTES, .user = i};
        reads[i].head_slack = slack;
        reads[i].tail_slack = slack;
        uintptr_t base = ((uintptr_t)arena + i * stride + 8191) / 4096 * 4096;
        reads[i].dst = (void *)(base + offset % 4096 - 4096);
    }
    assert_int_equal(hypura_io_submit(io, reads, N_READS), N_READS);
    fixture_reap_all(io, N_READS, completions);
    uint32_t n_failed = 0;
    for (uint32_t i = 0; i < N_READS; i++) {
        if (completions[i].status == HYPURA_OK) {
            assert_true(fixture_matches(reads[i].dst, reads[i].offset, READ_BYTES));
        } else {
            assert_int_equal(completions[i].status, HYPURA_ERR_IO);
            assert_true(completions[i].offset + 4096 > reads[i].offset);
            assert_true(completions[i].offset < reads[i].offset + READ_BYTES);
            n_failed++;
        }
    }
    hypura_io_close(io);
    free(arena);
    return n_failed;
}

static void every_nth_failing_fails_its_read(void **state)
{
    hypura_io_completion c[N_READS];
    for (uint64_t every = 1; every <= 100; every++) {
        fault f = {.kind = FAULT_EIO, .every = every};
        uint32_t failed = read_under(*state, &f, every % 2 == 0, c);
        /* Several failures may hit one read; each failed read was hit. */
        assert_true(failed <= f.n_hit);
        assert_int_equal(failed > 0, f.n_hit > 0);
        assert_true(every > 1 || failed == N_READS);
        for (uint32_t i = 0; i < N_READS; i++) {
            assert_true(c[i].status == HYPURA_OK || c[i].errno_value == EIO);
        }
    }
}

static void every_nth_short_or_late_is_made_good(void **state)
{
    static const fault_kind kinds[] = {FAULT_SHORT, FAULT_LATE, FAULT_EINTR, FAULT_EAGAIN, FAULT_NOTHING};
    hypura_io_completion c[N_READS];
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        for (uint64_t every = 2; every <= 20; every++) {
            fault f = {.kind = kinds[k], .every = every, .seed = every};
            assert_int_equal(read_under(*state, &f, every % 2 == 0, c), 0);
            assert_true(f.n_hit > 0);
        }
    }
}

static void endless_trouble_ends_in_an_error(void **state)
{
    static const struct {
        fault_kind kind;
        int errno_value;
    } cases[] = {{FAULT_EINTR, EINTR}, {FAULT_EAGAIN, EAGAIN}, {FAULT_NOTHING, EIO}};
    hypura_io_completion c[N_READS];
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        fault f = {.kind = cases[k].kind, .every = 1};
        assert_int_equal(read_under(*state, &f, false, c), N_READS);
        for (uint32_t i = 0; i < N_READS; i++) {
            assert_int_equal(c[i].errno_value, cases[k].errno_value);
        }
    }
}

/* A copy of the fixture that a test may cut or remove. */
static void copy_fixture(char *path)
{
    int in = open(fixture_path, O_RDONLY);
    int out = mkstemp(path);
    unsigned char *data = malloc(FIXTURE_BYTES);
    assert_int_equal(read(in, data, FIXTURE_BYTES), FIXTURE_BYTES);
    assert_int_equal(write(out, data, FIXTURE_BYTES), FIXTURE_BYTES);
    free(data);
    close(in);
    close(out);
}

static void a_file_cut_while_open_says_so(void **state)
{
    fixture_require(*state);
    for (int buffered = 0; buffered < 2; buffered++) {
        char path[] = "./hypura-io-cut-XXXXXX";
        copy_fixture(path);
        const char *const paths[] = {path};
        hypura_io_options options = {
            .engine = *state, .paths = paths, .n_paths = 1, .block_bytes = 64 * KIB, .buffered = buffered != 0};
        hypura_io *io;
        hypura_error error;
        assert_int_equal(hypura_io_open(&options, &io, &error), HYPURA_OK);
        assert_int_equal(truncate(path, 1000001), 0);
        unsigned char *arena = malloc(2 * MIB);
        const hypura_io_read reads[] = {{.offset = 3, .bytes = 999000, .dst = arena, .user = 0},
                                        {.offset = 900000, .bytes = MIB, .dst = arena + MIB, .user = 1}};
        assert_int_equal(hypura_io_submit(io, reads, 2), 2);
        hypura_io_completion c[2];
        fixture_reap_all(io, 2, c);
        assert_int_equal(c[0].status, HYPURA_OK);
        assert_true(fixture_matches(arena, 3, 999000));
        assert_int_equal(c[1].status, HYPURA_ERR_IO);
        assert_int_equal(c[1].errno_value, 0);
        assert_true(c[1].offset >= 1000001);
        hypura_io_fail(io, 0, &c[1], &error);
        assert_non_null(strstr(error.message, "truncated"));
        hypura_io_close(io);
        free(arena);
        unlink(path);
    }
}

static void a_removed_file_is_read_to_its_end(void **state)
{
    fixture_require(*state);
    char path[] = "./hypura-io-gone-XXXXXX";
    copy_fixture(path);
    const char *const paths[] = {path};
    hypura_io_options options = {.engine = *state, .paths = paths, .n_paths = 1};
    hypura_io *io;
    hypura_error error;
    assert_int_equal(hypura_io_open(&options, &io, &error), HYPURA_OK);
    assert_int_equal(unlink(path), 0);
    unsigned char *arena = malloc(FIXTURE_BYTES);
    const hypura_io_read read = {.bytes = FIXTURE_BYTES, .dst = arena};
    assert_int_equal(hypura_io_read_all(io, &read, 1, NULL, NULL, &error), HYPURA_OK);
    assert_true(fixture_matches(arena, 0, FIXTURE_BYTES));
    hypura_io_close(io);
    free(arena);
}

static void read_all_stops_at_the_first_failure(void **state)
{
    for (uint64_t every = 1; every < 40; every += 3) {
        fault f = {.kind = FAULT_EIO, .every = every};
        hypura_io *io = fixture_open(
            (hypura_io_options){.block_bytes = 64 * KIB, .depth = 4, .hook = inject, .hook_user = &f}, *state);
        unsigned char *arena = malloc(FIXTURE_BYTES);
        const hypura_io_read read = {.bytes = FIXTURE_BYTES, .dst = arena};
        hypura_error error;
        assert_int_equal(hypura_io_read_all(io, &read, 1, NULL, NULL, &error), HYPURA_ERR_IO);
        assert_non_null(strstr(error.message, fixture_path));
        assert_non_null(strstr(error.message, "at byte"));
        hypura_io_completion c;
        assert_int_equal(hypura_io_reap(io, &c, 1, 0), 0);
        f.every = 0;
        assert_int_equal(hypura_io_read_all(io, &read, 1, NULL, NULL, &error), HYPURA_OK);
        assert_true(fixture_matches(arena, 0, FIXTURE_BYTES));
        hypura_io_close(io);
        free(arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOR_EACH_ENGINE(every_nth_failing_fails_its_read),  FOR_EACH_ENGINE(every_nth_short_or_late_is_made_good),
        FOR_EACH_ENGINE(endless_trouble_ends_in_an_error),  FOR_EACH_ENGINE(a_file_cut_while_open_says_so),
        FOR_EACH_ENGINE(a_removed_file_is_read_to_its_end), FOR_EACH_ENGINE(read_all_stops_at_the_first_failure),
    };
    return cmocka_run_group_tests(tests, fixture_make, fixture_remove);
}
