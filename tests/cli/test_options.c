/*
 * test_options.c - the option parser: every kind, every way to be wrong, help and
 * hints.
 */
#include "cli/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_WORDS 8

typedef struct values {
    bool flag;
    bool count_given;
    uint64_t size;
    hypura_budget budget;
    uint32_t count;
    uint64_t spare;
    int number;
    float real;
    const char *text;
    const char *engine;
    hypura_string_list words;
    hypura_budget_list budgets;
    hypura_unsigned_list counts;
    hypura_choice_list engines;
    hypura_adapter_list adapters;
} values;

static const char *const engines[] = {"uring", "pool", NULL};

/* Parses words against one option of each kind and one operand. */
static hypura_status parse(const char *const *words, values *to, hypura_arguments *arguments, hypura_error *error)
{
    const hypura_option options[] = {
        {"flag", NULL, "a flag", HYPURA_OPTION_FLAG, .to.flag = &to->flag},
        {"size", "SIZE", "a size", HYPURA_OPTION_SIZE, .to.size = &to->size},
        {"spare", "SIZE", "a size, or none", HYPURA_OPTION_SIZE, .to.size = &to->spare, .zero = true},
        {"budget", "SIZE", "a budget", HYPURA_OPTION_BUDGET, .to.budget = &to->budget},
        {"count", "N", "a count", HYPURA_OPTION_UNSIGNED, .to.unsigned_integer = &to->count, .min = 0,
         .max = UINT32_MAX, .given = &to->count_given},
        {"number", "N", "a number", HYPURA_OPTION_INT, .to.integer = &to->number, .min = -5, .max = 5},
        {"real", "F", "a real", HYPURA_OPTION_FLOAT, .to.real = &to->real, .min = 0, .max = 1},
        {"text", "TEXT", "a text", HYPURA_OPTION_STRING, .to.string = &to->text},
        {"word", "TEXT", "a word", HYPURA_OPTION_STRINGS, .to.strings = &to->words, .also = "-w"},
        {"engine", "NAME", "a choice", HYPURA_OPTION_CHOICE, .to.string = &to->engine, .choices = engines},
        {"budgets", "SIZE,...", "budgets", HYPURA_OPTION_BUDGETS, .to.budgets = &to->budgets},
        {"counts", "N,...", "counts", HYPURA_OPTION_UNSIGNEDS, .to.unsigneds = &to->counts, .min = 1, .max = 100},
        {"engines", "NAME,...", "choices", HYPURA_OPTION_CHOICES, .to.choice_list = &to->engines, .choices = engines},
        {"adapters", "FILE,...", "adapters", HYPURA_OPTION_ADAPTERS, .to.adapters = &to->adapters},
    };
    const hypura_syntax syntax = {"test", "MODEL", 1, "About.\n", options, sizeof options / sizeof *options, NULL, 0};
    char *argv[MAX_WORDS];
    int argc = 0;
    for (; words[argc]; argc++) {
        argv[argc] = (char *)(uintptr_t)words[argc];
    }
    memset(to, 0, sizeof *to);
    *error = (hypura_error){.status = HYPURA_OK};
    return hypura_options_parse(&syntax, argc, argv, arguments, error);
}

/* ---- what is taken --------------------------------------------------------- */

static void test_every_kind(void **state)
{
    (void)state;
    values to;
    hypura_arguments arguments;
    hypura_error error;

    assert_int_equal(
        parse((const char *[]){"--flag", "m", "--size", "2K", "--budget=12.5%", NULL}, &to, &arguments, &error),
        HYPURA_OK);
    assert_true(to.flag);
    assert_int_equal(to.size, 2048);
    assert_int_equal(to.budget.bytes, 0);
    assert_true(to.budget.percent == 12.5);
    assert_int_equal(arguments.n_operands, 1);
    assert_string_equal(arguments.operands[0], "m");
    assert_false(to.count_given);

    assert_int_equal(parse((const char *[]){"m", "--count", "4294967295", "--number=-5", "--real", "1", NULL}, &to,
                           &arguments, &error),
                     HYPURA_OK);
    assert_int_equal(to.count, UINT32_MAX);
    assert_true(to.count_given);
    assert_int_equal(to.number, -5);
    assert_true(to.real == 1.0f);

    assert_int_equal(
        parse((const char *[]){"m", "--text=", "--engine", "pool", "--budget", "1M", NULL}, &to, &arguments, &error),
        HYPURA_OK);
    assert_string_equal(to.text, "");
    assert_string_equal(to.engine, "pool");
    assert_int_equal(to.budget.bytes, 1 << 20);
    assert_true(to.budget.percent == 0.0);
}

