/*
 * test_generate.c - answers: the same through Hypura as through llama.cpp, whole,
 * stoppable, in conversation, and never made up when a read fails.
 */
#include "engine_fixture.h"

#include "base/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PARIS "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"

typedef struct heard {
    char text[4096];
    size_t bytes;
    int calls;
    int stop_after; /* calls; 0: never */
} heard;

static bool listen(void *user, const char *text, size_t n)
{
    heard *h = user;
    assert_true(n > 0 && h->bytes + n < sizeof(h->text));
    memcpy(h->text + h->bytes, text, n);
    h->bytes += n;
    h->text[h->bytes] = '\0';
    h->calls++;
    return h->stop_after == 0 || h->calls < h->stop_after;
}

/* With llama.cpp alone and an empty context. Loaded once: 49,152 words take a while. */
static hypura_model *smollm;
static hypura_model *words;

static hypura_model *plain(hypura_model **model, const char *path)
{
    if (!*model) {
        *model = fixture_open(&(hypura_model_options){.path = path, .plain = true});
    }
    hypura_model_reset(*model);
    return *model;
}

static hypura_model *plain_smollm(void)
{
    return plain(&smollm, fixture_model("smollm2-135m.gguf"));
}

/* The same, where what it says means nothing. */
static hypura_model *plain_words(void)
{
    return plain(&words, fixture_words("words.gguf"));
}

static int close_models(void **state)
{
    hypura_model_close(smollm);
    hypura_model_close(words);
    return fixture_teardown(state);
}

static void same_answer_paged_and_plain(void **state)
{
    (void)state;
    const hypura_generate_options wanted = {.prompt = PARIS, .raw = true, .max_tokens = 9};
    hypura_result expected = fixture_generate(plain_smollm(), &wanted);
    assert_non_null(strstr(expected.text, "Paris"));

    hypura_model *paged = fixture_open(&(hypura_model_options){
        .path = fixture_model("smollm2-135m.gguf"), .weights_bytes = 50000000, .force_paging = true});
    hypura_result result = fixture_generate(paged, &wanted);
    assert_string_equal(result.text, expected.text);
    assert_int_equal(result.tokens, expected.tokens);
    hypura_statistics statistics;
    hypura_model_statistics(paged, &statistics);
    /* Half of 98 MB is streamed for each token and for the prompt. */
    assert_true(statistics.bytes_read > (uint64_t)result.tokens * 20000000);
    /* The other half is kept, and counts as such, whether it is pinned or always stays. */
    const double kept = (double)statistics.bytes_hit / (double)statistics.bytes_needed;
    assert_true(fabs(kept - hypura_model_plan(paged)->hit_rate) < 0.01);
    assert_true(kept > 0.4 && kept < 0.6);
    hypura_layer_hits layers[30];
    hypura_model_layer_hits(paged, layers, 30);
    for (int l = 0; l < 30; l++) {
        assert_true(layers[l].bytes_hit > 0 && layers[l].bytes_hit < layers[l].bytes_needed);
    }
    hypura_model_reset_statistics(paged);
    hypura_model_statistics(paged, &statistics);
    assert_int_equal(statistics.bytes_read, 0);
    hypura_result_clear(&result);
    hypura_result_clear(&expected);
    hypura_model_close(paged);
}

static void text_arrives_whole(void **state)
{
    (void)state;
    hypura_model *model = plain_words();
    heard h = {.bytes = 0};
    hypura_generate_options wanted = {
        .prompt = PARIS, .raw = true, .max_tokens = 8, .on_text = listen, .on_text_user = &h};
    hypura_result result = fixture_generate(model, &wanted);
    assert_string_equal(h.text, result.text);
    assert_true(result.tokens > 0 && result.tokens <= 8);
    assert_true(result.prompt_tokens > 0 && result.prompt_s > 0 && result.decode_s > 0);
    assert_false(result.stopped_by_user);
    assert_false(result.context_full);
    hypura_result_clear(&result);

    h = (heard){.stop_after = 3};
    result = fixture_generate(model, &wanted);
    assert_true(result.stopped_by_user);
    assert_int_equal(h.calls, 3);
    assert_string_equal(h.text, result.text);
    hypura_result_clear(&result);
}

