/* Both engines: contents, slack, limits, wakes, closing, reading all. */
#include "io_fixture.h"

#include <pthread.h>

enum { MANY = 200 };

/* Random reads of every alignment, with canaries around each destination. */
static void contents_are_right_and_nothing_else_is_touched(void **state)
{
    uint64_t seed = 7;
    static const uint64_t blocks[] = {4 * KIB, 64 * KIB, 1 * MIB};
    for (int round = 0; round < 6; round++) {
        hypura_io *io = fixture_open((hypura_io_options){.block_bytes = blocks[round % 3],
                                                         .depth = 1 + fixture_random(&seed) % 9,
                                                         .max_reads = MANY,
                                                         .staging_bytes = round % 2 == 0 ? 0 : 100 * KIB,
                                                         .buffered = round >= 3},
                                     *state);
        const hypura_io_file *file = hypura_io_files(io);
        assert_int_equal(file->bytes, FIXTURE_BYTES);
        assert_true(round < 3 || !file->direct);

        static hypura_io_read reads[MANY];
        static unsigned char *arenas[MANY];
        static size_t arena_bytes[MANY];
        uint64_t total = 0;
        for (uint32_t i = 0; i < MANY; i++) {
            hypura_io_read *r = &reads[i];
            uint32_t limit = i % 4 == 0 ? 300 * KIB : 20 * KIB;
            r->bytes = i % 50 == 0 ? 0 : 1 + fixture_random(&seed) % limit;
            r->offset = fixture_random(&seed) % (FIXTURE_BYTES - r->bytes);
            r->file = 0;
            r->user = i;
            if (i % 5 == 0) {
                r->offset = FIXTURE_BYTES - r->bytes; /* up to the last byte */
            }
            r->head_slack = i % 3 == 0 ? 0 : 4096;
            r->tail_slack = i % 3 == 1 ? 0 : 4096;
            arena_bytes[i] = (size_t)r->bytes + 5 * 4096;
            assert_int_equal(posix_memalign((void **)&arenas[i], 4096, arena_bytes[i]), 0);
            memset(arenas[i], CANARY, arena_bytes[i]);
            size_t phase = i % 2 == 0 ? r->offset % 4096 : fixture_random(&seed) % 4096;
            r->dst = arenas[i] + 4096 + phase;
            total += r->bytes;
        }
        assert_int_equal(hypura_io_submit(io, reads, MANY), MANY);
        static hypura_io_completion completions[MANY];
        fixture_reap_all(io, MANY, completions);
        for (uint32_t i = 0; i < MANY; i++) {
            const hypura_io_read *r = &reads[i];
            unsigned char *dst = r->dst;
            assert_int_equal(completions[i].status, HYPURA_OK);
            assert_true(fixture_matches(dst, r->offset, r->bytes));
            unsigned char *low = dst - r->head_slack;
            unsigned char *high = dst + r->bytes + r->tail_slack;
            if (high > arenas[i] + arena_bytes[i]) {
                high = arenas[i] + arena_bytes[i];
            }
            assert_true(fixture_untouched(arenas[i], (size_t)(low - arenas[i])));
            assert_true(fixture_untouched(high, (size_t)(arenas[i] + arena_bytes[i] - high)));
            free(arenas[i]);
        }
        hypura_io_counters counters;
        hypura_io_read_counters(io, &counters);
        assert_int_equal(counters.bytes_requested, total);
        assert_true(counters.bytes_read >= total);
        assert_true(counters.n_requests >= MANY - MANY / 50);
        assert_true(file->direct || counters.n_staged == 0);
        hypura_io_close(io);
    }
}

static void congruent_reads_with_slack_are_not_copied(void **state)
{
    hypura_io *io = fixture_open((hypura_io_options){.block_bytes = 64 * KIB}, *state);
    unsigned char *arena;
    assert_int_equal(posix_memalign((void **)&arena, 4096, MIB + 8192), 0);
    hypura_io_read read = {.head_slack = 4096, .tail_slack = 4096, .offset = 12345, .bytes = MIB - 100};
    read.dst = arena + 12345 % 4096;
    assert_int_equal(hypura_io_submit(io, &read, 1), 1);
    hypura_io_completion completion;
    fixture_reap_all(io, 1, &completion);
    hypura_io_counters counters;
    hypura_io_read_counters(io, &counters);
    assert_int_equal(counters.n_staged, 0);
    assert_true(fixture_matches(read.dst, read.offset, read.bytes));
    free(arena);
    hypura_io_close(io);
}

