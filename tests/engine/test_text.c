/* test_text.c - whole UTF-8 characters out of bytes in pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/answer/text.h"

/* Puts the bytes in pieces of the given size and returns the text. */
static const char *in_pieces(hypura_text *text, const char *raw, size_t n, size_t piece)
{
    for (size_t i = 0; i < n; i += piece) {
        assert_true(hypura_text_put(text, raw + i, n - i < piece ? n - i : piece));
    }
    assert_true(hypura_text_finish(text));
    return text->whole.data;
}

static void characters_stay_whole(void **state)
{
    (void)state;
    const char raw[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x99\x82z"; /* a, e acute, euro, a face, z */
    for (size_t piece = 1; piece < sizeof(raw); piece++) {
        hypura_text text = {0};
        assert_string_equal(in_pieces(&text, raw, sizeof(raw) - 1, piece), raw);
        assert_int_equal(text.whole.bytes, sizeof(raw) - 1);
        hypura_buffer_clear(&text.whole);
    }
}

static void beginning_is_held_back(void **state)
{
    (void)state;
    hypura_text text = {0};
    assert_true(hypura_text_put(&text, "x\xF0\x9F\x99", 4));
    assert_string_equal(text.whole.data, "x");
    assert_true(hypura_text_put(&text, "\x82", 1));
    assert_string_equal(text.whole.data, "x\xF0\x9F\x99\x82");
    hypura_buffer_clear(&text.whole);
}

static void broken_bytes_are_replaced(void **state)
{
    (void)state;
    static const struct {
        const char *raw;
        const char *wanted;
    } cases[] = {
        {"\x80", "\xEF\xBF\xBD"},                                                 /* continuation alone */
        {"a\xC3", "a\xEF\xBF\xBD"},                                               /* cut off at the end */
        {"\xC3z", "\xEF\xBF\xBDz"},                                               /* broken by a letter */
        {"\xE2\x82z", "\xEF\xBF\xBDz"},                                           /* maximal part is one replacement */
        {"\xE2\xC3\xA9", "\xEF\xBF\xBD\xC3\xA9"},                                 /* broken by a character */
        {"\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD"},                                 /* overlong */
        {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},                 /* surrogate */
        {"\xF4\x90\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"}, /* past U+10FFFF */
        {"\xFF\xFE", "\xEF\xBF\xBD\xEF\xBF\xBD"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t piece = 1; piece <= 4; piece++) {
            hypura_text text = {0};
            assert_string_equal(in_pieces(&text, cases[i].raw, strlen(cases[i].raw), piece), cases[i].wanted);
            hypura_buffer_clear(&text.whole);
        }
    }
}

static void empty_text_is_a_string(void **state)
{
    (void)state;
    hypura_text text = {0};
    assert_true(hypura_text_finish(&text));
    assert_string_equal(text.whole.data, "");
    hypura_buffer_clear(&text.whole);
}

/* Any bytes at all give valid UTF-8, the same however they are cut. */
static void any_bytes_any_cut(void **state)
{
    (void)state;
    uint32_t seed = 1;
    for (int round = 0; round < 2000; round++) {
        char raw[24];
        size_t n = 1 + (size_t)round % sizeof(raw);
        for (size_t i = 0; i < n; i++) {
            static const unsigned char likely[] = {0x61, 0x80, 0xBF, 0xC3, 0xE2, 0xE0, 0xED, 0xF0, 0xF4, 0x9F, 0xFF};
            seed = seed * 1664525u + 1013904223u;
            raw[i] = (char)likely[(seed >> 16) % sizeof(likely)];
        }
        hypura_text at_once = {0};
        hypura_text singly = {0};
        in_pieces(&at_once, raw, n, n);
        in_pieces(&singly, raw, n, 1);
        assert_string_equal(at_once.whole.data, singly.whole.data);
        hypura_text again = {0};
        assert_string_equal(in_pieces(&again, at_once.whole.data, at_once.whole.bytes, 3), at_once.whole.data);
        hypura_buffer_clear(&at_once.whole);
        hypura_buffer_clear(&singly.whole);
        hypura_buffer_clear(&again.whole);
    }
}

/* Puts the bytes in pieces and passes on what may be, as an answer does. True when one of the words ended it. */
static bool passed_on(const char *raw, size_t piece, const char *const *stop, int n_stop, char *passed)
{
    hypura_text text = {0};
    bool found = false;
    size_t from = 0;
    for (size_t i = 0, n = strlen(raw); i < n && !found; i += piece) {
        assert_true(hypura_text_put(&text, raw + i, n - i < piece ? n - i : piece));
        const size_t before = hypura_text_before(&text, from, stop, n_stop, &found);
        assert_true(before >= from && before <= text.whole.bytes);
        memcpy(passed + from, text.whole.data + from, before - from);
        from = before;
        if (found) {
            hypura_text_cut(&text, before);
        }
    }
    assert_true(hypura_text_finish(&text));
    memcpy(passed + from, text.whole.data + from, text.whole.bytes - from + 1);
    assert_string_equal(passed, text.whole.data);
    hypura_buffer_clear(&text.whole);
    return found;
}

static void words_end_a_text(void **state)
{
    (void)state;
    static const struct {
        const char *raw;
        const char *stop[2];
        const char *wanted;
        bool found;
    } cases[] = {
        {"one two three", {"two"}, "one ", true},
        {"one two three", {"three", "two"}, "one ", true},    /* the first in the text, not in the list */
        {"one two three", {"one"}, "", true},
        {"aab", {"ab"}, "a", true},                            /* what was held back begins again */
        {"abacababac", {"ababac"}, "abac", true},
        {"one two thr", {"three"}, "one two thr", false},      /* a beginning alone ends nothing */
        {"one two", {"###", "\n\n"}, "one two", false},
        {"a\xC3\xA9z", {"\xC3\xA9"}, "a", true},
        {"a\xC3\xA9z", {"\xA9"}, "a", true},                    /* characters stay whole */
        {"a\xC3\xA9z", {"\xC3\xA8"}, "a\xC3\xA9z", false},
        {"a\xC3", {"\xC3\xA9"}, "a\xEF\xBF\xBD", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t piece = 1; piece < 14; piece++) {
            char passed[64];
            const int n_stop = cases[i].stop[1] ? 2 : 1;
            assert_int_equal(passed_on(cases[i].raw, piece, cases[i].stop, n_stop, passed), cases[i].found);
            assert_string_equal(passed, cases[i].wanted);
        }
    }
    char passed[64];
    assert_false(passed_on("nothing to look for", 3, NULL, 0, passed));
    assert_string_equal(passed, "nothing to look for");
}

static void what_cannot_be_the_word_is_not_held_back(void **state)
{
    (void)state;
    static const char *const stop[] = {"<end>"};
    hypura_text text = {0};
    bool found = true;
    assert_true(hypura_text_put(&text, "a < b <en", 9));
    assert_int_equal(hypura_text_before(&text, 0, stop, 1, &found), 6);
    assert_false(found);
    assert_true(hypura_text_put(&text, "ough", 4));
    assert_int_equal(hypura_text_before(&text, 6, stop, 1, &found), 13);
    assert_false(found);
    hypura_buffer_clear(&text.whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(characters_stay_whole),     cmocka_unit_test(beginning_is_held_back),
        cmocka_unit_test(broken_bytes_are_replaced), cmocka_unit_test(words_end_a_text),
        cmocka_unit_test(what_cannot_be_the_word_is_not_held_back), cmocka_unit_test(empty_text_is_a_string),
        cmocka_unit_test(any_bytes_any_cut),
    };
    return cmocka_run_group_tests_name("engine text", tests, NULL, NULL);
}
