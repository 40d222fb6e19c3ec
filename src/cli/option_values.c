/*
 * option_values.c - see options.h: what is behind an option. One function for each kind of argument turns text into a
 * value; the table at the end joins kinds and functions.
 */
#include "cli/options.h"

#include "base/size.h"
#include "base/status.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Longest item of a list; longer ones cannot be a number or a choice. */
#define ITEM_BYTES 64

static hypura_status bad_value(const hypura_option *option, const char *text, hypura_error *error, const char *want)
{
    return hypura_fail(error, HYPURA_ERR_USAGE, "option --%s: '%s' is not %s", option->name, text, want);
}

static hypura_status out_of_range(const hypura_option *option, const char *text, hypura_error *error)
{
    return hypura_fail(error, HYPURA_ERR_USAGE, "option --%s: %s is out of range (%.10g to %.10g)", option->name, text,
                       option->min, option->max);
}

/* ---- one item ------------------------------------------------------------ */

static hypura_status parse_integer(const hypura_option *option, const char *text, long long *value, hypura_error *error)
{
    const char *digits = text[0] == '-' ? text + 1 : text;
    if (digits[0] == '\0' || strspn(digits, "0123456789") != strlen(digits)) {
        return bad_value(option, text, error, "a whole number");
    }
    errno = 0;
    *value = strtoll(text, NULL, 10);
    if (errno == ERANGE || (double)*value < option->min || (double)*value > option->max) {
        return out_of_range(option, text, error);
    }
    return HYPURA_OK;
}

static hypura_status parse_real(const hypura_option *option, const char *text, double *value, hypura_error *error)
{
    char *end = NULL;
    /* Hexadecimal, "nan" and "inf" are numbers to strtod and typing errors here. */
    if (text[0] == '\0' || strspn(text, "+-.0123456789eE") != strlen(text)) {
        return bad_value(option, text, error, "a number");
    }
    *value = strtod(text, &end);
    if (*end != '\0') {
        return bad_value(option, text, error, "a number");
    }
    if (!isfinite(*value) || *value < option->min || *value > option->max) {
        return out_of_range(option, text, error);
    }
    return HYPURA_OK;
}

static hypura_status parse_size(const hypura_option *option, const char *text, uint64_t *bytes, hypura_error *error)
{
    if (!hypura_size_parse(text, bytes)) {
        return bad_value(option, text, error, "a size (bytes, or a number with K, M or G)");
    }
    if (*bytes == 0 && !option->zero) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "option --%s: '%s' is out of range (at least 1 byte)", option->name,
                           text);
    }
    return HYPURA_OK;
}

static bool is_percent(const char *text)
{
    const size_t length = strlen(text);
    return length > 0 && text[length - 1] == '%';
}

static hypura_status parse_percent(const hypura_option *option, const char *text, double *percent, hypura_error *error)
{
    const char *want = option->kind == HYPURA_OPTION_COUNTS ? "a per cent of all" : "a per cent of the file";
    const size_t length = strlen(text);
    char number[ITEM_BYTES];
    char *end = NULL;
    if (length > sizeof number || strspn(text, ".0123456789") != length - 1) {
        return bad_value(option, text, error, want);
    }
    memcpy(number, text, length - 1);
    number[length - 1] = '\0';
    *percent = strtod(number, &end);
    if (end == number || *end != '\0') {
        return bad_value(option, text, error, want);
    }
    if (!(*percent > 0.0) || *percent > 100.0) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "option --%s: %s is out of range (above 0%% to 100%%)",
                           option->name, text);
    }
    return HYPURA_OK;
}

static hypura_status parse_budget(const hypura_option *option, const char *text, hypura_budget *budget,
                                  hypura_error *error)
{
    *budget = (hypura_budget){0, 0.0};
    return is_percent(text) ? parse_percent(option, text, &budget->percent, error)
                            : parse_size(option, text, &budget->bytes, error);
}

int hypura_option_choice(const char *const *choices, const char *word)
{
    int i = 0;
    while (word && choices[i] && strcmp(choices[i], word) != 0) {
        i++;
    }
    return choices[i] ? i : -1;
}