typedef struct depth_watch {
    hypura_io *io;
    uint64_t ended;
    uint64_t most;
} depth_watch;

/* Requests started so far less those ended before this one are in flight. */
static int64_t watch_depth(void *user, uint64_t nth, int64_t result)
{
    depth_watch *watch = user;
    assert_int_equal(nth, watch->ended);
    hypura_io_counters counters;
    hypura_io_read_counters(watch->io, &counters);
    uint64_t in_flight = counters.n_requests - watch->ended;
    watch->most = in_flight > watch->most ? in_flight : watch->most;
    watch->ended++;
    return result;
}

/* The way changes while reads of the other are under way. */
static void reads_past_and_through_the_cache_in_turns(void **state)
{
    enum { ROUNDS = 40, PIECE = 64 * 1024 };
    hypura_io *io = fixture_open((hypura_io_options){.block_bytes = 16 * KIB, .max_reads = ROUNDS}, *state);
    unsigned char *dst = NULL;
    assert_int_equal(posix_memalign((void **)&dst, 4096, (size_t)ROUNDS * PIECE), 0);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        const hypura_io_read read = {.offset = (uint64_t)i * PIECE, .bytes = PIECE, .dst = dst + (size_t)i * PIECE};
        assert_int_equal(hypura_io_submit(io, &read, 1), 1);
        assert_true(hypura_io_set_buffered(io, i % 2 == 0));
    }
    static hypura_io_completion completions[ROUNDS];
    for (uint32_t n = 0; n < ROUNDS;) {
        n += hypura_io_reap(io, completions + n, ROUNDS - n, UINT64_MAX);
    }
    for (uint32_t i = 0; i < ROUNDS; i++) {
        assert_int_equal(completions[i].status, HYPURA_OK);
    }
    assert_true(fixture_matches(dst, 0, (uint64_t)ROUNDS * PIECE));
    hypura_io_close(io);
    free(dst);
}

static void depth_and_max_reads_hold(void **state)
{
    depth_watch watch = {0};
    hypura_io *io = fixture_open((hypura_io_options){.block_bytes = 4 * KIB,
                                                     .depth = 3,
                                                     .max_reads = 5,
                                                     .buffered = true,
                                                     .hook = watch_depth,
                                                     .hook_user = &watch},
                                 *state);
    watch.io = io;
    hypura_io_read reads[8];
    unsigned char *arena = malloc(8 * 64 * KIB);
    for (uint32_t i = 0; i < 8; i++) {
        reads[i] = (hypura_io_read){.offset = i * 64 * KIB, .bytes = 64 * KIB, .dst = arena + i * 64 * KIB, .user = i};
    }
    assert_int_equal(hypura_io_submit(io, reads, 8), 5);
    assert_int_equal(hypura_io_submit(io, reads + 5, 3), 0);
    hypura_io_completion c;
    assert_int_equal(hypura_io_reap(io, &c, 1, UINT64_MAX), 1);
    assert_true(c.user < 5); /* threads of a pool may overtake one another */
    assert_int_equal(hypura_io_submit(io, reads + 5, 3), 1);
    for (int left = 5; left > 0; left--) {
        assert_int_equal(hypura_io_reap(io, &c, 1, UINT64_MAX), 1);
        assert_int_equal(c.status, HYPURA_OK);
    }
    assert_int_equal(hypura_io_reap(io, &c, 1, 1000), 0);
    assert_true(fixture_matches(arena, 0, 6 * 64 * KIB));
    assert_int_equal(watch.most, 3);
    assert_int_equal(watch.ended, 6 * 16);
    hypura_io_close(io);
    free(arena);
}

