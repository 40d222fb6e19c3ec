/*
 * test_refusal.c - what the engine refuses: whose fault it is, and what is told of it.
 */
#include "server/dialect/refusal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static int read_body(int code, const char *body, char *message, size_t capacity)
{
    hypura_buffer refusal = {0};
    refusal_add(&refusal, body, strlen(body));
    const int told = refusal_read(code, &refusal, message, capacity);
    hypura_buffer_clear(&refusal);
    return told;
}

static void what_a_request_says_is_its_own_fault(void **state)
{
    (void)state;
    static const struct {
        int code;
        const char *message;
        int told;
    } rows[] = {{500, "Failed to parse messages: Missing 'role'", 400},
                {500, "image input is not supported - hint: if this is unexpected", 400},
                {500, "Unknown reasoning format: odd", 400},
                {500, "[json.exception.type_error.302] type must be string, but is number", 400},
                {501, "The current model does not support audio input.", 400},
                {500, "something broke", 500},
                {503, "Failed to parse messages: x", 503},
                {404, "no such slot", 404}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char body[256];
        char message[256];
        snprintf(body, sizeof body, "{\"error\":{\"code\":%d,\"message\":\"%s\"}}", rows[i].code, rows[i].message);
        assert_int_equal(read_body(rows[i].code, body, message, sizeof message), rows[i].told);
        assert_string_equal(message, rows[i].message);
    }
}

static void what_is_no_refusal_has_no_message(void **state)
{
    (void)state;
    static const char *const bodies[] = {"", "no JSON", "{}", "{\"error\":\"text\"}", "{\"error\":{\"message\":7}}", "[]"};
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        char message[16] = "before";
        assert_int_equal(read_body(500, bodies[i], message, sizeof message), 500);
        assert_string_equal(message, "");
    }
}

static void what_is_longer_than_any_is_cut(void **state)
{
    (void)state;
    static char piece[40000];
    char message[8];
    hypura_buffer refusal = {0};
    memset(piece, 'x', sizeof piece);
    for (int i = 0; i < 10; i++) {
        refusal_add(&refusal, piece, sizeof piece);
    }
    assert_int_equal(refusal.bytes, sizeof piece);
    hypura_buffer_clear(&refusal);
    assert_int_equal(read_body(400, "{\"error\":{\"message\":\"longer than that\"}}", message, sizeof message), 400);
    assert_string_equal(message, "longer ");
}

static void what_is_longer_than_the_context_is_told_apart(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        bool is;
    } cases[] = {{"{\"error\":{\"message\":\"m\",\"n_prompt_tokens\":9001,\"n_ctx\":4096}}", true},
                 {"{\"error\":{\"message\":\"m\",\"n_prompt_tokens\":9,\"n_ctx\":4096}}", false},
                 {"{\"error\":{\"message\":\"m\"}}", false},
                 {"no JSON", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hypura_buffer refusal = {0};
        int64_t n_prompt;
        int64_t n_context;
        refusal_add(&refusal, cases[i].body, strlen(cases[i].body));
        assert_int_equal(refusal_is_too_long(&refusal, &n_prompt, &n_context), cases[i].is);
        if (cases[i].is) {
            assert_int_equal(n_prompt, 9001);
            assert_int_equal(n_context, 4096);
        }
        hypura_buffer_clear(&refusal);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_request_says_is_its_own_fault),
        cmocka_unit_test(what_is_no_refusal_has_no_message),
        cmocka_unit_test(what_is_longer_than_any_is_cut),
        cmocka_unit_test(what_is_longer_than_the_context_is_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