static void a_text_ends_the_answer(void **state)
{
    (void)state;
    hypura_model *model = plain_smollm();
    hypura_generate_options wanted = {.prompt = "What is the capital of France?", .max_tokens = 12};
    hypura_result whole = fixture_generate(model, &wanted);
    const size_t bytes = strlen(whole.text) / 2; /* from the middle of a token, as likely as not */
    assert_true(bytes > 8);
    hypura_model_reset(model);

    const char *const stop[] = {"nowhere", whole.text + bytes};
    heard h = {.bytes = 0};
    wanted = (hypura_generate_options){.prompt = "What is the capital of France?", .max_tokens = 12, .stop = stop,
                                       .n_stop = 2, .on_text = listen, .on_text_user = &h};
    hypura_result result = fixture_generate(model, &wanted);
    assert_int_equal(strlen(result.text), bytes);
    assert_memory_equal(result.text, whole.text, bytes);
    assert_string_equal(h.text, result.text);
    assert_false(result.stopped_by_user);
    assert_true(result.tokens <= whole.tokens);
    hypura_result_clear(&result);

    /* The conversation goes on from there. */
    wanted = (hypura_generate_options){.prompt = "Why?", .max_tokens = 6};
    result = fixture_generate(model, &wanted);
    assert_true(result.tokens > 0);
    hypura_result_clear(&result);

    static const char *const nothing[] = {""};
    hypura_error error;
    wanted = (hypura_generate_options){.prompt = "Why?", .stop = nothing, .n_stop = 1};
    assert_int_equal(hypura_generate(model, &wanted, &result, &error), HYPURA_ERR_USAGE);
    hypura_result_clear(&whole);
}

typedef struct slow_reader {
    uint64_t us; /* so long it had text for itself */
} slow_reader;

static bool read_slowly(void *user, const char *text, size_t n)
{
    static const struct timespec pause = {0, 50000000};
    slow_reader *reader = user;
    const uint64_t begin_us = hypura_clock_us();
    (void)text;
    (void)n;
    (void)nanosleep(&pause, NULL);
    reader->us += hypura_clock_us() - begin_us;
    return true;
}

/* Figures, and what is learned from them, are the model's. */
static void a_slow_reader_is_not_a_slow_model(void **state)
{
    (void)state;
    hypura_model *model = plain_words();
    slow_reader reader = {.us = 0};
    hypura_generate_options wanted = {
        .prompt = PARIS, .raw = true, .max_tokens = 8, .on_text = read_slowly, .on_text_user = &reader};
    const uint64_t begin_us = hypura_clock_us();
    hypura_result result = fixture_generate(model, &wanted);
    const uint64_t us = hypura_clock_us() - begin_us;
    assert_true(result.tokens > 1 && reader.us >= 100000);
    assert_true(result.decode_s > 0 && (result.prompt_s + result.decode_s) * 1e6 <= (double)(us - reader.us));
    hypura_result_clear(&result);
}

/* Asked that often before it says stop; 0: never. */
typedef struct patience {
    int asked;
    int stop_at;
    int second_part; /* asked so often before the first part of the prompt was read */
    int answer;      /* and before all of it was */
} patience;

static bool ask(void *user, const char *what, uint64_t done, uint64_t total)
{
    patience *p = user;
    assert_non_null(what);
    assert_true(done <= total);
    p->second_part += done == 0;
    p->answer += done < total;
    return ++p->asked != p->stop_at;
}

/* Nothing waits for the end of a prompt, or of a token: that may take minutes. */
static void whatever_is_computed_can_be_stopped(void **state)
{
    (void)state;
    const char *const path = fixture_arch("llama-dense.gguf");
    struct stat file;
    assert_int_equal(stat(path, &file), 0);
    const hypura_model_options kinds[] = {
        {.path = path, .plain = true, .n_ubatch = 8},
        {.path = path, .weights_bytes = (uint64_t)file.st_size / 2, .force_paging = true, .n_ubatch = 8}};
    for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++) {
        hypura_model *model = fixture_open(&kinds[k]);
        patience p = {.stop_at = 0};
        hypura_generate_options wanted = {
            .prompt = "000100020003000400050006000700080009001000110012", .raw = true, .max_tokens = 6, .progress = ask,
            .progress_user = &p};
        hypura_result whole = fixture_generate(model, &wanted);
        const int asked = p.asked;
        assert_true(p.second_part > 10 && p.answer > p.second_part + 10 && asked > p.answer + 10); /* between nodes */
        hypura_model_reset(model);

        /* In the prompt's first part, in its second one, in the answer. */
        const int stops[] = {3, p.second_part + 3, p.answer + (asked - p.answer) / 2};
        for (size_t i = 0; i < sizeof(stops) / sizeof(*stops); i++) {
            p = (patience){.stop_at = stops[i]};
            hypura_result half = fixture_generate(model, &wanted);
            assert_true(half.stopped_by_user);
            assert_int_equal(p.asked, p.stop_at); /* and not once more */
            assert_true(i < 2 ? half.tokens == 0 && half.prompt_tokens < whole.prompt_tokens : half.tokens > 1);
            assert_true((half.bytes_read > 0) == (i == 2 && !kinds[k].plain)); /* what it read for them counts */
            assert_memory_equal(half.text, whole.text, strlen(half.text));
            hypura_result_clear(&half);
            /* What was not finished is not in the context: the same answer comes. */
            p = (patience){.stop_at = 0};
            hypura_result again = fixture_generate(model, &wanted);
            assert_string_equal(again.text, whole.text);
            assert_false(again.stopped_by_user);
            hypura_result_clear(&again);
            hypura_model_reset(model);
        }
        hypura_result_clear(&whole);
        hypura_model_close(model);
    }
}

