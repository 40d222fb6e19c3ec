/* Sizes: units, fractions, overflow, rubbish; formatting and the way back. */
#include "base/size.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define KIB UINT64_C(1024)
#define GIB (KIB * KIB * KIB)

static void accepted_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {
        {"0", 0},
        {"17", 17},
        {"17B", 17},
        {"1K", KIB},
        {"1k", KIB},
        {"2KB", 2 * KIB},
        {"2KiB", 2 * KIB},
        {"3M", 3 * KIB * KIB},
        {"1.5 GiB", GIB + GIB / 2},
        {"0.5g", GIB / 2},
        {"0.001M", 1048},
        {"2T", 2 * KIB * GIB},
        {"0.999999999999999T", KIB * GIB - 2},
        {"18446744073709551615", UINT64_MAX},
        {"16777215.99T", 16777215 * KIB * GIB + UINT64_C(1088516511498)},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t bytes = 1;
        if (!hypura_size_parse(cases[i].text, &bytes)) {
            fail_msg("%s was refused", cases[i].text);
        }
        assert_int_equal(bytes, cases[i].bytes);
    }
}

static void refused_sizes(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        "K",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1..5G",
        "1.G",
        ".5G",
        "1.5",
        "1.5B",
        "1KK",
        "1iB",
        "1Ki",
        "0x10",
        "1e9",
        "1,5G",
        "nan",
        "inf",
        "1P",
        "1KiBx",
        "18446744073709551616",
        "16777216T",
        "16777215.9999999999999T1",
        "99999999999999999999999999K",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t bytes = 42;
        if (hypura_size_parse(cases[i], &bytes)) {
            fail_msg("'%s' was accepted", cases[i]);
        }
        assert_int_equal(bytes, 42);
    }
    uint64_t bytes;
    assert_false(hypura_size_parse(NULL, &bytes));
}

static void formatted_sizes(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        {0, "0 B"},         {1023, "1023 B"},           {1024, "1 KiB"},
        {1536, "1.5 KiB"},  {KIB * KIB - 1, "1 MiB"},   {GIB + GIB / 2, "1.5 GiB"},
        {GIB - 1, "1 GiB"}, {98 * KIB * KIB, "98 MiB"}, {UINT64_MAX, "16 EiB"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[HYPURA_SIZE_TEXT];
        assert_string_equal(hypura_size_format(cases[i].bytes, text, sizeof text), cases[i].text);
    }
}

static void checked_arithmetic(void **state)
{
    (void)state;
    uint64_t result = 5;
    assert_false(hypura_size_add(UINT64_MAX, 1, &result));
    assert_false(hypura_size_mul(UINT64_C(1) << 32, UINT64_C(1) << 32, &result));
    assert_int_equal(result, 5);
    assert_true(hypura_size_add(UINT64_MAX - 1, 1, &result));
    assert_int_equal(result, UINT64_MAX);
    assert_true(hypura_size_mul(0, UINT64_MAX, &result));
    assert_int_equal(result, 0);
    assert_int_equal(hypura_round_up(4097, 4096), 8192);
    assert_int_equal(hypura_round_up(4096, 4096), 4096);
    assert_int_equal(hypura_round_down(4097, 4096), 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepted_sizes),
        cmocka_unit_test(refused_sizes),
        cmocka_unit_test(formatted_sizes),
        cmocka_unit_test(checked_arithmetic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