static void test_lists(void **state)
{
    (void)state;
    values to;
    hypura_arguments arguments;
    hypura_error error;
    assert_int_equal(
        parse((const char *[]){"m", "--budgets", "1G,50%,7", "--counts=1,100", "--engines", "pool,uring", NULL}, &to,
              &arguments, &error),
        HYPURA_OK);
    assert_int_equal(to.budgets.n, 3);
    assert_int_equal(to.budgets.items[0].bytes, 1 << 30);
    assert_true(to.budgets.items[1].percent == 50.0);
    assert_int_equal(to.budgets.items[2].bytes, 7);
    assert_true(to.budgets.items[2].percent == 0.0);
    assert_int_equal(to.counts.n, 2);
    assert_int_equal(to.counts.items[1], 100);
    assert_int_equal(to.engines.n, 2);
    assert_string_equal(to.engines.items[0], "pool");

    /* the last of two counts, it is not added to the first */
    assert_int_equal(parse((const char *[]){"m", "--counts", "1,2,3", "--counts", "9", NULL}, &to, &arguments, &error),
                     HYPURA_OK);
    assert_int_equal(to.counts.n, 1);
    assert_int_equal(to.counts.items[0], 9);
}

static void expect_adapter(const values *to, int i, const char *path, float scale)
{
    assert_true(i < to->adapters.n);
    assert_string_equal(to->adapters.items[i].path, path);
    assert_true(to->adapters.items[i].scale == scale);
}

static void test_adapters_add_up(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",     ":1",     "a,",     ",a",       "a:",        "a:x",  "a:1x",
                                        "a: 1", "a:0x10", "a:nan",  "a:inf",    "a:1e999",   "a:1,", "a:1e39",
                                        "a:--1", "1,2,3,4,5,6,7,8,9"};
    values to;
    hypura_arguments arguments;
    hypura_error error;
    assert_int_equal(parse((const char *[]){"m", "--adapters", "a.gguf,b:0.5", "--adapters=d:e/c:d:-2e-1", "--adapters", "x:/y", NULL},
                           &to, &arguments, &error),
                     HYPURA_OK);
    assert_int_equal(to.adapters.n, 4);
    expect_adapter(&to, 0, "a.gguf", 1.0f);
    expect_adapter(&to, 1, "b", 0.5f);
    expect_adapter(&to, 2, "d:e/c:d", -0.2f);
    expect_adapter(&to, 3, "x:/y", 1.0f);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (parse((const char *[]){"m", "--adapters", wrong[i], NULL}, &to, &arguments, &error) != HYPURA_ERR_USAGE) {
            fail_msg("'%s' was taken", wrong[i]);
        }
    }
}

static void test_list_is_bounded(void **state)
{
    (void)state;
    char many[4 * (HYPURA_MAX_LIST + 1)] = "1";
    values to;
    hypura_arguments arguments;
    hypura_error error;
    for (int i = 1; i < HYPURA_MAX_LIST; i++) {
        strcat(many, ",1");
    }
    assert_int_equal(parse((const char *[]){"m", "--counts", many, NULL}, &to, &arguments, &error), HYPURA_OK);
    assert_int_equal(to.counts.n, HYPURA_MAX_LIST);
    strcat(many, ",1");
    assert_int_equal(parse((const char *[]){"m", "--counts", many, NULL}, &to, &arguments, &error), HYPURA_ERR_USAGE);
    assert_non_null(strstr(error.message, "--counts takes at most 32 values"));
}

static void test_words_add_up(void **state)
{
    (void)state;
    values to;
    hypura_arguments arguments;
    hypura_error error;
    assert_int_equal(parse((const char *[]){"m", "--word", "a,b", "-w", "--flag", "--word= ", NULL}, &to, &arguments,
                           &error),
                     HYPURA_OK);
    assert_int_equal(to.words.n, 3);
    assert_string_equal(to.words.items[0], "a,b");
    assert_string_equal(to.words.items[1], "--flag");
    assert_string_equal(to.words.items[2], " ");
    assert_false(to.flag);

    const hypura_option option = {"word", "TEXT", "a word", HYPURA_OPTION_STRINGS, .to.strings = &to.words};
    const hypura_syntax syntax = {"test", "", 0, "About.\n", &option, 1, NULL, 0};
    char *argv[HYPURA_MAX_LIST + 1];
    for (int i = 0; i <= HYPURA_MAX_LIST; i++) {
        argv[i] = (char *)(uintptr_t)"--word=x";
    }
    to.words.n = 0;
    assert_int_equal(hypura_options_parse(&syntax, HYPURA_MAX_LIST, argv, &arguments, &error), HYPURA_OK);
    to.words.n = 0;
    assert_int_equal(hypura_options_parse(&syntax, HYPURA_MAX_LIST + 1, argv, &arguments, &error), HYPURA_ERR_USAGE);
    assert_non_null(strstr(error.message, "--word may be given 32 times at most"));
}