static void senseless_reads_complete_with_an_error(void **state)
{
    hypura_io *io = fixture_open((hypura_io_options){.depth = 2}, *state);
    unsigned char byte = CANARY;
    const hypura_io_read reads[] = {
        {.file = 1, .bytes = 1, .dst = &byte, .user = 0},
        {.offset = UINT64_MAX, .bytes = 2, .dst = &byte, .user = 1},
        {.offset = INT64_MAX, .bytes = 1, .dst = &byte, .user = 2},
        {.offset = FIXTURE_BYTES + 5000, .bytes = 1, .dst = &byte, .user = 3},
        {.offset = FIXTURE_BYTES, .bytes = 0, .dst = &byte, .user = 4},
    };
    assert_int_equal(hypura_io_submit(io, reads, 5), 5);
    hypura_io_completion c[5];
    fixture_reap_all(io, 5, c);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(c[i].status, HYPURA_ERR_IO);
        hypura_error error;
        assert_int_equal(hypura_io_fail(io, reads[i].file, &c[i], &error), i == 0 ? HYPURA_ERR_USAGE : HYPURA_ERR_IO);
        assert_true(strlen(error.message) > 0);
    }
    assert_int_equal(c[3].errno_value, 0);
    assert_int_equal(c[4].status, HYPURA_OK);
    assert_int_equal(byte, CANARY);
    hypura_io_close(io);
}

static void the_end_inside_a_range_is_an_error(void **state)
{
    hypura_io *io = fixture_open((hypura_io_options){.block_bytes = 64 * KIB}, *state);
    unsigned char *arena = malloc(MIB);
    hypura_io_read read = {.offset = FIXTURE_BYTES - 300 * KIB, .bytes = 300 * KIB + 1, .dst = arena};
    assert_int_equal(hypura_io_submit(io, &read, 1), 1);
    hypura_io_completion c;
    fixture_reap_all(io, 1, &c);
    assert_int_equal(c.status, HYPURA_ERR_IO);
    assert_int_equal(c.errno_value, 0);
    assert_int_equal(c.offset, FIXTURE_BYTES);
    hypura_error error;
    hypura_io_fail(io, 0, &c, &error);
    assert_non_null(strstr(error.message, fixture_path));
    assert_non_null(strstr(error.message, "ends at byte"));
    hypura_io_close(io);
    free(arena);
}

static void a_wake_ends_a_wait_once(void **state)
{
    hypura_io *io = fixture_open((hypura_io_options){.depth = 2}, *state);
    hypura_io_completion c;
    for (int i = 0; i < 3; i++) {
        fixture_expect_wake(io);
    }
    /* A wake before the wait counts; several count as one or more, never none. */
    hypura_io_wake(io);
    hypura_io_wake(io);
    assert_int_equal(hypura_io_reap(io, &c, 1, UINT64_MAX), 0);
    assert_int_equal(hypura_io_reap(io, &c, 1, 20000), 0);
    hypura_io_close(io);
}

typedef struct waker {
    hypura_io *io;
    _Atomic bool stop;
} waker;

static void *wake_often(void *argument)
{
    waker *w = argument;
    while (!w->stop) {
        hypura_io_wake(w->io);
        hypura_io_counters counters;
        hypura_io_read_counters(w->io, &counters);
    }
    return NULL;
}

static void wakes_during_reads_lose_nothing(void **state)
{
    waker w = {.io = fixture_open((hypura_io_options){.block_bytes = 4 * KIB, .depth = 4}, *state)};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wake_often, &w), 0);
    unsigned char *arena = malloc(MIB);
    for (int round = 0; round < 20; round++) {
        hypura_io_read reads[16];
        for (uint32_t i = 0; i < 16; i++) {
            reads[i] = (hypura_io_read){
                .offset = (uint64_t)round * 1000 + i * 7777, .bytes = 30000, .dst = arena + i * 32 * KIB, .user = i};
        }
        assert_int_equal(hypura_io_submit(w.io, reads, 16), 16);
        hypura_io_completion c[16];
        fixture_reap_all(w.io, 16, c);
        for (uint32_t i = 0; i < 16; i++) {
            assert_int_equal(c[i].status, HYPURA_OK);
            assert_true(fixture_matches(reads[i].dst, reads[i].offset, reads[i].bytes));
        }
    }
    w.stop = true;
    pthread_join(thread, NULL);
    hypura_io_close(w.io);
    free(arena);
}