/* A message that was not answered at all is not part of it. */
static void a_stopped_prompt_leaves_the_conversation_as_it_was(void **state)
{
    (void)state;
    hypura_model *model = plain_words();
    patience p = {.stop_at = 5};
    hypura_generate_options wanted = {.prompt = "Name a colour.", .max_tokens = 5};
    hypura_result first = fixture_generate(model, &wanted);
    wanted.prompt = "And another one?";
    wanted.progress = ask;
    wanted.progress_user = &p;
    hypura_result stopped = fixture_generate(model, &wanted);
    assert_string_equal(stopped.text, "");
    p.stop_at = 0;
    hypura_result second = fixture_generate(model, &wanted);
    hypura_model_reset(model);
    wanted = (hypura_generate_options){.prompt = "Name a colour.", .max_tokens = 5};
    hypura_result once = fixture_generate(model, &wanted);
    wanted.prompt = "And another one?";
    hypura_result expected = fixture_generate(model, &wanted);
    assert_string_equal(second.text, expected.text);
    hypura_result_clear(&first);
    hypura_result_clear(&stopped);
    hypura_result_clear(&second);
    hypura_result_clear(&once);
    hypura_result_clear(&expected);
}

static void seeds_decide(void **state)
{
    (void)state;
    hypura_model *model = plain_words();
    hypura_generate_options wanted = {.prompt = "Once upon a time",
                                      .raw = true,
                                      .max_tokens = 8,
                                      .sampling = {.temperature = 1.0f, .top_p = 0.95f, .min_p = 0.01f, .top_k = 100}};
    char *texts[3];
    for (uint32_t i = 0; i < 3; i++) {
        wanted.sampling.seed = i / 2 + 1; /* 1, 1, 2 */
        texts[i] = fixture_generate(model, &wanted).text;
    }
    assert_string_equal(texts[0], texts[1]);
    assert_string_not_equal(texts[0], texts[2]);
    for (int i = 0; i < 3; i++) {
        free(texts[i]);
    }
}

static void an_answer_is_of_its_grammar(void **state)
{
    (void)state;
    hypura_model *model = plain_smollm();
    hypura_generate_options wanted = {.prompt = "The capital of France is", .raw = true};
    const hypura_sampling samplings[] = {{.temperature = 0}, {.temperature = 1.0f, .top_p = 0.9f, .top_k = 40, .seed = 3}};
    for (size_t i = 0; i < sizeof(samplings) / sizeof(*samplings); i++) {
        wanted.sampling = samplings[i];
        wanted.max_tokens = 10;
        hypura_result free_text = fixture_generate(model, &wanted);
        hypura_model_reset(model);
        wanted.grammar = "root ::= \"yes\" | \"perhaps\"";
        hypura_result result = fixture_generate(model, &wanted);
        assert_true(strcmp(result.text, "yes") == 0 || strcmp(result.text, "perhaps") == 0);
        hypura_result_clear(&result);
        hypura_model_reset(model);
        /* One that forbids nothing changes nothing. */
        wanted.grammar = "root ::= .*\n";
        result = fixture_generate(model, &wanted);
        assert_string_equal(result.text, free_text.text);
        hypura_result_clear(&result);
        hypura_model_reset(model);
        wanted.grammar = NULL;
        wanted.max_tokens = 40;
        wanted.json_schema = "{\"type\":\"object\",\"properties\":{\"city\":{\"enum\":[\"Rome\",\"Paris\"]}},"
                             "\"required\":[\"city\"],\"additionalProperties\":false}";
        result = fixture_generate(model, &wanted);
        char city[8] = "";
        assert_int_equal(sscanf(result.text, " { \"city\" : \"%7[a-zA-Z]\"", city), 1);
        assert_true(strcmp(city, "Rome") == 0 || strcmp(city, "Paris") == 0);
        assert_int_equal(result.text[strlen(result.text) - 1], '}');
        hypura_result_clear(&result);
        hypura_result_clear(&free_text);
        hypura_model_reset(model);
        wanted.json_schema = NULL;
    }
    hypura_result result;
    hypura_error error;
    wanted.grammar = "";
    fixture_fails(HYPURA_ERR_USAGE, hypura_generate(model, &wanted, &result, &error), &error, "the grammar is empty");
    wanted.grammar = "root ::= (";
    fixture_fails(HYPURA_ERR_USAGE, hypura_generate(model, &wanted, &result, &error), &error, "expecting ')' at its end");
    wanted.json_schema = "{}";
    fixture_fails(HYPURA_ERR_USAGE, hypura_generate(model, &wanted, &result, &error), &error, "exclude each other");
    wanted.grammar = NULL;
    wanted.json_schema = "{\"type\":";
    fixture_fails(HYPURA_ERR_USAGE, hypura_generate(model, &wanted, &result, &error), &error, "the JSON schema cannot");
}

