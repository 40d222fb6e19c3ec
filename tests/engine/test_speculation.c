/*
 * test_speculation.c - guessed tokens: the same answer paged and plain with the same guesses, fewer passes, what is
 * guessed wrong leaves no trace, the draft's memory is planned for, and what cannot be is named. Over a mixture with random
 * weights of few bits. Its draft is what it was made of, which has more of them and guesses about half of it right.
 */
#include "engine_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RIVERS "w7 w3 w300 w41 w5"
#define ROUND  "abcdefghijklmnop"
#define LISTS  ROUND ROUND ROUND ROUND ROUND
#define TALK   "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"

static char draft[4096];
static char large[4096];
static uint64_t draft_bytes; /* of weights */
static uint64_t large_bytes;

static hypura_status try_open(const hypura_model_options *wanted, hypura_model **model, hypura_error *error)
{
    hypura_model_options options = *wanted;
    options.cache_dir = fixture_cache_dir();
    options.n_context = options.n_context > 0 ? options.n_context : 256;
    options.n_threads = 1;
    return hypura_model_open(&options, model, error);
}

/* Answers of two turns of each way of holding the model are the same; returns the first of them, which is the caller's.
 */
static hypura_result same_everywhere(const hypura_speculation *speculation, const hypura_generate_options *wanted)
{
    const hypura_model_options ways[] = {
        {.path = large, .plain = true, .speculation = *speculation},
        {.path = large, .speculation = *speculation},
        {.path = large, .weights_bytes = large_bytes / 2, .force_paging = true, .speculation = *speculation}};
    hypura_result first[2] = {{.text = NULL}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        hypura_model *model = fixture_open(&ways[i]);
        assert_true(i < 2 || hypura_model_plan(model)->mode == HYPURA_MODE_EXPERTS);
        for (int turn = 0; turn < 2; turn++) {
            hypura_result result = fixture_generate(model, wanted);
            if (i == 0) {
                first[turn] = result;
                continue;
            }
            assert_string_equal(result.text, first[turn].text);
            assert_int_equal(result.tokens, first[turn].tokens);
            assert_int_equal(result.n_passes, first[turn].n_passes);
            assert_int_equal(result.n_drafted, first[turn].n_drafted);
            assert_int_equal(result.n_accepted, first[turn].n_accepted);
            hypura_result_clear(&result);
        }
        hypura_model_close(model);
    }
    /* Each pass brings one token and what was guessed right. */
    assert_int_equal(first[0].tokens, first[0].n_passes + first[0].n_accepted);
    hypura_result_clear(&first[1]);
    return first[0];
}

static void a_draft_saves_passes(void **state)
{
    (void)state;
    const hypura_speculation speculation = {.draft = draft, .n_max = 5};
    hypura_result result =
        same_everywhere(&speculation, &(hypura_generate_options){.prompt = RIVERS, .raw = true, .max_tokens = 64});
    assert_int_equal(result.tokens, 64);
    assert_true(result.n_passes <= 48);
    assert_true(result.n_accepted < result.n_drafted);
    assert_true(result.draft_s > 0 && result.draft_s < result.decode_s);
    hypura_result_clear(&result);
}

static void a_sampled_answer_is_the_same(void **state)
{
    (void)state;
    const hypura_speculation speculation = {.draft = draft, .n_max = 4, .p_min = 0.02f};
    hypura_result result = same_everywhere(
        &speculation, &(hypura_generate_options){
                          .prompt = "w9 w8 w7",
                          .chat_template = TALK,
                          .max_tokens = 12,
                          .sampling = {.temperature = 0.2f, .top_p = 1.0f, .seed = 7, .repeat_penalty = 1.1f}});
    assert_true(result.n_drafted > result.n_accepted); /* chance disagrees now and then */
    hypura_result_clear(&result);
}

static void the_text_is_guessed_from(void **state)
{
    (void)state;
    static const char *const types[] = {"ngram-simple", "ngram-cache"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const hypura_speculation speculation = {.types = types[i], .n_max = 6};
        hypura_result result = same_everywhere(
            &speculation, &(hypura_generate_options){
                              .prompt = LISTS, .raw = true, .max_tokens = 40, .grammar = "root ::= (\"" ROUND "\"){9}"});
        assert_true(result.n_accepted > 0);
        hypura_result_clear(&result);
    }
}

