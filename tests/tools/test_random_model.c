/*
 * test_random_model.c - `mkmodel shape` and `mkmodel tiny`: models that libllama
 * loads and computes, of the same bytes every time, with no two experts alike.
 */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../tools/vocab.h"
#include "logits.h"
#include "run.h"

enum { MAX_FIXTURE_BYTES = 5000000 };

static void check_logits(const char *path)
{
    int n_vocab = 0;
    int n_steps = 0;
    float *logits = model_logits(path, &n_vocab, &n_steps);
    if (!logits) {
        fail_msg("%s: not loaded or not computed", path);
    }
    for (int step = 0; step < n_steps; step++) {
        double sum = 0.0;
        double square = 0.0;
        for (int i = 0; i < n_vocab; i++) {
            double x = (double)logits[step * n_vocab + i];
            if (!isfinite(x)) {
                fail_msg("%s: logit %d of step %d is not finite", path, i, step);
            }
            sum += x;
            square += x * x;
        }
        double variance = square / n_vocab - sum / n_vocab * sum / n_vocab;
        if (!(variance > 1e-4)) {
            fail_msg("%s: logits of step %d are all alike", path, step);
        }
    }
    free(logits);
}

/* Parts after the first are loaded by the first. */
static bool is_loadable(const char *name)
{
    return strstr(name, "-of-") == NULL || strstr(name, "-00001-of-") != NULL;
}

/* Makes the fixtures in folder tiny, once. */
static void need_fixtures(void)
{
    struct stat present;
    if (stat("tiny", &present) != 0) {
        assert_int_equal(MKMODEL_RUN("tiny", "tiny"), 0);
    }
}

static void test_every_fixture_decodes(void **state)
{
    (void)state;
    need_fixtures();
    DIR *entries = opendir("tiny");
    assert_non_null(entries);
    int n = 0;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (entry->d_name[0] == '.') {
            continue;
        }
        char path[512];
        struct stat file;
        snprintf(path, sizeof path, "tiny/%s", entry->d_name);
        assert_int_equal(stat(path, &file), 0);
        if (file.st_size >= MAX_FIXTURE_BYTES) {
            fail_msg("%s has %lld bytes", path, (long long)file.st_size);
        }
        if (is_loadable(entry->d_name)) {
            check_logits(path);
            n++;
        }
    }
    closedir(entries);
    assert_true(n > 30);
}

static void test_fixtures_are_the_same_every_time(void **state)
{
    (void)state;
    need_fixtures();
    assert_int_equal(MKMODEL_RUN("tiny", "again"), 0);
    assert_int_equal(count_files("tiny"), count_files("again"));
    DIR *entries = opendir("tiny");
    assert_non_null(entries);
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        char first[512];
        char again[512];
        snprintf(first, sizeof first, "tiny/%s", entry->d_name);
        snprintf(again, sizeof again, "again/%s", entry->d_name);
        if (entry->d_name[0] != '.' && !are_equal_files(first, again)) {
            fail_msg("%s differs", entry->d_name);
        }
    }
    closedir(entries);
}

static void test_shapes_decode_and_repeat(void **state)
{
    (void)state;
    static const char *const names[] = {"qwen3-tiny", "llama-tiny"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_int_equal(MKMODEL_RUN("shape", names[i], "a.gguf"), 0);
        assert_int_equal(MKMODEL_RUN("shape", names[i], "b.gguf"), 0);
        assert_int_equal(MKMODEL_RUN("shape", names[i], "c.gguf", "--seed", "2"), 0);
        check_logits("a.gguf");
        assert_true(are_equal_files("a.gguf", "b.gguf"));
        assert_false(are_equal_files("a.gguf", "c.gguf"));
    }
}

static void test_no_two_experts_are_alike(void **state)
{
    (void)state;
    assert_int_equal(MKMODEL_RUN("shape", "qwen3-tiny", "a.gguf"), 0);
    gguf_file f = open_gguf("a.gguf");
    const uint8_t *slices[4 * 3 * 16];
    size_t n = 0;
    size_t slice_bytes = 0;
    for (int64_t i = 0; i < gguf_get_n_tensors(f.header); i++) {
        const char *name = gguf_get_tensor_name(f.header, i);
        if (strstr(name, "_exps")) {
            size_t bytes = 0;
            const uint8_t *data = tensor_data(&f, name, &bytes);
            slice_bytes = bytes / 16; /* all matrices are 256 by 256 */
            for (size_t e = 0; e < 16; e++) {
                slices[n++] = data + e * slice_bytes;
            }
        }
    }
    assert_int_equal(n, sizeof slices / sizeof slices[0]);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++) {
            assert_memory_not_equal(slices[i], slices[j], slice_bytes);
        }
    }
    close_gguf(&f);
}

