/* The sidecar of a model: what is in it, and what becomes of one that is not whole,
 * not this model's, or interrupted. */
#include "engine_fixture.h"

#include "engine/model/model.h"
#include "gguf/records.h"
#include "hw/kept.h"
#include "hw/store.h"
#include "hypura_measure.h"
#include "io/io.h"
#include "os/os.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char model[1024];
static char sidecar[1100];
static char partial[1200];

/* A copy of a small mixture in the test's own folder, without sidecar. */
static int copy_model(void **state)
{
    (void)state;
    size_t n;
    char *bytes = fixture_read(fixture_arch("olmoe-moe.gguf"), &n);
    snprintf(model, sizeof model, "%s", fixture_path("model.gguf"));
    snprintf(sidecar, sizeof sidecar, "%s.records", model);
    snprintf(partial, sizeof partial, "%s.partial", sidecar);
    fixture_write(model, bytes, n);
    free(bytes);
    (void)unlink(sidecar);
    (void)unlink(partial);
    return 0;
}

static int remove_sidecar(void **state)
{
    (void)state;
    (void)unlink(sidecar);
    (void)unlink(partial);
    return 0;
}

static hypura_status optimize(hypura_progress_fn progress, void *user, hypura_optimize_report *report,
                              hypura_error *error)
{
    const hypura_optimize_options options = {
        .path = model, .force = true, .cache_dir = fixture_cache_dir(), .progress = progress, .progress_user = user};
    return hypura_optimize(&options, report, error);
}

static void make_sidecar(void)
{
    hypura_optimize_report report;
    hypura_error error;
    fixture_ok(optimize(NULL, NULL, &report, &error), &error);
}

static void change_byte(const char *path, off_t offset)
{
    uint8_t byte;
    const int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, offset), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
    close(fd);
}

/* Every matrix of every expert, at the place the layout names. */
static void a_record_holds_an_experts_matrices(void **state)
{
    (void)state;
    hypura_optimize_report report;
    hypura_error error;
    fixture_ok(optimize(NULL, NULL, &report, &error), &error);
    assert_string_equal(report.path, sidecar);
    assert_false(report.existed);
    assert_true(report.n_records > 0 && report.n_resumed == 0);
    assert_true(isnan(report.gain)); /* forced */
    assert_int_equal(access(partial, F_OK), -1);

    hypura_map *map;
    hypura_records *records;
    char note[256];
    size_t model_bytes, sidecar_bytes;
    fixture_ok(hypura_map_open(model, &map, &error), &error);
    fixture_ok(hypura_records_find(map, &records, note, sizeof note, &error), &error);
    assert_non_null(records);
    assert_string_equal(note, "");
    char *weights = fixture_read(model, &model_bytes);
    char *copy = fixture_read(sidecar, &sidecar_bytes);
    assert_int_equal(sidecar_bytes, report.bytes);
    for (int b = 0; b < map->n_bundles; b++) {
        const hypura_records_bundle *place = &records->bundles[b];
        assert_int_equal(place->offset % 4096, 0);
        for (int e = 0; e < map->bundles[b].n_experts; e++) {
            for (int m = 0; m < map->bundles[b].n_tensors; m++) {
                const hypura_tensor *t = &map->tensors[map->bundles[b].tensors[m]];
                const uint64_t at = place->offset + (uint64_t)e * place->stride_bytes + place->matrix_offset[m];
                assert_memory_equal(copy + at, weights + t->offset + (uint64_t)e * t->expert_bytes, t->expert_bytes);
            }
        }
    }
    free(weights);
    free(copy);
    hypura_records_close(records);
    hypura_map_close(map);

    fixture_ok(optimize(NULL, NULL, &report, &error), &error);
    assert_true(report.existed && isnan(report.gain));
}

static uint64_t number_at(const char *bytes, size_t at, int n)
{
    uint64_t number = 0;
    for (int i = n - 1; i >= 0; i--) {
        number = number << 8 | (uint8_t)bytes[at + (size_t)i];
    }
    return number;
}

/* A file of an earlier version of the program, and of another machine, is read. */
static void the_header_of_a_sidecar_stays(void **state)
{
    (void)state;
    hypura_optimize_report report;
    hypura_error error;
    struct stat info;
    size_t bytes;
    fixture_ok(optimize(NULL, NULL, &report, &error), &error);
    assert_int_equal(stat(model, &info), 0);
    char *header = fixture_read(sidecar, &bytes);
    assert_memory_equal(header, "HYPUREC1", 8);
    assert_int_equal(number_at(header, 8, 4), 1);
    assert_int_equal(number_at(header, 12, 4), 4096);
    assert_int_equal(number_at(header, 16, 8), report.n_records);
    assert_int_equal(number_at(header, 24, 8), bytes);
    assert_int_equal(number_at(header, 32, 8), info.st_size);
    free(header);
}