static hypura_status parse_choice(const hypura_option *option, const char *text, const char **value,
                                  hypura_error *error)
{
    char known[128] = "";
    size_t used = 0;
    const int found = hypura_option_choice(option->choices, text);
    if (found >= 0) {
        *value = option->choices[found];
        return HYPURA_OK;
    }
    for (const char *const *choice = option->choices; *choice; choice++) {
        int n = snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", *choice);
        if (n > 0 && (size_t)n < sizeof known - used) {
            used += (size_t)n;
        }
    }
    return hypura_fail(error, HYPURA_ERR_USAGE, "option --%s: '%s' is not one of %s", option->name, text, known);
}

/* ---- a whole argument ---------------------------------------------------- */

static hypura_status take_size(const hypura_option *option, const char *text, hypura_error *error)
{
    return parse_size(option, text, option->to.size, error);
}

static hypura_status take_budget(const hypura_option *option, const char *text, hypura_error *error)
{
    return parse_budget(option, text, option->to.budget, error);
}

static hypura_status parse_vram(const hypura_option *option, const char *text, hypura_vram_limit *limit,
                                hypura_error *error)
{
    *limit = (hypura_vram_limit){.all = {.bytes = 0}};
    if (!strchr(text, '+')) {
        return parse_budget(option, text, &limit->all, error);
    }
    int n = 0;
    for (const char *item = text; item;) {
        const size_t length = strcspn(item, "+");
        char word[ITEM_BYTES];
        if (length == 0 || length >= sizeof word || n == HYPURA_MAX_GPUS) {
            return bad_value(option, text, error, "a size, or one for each GPU: 4G+8G");
        }
        memcpy(word, item, length);
        word[length] = '\0';
        const hypura_status status = parse_size(option, word, &limit->each[n++], error);
        if (status != HYPURA_OK) {
            return status;
        }
        item = item[length] == '+' ? item + length + 1 : NULL;
    }
    return HYPURA_OK;
}

static hypura_status take_vram(const hypura_option *option, const char *text, hypura_error *error)
{
    return parse_vram(option, text, option->to.vram, error);
}

static hypura_status take_unsigned(const hypura_option *option, const char *text, hypura_error *error)
{
    long long value = 0;
    hypura_status status = parse_integer(option, text, &value, error);
    if (status == HYPURA_OK) {
        *option->to.unsigned_integer = (uint32_t)value;
    }
    return status;
}

static hypura_status take_int(const hypura_option *option, const char *text, hypura_error *error)
{
    long long value = 0;
    hypura_status status = parse_integer(option, text, &value, error);
    if (status == HYPURA_OK) {
        *option->to.integer = (int)value;
    }
    return status;
}

static hypura_status take_float(const hypura_option *option, const char *text, hypura_error *error)
{
    double value = 0.0;
    hypura_status status = parse_real(option, text, &value, error);
    if (status == HYPURA_OK) {
        *option->to.real = (float)value;
    }
    return status;
}

static hypura_status take_string(const hypura_option *option, const char *text, hypura_error *error)
{
    (void)error;
    *option->to.string = text;
    return HYPURA_OK;
}

static hypura_status take_strings(const hypura_option *option, const char *text, hypura_error *error)
{
    hypura_string_list *list = option->to.strings;
    if (text[0] == '\0') {
        return hypura_fail(error, HYPURA_ERR_USAGE, "option --%s: it is empty", option->name);
    }
    if (list->n == HYPURA_MAX_LIST) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "option --%s may be given %d times at most", option->name,
                           HYPURA_MAX_LIST);
    }
    list->items[list->n++] = text;
    return HYPURA_OK;
}

static hypura_status take_choice(const hypura_option *option, const char *text, hypura_error *error)
{
    return parse_choice(option, text, option->to.string, error);
}

static hypura_status add_budget(const hypura_option *option, const char *item, hypura_error *error)
{
    hypura_budget_list *list = option->to.budgets;
    return parse_budget(option, item, &list->items[list->n++], error);
}

static hypura_status add_count(const hypura_option *option, const char *item, hypura_error *error)
{
    hypura_count_list *list = option->to.counts;
    hypura_slot_count *count = &list->items[list->n++];
    long long value = 0;
    *count = (hypura_slot_count){.count = 0};
    if (is_percent(item)) {
        return parse_percent(option, item, &count->percent, error);
    }
    const hypura_status status = parse_integer(option, item, &value, error);
    if (status == HYPURA_OK) {
        count->count = (uint32_t)value;
    }
    return status;
}