static void test_parts_are_one_model(void **state)
{
    (void)state;
    int n_vocab = 0;
    int n_steps = 0;
    assert_int_equal(MKMODEL_RUN("shape", "qwen3-tiny", "whole.gguf"), 0);
    assert_int_equal(MKMODEL_RUN("shape", "qwen3-tiny", "cut.gguf", "--parts", "3"), 0);
    float *whole = model_logits("whole.gguf", &n_vocab, &n_steps);
    float *cut = model_logits("cut-00001-of-00003.gguf", &n_vocab, &n_steps);
    assert_non_null(whole);
    assert_non_null(cut);
    assert_memory_equal(whole, cut, (size_t)n_vocab * (size_t)n_steps * sizeof *whole);
    free(whole);
    free(cut);
}

static enum ggml_type type_of(const gguf_file *f, const char *name)
{
    int64_t id = gguf_find_tensor(f->header, name);
    assert_true(id >= 0);
    return gguf_get_tensor_type(f->header, id);
}

/* Rows of 64 values are no whole blocks of a K-quant. */
static void test_rows_that_do_not_fit_get_another_type(void **state)
{
    (void)state;
    need_fixtures();
    gguf_file f = open_gguf("tiny/moe-q6_K.gguf");
    assert_int_equal(type_of(&f, "blk.0.ffn_gate_exps.weight"), GGML_TYPE_Q6_K);
    assert_int_equal(type_of(&f, "blk.0.ffn_down_exps.weight"), GGML_TYPE_Q8_0);
    close_gguf(&f);
    f = open_gguf("tiny/moe-q4_K.gguf");
    assert_int_equal(type_of(&f, "blk.0.ffn_down_exps.weight"), GGML_TYPE_Q4_K);
    close_gguf(&f);
}

static void test_vocabulary_of_another_model(void **state)
{
    (void)state;
    assert_int_equal(MKMODEL_RUN("shape", "llama-tiny", "from.gguf"), 0);
    assert_int_equal(MKMODEL_RUN("shape", "small-moe", "a.gguf", "--layers", "1", "--vocab-from", "from.gguf"), 0);
    gguf_file f = open_gguf("a.gguf");
    assert_int_equal(gguf_get_arr_n(f.header, gguf_find_key(f.header, "tokenizer.ggml.tokens")), 512);
    assert_int_equal(gguf_get_val_u32(f.header, gguf_find_key(f.header, "qwen3moe.vocab_size")), 512);
    assert_int_equal(gguf_get_tensor_ne(f.header, gguf_find_tensor(f.header, "output.weight"))[1], 512);
    /* nothing else of the other model came along */
    assert_int_equal(gguf_find_key(f.header, "llama.block_count"), -1);
    close_gguf(&f);
    assert_int_equal(MKMODEL_RUN("shape", "llama-tiny", "a.gguf", "--no-vocab"), 0);
    check_logits("a.gguf");
}

/* Whatever came before: no byte, and not the end. */
static void test_words_are_all_that_is_said(void **state)
{
    (void)state;
    static const char *const shapes[] = {"llama-tiny", "qwen3-tiny"};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        int n_vocab = 0;
        int n_steps = 0;
        assert_int_equal(MKMODEL_RUN("shape", shapes[s], "a.gguf", "--words"), 0);
        float *logits = model_logits("a.gguf", &n_vocab, &n_steps);
        assert_non_null(logits);
        for (int step = 0; step < n_steps; step++) {
            const float *of = logits + (size_t)step * (size_t)n_vocab;
            float most = 0.0f;
            for (int i = 0; i < n_vocab; i++) {
                assert_true(i < VOCAB_BYTES_TOKENS ? of[i] == 0.0f : of[i] != 0.0f);
                most = of[i] > most ? of[i] : most;
            }
            assert_true(most > 0.5f);
        }
        free(logits);
        assert_int_equal(unlink("a.gguf"), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_fixture_decodes),
        cmocka_unit_test(test_fixtures_are_the_same_every_time),
        cmocka_unit_test(test_shapes_decode_and_repeat),
        cmocka_unit_test(test_no_two_experts_are_alike),
        cmocka_unit_test(test_parts_are_one_model),
        cmocka_unit_test(test_rows_that_do_not_fit_get_another_type),
        cmocka_unit_test(test_vocabulary_of_another_model),
        cmocka_unit_test(test_words_are_all_that_is_said),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