/* Without guesses single tokens are computed: the same bits as ever. */
static void nothing_guessed_changes_nothing(void **state)
{
    (void)state;
    const hypura_generate_options wanted = {.prompt = RIVERS, .raw = true, .max_tokens = 12};
    hypura_model *model = fixture_open(&(hypura_model_options){.path = large});
    hypura_result expected = fixture_generate(model, &wanted);
    assert_int_equal(expected.n_passes, expected.tokens);
    hypura_model_close(model);
    model = fixture_open(&(hypura_model_options){.path = large, .speculation = {.draft = draft, .p_min = 1.0f}});
    hypura_result result = fixture_generate(model, &wanted);
    assert_string_equal(result.text, expected.text);
    assert_int_equal(result.n_drafted, 0);
    assert_int_equal(result.n_passes, 12);
    hypura_result_clear(&result);
    hypura_result_clear(&expected);
    hypura_model_close(model);
}

static bool stop_at_once(void *user, const char *text, size_t n)
{
    (void)text;
    (void)n;
    return --*(int *)user > 0;
}

/* A conversation that was stopped among guesses goes on as one that never guessed beyond. */
static void what_is_stopped_goes_on(void **state)
{
    (void)state;
    const hypura_generate_options second = {.prompt = "w5 w40", .chat_template = TALK, .max_tokens = 10};
    char texts[2][512];
    for (int i = 0; i < 2; i++) {
        int n_left = 3;
        hypura_model *model =
            fixture_open(&(hypura_model_options){.path = large,
                                               .force_paging = true,
                                               .weights_bytes = large_bytes / 2,
                                               .speculation = {.draft = i ? draft : NULL, .n_max = 8}});
        const hypura_generate_options first = {.prompt = "w1 w200",
                                               .chat_template = TALK,
                                               .max_tokens = 20,
                                               .on_text = stop_at_once,
                                               .on_text_user = &n_left};
        hypura_result result = fixture_generate(model, &first);
        assert_true(result.stopped_by_user);
        hypura_result_clear(&result);
        result = fixture_generate(model, &second);
        snprintf(texts[i], sizeof(texts[i]), "%s", result.text);
        hypura_result_clear(&result);
        hypura_model_close(model);
    }
    assert_string_equal(texts[0], texts[1]);
}

static void a_full_context_ends_the_answer(void **state)
{
    (void)state;
    const hypura_speculation speculation = {.types = "ngram-cache", .draft = draft, .n_max = 16};
    hypura_model *model =
        fixture_open(&(hypura_model_options){.path = large, .n_context = 144, .speculation = speculation});
    hypura_result result = fixture_generate(model, &(hypura_generate_options){.prompt = LISTS, .raw = true});
    assert_true(result.context_full);
    assert_int_equal(result.tokens + result.prompt_tokens, 144);
    hypura_result_clear(&result);
    hypura_model_close(model);
}

static void a_draft_is_planned_for(void **state)
{
    (void)state;
    hypura_plan *plan = NULL;
    hypura_plan *with = NULL;
    hypura_error error;
    hypura_model_options options = {
        .path = large, .memory_bytes = 100000000, .n_context = 256, .n_threads = 1, .cache_dir = fixture_cache_dir()};
    fixture_ok(hypura_estimate(&options, &plan, &error), &error);
    options.speculation.draft = draft;
    fixture_ok(hypura_estimate(&options, &with, &error), &error);
    assert_int_equal(plan->draft_bytes, 0);
    assert_true(with->draft_bytes > draft_bytes && with->draft_bytes < draft_bytes + 16000000);
    assert_true(with->overhead_bytes >= plan->overhead_bytes + with->draft_bytes);
    assert_true(with->floor_memory_bytes >= plan->floor_memory_bytes + with->draft_bytes);
    options.memory_bytes = with->floor_memory_bytes + large_bytes / 4;
    hypura_plan_free(with);
    fixture_ok(hypura_estimate(&options, &with, &error), &error);
    assert_true(with->weights_bytes < large_bytes);
    assert_true(with->weights_bytes + with->kv_bytes + with->compute_bytes + with->overhead_bytes <=
                options.memory_bytes);
    options.memory_bytes = with->floor_memory_bytes - 1;
    hypura_plan_free(plan);
    hypura_plan_free(with);
    fixture_fails(HYPURA_ERR_BUDGET, hypura_estimate(&options, &with, &error), &error, "as draft, which takes");
}

