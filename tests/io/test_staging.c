/* Ranges of the staging memory: apart from each other, within the ring, and room again
 * once those in front are back. */
#include "io/staging.h"

#include "io_fixture.h"

#define CAPACITY 16

static hypura_io_range ranges[CAPACITY];

static hypura_io_staging ring_of(uint64_t bytes)
{
    return (hypura_io_staging){.bytes = bytes, .capacity = CAPACITY, .ranges = ranges};
}

static uint64_t take(hypura_io_staging *staging, uint64_t bytes, uint32_t *range)
{
    return hypura_io_staging_take(staging, bytes, range) ? ranges[*range].begin : UINT64_MAX;
}

static void ranges_follow_one_another_around_the_ring(void **state)
{
    (void)state;
    hypura_io_staging staging = ring_of(100);
    uint32_t a, b, c, d;
    assert_int_equal(take(&staging, 40, &a), 0);
    assert_int_equal(take(&staging, 40, &b), 40);
    assert_true(take(&staging, 40, &c) == UINT64_MAX);
    hypura_io_staging_give_back(&staging, b); /* not the oldest: no room by that */
    assert_true(take(&staging, 40, &c) == UINT64_MAX);
    hypura_io_staging_give_back(&staging, a);
    assert_int_equal(take(&staging, 100, &c), 0); /* none is out: all of it */
    hypura_io_staging_give_back(&staging, c);
    assert_int_equal(take(&staging, 60, &a), 0);
    assert_int_equal(take(&staging, 30, &b), 60);
    hypura_io_staging_give_back(&staging, a);
    assert_int_equal(take(&staging, 50, &c), 0); /* 10 are left at the end */
    assert_true(take(&staging, 11, &d) == UINT64_MAX);
    assert_int_equal(take(&staging, 10, &d), 50);
}

static void no_more_ranges_than_there_is_room_for(void **state)
{
    (void)state;
    hypura_io_staging staging = ring_of(1000);
    uint32_t range;
    for (int i = 0; i < CAPACITY; i++) {
        assert_true(hypura_io_staging_take(&staging, 1, &range));
    }
    assert_false(hypura_io_staging_take(&staging, 1, &range));
    hypura_io_staging_give_back(&staging, 0);
    assert_true(hypura_io_staging_take(&staging, 1, &range));
}

static void nothing_overlaps_whatever_comes_back_first(void **state)
{
    (void)state;
    hypura_io_staging staging = ring_of(4096);
    uint32_t out[CAPACITY];
    uint32_t n = 0;
    uint64_t random = 1;
    uint64_t n_taken = 0;
    for (int i = 0; i < 20000; i++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        const uint64_t bytes = 1 + (random >> 33) % 1500;
        uint32_t       range;
        if (hypura_io_staging_take(&staging, bytes, &range)) {
            assert_true(ranges[range].end - ranges[range].begin == bytes && ranges[range].end <= 4096);
            for (uint32_t k = 0; k < n; k++) {
                assert_true(ranges[range].end <= ranges[out[k]].begin || ranges[out[k]].end <= ranges[range].begin);
            }
            out[n++] = range;
            n_taken++;
        } else {
            assert_true(n > 0);
            const uint32_t k = (uint32_t)((random >> 20) % n);
            hypura_io_staging_give_back(&staging, out[k]);
            out[k] = out[--n];
        }
    }
    assert_true(n_taken > 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_follow_one_another_around_the_ring),
        cmocka_unit_test(no_more_ranges_than_there_is_room_for),
        cmocka_unit_test(nothing_overlaps_whatever_comes_back_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