static void closing_ends_every_write_to_the_destination(void **state)
{
    for (int round = 0; round < 20; round++) {
        hypura_io *io = fixture_open((hypura_io_options){.block_bytes = 256 * KIB, .depth = 8}, *state);
        unsigned char *arena;
        assert_int_equal(posix_memalign((void **)&arena, 4096, 3 * MIB), 0);
        hypura_io_read read = {.bytes = 3 * MIB, .dst = arena};
        assert_int_equal(hypura_io_submit(io, &read, 1), 1);
        hypura_io_close(io);
        memset(arena, CANARY, 3 * MIB);
        usleep(5000); /* time for a late write to show */
        assert_true(fixture_untouched(arena, 3 * MIB));
        free(arena);
    }
    hypura_io_close(NULL);
}

static void cancelled_reads_complete_once(void **state)
{
    hypura_io *io = fixture_open((hypura_io_options){.block_bytes = 4 * KIB, .depth = 2}, *state);
    unsigned char *arena = malloc(2 * MIB);
    hypura_io_read reads[20];
    for (uint32_t i = 0; i < 20; i++) {
        reads[i] =
            (hypura_io_read){.offset = i * 100 * KIB, .bytes = 100 * KIB, .dst = arena + i * 100 * KIB, .user = i};
    }
    assert_int_equal(hypura_io_submit(io, reads, 20), 20);
    hypura_io_cancel(io);
    hypura_io_completion c[20];
    fixture_reap_all(io, 20, c);
    assert_int_equal(c[19].status, HYPURA_ERR_CANCELLED);
    for (uint32_t i = 0; i < 20; i++) {
        assert_true(c[i].status == HYPURA_OK || c[i].status == HYPURA_ERR_CANCELLED);
        if (c[i].status == HYPURA_OK) {
            assert_true(fixture_matches(reads[i].dst, reads[i].offset, reads[i].bytes));
        }
    }
    /* The engine works on. */
    assert_int_equal(hypura_io_submit(io, reads, 1), 1);
    fixture_reap_all(io, 1, c);
    assert_int_equal(c[0].status, HYPURA_OK);
    assert_true(fixture_matches(arena, 0, 100 * KIB));
    hypura_io_close(io);
    free(arena);
}

static bool count_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    uint64_t *last = user;
    assert_non_null(what);
    assert_true(done >= *last && done <= total);
    *last = done;
    return true;
}

static bool stop_at_once(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user;
    (void)what;
    (void)done;
    (void)total;
    return false;
}

static void read_all_reads_all(void **state)
{
    hypura_io *io = fixture_open((hypura_io_options){.depth = 3, .max_reads = 2}, *state);
    unsigned char *arena = malloc(2 * FIXTURE_BYTES);
    const hypura_io_read reads[] = {
        {.offset = 0, .bytes = FIXTURE_BYTES, .dst = arena + 1},
        {.offset = 5, .bytes = 0, .dst = arena},
        {.offset = 100001, .bytes = 77777, .dst = arena + FIXTURE_BYTES + 1},
    };
    uint64_t last = 0;
    hypura_error error;
    assert_int_equal(hypura_io_read_all(io, reads, 3, count_progress, &last, &error), HYPURA_OK);
    assert_int_equal(last, FIXTURE_BYTES + 77777);
    assert_true(fixture_matches(arena + 1, 0, FIXTURE_BYTES));
    assert_true(fixture_matches(arena + FIXTURE_BYTES + 1, 100001, 77777));

    assert_int_equal(hypura_io_read_all(io, reads, 3, stop_at_once, NULL, &error), HYPURA_ERR_CANCELLED);
    assert_int_equal(hypura_io_read_all(io, reads, 0, NULL, NULL, &error), HYPURA_OK);
    const hypura_io_read beyond[] = {{.offset = 10, .bytes = FIXTURE_BYTES, .dst = arena}, reads[2]};
    assert_int_equal(hypura_io_read_all(io, beyond, 2, NULL, NULL, &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, fixture_path));
    const hypura_io_read overflow = {.offset = 10, .bytes = UINT64_MAX, .dst = arena};
    assert_int_equal(hypura_io_read_all(io, &overflow, 1, NULL, NULL, &error), HYPURA_ERR_USAGE);

    memset(arena, 0, FIXTURE_BYTES);
    assert_int_equal(hypura_io_read_all(io, reads, 1, NULL, NULL, &error), HYPURA_OK);
    assert_true(fixture_matches(arena + 1, 0, FIXTURE_BYTES));
    hypura_io_close(io);
    free(arena);
}