static void what_cannot_be_is_named(void **state)
{
    (void)state;
    char other[4096];
    char recurrent[4096];
    snprintf(other, sizeof(other), "%s", fixture_arch("qwen3moe-moe.gguf"));
    snprintf(recurrent, sizeof(recurrent), "%s", fixture_arch("mamba-dense.gguf"));
    const struct {
        const char *path;
        hypura_speculation speculation;
        hypura_status status;
        const char *text;
    } cases[] = {
        {large, {.draft = other}, HYPURA_ERR_UNSUPPORTED, "vocabulary"},
        {large, {.draft = large}, HYPURA_ERR_USAGE, "own draft"},
        {large, {.draft = "/nowhere/small.gguf"}, HYPURA_ERR_IO, "/nowhere/small.gguf"},
        {large, {.types = "ngram-simple,guess"}, HYPURA_ERR_USAGE, "'guess'"},
        {large, {.types = "draft-mtp"}, HYPURA_ERR_USAGE, "'draft-mtp'"},
        {large, {.types = "draft-simple"}, HYPURA_ERR_USAGE, "needs a draft"},
        {large, {.types = ""}, HYPURA_ERR_USAGE, "no type"},
        {large, {.types = "ngram-mod", .p_min = 2.0f}, HYPURA_ERR_USAGE, "probability"},
        {large, {.types = "ngram-mod", .n_max = 5000}, HYPURA_ERR_USAGE, "5000"},
        {recurrent, {.types = "ngram-simple"}, HYPURA_ERR_UNSUPPORTED, "keeps a state"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hypura_model *model = NULL;
        hypura_error error;
        const hypura_model_options options = {
            .path = cases[i].path, .plain = true, .n_context = 64, .speculation = cases[i].speculation};
        fixture_fails(cases[i].status, try_open(&options, &model, &error), &error, cases[i].text);
        assert_null(model);
    }
}

static uint64_t bytes_of(const char *path)
{
    hypura_map *map = NULL;
    hypura_error error;
    fixture_ok(hypura_map_open(path, &map, &error), &error);
    const uint64_t bytes = map->tensor_bytes;
    hypura_map_close(map);
    return bytes;
}

static int make_models(void **state)
{
    char command[4 * 4096];
    const int result = fixture_setup(state);
    snprintf(draft, sizeof(draft), "%s", fixture_path("small.gguf"));
    snprintf(large, sizeof(large), "%s", fixture_path("large.gguf"));
    snprintf(command, sizeof(command),
             "'%s' shape llama-tiny '%s' --type q8_0 && '%s' upcycle '%s' '%s' --experts 8 --top-k 2 --type q4_1",
             HYPURA_TEST_MKMODEL, draft, HYPURA_TEST_MKMODEL, draft, large);
    if (result != 0 || system(command) != 0) {
        return -1;
    }
    draft_bytes = bytes_of(draft);
    large_bytes = bytes_of(large);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_draft_saves_passes),     cmocka_unit_test(a_sampled_answer_is_the_same),
        cmocka_unit_test(the_text_is_guessed_from), cmocka_unit_test(nothing_guessed_changes_nothing),
        cmocka_unit_test(what_is_stopped_goes_on),  cmocka_unit_test(a_full_context_ends_the_answer),
        cmocka_unit_test(a_draft_is_planned_for),   cmocka_unit_test(what_cannot_be_is_named),
    };
    return cmocka_run_group_tests(tests, make_models, fixture_teardown);
}
