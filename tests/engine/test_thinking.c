/*
 * test_thinking.c - whether a model thinks before it answers, and that what it thinks is not its answer. A template that opens
 * the thought itself makes any model think for as long as it does not close it.
 */
#include "engine_fixture.h"

#include "templates.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *thinks;     /* a template whose prompt begins the thought */
static char *thinks_not; /* one that knows none */

typedef struct heard {
    char thought[1024];
    char text[1024];
} heard;

static bool on_thought(void *user, const char *text, size_t bytes)
{
    heard *h = user;
    assert_true(strlen(h->thought) + bytes < sizeof h->thought);
    strncat(h->thought, text, bytes);
    return true;
}

static bool on_text(void *user, const char *text, size_t bytes)
{
    heard *h = user;
    assert_true(strlen(h->text) + bytes < sizeof h->text);
    strncat(h->text, text, bytes);
    return true;
}

static hypura_model *open_model(void)
{
    thinks = template_read("Qwen-QwQ-32B");
    thinks_not = template_read("Qwen-Qwen2.5-7B-Instruct");
    return fixture_open(&(hypura_model_options){.path = fixture_model("smollm2-135m.gguf"), .n_context = 512});
}

static void close_model(hypura_model *model)
{
    hypura_model_close(model);
    free(thinks);
    free(thinks_not);
}

static void a_thought_is_no_text(void **state)
{
    (void)state;
    hypura_model *model = open_model();
    hypura_generate_options wanted = {.prompt = "Tell me about Paris.", .chat_template = thinks, .max_tokens = 8};
    heard h = {.text = ""};
    wanted.on_text = on_text;
    wanted.on_thought = on_thought;
    wanted.on_text_user = &h;
    hypura_result result = fixture_generate(model, &wanted);
    assert_string_equal(result.text, "");
    assert_string_equal(h.text, "");
    assert_true(strlen(result.thought) > 4);
    assert_string_equal(h.thought, result.thought);
    assert_int_equal(result.tokens, 8);
    char first[1024];
    snprintf(first, sizeof first, "%s", result.thought);
    hypura_result_clear(&result);
    assert_null(result.thought);

    /* The next turn's prompt has no thoughts of the first: it begins where the first one's did. */
    wanted.on_text = wanted.on_thought = NULL;
    result = fixture_generate(model, &wanted);
    hypura_result_clear(&result);

    hypura_model_reset(model);
    wanted.thinking = HYPURA_THINKING_HIGH;
    result = fixture_generate(model, &wanted);
    assert_string_equal(result.thought, first);
    hypura_result_clear(&result);
    close_model(model);
}

static void what_has_a_grammar_is_text(void **state)
{
    (void)state;
    hypura_model *model = open_model();
    hypura_generate_options wanted = {
        .prompt = "Paris?", .chat_template = thinks, .max_tokens = 8, .grammar = "root ::= \"yes\" | \"no\""};
    hypura_result result;
    hypura_error error;
    result = fixture_generate(model, &wanted);
    assert_true(strcmp(result.text, "yes") == 0 || strcmp(result.text, "no") == 0);
    assert_null(result.thought);
    hypura_result_clear(&result);
    wanted.thinking = HYPURA_THINKING_ON;
    fixture_fails(HYPURA_ERR_USAGE, hypura_generate(model, &wanted, &result, &error), &error, "has no thoughts before it");
    close_model(model);
}

static void templates_that_know_no_thoughts(void **state)
{
    (void)state;
    hypura_model *model = open_model();
    hypura_generate_options wanted = {.prompt = "Paris?", .chat_template = thinks_not, .max_tokens = 4};
    hypura_result result;
    hypura_error error;
    for (int i = 0; i < 2; i++) {
        wanted.thinking = i == 0 ? HYPURA_THINKING_AUTO : HYPURA_THINKING_OFF;
        result = fixture_generate(model, &wanted);
        assert_true(strlen(result.text) > 0);
        assert_null(result.thought);
        hypura_result_clear(&result);
    }
    wanted.thinking = HYPURA_THINKING_LOW;
    fixture_fails(HYPURA_ERR_UNSUPPORTED, hypura_generate(model, &wanted, &result, &error), &error, "knows no thoughts");
    close_model(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thought_is_no_text),
        cmocka_unit_test(what_has_a_grammar_is_text),
        cmocka_unit_test(templates_that_know_no_thoughts),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