static void test_dashes(void **state)
{
    (void)state;
    values to;
    hypura_arguments arguments;
    hypura_error error;
    assert_int_equal(parse((const char *[]){"--flag", "--", "--size", NULL}, &to, &arguments, &error), HYPURA_OK);
    assert_string_equal(arguments.operands[0], "--size");
    assert_int_equal(parse((const char *[]){"-", NULL}, &to, &arguments, &error), HYPURA_OK);
    assert_string_equal(arguments.operands[0], "-");
    assert_int_equal(parse((const char *[]){"m", "--text", "--flag", NULL}, &to, &arguments, &error), HYPURA_OK);
    assert_string_equal(to.text, "--flag");
    assert_false(to.flag);
    assert_int_equal(parse((const char *[]){"m", "--text", "a=b", "--text=c=d", NULL}, &to, &arguments, &error),
                     HYPURA_OK);
    assert_string_equal(to.text, "c=d");
}

static void test_help_is_met_first(void **state)
{
    (void)state;
    values to;
    hypura_arguments arguments;
    hypura_error error;
    assert_int_equal(parse((const char *[]){"--help", "--nonsense", NULL}, &to, &arguments, &error), HYPURA_OK);
    assert_true(arguments.help);
    assert_int_equal(parse((const char *[]){"-h", NULL}, &to, &arguments, &error), HYPURA_OK);
    assert_true(arguments.help);
    assert_int_equal(parse((const char *[]){"--", "--help", NULL}, &to, &arguments, &error), HYPURA_OK);
    assert_false(arguments.help);
}

static void test_a_size_that_may_be_none(void **state)
{
    (void)state;
    values to;
    hypura_arguments arguments;
    hypura_error error;
    assert_int_equal(parse((const char *[]){"m", "--spare", "2K", NULL}, &to, &arguments, &error), HYPURA_OK);
    assert_int_equal(to.spare, 2048);
    assert_int_equal(parse((const char *[]){"m", "--spare", "2K", "--spare", "0", NULL}, &to, &arguments, &error),
                     HYPURA_OK);
    assert_int_equal(to.spare, 0);
}

/* ---- what is refused ------------------------------------------------------- */

