/* Names as people type them, and names that nobody should. */
#include "server/models/name.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void names_get_one_form(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"qwen3", "qwen3:latest"},
        {"qwen3:30b", "qwen3:30b"},
        {"qwen3:latest", "qwen3:latest"},
        {"Qwen3-30B-Q4_K_M.gguf", "Qwen3-30B-Q4_K_M:latest"},
        {"Qwen3-30B-Q4_K_M.GGUF:latest", "Qwen3-30B-Q4_K_M:latest"},
        {"big-00002-of-00003.gguf", "big:latest"},
        {"registry.ollama.ai/library/qwen3:30b", "qwen3:30b"},
        {"registry.ollama.ai/someone/qwen3", "someone/qwen3:latest"},
        {"library/qwen3", "qwen3:latest"},
        {"hf.co/user/repo:Q4_K_M", "hf.co/user/repo:Q4_K_M"},
        {"hf.co/user/repo:repo-Q4_K_M.gguf", "hf.co/user/repo:repo-Q4_K_M"},
        {"https://huggingface.co/user/repo", "hf.co/user/repo:latest"},
        {"HuggingFace.co/user/repo", "hf.co/user/repo:latest"},
        {"localhost:5000/user/model", "localhost:5000/user/model:latest"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[HYPURA_NAME_BYTES];
        assert_true(hypura_name_normalize(cases[i][0], name));
        if (strcmp(name, cases[i][1]) != 0) {
            fail_msg("%s became %s, not %s", cases[i][0], name, cases[i][1]);
        }
    }
}

static void a_beginning_ends_with_a_word(void **state)
{
    (void)state;
    assert_true(hypura_name_begins("qwen3:latest", "Qwen3-30B-A3B-Q4_K_M:latest"));
    assert_true(hypura_name_begins("qwen3:30b", "Qwen3-30B-A3B-Q4_K_M:latest"));
    assert_true(hypura_name_begins("qwen3:latest", "qwen3:30b"));
    assert_true(hypura_name_begins("qwen3:30b", "hf.co/user/Qwen3-30B-GGUF:Q4_K_M"));
    assert_true(hypura_name_begins("hf.co/user/repo:latest", "hf.co/user/repo:Q4_K_M"));
    assert_false(hypura_name_begins("qwen:latest", "qwen3:30b"));
    assert_false(hypura_name_begins("qwen3:3", "qwen3:30b"));
    assert_false(hypura_name_begins("qwen3:30b", "qwen3:latest"));
    assert_false(hypura_name_begins("user/repo:latest", "hf.co/user/repo:Q4_K_M"));
}

static void names_for_new_models_are_checked(void **state)
{
    (void)state;
    static const char *const good[] = {"mario", "Mario-7b:q4", "a/b/c/d/e:f", "hf.co/user/repo:Q4_K_M",
                                       "qwen2.5:0.5b", "adapter", "a.mmproj:q4", "my-adapter"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char name[HYPURA_NAME_BYTES];
        hypura_error error;
        assert_int_equal(hypura_name_check(good[i], name, &error), HYPURA_OK);
    }
}

static void hostile_names_are_refused(void **state)
{
    (void)state;
    char lengthy[2 * HYPURA_NAME_BYTES];
    memset(lengthy, 'a', sizeof lengthy - 1);
    lengthy[sizeof lengthy - 1] = '\0';
    char word[130];
    memset(word, 'a', sizeof word - 1);
    word[sizeof word - 1] = '\0';
    const char *const bad[] = {"",
                               "..",
                               "../x",
                               "a/../b",
                               "a/..",
                               "/etc/passwd",
                               "//x",
                               "a//b",
                               "a/",
                               ".hidden",
                               "a/.hidden",
                               "a:.x",
                               "a:..",
                               "a:b/c",
                               "a:b:c",
                               "-rf",
                               "_x",
                               "a b",
                               "a\\b",
                               "a\nb",
                               "a%2e%2e",
                               "a@b",
                               "a\x01",
                               "\xc3\xa9",
                               "\xff\xfe",
                               "~root",
                               "$HOME",
                               "a*",
                               "a;rm",
                               "file:///etc/passwd",
                               "a/b/c/d/e/f",
                               "https://",
                               ".gguf",
                               ":tag",
                               "localhost:5000/user/model",
                               "mario.adapter",
                               "mario.adapter-2",
                               "mario.mmproj.gguf",
                               "a/mario:q4.Adapter",
                               "big-00002-of-00002",
                               "a/big:q4-00001-of-00003",
                               word,
                               lengthy};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char name[HYPURA_NAME_BYTES];
        hypura_error error = {0};
        if (hypura_name_check(bad[i], name, &error) == HYPURA_OK) {
            fail_msg("'%s' was accepted as %s", bad[i], name);
        }
        assert_int_equal(error.status, HYPURA_ERR_USAGE);
    }
}

/* Every byte string of up to three bytes of those that matter to paths. */
static void no_checked_name_leaves_its_folder(void **state)
{
    (void)state;
    static const char bytes[] = {'.', '/', ':', '@', 'a', '\\', '-', '\0'};
    int n_good = 0;
    char text[7] = {0};
    const size_t n = sizeof bytes;
    for (size_t code = 0; code < n * n * n * n * n * n; code++) {
        size_t left = code;
        for (int i = 0; i < 6; i++, left /= n) {
            text[i] = bytes[left % n];
        }
        char name[HYPURA_NAME_BYTES];
        char stem[HYPURA_NAME_BYTES];
        char back[HYPURA_NAME_BYTES];
        if (hypura_name_check(text, name, NULL) != HYPURA_OK) {
            continue;
        }
        n_good++;
        hypura_name_stem(name, stem);
        assert_true(stem[0] != '/' && stem[0] != '.' && stem[0] != '\0');
        assert_null(strstr(stem, "/."));
        assert_null(strstr(stem, "//"));
        assert_true(hypura_name_of_stem(stem, back));
        assert_string_equal(back, name);
    }
    assert_true(n_good > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_get_one_form),
        cmocka_unit_test(a_beginning_ends_with_a_word),
        cmocka_unit_test(names_for_new_models_are_checked),
        cmocka_unit_test(hostile_names_are_refused),
        cmocka_unit_test(no_checked_name_leaves_its_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
