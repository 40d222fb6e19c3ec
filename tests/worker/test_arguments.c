/*
 * test_arguments.c - the worker's command line, and what a model's parameters add to that of llama.cpp's server.
 */
#include "worker/arguments.h"
#include "worker/defaults.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <getopt.h>
#include <jansson.h>
#include <string.h>

#include <cmocka.h>

#define NEEDED "--model", "m.gguf", "--name", "m", "--socket", "s.sock", "--live", "l"

static hypura_status parse(const char *const *words, hypura_worker_arguments *arguments, hypura_error *error)
{
    static char *argv[24];
    int argc = 0;
    argv[argc++] = "hypura-engine";
    for (; words[argc - 1]; argc++) {
        argv[argc] = (char *)(uintptr_t)words[argc - 1];
    }
    argv[argc] = NULL;
    optind = 0; /* from the beginning */
    return hypura_worker_parse(argc, argv, arguments, error);
}

static void what_the_front_says_is_taken(void **state)
{
    (void)state;
    hypura_worker_arguments arguments;
    hypura_error error = {0};
    const char *const words[] = {NEEDED, "--memory=2G", "--vram=1G+512M", "--threads=3", "--parallel=2", "--rpc=a:1,b:2", "--rpc-memory=3G",
                                 "--gpu-share", "A=1/2/3", "--gpu-share", "B0=0/0/5000000000", NULL};
    assert_int_equal(parse(words, &arguments, &error), HYPURA_OK);
    assert_string_equal(arguments.model.path, "m.gguf");
    assert_string_equal(arguments.socket, "s.sock");
    assert_int_equal(arguments.model.memory_bytes, UINT64_C(2) << 30);
    assert_int_equal(arguments.model.vram_bytes, 0);
    assert_int_equal(arguments.model.gpu_vram_bytes[0], 1 << 30);
    assert_int_equal(arguments.model.gpu_vram_bytes[1], 512 << 20);
    assert_string_equal(arguments.model.rpc, "a:1,b:2");
    assert_int_equal(arguments.model.rpc_bytes, UINT64_C(3) << 30);
    assert_int_equal(arguments.model.n_threads, 3);
    assert_int_equal(arguments.n_sequences, 2);
    assert_int_equal(arguments.shares.n, 2);
    assert_string_equal(arguments.shares.list[0].name, "A");
    assert_int_equal(arguments.shares.list[0].lent_bytes, 1);
    assert_int_equal(arguments.shares.list[0].bytes, 2);
    assert_int_equal(arguments.shares.list[0].most_bytes, 3);
    assert_string_equal(arguments.shares.list[1].name, "B0");
    assert_int_equal(arguments.shares.list[1].most_bytes, UINT64_C(5000000000));
    static const char *const wrong[] = {"A", "=1/2/3", "A=1/2", "A=1/2/3 ", "A=1/2/3/4"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *const more[] = {NEEDED, "--gpu-share", wrong[i], NULL};
        assert_int_equal(parse(more, &arguments, &error), HYPURA_ERR_USAGE);
    }
}

/* A template is looked at without a model. */
static void a_template_needs_nothing_else(void **state)
{
    (void)state;
    hypura_worker_arguments arguments;
    hypura_error error = {0};
    const char *const words[] = {"--check-template", NULL};
    assert_int_equal(parse(words, &arguments, &error), HYPURA_OK);
    assert_true(arguments.check_template);
    const char *const grammar[] = {"--check-grammar", NULL};
    assert_int_equal(parse(grammar, &arguments, &error), HYPURA_OK);
    assert_true(arguments.check_grammar && !arguments.check_template);
    const char *const more[] = {"--check-template", "file", NULL};
    assert_int_equal(parse(more, &arguments, &error), HYPURA_ERR_USAGE);
}

static const char *word_after(const hypura_worker_words *words, const char *option)
{
    for (int i = 0; i + 1 < words->n; i++) {
        if (strcmp(words->words[i], option) == 0) {
            return words->words[i + 1];
        }
    }
    return NULL;
}

