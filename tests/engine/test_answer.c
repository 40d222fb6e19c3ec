/*
 * test_answer.c - thoughts are told from text, by templates of models that are around, token by token; nothing of an answer
 * is lost, told twice, or taken back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/answer/answer.h"
#include "templates.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct heard {
    char thought[512];
    char text[512];
    size_t n_calls;
    bool ends; /* wants no more after the first text */
} heard;

static bool append(char *to, const char *text, size_t bytes)
{
    const size_t used = strlen(to);
    assert_true(bytes > 0 && used + bytes < 512);
    memcpy(to + used, text, bytes);
    to[used + bytes] = '\0';
    return true;
}

static bool on_thought(void *user, const char *text, size_t bytes)
{
    heard *h = user;
    h->n_calls++;
    assert_string_equal(h->text, ""); /* what was thought comes first */
    return append(h->thought, text, bytes);
}

static bool on_text(void *user, const char *text, size_t bytes)
{
    heard *h = user;
    h->n_calls++;
    return append(h->text, text, bytes) && !h->ends;
}

static hypura_shim_reply *reply_to(const char *template, bool think, const char *effort, const char *wanted, const char *unwanted)
{
    const hypura_shim_message messages[] = {{.role = "user", .text = "Who?"},
                                            {.role = "assistant", .text = "I.", .thought = "old-thought"},
                                            {.role = "user", .text = "And now?"}};
    char error[256];
    char *text = template_read(template);
    hypura_shim_chat *chat = hypura_shim_chat_open(NULL, text, error, sizeof error);
    assert_string_equal(error, "");
    hypura_shim_reply *reply = NULL;
    char *prompt = hypura_shim_chat_apply(chat, messages, 3, think, effort, &reply, error, sizeof error);
    assert_string_equal(error, "");
    assert_true(!wanted || strstr(prompt, wanted) != NULL);
    assert_true(!unwanted || strstr(prompt, unwanted) == NULL);
    free(prompt);
    hypura_shim_chat_close(chat);
    free(text);
    return reply;
}

/* In pieces of so many bytes, which end in the middle of characters and words of the form. */
static void hear(hypura_shim_reply *reply, const char *said, size_t piece, const heard *h,
                 hypura_answer *answer, const hypura_generate_options *options)
{
    hypura_error error;
    *answer = (hypura_answer){.options = options, .reply = reply};
    const size_t bytes = strlen(said);
    for (size_t i = 0; i < bytes && !answer->ended && !answer->stopped; i += piece) {
        const size_t n = bytes - i < piece ? bytes - i : piece;
        assert_int_equal(hypura_answer_add(answer, said + i, n, &error), HYPURA_OK);
    }
    assert_int_equal(hypura_answer_end(answer, &error), HYPURA_OK);
    hypura_answer_pass(answer);
    if (!answer->stopped) {
        assert_string_equal(h->text, answer->text.whole.data);
        assert_string_equal(h->thought, hypura_buffer_text(&answer->thought));
    }
    hypura_answer_close(answer);
    hypura_buffer_clear(&answer->text.whole);
    hypura_buffer_clear(&answer->thought);
}

