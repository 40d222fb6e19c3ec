/*
 * test_files.c - the file of an open model is cut, overwritten, replaced, deleted:
 * the right logits where the bytes that were opened still exist, else an error that
 * names the file; and a model opened again from the whole file is right.
 */
#include "faults_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What happens to the file. */
typedef void (*change)(const char *path);

static uint64_t size_of(const char *path)
{
    struct stat about;
    assert_int_equal(stat(path, &about), 0);
    return (uint64_t)about.st_size;
}

static void cut_to(const char *path, uint64_t bytes)
{
    assert_int_equal(truncate(path, (off_t)bytes), 0);
}

static void cut_to_nothing(const char *path)
{
    cut_to(path, 0);
}

static void cut_to_a_block(const char *path)
{
    cut_to(path, 4096);
}

static void cut_to_half(const char *path)
{
    cut_to(path, size_of(path) / 2);
}

static void cut_by_a_byte(const char *path)
{
    cut_to(path, size_of(path) - 1);
}

static void append(const char *path)
{
    cut_to(path, size_of(path) + 1);
}

static void overwrite_with_zeros(const char *path)
{
    static const char zeros[4096];
    const uint64_t bytes = size_of(path);
    const int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    for (uint64_t at = 0; at < bytes; at += sizeof(zeros)) {
        const size_t n = bytes - at < sizeof(zeros) ? (size_t)(bytes - at) : sizeof(zeros);
        assert_int_equal(pwrite(fd, zeros, n, (off_t)at), n);
    }
    close(fd);
}

/* The other file has the same size and the wrong bytes. */
static void replace(const char *path)
{
    char other[1100];
    snprintf(other, sizeof(other), "%s.new", path);
    const int fd = open(other, O_CREAT | O_WRONLY, 0666);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size_of(path)), 0);
    close(fd);
    assert_int_equal(rename(other, path), 0);
}

static void delete (const char *path)
{
    assert_int_equal(unlink(path), 0);
}

static const struct {
    change apply;
    bool harmless; /* the bytes that were opened still exist */
} changes[] = {
    {cut_to_nothing, false}, {cut_to_a_block, false},       {cut_to_half, false}, {cut_by_a_byte, false},
    {append, false},         {overwrite_with_zeros, false}, {replace, true},      {delete, true},
};

enum { N_CHANGES = sizeof(changes) / sizeof(changes[0]) };

/* The part of the model that is changed: the last. */
static const char *changed_file(const hypura_model *model)
{
    const hypura_map *map = hypura_model_map(model);
    return map->files[map->n_files - 1];
}

static void between_decodes(void **state)
{
    (void)state;
    for (int i = 0; i < n_fault_cases; i++) {
        const fault_case *c = &fault_cases[i];
        hypura_script script;
        faults_script(c, &script);
        for (int k = 0; k < N_CHANGES; k++) {
            hypura_model *model = faults_open(c, faults_copy(c->file), faults_engine(k), NULL, NULL);
            hypura_error error;
            uint64_t differing = 0;
            faults_expect_right(model, &script);
            const char *path = changed_file(model);
            changes[k].apply(path);
            for (int again = 0; again < 2; again++) {
                const hypura_status status = hypura_script_follow(model, &script, &differing, &error);
                assert_int_equal(differing, 0);
                if (changes[k].harmless) {
                    assert_int_equal(status, HYPURA_OK);
                } else {
                    faults_expect(HYPURA_ERR_IO, status, &error, path);
                }
            }
            hypura_model_close(model);
            model = faults_open(c, faults_copy(c->file), NULL, NULL, NULL);
            faults_expect_right(model, &script);
            hypura_model_close(model);
        }
        hypura_script_clear(&script);
    }
}

/* Everything was read when it was opened: the file is not needed any more. */
static void of_a_resident_model(void **state)
{
    (void)state;
    const fault_case c = {.file = "moe-lead-q4_0.gguf", .weights_bytes = 1 << 30, .mode = HYPURA_MODE_RESIDENT};
    hypura_script script;
    faults_script(&c, &script);
    for (int k = 0; k < N_CHANGES; k++) {
        hypura_model *model = faults_open(&c, faults_copy(c.file), NULL, NULL, NULL);
        changes[k].apply(changed_file(model));
        faults_expect_right(model, &script);
        hypura_model_close(model);
    }
    hypura_script_clear(&script);
}

typedef struct trap {
    change apply;
    const char *path;
} trap;

static int64_t spring(void *user, uint64_t nth, int64_t result)
{
    trap *t = user;
    (void)nth;
    if (t->apply) {
        t->apply(t->path);
        t->apply = NULL;
    }
    return result;
}

/* With the first read of what stays: part of the model may come from either file. */
static void while_it_opens(void **state)
{
    (void)state;
    for (int i = 0; i < n_fault_cases; i++) {
        const fault_case *c = &fault_cases[i];
        for (int k = 0; k < N_CHANGES; k++) {
            char path[1024];
            hypura_model *model = NULL;
            hypura_error error;
            snprintf(path, sizeof(path), "%s", faults_copy(c->file));
            trap t = {.apply = changes[k].apply, .path = path};
            const hypura_status status = faults_try_open(c, path, faults_engine(k), spring, &t, &model, &error);
            assert_null(t.apply);
            assert_null(model);
            faults_expect(HYPURA_ERR_IO, status, &error, path);
        }
    }
}

/* libllama reads all of it then, and tells nobody when half is from before and half from after. */
static void while_a_resident_model_opens(void **state)
{
    (void)state;
    const fault_case cases[] = {
        {.file = "moe-lead-q4_0.gguf", .weights_bytes = 1 << 30, .mode = HYPURA_MODE_RESIDENT},
        {.file = "moe-lead-q4_0.gguf", .weights_bytes = 1 << 30, .mode = HYPURA_MODE_RESIDENT, .repack = true},
        {.file = "moe-lead-q4_0.gguf", .mode = HYPURA_MODE_RESIDENT}, /* plain llama.cpp */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int k = 0; k < N_CHANGES; k++) {
            char path[1024];
            hypura_model *model = NULL;
            hypura_error error;
            snprintf(path, sizeof(path), "%s", faults_copy(cases[i].file));
            trap t = {.apply = changes[k].apply, .path = path};
            const hypura_status status = faults_try_open(&cases[i], path, NULL, spring, &t, &model, &error);
            assert_null(t.apply);
            assert_null(model);
            faults_expect(HYPURA_ERR_IO, status, &error, path);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(between_decodes),
        cmocka_unit_test(of_a_resident_model),
        cmocka_unit_test(while_it_opens),
        cmocka_unit_test(while_a_resident_model_opens),
    };
    return cmocka_run_group_tests_name("faults files", tests, faults_setup, faults_teardown);
}