/* What guesses is llama.cpp's server's to run, and is told in its words; it looks for a GPU for the draft otherwise. */
static void guesses_are_told_the_server(void **state)
{
    (void)state;
    hypura_worker_arguments arguments;
    hypura_error error = {0};
    hypura_preparation prepared = {.context = {.n_context = 64, .n_sequences = 1, .n_ubatch = 32, .n_threads = 1}};
    static hypura_worker_words words;
    const char *const draft[] = {NEEDED, "--draft=d.gguf", "--draft-max=6", "--draft-p-min=0.25", "--spec-type=ngram-mod", NULL};
    assert_int_equal(parse(draft, &arguments, &error), HYPURA_OK);
    hypura_worker_server_words(&arguments, &prepared, &words);
    assert_string_equal(word_after(&words, "--spec-type"), "ngram-mod,draft-simple");
    assert_string_equal(word_after(&words, "--spec-draft-model"), "d.gguf");
    assert_string_equal(word_after(&words, "--spec-draft-n-max"), "6");
    assert_string_equal(word_after(&words, "--spec-draft-p-min"), "0.25");
    assert_string_equal(word_after(&words, "--spec-draft-device"), "none");
    assert_string_equal(word_after(&words, "--spec-ngram-mod-n-max"), "6");
    assert_null(word_after(&words, "--spec-ngram-simple-size-m"));

    const char *const text[] = {NEEDED, "--spec-type=ngram-simple", NULL};
    assert_int_equal(parse(text, &arguments, &error), HYPURA_OK);
    hypura_worker_server_words(&arguments, &prepared, &words);
    assert_string_equal(word_after(&words, "--spec-type"), "ngram-simple");
    assert_string_equal(word_after(&words, "--spec-ngram-simple-size-m"), "8");
    assert_null(word_after(&words, "--spec-draft-model"));

    const char *const none[] = {NEEDED, NULL};
    assert_int_equal(parse(none, &arguments, &error), HYPURA_OK);
    hypura_worker_server_words(&arguments, &prepared, &words);
    assert_null(word_after(&words, "--spec-type"));
}

static void an_adapter_is_told_the_server(void **state)
{
    (void)state;
    hypura_worker_arguments arguments;
    hypura_error error = {0};
    hypura_preparation prepared = {.context = {.n_context = 64, .n_sequences = 1, .n_ubatch = 32, .n_threads = 1}};
    static hypura_worker_words words;
    static const char *const paths[][2] = {{"--adapter=/a/b:1.gguf", "/a/b:1.gguf"},
                                           {"--adapter=/a,b/\"c\".gguf", "\"/a,b/\"\"c\"\".gguf\""}};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        const char *const given[] = {NEEDED, paths[i][0], NULL};
        assert_int_equal(parse(given, &arguments, &error), HYPURA_OK);
        assert_int_equal(arguments.model.n_adapters, 1);
        assert_true(arguments.model.adapters[0].scale == 1.0f);
        hypura_worker_server_words(&arguments, &prepared, &words);
        assert_string_equal(word_after(&words, "--lora"), paths[i][1]);
    }
    const char *const several[] = {NEEDED, "--adapter=/a.gguf", "--adapter=/b,c.gguf", "--adapter=/d.gguf", NULL};
    assert_int_equal(parse(several, &arguments, &error), HYPURA_OK);
    assert_int_equal(arguments.model.n_adapters, 3);
    assert_string_equal(arguments.model.adapters[2].path, "/d.gguf");
    hypura_worker_server_words(&arguments, &prepared, &words);
    assert_string_equal(word_after(&words, "--lora"), "/a.gguf,\"/b,c.gguf\",/d.gguf"); /* the last of several would count alone */
    const char *const none[] = {NEEDED, NULL};
    assert_int_equal(parse(none, &arguments, &error), HYPURA_OK);
    hypura_worker_server_words(&arguments, &prepared, &words);
    assert_null(word_after(&words, "--lora"));
}

