/* How large pictures say that they are, and what hides it. */
#include "server/dialect/pixels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <openssl/evp.h>

#define BYTES(text) text, sizeof(text) - 1

/* In base64, without an end, so that what reads beyond it is seen. */
static char *encode(const char *bytes, size_t n, size_t *letters)
{
    char *text = malloc((n + 2) / 3 * 4 + 1);
    assert_non_null(text);
    *letters = (size_t)EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)bytes, (int)n);
    char *cut = malloc(*letters);
    assert_non_null(cut);
    memcpy(cut, text, *letters);
    free(text);
    return cut;
}

static uint64_t pixels(const char *bytes, size_t n)
{
    size_t letters;
    char *text = encode(bytes, n, &letters);
    const uint64_t found = pixels_of(text, letters);
    for (size_t i = 0; i < letters; i++) { /* cut anywhere it is the same, or none */
        char *cut = malloc(i > 0 ? i : 1);
        assert_non_null(cut);
        memcpy(cut, text, i);
        const uint64_t part = pixels_of(cut, i);
        assert_true(part == found || part == 0);
        free(cut);
    }
    free(text);
    return found;
}

static void every_kind_tells(void **state)
{
    (void)state;
    assert_int_equal(pixels(BYTES("\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x01\0\0\0\0\x10\x08\2\0\0\0")), 256 * 16);
    assert_int_equal(pixels(BYTES("\x89PNG\r\n\x1a\n\0\0\0\4CgBI\1\2\3\4....\0\0\0\rIHDR\0\1\0\0\0\1\0\0\x08\2\0\0\0")),
                     UINT64_C(65536) * 65536);
    assert_int_equal(pixels(BYTES("GIF89a\x10\0\0\1")), 16 * 256);
    assert_int_equal(pixels(BYTES("8BPS\0\1\0\0\0\0\0\0\0\3\0\0\0\2\0\0\0\7")), 14);
    assert_int_equal(pixels(BYTES("BM....\0\0\0\0....\x28\0\0\0\x10\0\0\0\xf0\xff\xff\xff")), 256);
    assert_int_equal(pixels(BYTES("BM....\0\0\0\0....\x0c\0\0\0\x10\0\2\0")), 32);
    assert_int_equal(pixels(BYTES("\xff\xd8\xff\xe0\0\4ab\xff\xff\xc4\0\3x\xff\xc2\0\x11\x08\0\x20\1\0\3")), 32 * 256);
    assert_int_equal(pixels(BYTES("\xff\xd8\xff\xe0\0\4ab??\xff\xc0\0\x11\x08\0\x20\0\2\3")), 64);
}

static void what_is_none_has_none(void **state)
{
    (void)state;
    assert_int_equal(pixels(BYTES("BMW and other cars, of which there are a great many")), 0);
    assert_int_equal(pixels(BYTES("\xff\xd8\xff\xda\0\4ab\xff\xc0\0\x11\x08\0\x20\0\2\3")), 0);
    assert_int_equal(pixels(BYTES("\xff\xd8\xff\xe0\0\0ab\xff\xc0\0\x11\x08\0\x20\0\2\3")), 0);
    assert_int_equal(pixels(BYTES("RIFF....WAVE")), 0);
    assert_int_equal(pixels_of("", 0), 0);
    assert_int_equal(pixels_of(BYTES("data:image/png;base64")), 0);
}

static json_t *picture(uint32_t side)
{
    char bytes[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR........\x08\2\0\0\0";
    char text[128] = "data:image/png;base64,";
    for (int i = 0; i < 8; i++) {
        bytes[16 + i] = (char)(side >> (24 - i % 4 * 8));
    }
    (void)EVP_EncodeBlock((unsigned char *)text + strlen(text), (const unsigned char *)bytes, sizeof(bytes) - 1);
    return json_pack("{s:s, s:{s:s}}", "type", "image_url", "image_url", "url", text);
}

/* n pictures that are so wide and high. */
static hypura_status check(uint32_t side, int n)
{
    hypura_error error = {0};
    json_t *content = json_array();
    for (int i = 0; i < n; i++) {
        json_array_append_new(content, picture(side));
    }
    json_t *body = json_pack("{s:[{s:s, s:o}]}", "messages", "role", "user", "content", content);
    const hypura_status status = pixels_check(body, &error);
    json_decref(body);
    return status;
}

static void too_many_are_refused(void **state)
{
    (void)state;
    assert_int_equal(check(8192, 1), HYPURA_OK);
    assert_int_equal(check(8193, 1), HYPURA_ERR_USAGE);
    assert_int_equal(check(UINT32_MAX, 1), HYPURA_ERR_USAGE);
    assert_int_equal(check(8192, 2), HYPURA_OK);
    assert_int_equal(check(8192, 3), HYPURA_ERR_USAGE);
    assert_int_equal(check(2000, 30), HYPURA_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_tells),
        cmocka_unit_test(what_is_none_has_none),
        cmocka_unit_test(too_many_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
