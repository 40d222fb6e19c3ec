/* Fields of forms, and what is none. */
#include "server/dialect/form.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define TYPE "multipart/form-data; boundary=xYz"
#define FORM                                                                                                           \
    "--xYz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a;name=b\"\r\nContent-Type: audio/wav\r\n\r\n"   \
    "RIFF\r\n--x\r\nname=\"model\"\r\n\r\nnot this\r\n--xYz\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n"    \
    "a model\r\n--xYz\r\nContent-Disposition: form-data; name=empty\r\n\r\n\r\n--xYz--\r\n"

/* A copy without an end, so that what reads beyond it is seen. */
static char *field_of(const char *type, const char *form, size_t bytes, const char *name)
{
    char *body = malloc(bytes > 0 ? bytes : 1);
    assert_non_null(body);
    memcpy(body, form, bytes);
    char *text = form_field(type, body, bytes, name);
    free(body);
    return text;
}

static void expect(const char *type, const char *form, const char *name, const char *wanted)
{
    char *text = field_of(type, form, strlen(form), name);
    if (wanted) {
        assert_non_null(text);
        assert_string_equal(text, wanted);
    } else {
        assert_null(text);
    }
    free(text);
}

static void fields_are_found(void **state)
{
    (void)state;
    expect(TYPE, FORM, "model", "a model");
    expect(TYPE, FORM, "file", "RIFF\r\n--x\r\nname=\"model\"\r\n\r\nnot this");
    expect(TYPE, FORM, "empty", "");
    expect("Multipart/Form-Data; charset=utf-8; Boundary=\"xYz\"", FORM, "model", "a model");
    expect(TYPE, FORM, "mode", NULL);
    expect(TYPE, FORM, "", NULL);
    assert_true(form_is_one(TYPE));
    assert_false(form_is_one(NULL));
    assert_false(form_is_one("application/json"));
}

static void what_is_no_form_has_none(void **state)
{
    (void)state;
    expect("application/json", FORM, "model", NULL);
    expect("multipart/form-data", FORM, "model", NULL);
    expect("multipart/form-data; boundary=", FORM, "model", NULL);
    expect("multipart/form-data; boundary=other", FORM, "model", NULL);
    expect(TYPE, "", "model", NULL);
    expect(TYPE, "--xYz", "model", NULL);
    for (size_t bytes = 0; bytes < strlen(FORM); bytes++) { /* broken off anywhere */
        free(field_of(TYPE, FORM, bytes, "model"));
        free(field_of(TYPE, FORM + bytes, strlen(FORM) - bytes, "model"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_are_found),
        cmocka_unit_test(what_is_no_form_has_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