static hypura_status add_vram(const hypura_option *option, const char *item, hypura_error *error)
{
    hypura_vram_list *list = option->to.vrams;
    return parse_vram(option, item, &list->items[list->n++], error);
}

static hypura_status add_unsigned(const hypura_option *option, const char *item, hypura_error *error)
{
    hypura_unsigned_list *list = option->to.unsigneds;
    long long value = 0;
    hypura_status status = parse_integer(option, item, &value, error);
    if (status == HYPURA_OK) {
        list->items[list->n++] = (uint32_t)value;
    }
    return status;
}

static hypura_status add_choice(const hypura_option *option, const char *item, hypura_error *error)
{
    hypura_choice_list *list = option->to.choice_list;
    return parse_choice(option, item, &list->items[list->n++], error);
}

/* Splits at commas and hands each item to `add`, which may be called at most
 * HYPURA_MAX_LIST times. */
static hypura_status take_list(const hypura_option *option, const char *text,
                               hypura_status (*add)(const hypura_option *, const char *, hypura_error *),
                               hypura_error *error)
{
    int n = 0;
    for (const char *item = text;;) {
        size_t length = strcspn(item, ",");
        char word[ITEM_BYTES];
        if (length == 0 || length >= sizeof word) {
            return bad_value(option, text, error, "a list of values parted by commas");
        }
        if (n++ == HYPURA_MAX_LIST) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "option --%s takes at most %d values", option->name,
                               HYPURA_MAX_LIST);
        }
        memcpy(word, item, length);
        word[length] = '\0';
        hypura_status status = add(option, word, error);
        if (status != HYPURA_OK) {
            return status;
        }
        if (item[length] == '\0') {
            return HYPURA_OK;
        }
        item += length + 1;
    }
}

static hypura_status take_budgets(const hypura_option *option, const char *text, hypura_error *error)
{
    option->to.budgets->n = 0;
    return take_list(option, text, add_budget, error);
}

static hypura_status take_counts(const hypura_option *option, const char *text, hypura_error *error)
{
    option->to.counts->n = 0;
    return take_list(option, text, add_count, error);
}

static hypura_status take_vrams(const hypura_option *option, const char *text, hypura_error *error)
{
    option->to.vrams->n = 0;
    return take_list(option, text, add_vram, error);
}

static hypura_status take_unsigneds(const hypura_option *option, const char *text, hypura_error *error)
{
    option->to.unsigneds->n = 0;
    return take_list(option, text, add_unsigned, error);
}

static hypura_status take_choices(const hypura_option *option, const char *text, hypura_error *error)
{
    option->to.choice_list->n = 0;
    return take_list(option, text, add_choice, error);
}

typedef hypura_status (*take_fn)(const hypura_option *option, const char *text, hypura_error *error);

/* Indexed by hypura_option_kind; a flag has no argument to take. */
static const take_fn take[] = {
    [HYPURA_OPTION_FLAG] = NULL,
    [HYPURA_OPTION_SIZE] = take_size,
    [HYPURA_OPTION_BUDGET] = take_budget,
    [HYPURA_OPTION_VRAM] = take_vram,
    [HYPURA_OPTION_UNSIGNED] = take_unsigned,
    [HYPURA_OPTION_INT] = take_int,
    [HYPURA_OPTION_FLOAT] = take_float,
    [HYPURA_OPTION_STRING] = take_string,
    [HYPURA_OPTION_STRINGS] = take_strings,
    [HYPURA_OPTION_CHOICE] = take_choice,
    [HYPURA_OPTION_BUDGETS] = take_budgets,
    [HYPURA_OPTION_COUNTS] = take_counts,
    [HYPURA_OPTION_VRAMS] = take_vrams,
    [HYPURA_OPTION_UNSIGNEDS] = take_unsigneds,
    [HYPURA_OPTION_CHOICES] = take_choices,
    [HYPURA_OPTION_ADAPTERS] = hypura_option_take_adapters,
};

hypura_status hypura_option_take(const hypura_option *option, const char *text, hypura_error *error)
{
    return take[option->kind](option, text, error);
}
