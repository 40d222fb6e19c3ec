/* Allocations: none after open, and each of those at open may fail. */
#include "io_fixture.h"

#include "../faults/refusal.h"

static void reading_allocates_nothing(void **state)
{
    hypura_io *io = fixture_open((hypura_io_options){.block_bytes = 16 * KIB, .depth = 4, .max_reads = 8}, *state);
    static unsigned char arena[8][70000];
    hypura_io_read reads[8];
    for (uint32_t i = 0; i < 8; i++) {
        reads[i] = (hypura_io_read){.offset = i * 300001, .bytes = sizeof arena[i], .dst = arena[i], .user = i};
    }
    refusal_begin(0);
    uint32_t left = 0;
    for (int round = 0; round < 10; round++) {
        left += hypura_io_submit(io, reads, 8);
        while (left > 0) {
            hypura_io_completion c;
            uint32_t reaped = hypura_io_reap(io, &c, 1, 100000);
            assert_true(reaped == 0 || c.status == HYPURA_OK);
            left -= reaped;
        }
    }
    assert_int_equal(refusal_end(), 0);
    hypura_io_close(io);
    for (uint32_t i = 0; i < 8; i++) {
        assert_true(fixture_matches(arena[i], reads[i].offset, reads[i].bytes));
    }
}

static hypura_status try_open(const void *options, hypura_error *error)
{
    hypura_io *io = NULL;
    const hypura_status status = hypura_io_open(options, &io, error);
    assert_int_equal(io != NULL, status == HYPURA_OK);
    hypura_io_close(io);
    return status;
}

static void every_failing_allocation_of_open_is_an_error(void **state)
{
    fixture_require(*state);
    const char *const paths[] = {fixture_path, fixture_path};
    const hypura_io_options options = {.engine = *state, .paths = paths, .n_paths = 2, .depth = 4};
    uint64_t n_calls;
    (void)refusal_each(try_open, &options, NULL, &n_calls);
    assert_true(n_calls >= 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOR_EACH_ENGINE(reading_allocates_nothing),
        FOR_EACH_ENGINE(every_failing_allocation_of_open_is_an_error),
    };
    return cmocka_run_group_tests(tests, fixture_make, fixture_remove);
}