static void repeating_costs(void **state)
{
    (void)state;
    hypura_model *model = plain_smollm();
    hypura_generate_options wanted = {.prompt = "the cat the cat the cat the cat the", .raw = true, .max_tokens = 8};
    hypura_result plain = fixture_generate(model, &wanted);
    assert_non_null(strstr(plain.text, "cat the cat"));
    wanted.sampling.repeat_penalty = 1.0f;
    hypura_result off = fixture_generate(model, &wanted);
    assert_string_equal(off.text, plain.text);
    wanted.sampling.repeat_penalty = 3.0f; /* of the prompt's tokens too */
    hypura_result punished = fixture_generate(model, &wanted);
    assert_null(strstr(punished.text, " cat"));
    hypura_result_clear(&punished);
    /* Those that occur more often than once are punished by how often, or not more than others. */
    wanted.sampling = (hypura_sampling){.frequency_penalty = 2.0f};
    hypura_result often = fixture_generate(model, &wanted);
    assert_null(strstr(often.text, "cat the cat"));
    wanted.sampling = (hypura_sampling){.presence_penalty = 2.0f};
    hypura_result once = fixture_generate(model, &wanted);
    assert_string_not_equal(once.text, often.text);
    wanted.sampling = (hypura_sampling){.presence_penalty = 100.0f};
    punished = fixture_generate(model, &wanted);
    assert_null(strstr(punished.text, " cat"));
    hypura_result_clear(&often);
    hypura_result_clear(&once);
    hypura_result_clear(&plain);
    hypura_result_clear(&off);
    hypura_result_clear(&punished);
}

static void what_cannot_be_asked(void **state)
{
    (void)state;
    hypura_model *model = fixture_open(&(hypura_model_options){.path = fixture_arch("llama-dense.gguf"), .plain = true});
    hypura_generate_options wanted = {.prompt = "0001", .raw = true, .max_tokens = 1};
    hypura_result result;
    hypura_error error;
    wanted.sampling.temperature = -1;
    fixture_fails(HYPURA_ERR_USAGE, hypura_generate(model, &wanted, &result, &error), &error, "temperature");
    wanted.sampling = (hypura_sampling){.temperature = 1, .top_p = 2};
    fixture_fails(HYPURA_ERR_USAGE, hypura_generate(model, &wanted, &result, &error), &error, "top_p");
    wanted.sampling = (hypura_sampling){.temperature = 1, .min_p = -1};
    fixture_fails(HYPURA_ERR_USAGE, hypura_generate(model, &wanted, &result, &error), &error, "min_p");
    wanted.sampling = (hypura_sampling){.temperature = 1, .top_k = -1};
    fixture_fails(HYPURA_ERR_USAGE, hypura_generate(model, &wanted, &result, &error), &error, "top_k");
    wanted.sampling = (hypura_sampling){.repeat_penalty = -1};
    fixture_fails(HYPURA_ERR_USAGE, hypura_generate(model, &wanted, &result, &error), &error, "repeat_penalty");
    wanted.sampling = (hypura_sampling){.presence_penalty = INFINITY};
    fixture_fails(HYPURA_ERR_USAGE, hypura_generate(model, &wanted, &result, &error), &error, "presence_penalty inf");
    wanted.sampling = (hypura_sampling){.frequency_penalty = NAN};
    fixture_fails(HYPURA_ERR_USAGE, hypura_generate(model, &wanted, &result, &error), &error, "frequency_penalty nan");
    wanted = (hypura_generate_options){.prompt = "0001", .raw = true, .system = "x"};
    fixture_fails(HYPURA_ERR_USAGE, hypura_generate(model, &wanted, &result, &error), &error, "no system text");
    wanted = (hypura_generate_options){.prompt = "", .raw = true};
    fixture_fails(HYPURA_ERR_USAGE, hypura_generate(model, &wanted, &result, &error), &error, "empty");
    wanted = (hypura_generate_options){.prompt = "0001"}; /* these models have no chat template */
    fixture_fails(HYPURA_ERR_UNSUPPORTED, hypura_generate(model, &wanted, &result, &error), &error, "raw");
    hypura_model_close(model);

    model = fixture_open(&(hypura_model_options){.path = fixture_arch("dream-dense.gguf"), .plain = true});
    wanted.raw = true;
    fixture_fails(HYPURA_ERR_UNSUPPORTED, hypura_generate(model, &wanted, &result, &error), &error, "dream");
    hypura_model_close(model);
}