/* Whether it is worth it is the drive's to say; what follows from that is not. */
static void one_that_would_not_help_is_refused(void **state)
{
    (void)state;
    const hypura_optimize_options options = {.path = model, .cache_dir = fixture_cache_dir()};
    hypura_optimize_report report;
    hypura_error error;
    const hypura_status status = hypura_optimize(&options, &report, &error);
    assert_true(report.gain > 0.0 && report.matrix_bytes_per_s > 0.0 && report.record_bytes_per_s > 0.0);
    if (report.gain >= 1.05) {
        fixture_ok(status, &error);
    } else {
        char gain[32];
        snprintf(gain, sizeof gain, "%.2f times as fast", report.gain);
        fixture_fails(HYPURA_ERR_UNSUPPORTED, status, &error, gain);
        assert_int_equal(access(partial, F_OK), -1);
        assert_int_equal(access(sidecar, F_OK), -1);
    }
}

/* A matrix of 384 KiB that is read in requests of 64 KiB gains nothing by lying beside
 * others, and no noise of a drive says otherwise. */
static void large_matrices_are_refused_always(void **state)
{
    (void)state;
    const hypura_profile_options wanted = {.cache_dir = fixture_cache_dir(), .storage_path = model};
    char own[1024];
    hypura_profile profile;
    hypura_os_drive drive;
    hypura_error error;
    fixture_ok(hypura_profile_get(&wanted, &profile, &error), &error);
    fixture_ok(hypura_os_drive_read(model, &drive, &error), &error);
    snprintf(own, sizeof own, "%s", fixture_path("small-requests"));
    profile.io_block_bytes = 64 << 10;
    profile.io_depth = 2;
    fixture_ok(hypura_kept_make_folder(own, &error), &error);
    fixture_ok(hypura_store_save(own, drive.id, &profile, &error), &error);
    const hypura_optimize_options options = {.path = model, .cache_dir = own};
    hypura_optimize_report report;
    fixture_fails(HYPURA_ERR_UNSUPPORTED, hypura_optimize(&options, &report, &error), &error, "1.0");
    assert_true(report.gain >= 1.0 && report.gain < 1.02); /* a matrix begins anywhere */
    assert_true(report.matrix_bytes_per_s > 0.0);
}

/* Stops at the nth step of that name. */
typedef struct stopper {
    const char *what;
    int left;
} stopper;

static bool stop(void *user, const char *what, uint64_t done, uint64_t total)
{
    stopper *s = user;
    assert_true(done <= total);
    return strcmp(what, s->what) != 0 || s->left-- > 0;
}

static void a_stopped_run_is_taken_up_again(void **state)
{
    (void)state;
    hypura_optimize_report report;
    hypura_error error;
    stopper writing = {"writing records", 1}; /* the second batch */
    fixture_fails(HYPURA_ERR_CANCELLED, optimize(stop, &writing, &report, &error), &error, "goes on from there");
    assert_int_equal(access(partial, F_OK), 0);
    assert_int_equal(access(sidecar, F_OK), -1);
    stopper verifying = {"verifying records", 0};
    fixture_fails(HYPURA_ERR_CANCELLED, optimize(stop, &verifying, &report, &error), &error, "goes on from there");
    assert_true(report.n_resumed > 0 && report.n_resumed < report.n_records);
    assert_int_equal(access(sidecar, F_OK), -1);
    fixture_ok(optimize(NULL, NULL, &report, &error), &error);
    assert_int_equal(report.n_resumed, report.n_records);
    assert_int_equal(access(sidecar, F_OK), 0);
    assert_int_equal(access(partial, F_OK), -1);
}

static void what_an_earlier_run_damaged_is_written_anew(void **state)
{
    (void)state;
    hypura_optimize_report report;
    hypura_error error;
    struct stat st;
    stopper verifying = {"verifying records", 0};
    fixture_fails(HYPURA_ERR_CANCELLED, optimize(stop, &verifying, &report, &error), &error, "goes on from there");
    assert_int_equal(stat(partial, &st), 0);
    change_byte(partial, st.st_size - 4096);
    fixture_fails(HYPURA_ERR_FORMAT, optimize(NULL, NULL, &report, &error), &error, "does not read back");
    assert_int_equal(access(sidecar, F_OK), -1);
    fixture_ok(optimize(NULL, NULL, &report, &error), &error);
    assert_int_equal(report.n_resumed, report.n_records - 1);
}

