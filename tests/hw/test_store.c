/* Stored profiles: the way back, several drives, and everything that can be
 * wrong with the file. */
#include "hw/kept.h"
#include "hw/store.h"

#include "hw_fixture.h"

#include <sys/wait.h>

static hypura_profile example(void)
{
    hypura_profile p = {
        .version = HYPURA_PROFILE_VERSION,
        .cpu = "Example \"CPU\" \xc3\xa4",
        .n_cpus = 6,
        .memory_bytes_per_s = 27.5e9,
        .storage_path = "/models",
        .io_engine = "pool",
        .direct_io = true,
        .io_align_offset_bytes = 512,
        .io_align_memory_bytes = 4,
        .io_block_bytes = 1 << 20,
        .io_depth = 8,
        .direct_bytes_per_s = 3.25e9,
        .n_io_rates = 2,
        .io_rates = {{.block_bytes = 131072, .depth = 1, .bytes_per_s = 1e9},
                     {.block_bytes = 131072, .depth = 32, .bytes_per_s = 3e9}},
        .read_latency_us = 41.5,
        .measured_unix_s = 1700000000,
        .n_disturbed = 2,
    };
    return p;
}

/* What hypura_profile_get knows before it looks. */
static hypura_profile blank(void)
{
    hypura_profile p = {.n_cpus = 6};
    strcpy(p.cpu, example().cpu);
    return p;
}