static void no_vocabulary(void **state)
{
    (void)state;
    static const char key[] = "tokenizer.ggml.model";
    size_t n = 0;
    char *bytes = fixture_read(fixture_arch("llama-dense.gguf"), &n);
    char *name = memmem(bytes, n, key, strlen(key));
    assert_non_null(name);
    name = memmem(name, 64, "test", 4);
    assert_non_null(name);
    memcpy(name, "none", 4);
    const char *path = fixture_path("dumb.gguf");
    fixture_write(path, bytes, n);
    free(bytes);

    hypura_model *model = fixture_open(&(hypura_model_options){.path = path, .plain = true});
    hypura_generate_options wanted = {.prompt = "0001", .raw = true, .max_tokens = 1};
    hypura_result result;
    hypura_error error;
    fixture_fails(HYPURA_ERR_UNSUPPORTED, hypura_generate(model, &wanted, &result, &error), &error, "no vocabulary");
    assert_null(result.text);
    hypura_model_close(model);
}

/* The file loses its second half while the model runs. */
static void failed_read_makes_no_text(void **state)
{
    (void)state;
    size_t n = 0;
    char *bytes = fixture_read(fixture_arch("llama-dense.gguf"), &n);
    char path[1024];
    snprintf(path, sizeof(path), "%s", fixture_path("shrinking.gguf"));
    fixture_write(path, bytes, n);

    hypura_model *model = fixture_open(&(hypura_model_options){.path = path, .force_paging = true, .weights_bytes = n / 2});
    heard h = {.bytes = 0};
    hypura_generate_options wanted = {
        .prompt = "0001000200030004", .raw = true, .max_tokens = 4, .on_text = listen, .on_text_user = &h};
    hypura_result expected = fixture_generate(model, &wanted);
    hypura_model_reset(model);

    h = (heard){.bytes = 0};
    assert_int_equal(truncate(path, 8192), 0);
    hypura_result result;
    hypura_error error;
    fixture_fails(HYPURA_ERR_IO, hypura_generate(model, &wanted, &result, &error), &error, "shrinking.gguf");
    assert_int_equal(h.calls, 0);
    assert_int_equal(result.tokens, 0);
    hypura_result_clear(&result);

    /* The same bytes again are a file that was written to: nothing read of it can be trusted. */
    fixture_write(path, bytes, n);
    fixture_fails(HYPURA_ERR_IO, hypura_generate(model, &wanted, &result, &error), &error, "shrinking.gguf");
    assert_int_equal(h.calls, 0);
    hypura_result_clear(&result);
    hypura_model_close(model);

    model = fixture_open(&(hypura_model_options){.path = path, .force_paging = true, .weights_bytes = n / 2});
    result = fixture_generate(model, &wanted);
    assert_string_equal(result.text, expected.text);
    hypura_result_clear(&result);
    hypura_result_clear(&expected);
    hypura_model_close(model);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_answer_paged_and_plain),
        cmocka_unit_test(text_arrives_whole),
        cmocka_unit_test(a_text_ends_the_answer),
        cmocka_unit_test(a_slow_reader_is_not_a_slow_model),
        cmocka_unit_test(whatever_is_computed_can_be_stopped),
        cmocka_unit_test(a_stopped_prompt_leaves_the_conversation_as_it_was),
        cmocka_unit_test(seeds_decide),
        cmocka_unit_test(an_answer_is_of_its_grammar),
        cmocka_unit_test(repeating_costs),
        cmocka_unit_test(what_cannot_be_asked),
        cmocka_unit_test(no_vocabulary),
        cmocka_unit_test(failed_read_makes_no_text),
    };
    return cmocka_run_group_tests_name("engine generate", tests, fixture_setup, close_models);
}