static void a_partial_file_of_another_model_is_begun_anew(void **state)
{
    (void)state;
    hypura_optimize_report report;
    hypura_error error;
    stopper writing = {"writing records", 1};
    fixture_fails(HYPURA_ERR_CANCELLED, optimize(stop, &writing, &report, &error), &error, "goes on from there");
    const struct timespec then[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    assert_int_equal(utimensat(AT_FDCWD, model, then, 0), 0);
    fixture_ok(optimize(NULL, NULL, &report, &error), &error);
    assert_int_equal(report.n_resumed, 0);
}

static void note_of(char *note, size_t capacity)
{
    hypura_map *map;
    hypura_records *records;
    hypura_error error;
    fixture_ok(hypura_map_open(model, &map, &error), &error);
    fixture_ok(hypura_records_find(map, &records, note, capacity, &error), &error);
    assert_null(records);
    hypura_map_close(map);
}

static hypura_model_options paged_options(uint64_t weights_bytes)
{
    return (hypura_model_options){.path = model,
                                  .weights_bytes = weights_bytes,
                                  .force_paging = true,
                                  .n_context = 64,
                                  .n_threads = 1,
                                  .cache_dir = fixture_cache_dir()};
}

static uint64_t floor_weights(void)
{
    const hypura_model_options options = paged_options(0);
    return fixture_floor(&options);
}

static hypura_model *open_paged(uint64_t weights_bytes, hypura_statistics *statistics)
{
    const hypura_model_options options = paged_options(weights_bytes);
    hypura_model *opened;
    hypura_error error;
    fixture_ok(hypura_model_open(&options, &opened, &error), &error);
    hypura_model_statistics(opened, statistics);
    return opened;
}

static void one_that_does_not_match_is_not_used(void **state)
{
    (void)state;
    char note[256];
    struct stat st;
    note_of(note, sizeof note);
    assert_string_equal(note, ""); /* there is none */

    make_sidecar();
    assert_int_equal(stat(sidecar, &st), 0);
    assert_int_equal(truncate(sidecar, st.st_size - 1), 0);
    note_of(note, sizeof note);
    assert_non_null(strstr(note, "it is not complete"));
    assert_int_equal(truncate(sidecar, 100), 0);
    note_of(note, sizeof note);
    assert_non_null(strstr(note, "it is not complete"));
    (void)unlink(sidecar);

    make_sidecar();
    change_byte(sidecar, 3);
    note_of(note, sizeof note);
    assert_non_null(strstr(note, "it is no file of records"));
    change_byte(sidecar, 3);
    change_byte(sidecar, 2000);
    note_of(note, sizeof note);
    assert_non_null(strstr(note, "its header is damaged"));
    change_byte(sidecar, 2000);
    const struct timespec then[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    assert_int_equal(utimensat(AT_FDCWD, model, then, 0), 0);
    note_of(note, sizeof note);
    assert_non_null(strstr(note, "the model was written to since"));
}

static void one_that_is_damaged_does_not_verify(void **state)
{
    (void)state;
    hypura_optimize_report report;
    hypura_error error;
    struct stat st;
    make_sidecar();
    assert_int_equal(stat(sidecar, &st), 0);
    change_byte(sidecar, st.st_size - 4096);
    fixture_fails(HYPURA_ERR_FORMAT, optimize(NULL, NULL, &report, &error), &error, "expert ");
    assert_non_null(strstr(error.message, sidecar));
    assert_true(report.existed);
}

/* Also where the header is as it was, and the size: until all of it is verified again. */
static void one_that_was_written_to_is_not_used(void **state)
{
    (void)state;
    hypura_statistics statistics;
    hypura_optimize_report report;
    hypura_error error;
    char note[256];
    struct stat st, model_st;
    make_sidecar();
    assert_int_equal(stat(sidecar, &st), 0);
    assert_int_equal(stat(model, &model_st), 0);
    assert_int_equal(st.st_mtime, model_st.st_mtime);
    change_byte(sidecar, st.st_size - 4096);
    note_of(note, sizeof note);
    assert_non_null(strstr(note, "it was written to since it was verified"));
    hypura_model_close(open_paged(floor_weights(), &statistics));
    assert_false(statistics.records);
    assert_string_equal(statistics.records_note, note);
    fixture_fails(HYPURA_ERR_FORMAT, optimize(NULL, NULL, &report, &error), &error, "expert ");
    note_of(note, sizeof note);
    assert_non_null(strstr(note, "it was written to since it was verified"));
    change_byte(sidecar, st.st_size - 4096);
    fixture_ok(optimize(NULL, NULL, &report, &error), &error);
    assert_true(report.existed);
    hypura_model_close(open_paged(floor_weights(), &statistics));
    assert_true(statistics.records);
}

/* The time of a model may be any, before 1970 too. */
static void a_seal_of_any_time_holds(void **state)
{
    (void)state;
    static const struct timespec times[] = {{0, 0}, {0, 1}, {-1, 999999999}, {-1000000, 5}, {4000000000, 123456789}};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        const struct timespec then[2] = {times[i], times[i]};
        hypura_map *map;
        hypura_records *records;
        hypura_error error;
        char note[256];
        assert_int_equal(utimensat(AT_FDCWD, model, then, 0), 0);
        make_sidecar();
        fixture_ok(hypura_map_open(model, &map, &error), &error);
        fixture_ok(hypura_records_find(map, &records, note, sizeof note, &error), &error);
        assert_non_null(records);
        hypura_records_close(records);
        hypura_map_close(map);
    }
}

/* Where the file system keeps whole seconds of a time, or two of them. */
static void a_seal_may_lose_a_part_of_a_second(void **state)
{
    (void)state;
    static const struct {
        struct timespec time;
        bool sealed;
    } kept[] = {{{1000000001, 987654321}, true},  {{1000000001, 980000000}, true},  {{1000000001, 0}, true},
                {{1000000000, 0}, true},          {{999999999, 0}, false},          {{1000000001, 987654320}, false},
                {{1000000001, 987654322}, false}, {{1000000002, 0}, false}};
    const hypura_records records = {.sealed_ns = INT64_C(1000000001987654321)};
    fixture_write(sidecar, "x", 1);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        const struct timespec times[2] = {kept[i].time, kept[i].time};
        assert_int_equal(utimensat(AT_FDCWD, sidecar, times, 0), 0);
        assert_int_equal(hypura_records_is_sealed(&records, sidecar), kept[i].sealed);
    }
    (void)unlink(sidecar);
    assert_false(hypura_records_is_sealed(&records, sidecar));
}

