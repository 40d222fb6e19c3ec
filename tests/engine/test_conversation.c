/*
 * test_conversation.c - turns that go on from what the context holds, what a
 * conversation begins with, and where a context ends.
 */
#include "engine_fixture.h"

#include <stdio.h>
#include <string.h>

static void conversation_goes_on(void **state)
{
    (void)state;
    hypura_model *model = fixture_open(&(hypura_model_options){.path = fixture_model("smollm2-135m.gguf"), .plain = true});
    hypura_generate_options wanted = {.prompt = "Name a colour.", .max_tokens = 5};
    hypura_result first = fixture_generate(model, &wanted);
    wanted.prompt = "And another one?";
    hypura_result second = fixture_generate(model, &wanted);
    /* Its prompt is the first turn too, which the context still holds. */
    assert_true(second.prompt_tokens < first.prompt_tokens);
    hypura_model_reset(model);
    wanted.prompt = "Name a colour.";
    hypura_result again = fixture_generate(model, &wanted);
    assert_string_equal(again.text, first.text);
    assert_int_equal(again.prompt_tokens, first.prompt_tokens);

    /* A conversation continued from the context is the one computed at once. */
    wanted.prompt = "And another one?";
    hypura_result same = fixture_generate(model, &wanted);
    assert_string_equal(same.text, second.text);
    hypura_result_clear(&same);

    /* And so is one that is told what was said. */
    const hypura_message said[] = {{.role = "user", .text = "Name a colour."}, {.role = "assistant", .text = first.text}};
    hypura_model_reset(model);
    wanted.history = said;
    wanted.n_history = 2;
    same = fixture_generate(model, &wanted);
    assert_string_equal(same.text, second.text);
    assert_true(same.prompt_tokens > second.prompt_tokens);
    hypura_result_clear(&same);

    const hypura_message wrong = {.role = "nobody", .text = "Name a colour."};
    hypura_error error;
    hypura_model_reset(model);
    wanted.history = &wrong;
    wanted.n_history = 1;
    assert_int_equal(hypura_generate(model, &wanted, &same, &error), HYPURA_ERR_USAGE);
    assert_non_null(strstr(error.message, "message 1 is of nobody"));
    wanted.n_history = 0;
    wanted.prompt = "Name a colour.";
    same = fixture_generate(model, &wanted);
    assert_string_equal(same.text, first.text);
    hypura_result_clear(&first);
    hypura_result_clear(&second);
    hypura_result_clear(&again);
    hypura_result_clear(&same);
    hypura_model_close(model);
}

/* The system text comes before the first prompt, and once; a template given takes the model's place. */
static void conversations_begin_as_they_are_told(void **state)
{
    (void)state;
    static const char template[] =
        "{% for m in messages %}{{ m['role'] }}={{ m['content'] }};{% endfor %}{% if add_generation_prompt %}a={% endif %}";
    hypura_model *model = fixture_open(&(hypura_model_options){.path = fixture_model("smollm2-135m.gguf"), .plain = true});
    hypura_generate_options wanted = {
        .prompt = "Name a colour.", .system = "Be brief.", .chat_template = template, .max_tokens = 5};
    hypura_result first = fixture_generate(model, &wanted);
    wanted.prompt = "Another one.";
    wanted.system = "Be long.";
    hypura_result second = fixture_generate(model, &wanted);

    char text[1024];
    hypura_model_reset(model);
    hypura_generate_options raw = {.prompt = "system=Be brief.;user=Name a colour.;a=", .raw = true, .max_tokens = 5};
    hypura_result expected = fixture_generate(model, &raw);
    assert_string_equal(first.text, expected.text);
    snprintf(text, sizeof(text), "system=Be brief.;user=Name a colour.;assistant=%s;user=Another one.;a=", first.text);
    hypura_result_clear(&expected);
    raw.prompt = text;
    expected = fixture_generate(model, &raw);
    assert_string_equal(second.text, expected.text);

    /* A template that cannot be used leaves nothing behind. */
    hypura_model_reset(model);
    hypura_result result;
    hypura_error error;
    wanted.chat_template = "{% if %}";
    fixture_fails(HYPURA_ERR_FORMAT, hypura_generate(model, &wanted, &result, &error), &error, "the given chat template");
    assert_null(strstr(error.message, "std::exception")); /* but why */
    wanted = (hypura_generate_options){
        .prompt = "Name a colour.", .system = "Be brief.", .chat_template = template, .max_tokens = 5};
    hypura_result again = fixture_generate(model, &wanted);
    assert_string_equal(again.text, first.text);
    hypura_result_clear(&first);
    hypura_result_clear(&second);
    hypura_result_clear(&expected);
    hypura_result_clear(&again);
    hypura_model_close(model);
}

static void context_ends(void **state)
{
    (void)state;
    hypura_model *model =
        fixture_open(&(hypura_model_options){.path = fixture_arch("llama-dense.gguf"), .plain = true, .n_context = 32});
    hypura_generate_options wanted = {.prompt = "0001000200030004", .raw = true};
    hypura_result result = fixture_generate(model, &wanted);
    assert_true(result.context_full);
    assert_true(result.tokens + result.prompt_tokens <= 32 && result.tokens > 0);
    hypura_result_clear(&result);

    char long_prompt[1001];
    memset(long_prompt, '1', sizeof(long_prompt) - 1);
    long_prompt[sizeof(long_prompt) - 1] = '\0';
    wanted.prompt = long_prompt;
    hypura_error error;
    fixture_fails(HYPURA_ERR_USAGE, hypura_generate(model, &wanted, &result, &error), &error, "the context holds 32");
    hypura_result_clear(&result);
    hypura_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversation_goes_on),
        cmocka_unit_test(conversations_begin_as_they_are_told),
        cmocka_unit_test(context_ends),
    };
    return cmocka_run_group_tests_name("engine conversation", tests, fixture_setup, fixture_teardown);
}