static void forms_of_models(void **state)
{
    (void)state;
    static const struct {
        const char *template;
        bool think;
        const char *effort;
        const char *wanted, *unwanted; /* of the prompt */
        const char *said, *thought, *text;
    } cases[] = {
        {"Qwen-Qwen3-0.6B", true, NULL, NULL, "old-thought", "<think>\nHm, caf\xc3\xa9 < bar.\n</think>\n\nParis \xe2\x82\xac 5.",
         "Hm, caf\xc3\xa9 < bar.", "Paris \xe2\x82\xac 5."},
        {"Qwen-Qwen3-0.6B", true, NULL, NULL, NULL, "Paris, at once.", "", "Paris, at once."},
        {"Qwen-Qwen3-0.6B", false, NULL, "</think>", NULL, "Paris, at once.", "", "Paris, at once."},
        {"Qwen-Qwen3-0.6B", true, NULL, NULL, NULL, "<think>\nCut in the", "Cut in the", ""},
        {"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", true, NULL, "<think>", NULL, "I look.\n</think>\n\nParis.", "I look.", "Paris."},
        {"Qwen-QwQ-32B", true, NULL, "<think>", NULL, "So it is\n</think>\n\nParis </b> it is.", "So it is", "Paris </b> it is."},
        {"openai-gpt-oss-120b", true, "high", "Reasoning: high", "Reasoning: medium",
         "<|channel|>analysis<|message|>The user asks.<|end|><|start|>assistant<|channel|>final<|message|>Paris.",
         "The user asks.", "Paris."},
        {"openai-gpt-oss-120b", true, NULL, "Reasoning: medium", NULL, "<|channel|>final<|message|>Paris.", "", "Paris."},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t piece = 1; piece <= 7; piece += 3) {
            heard h = {.n_calls = 0};
            hypura_answer answer;
            const hypura_generate_options options = {.on_text = on_text, .on_thought = on_thought, .on_text_user = &h};
            hypura_shim_reply *reply =
                reply_to(cases[i].template, cases[i].think, cases[i].effort, cases[i].wanted, cases[i].unwanted);
            assert_non_null(reply);
            hear(reply, cases[i].said, piece, &h, &answer, &options);
            assert_string_equal(h.thought, cases[i].thought);
            assert_string_equal(h.text, cases[i].text);
            assert_true(h.n_calls > 1); /* as it came */
            hypura_shim_reply_close(reply);
        }
    }
}

/* A text that ends the answer does so where it is said, and not where it is thought. */
static void what_ends_an_answer_is_not_looked_for_in_thoughts(void **state)
{
    (void)state;
    static const char *const stop[] = {"END"};
    heard h = {.n_calls = 0};
    hypura_answer answer;
    const hypura_generate_options options = {
        .on_text = on_text, .on_thought = on_thought, .on_text_user = &h, .stop = stop, .n_stop = 1};
    hypura_shim_reply *reply = reply_to("Qwen-Qwen3-0.6B", true, NULL, NULL, NULL);
    hear(reply, "<think>\nthe END?\n</think>\n\nOne. END. Two.", 3, &h, &answer, &options);
    assert_true(answer.ended);
    assert_string_equal(h.thought, "the END?");
    assert_string_equal(h.text, "One. ");
    hypura_shim_reply_close(reply);
}

static void who_wants_no_more_gets_none(void **state)
{
    (void)state;
    heard h = {.ends = true};
    hypura_answer answer;
    const hypura_generate_options options = {.on_text = on_text, .on_thought = on_thought, .on_text_user = &h};
    hypura_shim_reply *reply = reply_to("Qwen-Qwen3-0.6B", true, NULL, NULL, NULL);
    hear(reply, "<think>\nHm.\n</think>\n\nOne. Two. Three.", 5, &h, &answer, &options);
    assert_true(answer.stopped);
    assert_true(strlen(h.text) > 0 && strlen(h.text) < 10);
    hypura_shim_reply_close(reply);
}

/* Where a template knows no thoughts an answer is text, whatever is in it. */
static void other_templates_have_no_reply(void **state)
{
    (void)state;
    heard h = {.n_calls = 0};
    hypura_answer answer;
    const hypura_generate_options options = {.on_text = on_text, .on_thought = on_thought, .on_text_user = &h};
    assert_null(reply_to("Qwen-Qwen2.5-7B-Instruct", true, NULL, NULL, "old-thought"));
    hear(NULL, " <think>\nHm.\n</think>\n", 4, &h, &answer, &options);
    assert_string_equal(h.text, " <think>\nHm.\n</think>\n");
    assert_string_equal(h.thought, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_of_models),
        cmocka_unit_test(what_ends_an_answer_is_not_looked_for_in_thoughts),
        cmocka_unit_test(who_wants_no_more_gets_none),
        cmocka_unit_test(other_templates_have_no_reply),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