static void a_full_disk_is_told_and_gone_on_from(void **state)
{
    (void)state;
    hypura_optimize_report report;
    hypura_error error;
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    const struct rlimit small = {.rlim_cur = 64 << 10, .rlim_max = before.rlim_max};
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const hypura_status status = optimize(NULL, NULL, &report, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    fixture_fails(HYPURA_ERR_IO, status, &error, "there is no room for it");
    assert_non_null(strstr(error.message, partial));
    assert_int_equal(access(sidecar, F_OK), -1);
    fixture_ok(optimize(NULL, NULL, &report, &error), &error);
}

static void a_folder_in_its_place_is_told_before_anything_is_written(void **state)
{
    (void)state;
    hypura_optimize_report report;
    hypura_error error;
    assert_int_equal(mkdir(sidecar, 0755), 0);
    assert_int_equal(optimize(NULL, NULL, &report, &error), HYPURA_ERR_IO);
    assert_int_equal(rmdir(sidecar), 0);
    assert_non_null(strstr(error.message, sidecar));
    assert_null(strstr(error.message, ".partial"));
    assert_int_equal(access(partial, F_OK), -1);
}

static void a_dense_model_has_no_records(void **state)
{
    (void)state;
    hypura_optimize_report report;
    hypura_error error;
    const hypura_optimize_options options = {.path = fixture_arch("llama-dense.gguf"), .force = true};
    fixture_fails(HYPURA_ERR_UNSUPPORTED, hypura_optimize(&options, &report, &error), &error, "has no experts");
}

/* ---- in use ------------------------------------------------------------------------ */

static void records_change_no_bit(void **state)
{
    (void)state;
    make_sidecar();
    const uint64_t weights[] = {floor_weights(), 2 * floor_weights()};
    for (int repack = 0; repack < 2; repack++) {
        const hypura_verify_options options = {.model.path = model,
                                               .weights_bytes = weights,
                                               .n_weights = 2,
                                               .tokens = 6,
                                               .no_repack = repack == 0,
                                               .repack = repack == 1,
                                               .model.n_threads = 1};
        hypura_verify_report report = fixture_verify(options);
        assert_true(report.n_cases > 0 && report.cases[0].bytes_read > 0);
        hypura_verify_report_clear(&report);
    }
    hypura_statistics statistics;
    hypura_model_close(open_paged(weights[0], &statistics));
    assert_true(statistics.records);
    assert_string_equal(statistics.records_note, "");
}

static void one_that_does_not_match_is_told_of(void **state)
{
    (void)state;
    hypura_statistics statistics;
    const uint64_t weights = floor_weights();
    hypura_model_close(open_paged(weights, &statistics));
    assert_false(statistics.records);
    assert_string_equal(statistics.records_note, "");
    make_sidecar();
    change_byte(sidecar, 9);
    hypura_model_close(open_paged(weights, &statistics));
    assert_false(statistics.records);
    assert_non_null(strstr(statistics.records_note, "it is of another version"));
    assert_non_null(strstr(statistics.records_note, sidecar));
}

/* Never text from a file that is not what it was. */
static void one_that_changes_while_in_use_fails(void **state)
{
    (void)state;
    hypura_statistics statistics;
    hypura_error error;
    struct stat st;
    make_sidecar();
    hypura_model *opened = open_paged(floor_weights(), &statistics);
    const llama_token token = 1;
    fixture_ok(hypura_model_decode(opened, &token, 1, false, &error), &error);
    assert_int_equal(stat(sidecar, &st), 0);
    assert_int_equal(truncate(sidecar, st.st_size / 2), 0);
    fixture_fails(HYPURA_ERR_IO, hypura_model_decode(opened, &token, 1, false, &error), &error, sidecar);
    hypura_model_close(opened);
}

#ifdef HYPURA_TEST_WRAPS
static void (*meanwhile)(void); /* between a look at the sidecar and its opening */

hypura_status __real_hypura_io_open(const hypura_io_options *options, hypura_io **io, hypura_error *error);
hypura_status __wrap_hypura_io_open(const hypura_io_options *options, hypura_io **io, hypura_error *error);

hypura_status __wrap_hypura_io_open(const hypura_io_options *options, hypura_io **io, hypura_error *error)
{
    const bool opens = strcmp(options->paths[options->n_paths - 1], sidecar) == 0;
    if (meanwhile && opens) {
        meanwhile();
        meanwhile = NULL;
    }
    return __real_hypura_io_open(options, io, error);
}

static void write_to_it(void)
{
    change_byte(sidecar, HYPURA_RECORDS_HEADER_BYTES * 2);
}

/* Sealed as the one that was looked at. */
static void make_it_another_models(void)
{
    struct stat st;
    assert_int_equal(stat(sidecar, &st), 0);
    const struct timespec times[2] = {st.st_atim, st.st_mtim};
    change_byte(sidecar, 48);
    assert_int_equal(utimensat(AT_FDCWD, sidecar, times, 0), 0);
}

static void one_that_changes_while_it_is_opened_fails(void **state)
{
    (void)state;
    static const struct {
        void (*meanwhile)(void);
        const char *why;
    } cases[] = {{write_to_it, "it was written to"}, {make_it_another_models, "the model is another one"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const hypura_model_options options = paged_options(floor_weights());
        hypura_model *opened;
        hypura_error error;
        (void)unlink(sidecar);
        make_sidecar();
        meanwhile = cases[i].meanwhile;
        fixture_fails(HYPURA_ERR_IO, hypura_model_open(&options, &opened, &error), &error, cases[i].why);
        assert_non_null(strstr(error.message, sidecar));
        assert_null(meanwhile);
    }
}
#endif

#define TEST(name) cmocka_unit_test_setup_teardown(name, copy_model, remove_sidecar)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_record_holds_an_experts_matrices),
        TEST(the_header_of_a_sidecar_stays),
        TEST(one_that_would_not_help_is_refused),
        TEST(large_matrices_are_refused_always),
        TEST(a_stopped_run_is_taken_up_again),
        TEST(what_an_earlier_run_damaged_is_written_anew),
        TEST(a_partial_file_of_another_model_is_begun_anew),
        TEST(one_that_does_not_match_is_not_used),
        TEST(one_that_is_damaged_does_not_verify),
        TEST(one_that_was_written_to_is_not_used),
        TEST(a_seal_of_any_time_holds),
        TEST(a_seal_may_lose_a_part_of_a_second),
        TEST(a_full_disk_is_told_and_gone_on_from),
        TEST(a_folder_in_its_place_is_told_before_anything_is_written),
        TEST(a_dense_model_has_no_records),
        TEST(records_change_no_bit),
        TEST(one_that_does_not_match_is_told_of),
        TEST(one_that_changes_while_in_use_fails),
#ifdef HYPURA_TEST_WRAPS
        TEST(one_that_changes_while_it_is_opened_fails),
#endif
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