static void save(const char *drive, const hypura_profile *p)
{
    hypura_error error;
    if (hypura_store_save(fixture_folder, drive, p, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
}

/* Replaces the first occurrence of from in the stored file. */
static void damage(const char *from, const char *to)
{
    char path[256];
    snprintf(path, sizeof path, "%s/profile.json", fixture_folder);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char text[4096];
    size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = '\0';
    char *at = strstr(text, from);
    assert_non_null(at);
    char out[8192];
    snprintf(out, sizeof out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    fixture_write("profile.json", out);
}

static void what_is_saved_comes_back(void **state)
{
    (void)state;
    hypura_profile saved = example();
    save("drive-1", &saved);
    hypura_profile p = blank();
    assert_true(hypura_store_load(fixture_folder, "drive-1", &p));
    assert_string_equal(p.cpu, saved.cpu);
    assert_string_equal(p.storage_path, saved.storage_path);
    assert_string_equal(p.io_engine, saved.io_engine);
    assert_int_equal(p.direct_io, saved.direct_io);
    assert_int_equal(p.io_align_offset_bytes, saved.io_align_offset_bytes);
    assert_int_equal(p.io_align_memory_bytes, saved.io_align_memory_bytes);
    assert_int_equal(p.io_block_bytes, saved.io_block_bytes);
    assert_int_equal(p.io_depth, saved.io_depth);
    assert_int_equal(p.measured_unix_s, saved.measured_unix_s);
    assert_int_equal(p.n_disturbed, 2);
    assert_true(p.memory_bytes_per_s == saved.memory_bytes_per_s);
    assert_true(p.direct_bytes_per_s == saved.direct_bytes_per_s);
    assert_int_equal(p.n_io_rates, 2);
    assert_memory_equal(p.io_rates, saved.io_rates, 2 * sizeof *p.io_rates);
    assert_true(p.read_latency_us == saved.read_latency_us);
    assert_int_equal(fixture_count_files(), 1);
}

/* Of a version that did not tell. */
static void a_profile_of_unknown_rest_was_not_disturbed(void **state)
{
    (void)state;
    hypura_profile p = example();
    save("drive-1", &p);
    damage("\"disturbed\": 2,", "");
    p = blank();
    p.n_disturbed = 7;
    assert_true(hypura_store_load(fixture_folder, "drive-1", &p));
    assert_int_equal(p.n_disturbed, 0);
}

/* Paths are bytes, JSON is UTF-8. */
static void a_path_of_any_bytes_can_be_stored(void **state)
{
    (void)state;
    hypura_profile p = example();
    strcpy(p.storage_path, "/models/caf\xe9");
    save("drive-1", &p);
    p = blank();
    assert_true(hypura_store_load(fixture_folder, "drive-1", &p));
    assert_string_equal(p.storage_path, "/models/caf?");
}

static void drives_and_processors_are_told_apart(void **state)
{
    (void)state;
    hypura_profile first = example();
    save("drive-1", &first);
    hypura_profile second = example();
    second.io_depth = 16;
    save("drive-2", &second);
    first.io_depth = 4;
    save("drive-1", &first); /* in place of the older one */

    hypura_profile p = blank();
    assert_true(hypura_store_load(fixture_folder, "drive-1", &p));
    assert_int_equal(p.io_depth, 4);
    p = blank();
    assert_true(hypura_store_load(fixture_folder, "drive-2", &p));
    assert_int_equal(p.io_depth, 16);
    p = blank();
    assert_false(hypura_store_load(fixture_folder, "drive-3", &p));
    p.n_cpus = 5;
    assert_false(hypura_store_load(fixture_folder, "drive-1", &p));
    p = blank();
    strcpy(p.cpu, "another");
    assert_false(hypura_store_load(fixture_folder, "drive-1", &p));
}

/* Another process stores its drive between what this one reads and what it writes. */
static void two_that_store_at_once_keep_both(void **state)
{
    (void)state;
    char path[256];
    char text[4096] = "";
    int status;
    int turn;
    const hypura_profile first = example();
    snprintf(path, sizeof path, "%s/profile.json", fixture_folder);
    save("drive-1", &first);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_true(fread(text, 1, sizeof text - 1, file) > 0);
    fclose(file);
    assert_int_equal(unlink(path), 0);
    assert_true(hypura_kept_begin(fixture_folder, &turn));
    const pid_t other = fork();
    if (other == 0) {
        close(turn); /* a lock of an open file is its heirs' too */
        hypura_status stored = HYPURA_ERR_IO;
        for (int i = 0; i < 30 && stored != HYPURA_OK; i++) { /* on a busy machine others take longer than it waits */
            stored = hypura_store_save(fixture_folder, "drive-2", &first, NULL);
        }
        _exit(stored == HYPURA_OK ? 0 : 1);
    }
    usleep(50000); /* it would have written by now */
    fixture_write("profile.json", text);
    hypura_kept_end(turn);
    assert_int_equal(waitpid(other, &status, 0), other);
    assert_int_equal(status, 0);
    hypura_profile p = blank();
    assert_true(hypura_store_load(fixture_folder, "drive-1", &p));
    p = blank();
    assert_true(hypura_store_load(fixture_folder, "drive-2", &p));
}

static void what_cannot_be_stored_for_others_is_told(void **state)
{
    (void)state;
    int turn;
    hypura_error error;
    const hypura_profile p = example();
    assert_true(hypura_kept_begin(fixture_folder, &turn));
    assert_int_equal(hypura_store_save(fixture_folder, "drive-1", &p, &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, "other processes"));
    hypura_kept_end(turn);
    assert_int_equal(fixture_count_files(), 0);
}

static void the_list_does_not_grow_for_ever(void **state)
{
    (void)state;
    hypura_profile p = example();
    for (int i = 0; i < 100; i++) {
        char drive[32];
        snprintf(drive, sizeof drive, "drive-%d", i);
        save(drive, &p);
    }
    p = blank();
    assert_true(hypura_store_load(fixture_folder, "drive-99", &p));
    p = blank();
    assert_false(hypura_store_load(fixture_folder, "drive-0", &p));
}

static void rubbish_is_nothing_stored(void **state)
{
    (void)state;
    static const char *const files[] = {
        "",
        "{",
        "[]",
        "null",
        "{\"version\":2}",
        "{\"version\":2,\"profiles\":7}",
        "{\"version\":2,\"profiles\":[]}",
        "{\"version\":2,\"profiles\":[7,null,{},{\"cpu\":1,\"drive\":2}]}",
        "{\"version\":2,\"profiles\":[]} trailing",
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        fixture_write("profile.json", files[i]);
        hypura_profile p = blank();
        assert_false(hypura_store_load(fixture_folder, "drive-1", &p));
        hypura_profile saved = example();
        save("drive-1", &saved);
        assert_true(hypura_store_load(fixture_folder, "drive-1", &p));
    }
    hypura_profile p = blank();
    assert_false(hypura_store_load("./no/such/folder", "drive-1", &p));
}

static void values_without_sense_are_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"\"version\": 2", "\"version\": 1"},
        {"\"io_depth\": 8", "\"io_depth\": 0"},
        {"\"io_depth\": 8", "\"io_depth\": 1e3"},
        {"\"io_depth\": 8", "\"io_depth\": 99999999999"},
        {"\"io_depth\": 8,", ""},
        {"\"io_depth\": 8", "\"io_depth\": 65"}, /* of 1 MiB each */
        {"\"io_rates\"", "\"rates\""},
        {"\"depth\": 32", "\"depth\": 0"},
        {"\"bytes_per_s\": 3000000000.0", "\"bytes_per_s\": -1"},
        {"\"io_block_bytes\": 1048576", "\"io_block_bytes\": 1000000"},
        {"\"io_block_bytes\": 1048576", "\"io_block_bytes\": -4096"},
        {"\"io_align_memory_bytes\": 4", "\"io_align_memory_bytes\": 3"},
        {"\"disturbed\": 2", "\"disturbed\": -1"},
        {"\"direct_io\": true", "\"direct_io\": \"yes\""},
        {"\"read_latency_us\": 41.5", "\"read_latency_us\": -1.0"},
        {"\"direct_bytes_per_s\": 3250000000.0", "\"direct_bytes_per_s\": 0"},
        {"\"io_engine\": \"pool\"", "\"io_engine\": \"an engine with a long name\""},
        {"\"storage_path\": \"/models\"", "\"storage_path\": null"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hypura_profile p = example();
        save("drive-1", &p);
        damage(cases[i][0], cases[i][1]);
        p = blank();
        if (hypura_store_load(fixture_folder, "drive-1", &p)) {
            fail_msg("accepted %s", cases[i][1]);
        }
        assert_int_equal(p.io_depth, 0);
    }
}

static void folders_are_made_or_the_failure_named(void **state)
{
    (void)state;
    char path[256];
    hypura_error error;
    snprintf(path, sizeof path, "%s/a//b/c/", fixture_folder);
    assert_int_equal(hypura_kept_make_folder(path, &error), HYPURA_OK);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISDIR(st.st_mode));
    assert_int_equal(hypura_kept_make_folder(path, &error), HYPURA_OK);

    fixture_write("file", "x");
    snprintf(path, sizeof path, "%s/file/below", fixture_folder);
    assert_int_equal(hypura_kept_make_folder(path, &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, path));
    hypura_profile p = example();
    assert_int_equal(hypura_store_save(path, "drive-1", &p, &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(what_is_saved_comes_back),         IN_FOLDER(a_profile_of_unknown_rest_was_not_disturbed),
        IN_FOLDER(a_path_of_any_bytes_can_be_stored), IN_FOLDER(drives_and_processors_are_told_apart),
        IN_FOLDER(two_that_store_at_once_keep_both), IN_FOLDER(what_cannot_be_stored_for_others_is_told),
        IN_FOLDER(the_list_does_not_grow_for_ever),  IN_FOLDER(rubbish_is_nothing_stored),
        IN_FOLDER(values_without_sense_are_refused), IN_FOLDER(folders_are_made_or_the_failure_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
