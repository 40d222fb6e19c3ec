/* Cutting of reads: pieces cover the range once, aligned, inside the slack. */
#include "io/split.h"

#include "io_fixture.h"

static const hypura_io_file direct_file = {.direct = true, .offset_align = 512, .memory_align = 256};
static const hypura_io_file buffered_file = {.offset_align = 1, .memory_align = 1};

static void an_aligned_read_is_read_in_place(void **state)
{
    (void)state;
    hypura_io_read read = {.offset = 1024, .bytes = 2560, .dst = (void *)(uintptr_t)0x10000};
    hypura_io_piece piece = hypura_io_cut(&direct_file, &read, 2048, 0);
    assert_int_equal(piece.offset, 1024);
    assert_int_equal(piece.bytes, 2048);
    assert_int_equal(piece.skip, 0);
    assert_int_equal(piece.wanted, 2048);
    assert_ptr_equal(piece.direct, read.dst);
    piece = hypura_io_cut(&direct_file, &read, 2048, 2048);
    assert_int_equal(piece.offset, 3072);
    assert_int_equal(piece.bytes, 512);
    assert_ptr_equal(piece.direct, (char *)read.dst + 2048);
}

static void slack_decides_about_widening(void **state)
{
    (void)state;
    hypura_io_read read = {.offset = 1024 + 32, .bytes = 448, .dst = (void *)(uintptr_t)0x10020};
    read.head_slack = 32;
    read.tail_slack = 32;
    assert_ptr_equal(hypura_io_cut(&direct_file, &read, 4096, 0).direct, (char *)read.dst - 32);
    read.head_slack = 31;
    assert_null(hypura_io_cut(&direct_file, &read, 4096, 0).direct);
    read.head_slack = 32;
    read.tail_slack = 31;
    assert_null(hypura_io_cut(&direct_file, &read, 4096, 0).direct);
    read.tail_slack = 32;
    read.dst = (char *)read.dst + 1;
    assert_null(hypura_io_cut(&direct_file, &read, 4096, 0).direct);
}

static void inner_pieces_need_no_slack(void **state)
{
    (void)state;
    hypura_io_read read = {.offset = 1000, .bytes = 3000, .dst = (void *)(uintptr_t)(0x10000 + 1000 % 512)};
    hypura_io_piece first = hypura_io_cut(&direct_file, &read, 1024, 0);
    assert_null(first.direct);
    hypura_io_piece second = hypura_io_cut(&direct_file, &read, 1024, first.wanted);
    assert_int_equal(second.skip, 0);
    assert_non_null(second.direct);
}

static void pages_of_memory_are_written_whole(void **state)
{
    (void)state;
    hypura_io_read read = {.offset = 4096 + 1000, .bytes = 20000, .head_slack = 1000, .dst = (void *)(uintptr_t)(0x10000 + 1000)};
    hypura_io_piece piece = hypura_io_cut(&direct_file, &read, 16384, 0);
    assert_int_equal(piece.offset, 4096);
    assert_int_equal(piece.skip, 1000);
    assert_ptr_equal(piece.direct, (void *)(uintptr_t)0x10000);
    piece = hypura_io_cut(&direct_file, &read, 16384, piece.wanted);
    assert_int_equal(piece.offset, 4096 + 16384);
    assert_int_equal((uintptr_t)piece.direct % 4096, 0);
    read.head_slack = 999; /* too little room: as near as the file allows */
    piece = hypura_io_cut(&direct_file, &read, 16384, 0);
    assert_int_equal(piece.offset, 4096 + 512);
    assert_ptr_equal(piece.direct, (void *)(uintptr_t)(0x10000 + 512));
}

static void buffered_reads_are_never_widened(void **state)
{
    (void)state;
    hypura_io_read read = {.offset = 1001, .bytes = 77, .dst = (void *)(uintptr_t)0x10003};
    hypura_io_piece piece = hypura_io_cut(&buffered_file, &read, 4096, 0);
    assert_int_equal(piece.offset, 1001);
    assert_int_equal(piece.bytes, 77);
    assert_ptr_equal(piece.direct, read.dst);
}

static void random_reads_are_covered_once(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int n = 0; n < 20000; n++) {
        hypura_io_file file = {.offset_align = 1u << (fixture_random(&seed) % 13),
                               .memory_align = 1u << (fixture_random(&seed) % 13),
                               .direct = fixture_random(&seed) % 2 == 0};
        uint64_t block = file.offset_align * (1 + (uint64_t)fixture_random(&seed) % 8);
        hypura_io_read read = {.offset = fixture_random(&seed) % 100000,
                               .bytes = 1 + fixture_random(&seed) % 60000,
                               .head_slack = (uint16_t)(fixture_random(&seed) % 4097),
                               .tail_slack = (uint16_t)(fixture_random(&seed) % 4097),
                               .dst = (void *)(uintptr_t)(1000000 + fixture_random(&seed) % 5000)};
        char *dst = read.dst;
        uint64_t done = 0;
        while (done < read.bytes) {
            hypura_io_piece piece = hypura_io_cut(&file, &read, block, done);
            assert_true(piece.wanted > 0 && piece.bytes <= block);
            assert_int_equal(piece.offset % file.offset_align, 0);
            assert_int_equal(piece.bytes % file.offset_align, 0);
            assert_int_equal(piece.offset + piece.skip, read.offset + done);
            assert_true(piece.skip + piece.wanted <= piece.bytes);
            assert_ptr_equal(piece.dst, dst + done);
            if (piece.direct != NULL) {
                assert_int_equal((uintptr_t)piece.direct % file.memory_align, 0);
                assert_true(piece.direct >= dst - read.head_slack);
                assert_true(piece.direct + piece.bytes <= dst + read.bytes + read.tail_slack);
                assert_true(done == 0 || piece.direct == dst + done);
            }
            done += piece.wanted;
        }
        assert_int_equal(done, read.bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_aligned_read_is_read_in_place), cmocka_unit_test(slack_decides_about_widening),
        cmocka_unit_test(inner_pieces_need_no_slack),       cmocka_unit_test(pages_of_memory_are_written_whole),
        cmocka_unit_test(buffered_reads_are_never_widened),
        cmocka_unit_test(random_reads_are_covered_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