static void several_files_are_told_apart(void **state)
{
    fixture_require(*state);
    char other_path[] = "./hypura-io-other-XXXXXX";
    int fd = mkstemp(other_path);
    assert_int_equal(write(fd, "0123456789", 10), 10);
    close(fd);
    const char *const paths[] = {fixture_path, other_path};
    hypura_io_options options = {.engine = *state, .paths = paths, .n_paths = 2};
    hypura_io *io;
    hypura_error error;
    assert_int_equal(hypura_io_open(&options, &io, &error), HYPURA_OK);
    assert_int_equal(hypura_io_files(io)[1].bytes, 10);
    unsigned char a[4];
    unsigned char b[5] = {0};
    const hypura_io_read reads[] = {{.file = 0, .offset = 9, .bytes = 4, .dst = a},
                                    {.file = 1, .offset = 3, .bytes = 4, .dst = b}};
    assert_int_equal(hypura_io_read_all(io, reads, 2, NULL, NULL, &error), HYPURA_OK);
    assert_true(fixture_matches(a, 9, 4));
    assert_string_equal((char *)b, "3456");
    hypura_io_close(io);
    unlink(other_path);
}

static void bad_options_are_refused(void **state)
{
    (void)state;
    const char *const missing[] = {fixture_path, "/no/such/model.gguf"};
    hypura_io *io = (hypura_io *)1;
    hypura_error error;
    hypura_io_options options = {.paths = missing, .n_paths = 2};
    assert_int_equal(hypura_io_open(&options, &io, &error), HYPURA_ERR_IO);
    assert_null(io);
    assert_non_null(strstr(error.message, "/no/such/model.gguf"));

    options.n_paths = 1;
    options.engine = "turbo";
    assert_int_equal(hypura_io_open(&options, &io, &error), HYPURA_ERR_USAGE);
    assert_non_null(strstr(error.message, "turbo"));
    assert_false(hypura_io_engine_available("turbo"));
    assert_false(hypura_io_engine_available(NULL));
    assert_true(hypura_io_engine_available("pool"));

    options.engine = "pool";
    options.n_paths = 0;
    assert_int_equal(hypura_io_open(&options, &io, &error), HYPURA_ERR_USAGE);
    options.n_paths = 1;
    options.depth = 1000000;
    assert_int_equal(hypura_io_open(&options, &io, &error), HYPURA_ERR_USAGE);
    options.depth = 0;
    options.block_bytes = UINT64_MAX;
    assert_int_equal(hypura_io_open(&options, &io, &error), HYPURA_ERR_USAGE);

    options.block_bytes = 1; /* rounded up to the alignment */
    options.engine = NULL;
    assert_int_equal(hypura_io_open(&options, &io, &error), HYPURA_OK);
    unsigned char data[3000];
    const hypura_io_read read = {.offset = 11, .bytes = sizeof data, .dst = data};
    assert_int_equal(hypura_io_read_all(io, &read, 1, NULL, NULL, &error), HYPURA_OK);
    assert_true(fixture_matches(data, 11, sizeof data));
    assert_string_equal(hypura_io_engine_name(io), hypura_io_engine_available("uring") ? "uring" : "pool");
    hypura_io_close(io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOR_EACH_ENGINE(contents_are_right_and_nothing_else_is_touched),
        FOR_EACH_ENGINE(congruent_reads_with_slack_are_not_copied),
        FOR_EACH_ENGINE(reads_past_and_through_the_cache_in_turns),
        FOR_EACH_ENGINE(depth_and_max_reads_hold),
        FOR_EACH_ENGINE(senseless_reads_complete_with_an_error),
        FOR_EACH_ENGINE(the_end_inside_a_range_is_an_error),
        FOR_EACH_ENGINE(a_wake_ends_a_wait_once),
        FOR_EACH_ENGINE(wakes_during_reads_lose_nothing),
        FOR_EACH_ENGINE(closing_ends_every_write_to_the_destination),
        FOR_EACH_ENGINE(cancelled_reads_complete_once),
        FOR_EACH_ENGINE(read_all_reads_all),
        FOR_EACH_ENGINE(several_files_are_told_apart),
        cmocka_unit_test(bad_options_are_refused),
    };
    return cmocka_run_group_tests(tests, fixture_make, fixture_remove);
}