static const struct {
    const char *words[4];
    const char *message; /* part of it: the option and the value at fault */
} refused[] = {
    {{NULL}, "MODEL is missing"},
    {{"m", "n", NULL}, "unexpected argument 'n'"},
    {{"m", "--sice", "1", NULL}, "unknown option --sice (did you mean --size?)"},
    {{"m", "--sice=1", NULL}, "unknown option --sice (did you mean --size?)"},
    {{"m", "--xyzzyxyzzy", NULL}, "unknown option --xyzzyxyzzy (see hypura test --help)"},
    {{"m", "--siz", "1", NULL}, "unknown option --siz"},
    {{"m", "-x", NULL}, "unknown option -x"},
    {{"m", "-fx", NULL}, "unknown option -fx (see"}, /* all of it would have to be another letter */
    {{"m", "-count", NULL}, "unknown option -count (did you mean --count?)"},
    {{"m", "-fa", "on", NULL}, "flash attention is used wherever"},
    {{"m", "--image", "x", NULL}, "run takes pictures"},
    {{"m", "--word=", NULL}, "option --word: it is empty"},
    {{"m", "--=1", NULL}, "unknown option --"},
    {{"m", "--flag=yes", NULL}, "option --flag takes no value, 'yes' given"},
    {{"m", "--size", NULL}, "option --size needs a value (SIZE)"},
    {{"m", "--size", "", NULL}, "option --size: '' is not a size"},
    {{"m", "--size", "1Q", NULL}, "option --size: '1Q' is not a size"},
    {{"m", "--size", "-1", NULL}, "option --size: '-1' is not a size"},
    {{"m", "--size", "99999999999999G", NULL}, "option --size: '99999999999999G'"},
    {{"m", "--size", "0", NULL}, "option --size: '0' is out of range"},
    {{"m", "--budget", "0%", NULL}, "option --budget: 0% is out of range"},
    {{"m", "--budget", "100.5%", NULL}, "option --budget: 100.5% is out of range"},
    {{"m", "--budget", "%", NULL}, "option --budget: '%' is not a per cent"},
    {{"m", "--budget", "1.2.3%", NULL}, "option --budget: '1.2.3%' is not a per cent"},
    {{"m", "--budget", "-5%", NULL}, "option --budget: '-5%' is not a per cent"},
    {{"m", "--count", "4294967296", NULL}, "option --count: 4294967296 is out of range (0 to 4294967295)"},
    {{"m", "--count", "-1", NULL}, "option --count: -1 is out of range"},
    {{"m", "--count", "99999999999999999999", NULL}, "option --count: 99999999999999999999 is out of range"},
    {{"m", "--count", "3x", NULL}, "option --count: '3x' is not a whole number"},
    {{"m", "--count", " 3", NULL}, "option --count: ' 3' is not a whole number"},
    {{"m", "--count", "-", NULL}, "option --count: '-' is not a whole number"},
    {{"m", "--number", "6", NULL}, "option --number: 6 is out of range (-5 to 5)"},
    {{"m", "--real", "1.5", NULL}, "option --real: 1.5 is out of range (0 to 1)"},
    {{"m", "--real", "1e999", NULL}, "option --real: 1e999 is out of range"},
    {{"m", "--real", "nan", NULL}, "option --real: 'nan' is not a number"},
    {{"m", "--real", "0x1", NULL}, "option --real: '0x1' is not a number"},
    {{"m", "--real", "1-", NULL}, "option --real: '1-' is not a number"},
    {{"m", "--engine", "disk", NULL}, "option --engine: 'disk' is not one of uring, pool"},
    {{"m", "--engines", "pool,", NULL}, "option --engines: 'pool,' is not a list"},
    {{"m", "--engines", "pool,disk", NULL}, "option --engines: 'disk' is not one of uring, pool"},
    {{"m", "--counts", "1,,2", NULL}, "option --counts: '1,,2' is not a list"},
    {{"m", "--counts", "1,101", NULL}, "option --counts: 101 is out of range (1 to 100)"},
    {{"m", "--budgets", "1G,200%", NULL}, "option --budgets: 200% is out of range"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        values to;
        hypura_arguments arguments;
        hypura_error error;
        hypura_status status = parse(refused[i].words, &to, &arguments, &error);
        if (status != HYPURA_ERR_USAGE || error.status != HYPURA_ERR_USAGE ||
            !strstr(error.message, refused[i].message)) {
            fail_msg("row %zu: status %d, message '%s', wanted '%s'", i, status, error.message, refused[i].message);
        }
    }
}

/* ---- help and hints -------------------------------------------------------- */

static void test_help_text(void **state)
{
    (void)state;
    bool flag = false;
    uint32_t count = 0;
    const hypura_option options[] = {
        {"flag", NULL, "a flag", HYPURA_OPTION_FLAG, .to.flag = &flag},
        {"count", "N", "a count", HYPURA_OPTION_UNSIGNED, .to.unsigned_integer = &count},
    };
    const hypura_syntax syntax = {"test", "MODEL", 1, "About.\n", options, 2, "Notes.\n", 0};
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    assert_non_null(to);
    hypura_options_help(&syntax, to);
    fclose(to);
    assert_string_equal(text, "usage: hypura test MODEL [options]\n\nAbout.\n\noptions:\n"
                              "  --flag     a flag\n"
                              "  --count N  a count\n"
                              "  --help     print this text\n\nNotes.\n");
    free(text);
}

static void test_nearest_name(void **state)
{
    (void)state;
    static const char *const names[] = {"run", "estimate", "inspect", "profile", "verify"};
    static const struct {
        const char *word;
        const char *nearest;
    } rows[] = {{"rnu", "run"}, {"inspct", "inspect"}, {"estimat", "estimate"}, {"verfy", "verify"}, {"xyz", NULL},
                {"", NULL},     {"serve", NULL},       {"profiles", "profile"}, {"prof", "profile"},
                {"es", NULL}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *found = hypura_nearest_name(rows[i].word, names, 5);
        if (rows[i].nearest ? !found || strcmp(found, rows[i].nearest) != 0 : found != NULL) {
            fail_msg("'%s': found %s", rows[i].word, found ? found : "nothing");
        }
    }
    char huge[1000];
    memset(huge, 'a', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    assert_null(hypura_nearest_name(huge, names, 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_size_that_may_be_none),
        cmocka_unit_test(test_every_kind),        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_adapters_add_up),   cmocka_unit_test(test_words_add_up),
        cmocka_unit_test(test_list_is_bounded),   cmocka_unit_test(test_dashes),
        cmocka_unit_test(test_refused),           cmocka_unit_test(test_help_text),
        cmocka_unit_test(test_help_is_met_first), cmocka_unit_test(test_nearest_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
