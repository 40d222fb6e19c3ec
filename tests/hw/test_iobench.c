/* A drive in detail: what is read and what is left. No figure is asserted but those
 * that cannot be. */
#include "hypura_measure.h"

#include "hw_fixture.h"

/* 1 MiB: each figure reads it once, so the test is quick. */
static void write_megabyte(char *path, size_t capacity)
{
    snprintf(path, capacity, "%s/file", fixture_folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (uint32_t i = 0; i < (1 << 20) / sizeof(i); i++) {
        assert_int_equal(fwrite(&i, sizeof(i), 1, file), 1);
    }
    assert_int_equal(fclose(file), 0);
}

static void every_kind_of_read_has_a_row(void **state)
{
    (void)state;
    char path[128];
    write_megabyte(path, sizeof path);
    static hypura_iobench_report report;
    const hypura_iobench_options options = {.path = path, .read_bytes = 1 << 20};
    hypura_error error;
    assert_int_equal(hypura_iobench(&options, &report, &error), HYPURA_OK);
    assert_int_equal(report.file_bytes, 1 << 20);
    assert_true(report.ceiling_bytes_per_s > 0.0 && report.ceiling_bytes_per_s <= report.memory_bytes_per_s);
    int n_direct = 0;
    int n_sequential = 0;
    int n_warm = 0;
    for (int i = 0; i < report.n_rows; i++) {
        const hypura_iobench_row *row = &report.rows[i];
        assert_true(row->bytes_per_s > 0.0);
        assert_true(row->block_bytes <= report.file_bytes);
        assert_true(row->refused == (row->bytes_per_s > (row->cache == HYPURA_IO_WARM ? report.memory_bytes_per_s
                                                                                      : report.ceiling_bytes_per_s)));
        n_direct += row->cache == HYPURA_IO_DIRECT;
        n_sequential += row->cache == HYPURA_IO_DIRECT && row->sequential;
        n_warm += row->cache == HYPURA_IO_WARM;
    }
    assert_true(!report.direct_io || n_direct >= 18); /* one engine at least, three sizes of such a file */
    assert_int_equal(n_direct, 2 * n_sequential);
    assert_int_equal(n_warm, 1);
    assert_true(!report.direct_io || report.best >= 0);
    assert_int_equal(fixture_count_files(), 1);
}

static bool stop_reading(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user;
    (void)total;
    return strcmp(what, "reading") != 0 || done == 0;
}

static void a_stopped_one_says_so(void **state)
{
    (void)state;
    char path[128];
    write_megabyte(path, sizeof path);
    static hypura_iobench_report report;
    const hypura_iobench_options options = {.path = path, .read_bytes = 4096, .progress = stop_reading};
    hypura_error error;
    assert_int_equal(hypura_iobench(&options, &report, &error), HYPURA_ERR_CANCELLED);
}

static bool stop_writing(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)total;
    assert_string_equal(what, "writing a file to measure with");
    /* Not even now is there a name that an end without warning would leave behind. */
    *(int *)user = fixture_count_files();
    return done < (8 << 20);
}

static void a_folder_stays_as_it_was(void **state)
{
    (void)state;
    static hypura_iobench_report report;
    int n_files = -1;
    const hypura_iobench_options options = {
        .path = fixture_folder, .progress = stop_writing, .progress_user = &n_files};
    hypura_error error;
    assert_int_equal(hypura_iobench(&options, &report, &error), HYPURA_ERR_CANCELLED);
#ifdef __linux__
    assert_int_equal(n_files, 0);
#endif
    assert_int_equal(fixture_count_files(), 0);
}

static void what_cannot_be_read_is_refused(void **state)
{
    (void)state;
    static hypura_iobench_report report;
    hypura_error error;
    char path[128];
    fixture_write("small", "small");
    snprintf(path, sizeof path, "%s/small", fixture_folder);
    const hypura_iobench_options small = {.path = path};
    assert_int_equal(hypura_iobench(&small, &report, &error), HYPURA_ERR_USAGE);
    assert_non_null(strstr(error.message, path));
    const hypura_iobench_options missing = {.path = "/no/such/folder"};
    assert_int_equal(hypura_iobench(&missing, &report, &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, "/no/such/folder"));
    const hypura_iobench_options huge = {.path = fixture_folder, .read_bytes = UINT64_C(1) << 60};
    assert_int_equal(hypura_iobench(&huge, &report, &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, "there is no room for it"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_kind_of_read_has_a_row, fixture_make, fixture_remove),
        cmocka_unit_test_setup_teardown(a_stopped_one_says_so, fixture_make, fixture_remove),
        cmocka_unit_test_setup_teardown(a_folder_stays_as_it_was, fixture_make, fixture_remove),
        cmocka_unit_test_setup_teardown(what_cannot_be_read_is_refused, fixture_make, fixture_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
