/* The page as it is embedded: whole, alone, and careful with what it is told. What it
 * does in a browser, tests/browser drives. */
#include "server/base/digest.h"
#include "server/endpoint/page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void it_is_the_file_byte_for_byte(void **state)
{
    (void)state;
    FILE *file = fopen(PAGE, "rb");
    assert_non_null(file);
    char *bytes = malloc(hypura_page_bytes + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, hypura_page_bytes + 1, file), hypura_page_bytes);
    assert_int_equal(fclose(file), 0);
    assert_memory_equal(bytes, hypura_page, hypura_page_bytes);
    char hex[HYPURA_DIGEST_BYTES];
    hypura_digest *digest = hypura_digest_begin();
    hypura_digest_add(digest, bytes, hypura_page_bytes);
    hypura_digest_end(digest, hex);
    assert_string_equal(hex, hypura_page_digest);
    free(bytes);
}

static size_t count(const char *text, const char *part)
{
    size_t n = 0;
    for (const char *at = strstr(text, part); at != NULL; at = strstr(at + 1, part)) {
        n++;
    }
    return n;
}

static void it_needs_nothing_from_elsewhere(void **state)
{
    (void)state;
    const char *page = (const char *)hypura_page; /* ends with a 0 */
    assert_int_equal(strlen(page), hypura_page_bytes);
    static const char *const loads[] = {" src=",   "@import", "url(",    "<iframe",
                                        "<object", "<embed",  "import(", "WebSocket"};
    for (size_t i = 0; i < sizeof loads / sizeof *loads; i++) {
        assert_int_equal(count(page, loads[i]), 0);
    }
    /* The icon is in its own address. */
    assert_int_equal(count(page, "<link "), 1);
    assert_int_equal(count(page, "href=\"data:"), 1);
}

static void it_makes_no_html_of_text(void **state)
{
    (void)state;
    const char *page = (const char *)hypura_page;
    static const char *const ways[] = {"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                                       "Function(", "srcdoc",    "DOMParser",          "javascript:",    "onclick="};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        assert_int_equal(count(page, ways[i]), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_the_file_byte_for_byte),
        cmocka_unit_test(it_needs_nothing_from_elsewhere),
        cmocka_unit_test(it_makes_no_html_of_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