static void types_of_the_cache_are_told_the_server(void **state)
{
    (void)state;
    hypura_worker_arguments arguments;
    hypura_error error = {0};
    hypura_preparation prepared = {.context = {.n_context = 64, .n_sequences = 1, .n_ubatch = 32, .n_threads = 1}};
    static hypura_worker_words words;
    const char *const given[] = {NEEDED, "--cache-type-k=q8_0", "--cache-type-v=q4_0", NULL};
    assert_int_equal(parse(given, &arguments, &error), HYPURA_OK);
    prepared.context.kv_cache = arguments.model.kv_cache;
    hypura_worker_server_words(&arguments, &prepared, &words);
    assert_string_equal(word_after(&words, "--cache-type-k"), "q8_0");
    assert_string_equal(word_after(&words, "--cache-type-v"), "q4_0");
    const char *const none[] = {NEEDED, NULL};
    assert_int_equal(parse(none, &arguments, &error), HYPURA_OK);
    prepared.context.kv_cache = arguments.model.kv_cache;
    hypura_worker_server_words(&arguments, &prepared, &words);
    assert_null(word_after(&words, "--cache-type-k"));
    assert_null(word_after(&words, "--cache-type-v"));
}

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *words[10];
        const char *message;
    } rows[] = {{{"--model", "m.gguf", NULL}, "are needed"},
                {{NEEDED, "--sideways", NULL}, "--sideways is not an option"},
                {{NEEDED, "--memory=much", NULL}, "--memory much cannot"},
                {{NEEDED, "--parallel=0", NULL}, "--parallel 0 cannot"},
                {{NEEDED, "--threads=-1", NULL}, "--threads -1 cannot"},
                {{NEEDED, "--draft-max=0", NULL}, "--draft-max 0 cannot"},
                {{NEEDED, "--draft-p-min=2", NULL}, "--draft-p-min 2 cannot"},
                {{NEEDED, "--context=2147483648", NULL}, "--context 2147483648 cannot"},
                {{NEEDED, "--vram=1G+", NULL}, "--vram 1G+ cannot"},
                {{NEEDED, "--vram=1G+1G+1G+1G+1G+1G+1G+1G+1G+1G+1G+1G+1G+1G+1G+1G+1G", NULL}, "cannot be understood"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        hypura_worker_arguments arguments;
        hypura_error error = {0};
        assert_int_equal(parse(rows[i].words, &arguments, &error), HYPURA_ERR_USAGE);
        assert_non_null(strstr(error.message, rows[i].message));
    }
}

static hypura_status add(const char *json, hypura_worker_words *words, hypura_error *error, void **kept)
{
    *words = (hypura_worker_words){0};
    *error = (hypura_error){0};
    return hypura_worker_add_defaults(json, words, kept, error);
}

static void parameters_become_options(void **state)
{
    (void)state;
    static const char *const expected[] = {"--top-k", "40", "--temp",           "0.5", "--seed",           "4294967295",
                                           "--keep",  "-1", "--reverse-prompt", "a",   "--reverse-prompt", "b"};
    hypura_worker_words words;
    hypura_error error;
    void *kept;
    assert_int_equal(
        add("{\"top_k\":40.9,\"temperature\":0.5,\"seed\":4294967295,\"n_keep\":-1,\"stop\":[\"a\",\"b\"]}", &words,
            &error, &kept),
        HYPURA_OK);
    assert_int_equal(words.n, sizeof expected / sizeof *expected);
    for (int i = 0; i < words.n; i++) {
        assert_string_equal(words.words[i], expected[i]);
    }
    json_decref(kept);
}

/* They come with models that were pulled. */
static void parameters_that_no_option_takes_are_named(void **state)
{
    (void)state;
    static char many[4096] = "{\"stop\":[\"a\"";
    for (int i = 0; i < 100; i++) {
        strcat(many, ",\"a\"");
    }
    strcat(many, "]}");
    const struct {
        const char *json;
        const char *message;
    } rows[] = {{"[]", "no JSON object"},
                {"{\"top_k\":", "no JSON object"},
                {"{\"sideways\":1}", "no default of sideways"},
                {"{\"top_k\":\"40\"}", "the default of top_k is no number"},
                {"{\"top_k\":1e300}", "1e+300 as the default of top_k is out of range"},
                {"{\"n_keep\":-4294967296}", "the default of n_keep is out of range"},
                {"{\"stop\":\"a\"}", "the default of stop is no list"},
                {"{\"stop\":[1]}", "the default of stop is no list of texts"},
                {many, "too many texts"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        hypura_worker_words words;
        hypura_error error;
        void *kept;
        assert_int_equal(add(rows[i].json, &words, &error, &kept), HYPURA_ERR_USAGE);
        assert_non_null(strstr(error.message, rows[i].message));
        json_decref(kept);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_front_says_is_taken),
        cmocka_unit_test(a_template_needs_nothing_else),
        cmocka_unit_test(guesses_are_told_the_server),
        cmocka_unit_test(an_adapter_is_told_the_server), cmocka_unit_test(types_of_the_cache_are_told_the_server),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(parameters_become_options),
        cmocka_unit_test(parameters_that_no_option_takes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
