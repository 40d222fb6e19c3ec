/*
 * options.c - see options.h. One function for each kind of argument turns text
 * into a value; the table at the end joins kinds and functions.
 */
#include "cli/options.h"

#include "base/size.h"
#include "base/status.h"

#include <errno.h>
#include <limits.h>
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

/* ---- the command line ---------------------------------------------------- */

static bool is_among(const char *names, const char *word, size_t length)
{
    while (names && *names) {
        const size_t n = strcspn(names, " ");
        if (n == length && memcmp(names, word, length) == 0) {
            return true;
        }
        names += n + strspn(names + n, " ");
    }
    return false;
}

/* word: with its dashes. */
static const hypura_option *find_option(const hypura_syntax *syntax, const char *word, size_t length)
{
    for (int i = 0; i < syntax->n_options; i++) {
        const hypura_option *option = &syntax->options[i];
        const bool named = length > 2 && memcmp(word, "--", 2) == 0 && strlen(option->name) == length - 2 &&
                           memcmp(option->name, word + 2, length - 2) == 0;
        if (named || is_among(option->also, word, length)) {
            return option;
        }
    }
    return NULL;
}

/* What users of llama.cpp and Ollama look for, and what there is. */
static const struct {
    const char *names;
    const char *hint;
} foreign[] = {
    {"-m --model", "MODEL is given without an option"},
    {"-hf -hfr --hf-repo -mu --model-url -hff --hf-file", "hypura pull hf.co/USER/REPOSITORY:TYPE fetches a model"},
    {"-ngl --gpu-layers --n-gpu-layers -ncmoe --n-cpu-moe -cmoe --cpu-moe -ot --override-tensor -fit --fit",
     "--memory, --vram and --gpu say what may be used, and all else follows"},
    {"-hfd -hfrd --hf-repo-draft --spec-draft-hf", "hypura pull hf.co/USER/REPOSITORY:TYPE fetches it, --draft names it"},
    {"-md --model-draft --spec-draft-model --spec-type", "run and serve take --draft and --spec-type"},
    {"--mmap --no-mmap --mlock --direct-io -dio", "weights are read directly, as many as --memory lets stay"},
    {"-mm --mmproj --image --audio", "run takes pictures; serve finds a projector beside the model's file"},
    {"-mmu --mmproj-url --no-mmproj --mmproj-auto --no-mmproj-auto --mmproj-offload --no-mmproj-offload",
     "a projector is loaded where something may be shown: --mmproj FILE names it"},
    {"--video", "films are not shown; --image takes pictures of one"},
    {"--control-vector --control-vector-scaled", "not there yet"},
    {"-dev --device -mg --main-gpu -ts --tensor-split -sm --split-mode", "--gpu names GPUs, --vram 4G+8G limits each"},
    {"-fa --flash-attn", "flash attention is used wherever the model and the device have it"},
    {"-ctkd --cache-type-k-draft -ctvd --cache-type-v-draft", "a draft's KV cache is f16"},
    {"-b --batch-size", "--ubatch N is how many tokens of a prompt are computed together"},
    {"-v --verbose --perf", "statistics are told on standard error without --quiet, and run --stats-json FILE has all of them"},
    {"-rea --reasoning --reasoning-format --reasoning-budget --reasoning-effort -nothink --no-think",
     "run --think on, off, low, medium or high; what it thinks is told on standard error, unless --hide-thoughts"},
    {"-q --silent", "run --quiet tells neither placement nor statistics"},
    {"--format", "run --json-schema {} makes answers JSON"},
    {"--keepalive", "serve takes --keep-alive SECONDS"},
    {"-co --color --no-display-prompt -st --single-turn --simple-io --no-warmup --log-disable --no-perf --nowordwrap",
     "not needed: standard output is the answer alone"},
    {"--typical --typical-p --xtc-probability --dry-multiplier --mirostat --samplers --dynatemp-range --top-nsigma",
     "of the samplers run has --top-k, --top-p, --min-p, --temp and the penalties"},
};

static hypura_status unknown_option(const hypura_syntax *syntax, const char *word, size_t length, hypura_error *error)
{
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        if (is_among(foreign[i].names, word, length)) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "unknown option %.*s (%s)", (int)length, word, foreign[i].hint);
        }
    }
    const char *names[64] = {"help"};
    int n = 1;
    for (int i = 0; i < syntax->n_options && n < 64; i++) {
        names[n++] = syntax->options[i].name;
    }
    char bare[ITEM_BYTES] = "";
    const char *near = NULL;
    const size_t dashes = strspn(word, "-");
    if (length > dashes && length - dashes < sizeof bare) {
        memcpy(bare, word + dashes, length - dashes);
        near = hypura_nearest_name(bare, names, n);
    }
    if (near) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "unknown option %.*s (did you mean --%s?)", (int)length, word,
                           near);
    }
    return hypura_fail(error, HYPURA_ERR_USAGE, "unknown option %.*s (see hypura %s --help)", (int)length, word,
                       syntax->command);
}

/* Takes the option at argv[*index] and moves *index to the last word it used. */
static hypura_status parse_option(const hypura_syntax *syntax, int argc, char *const *argv, int *index,
                                  hypura_error *error)
{
    const char *word = argv[*index];
    size_t length = strcspn(word, "=");
    const char *value = word[length] == '=' ? word + length + 1 : NULL;
    if (length > INT_MAX / 2) {
        length = INT_MAX / 2;
    }
    const hypura_option *option = find_option(syntax, word, length);
    if (!option) {
        return unknown_option(syntax, word, length, error);
    }
    if (option->kind == HYPURA_OPTION_FLAG) {
        if (value) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "option --%s takes no value, '%s' given", option->name, value);
        }
        *option->to.flag = true;
    } else {
        if (!value && *index + 1 == argc) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "option --%s needs a value (%s)", option->name,
                               option->argument);
        }
        if (!value) {
            value = argv[++*index];
        }
        hypura_status status = take[option->kind](option, value, error);
        if (status != HYPURA_OK) {
            return status;
        }
    }
    if (option->given) {
        *option->given = true;
    }
    return HYPURA_OK;
}

hypura_status hypura_options_parse(const hypura_syntax *syntax, int argc, char *const *argv,
                                   hypura_arguments *arguments, hypura_error *error)
{
    *arguments = (hypura_arguments){.help = false};
    bool options_ended = false;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (options_ended || word[0] != '-' || word[1] == '\0') {
            if (arguments->n_operands == syntax->n_operands) {
                return hypura_fail(error, HYPURA_ERR_USAGE, "unexpected argument '%s' (see hypura %s --help)", word,
                                   syntax->command);
            }
            arguments->operands[arguments->n_operands++] = word;
        } else if (strcmp(word, "--") == 0) {
            options_ended = true;
        } else if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strncmp(word, "--help=", 7) == 0) {
            arguments->help = true;
            return HYPURA_OK;
        } else {
            hypura_status status = parse_option(syntax, argc, argv, &i, error);
            if (status != HYPURA_OK) {
                return status;
            }
        }
    }
    if (arguments->n_operands < syntax->n_operands - syntax->n_optional) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%.*s is missing (see hypura %s --help)",
                           (int)strcspn(syntax->operands, " "), syntax->operands, syntax->command);
    }
    return HYPURA_OK;
}

/* ---- help ---------------------------------------------------------------- */

static int option_width(const hypura_option *option)
{
    return (int)(strlen(option->name) + (option->argument ? 1 + strlen(option->argument) : 0));
}

static void print_option(FILE *to, const char *name, const char *argument, const char *help, int width)
{
    int used = fprintf(to, "  --%s%s%s", name, argument ? " " : "", argument ? argument : "");
    fprintf(to, "%*s%s\n", width + 6 - used, "", help);
}

void hypura_options_help(const hypura_syntax *syntax, FILE *to)
{
    int width = (int)strlen("help");
    for (int i = 0; i < syntax->n_options; i++) {
        int own = option_width(&syntax->options[i]);
        width = own > width ? own : width;
    }
    fprintf(to, "usage: hypura %s %s%s[options]\n\n%s\noptions:\n", syntax->command, syntax->operands,
            syntax->operands[0] ? " " : "", syntax->about);
    for (int i = 0; i < syntax->n_options; i++) {
        const hypura_option *option = &syntax->options[i];
        print_option(to, option->name, option->argument, option->help, width);
    }
    print_option(to, "help", NULL, "print this text", width);
    if (syntax->notes) {
        fprintf(to, "\n%s", syntax->notes);
    }
}

/* ---- hints --------------------------------------------------------------- */

/* Edit distance with insertions, deletions and replacements (Levenshtein 1966);
 * both words are shorter than ITEM_BYTES. */
static int edit_distance(const char *a, const char *b)
{
    int row[ITEM_BYTES];
    size_t n = strlen(b);
    for (size_t j = 0; j <= n; j++) {
        row[j] = (int)j;
    }
    for (size_t i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= n; j++) {
            int replaced = diagonal + (a[i - 1] != b[j - 1]);
            int shorter = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = replaced < shorter ? replaced : shorter;
        }
    }
    return row[n];
}

/* The only one that begins with the word, which has to have three letters. NULL: none, or several. */
static const char *find_beginning(const char *word, const char *const *names, int n)
{
    const size_t length = strlen(word);
    const char *found = NULL;
    for (int i = 0; i < n && length >= 3; i++) {
        if (strncmp(names[i], word, length) == 0) {
            if (found) {
                return NULL;
            }
            found = names[i];
        }
    }
    return found;
}

const char *hypura_nearest_name(const char *word, const char *const *names, int n)
{
    const char *best = find_beginning(word, names, n);
    int least = INT_MAX;
    if (best || strlen(word) >= ITEM_BYTES) {
        return best;
    }
    for (int i = 0; i < n; i++) {
        if (strlen(names[i]) >= ITEM_BYTES) {
            continue;
        }
        int distance = edit_distance(word, names[i]);
        /* Up to a third of the letters may differ, and always one may; something of both is the same. */
        int allowed = 1 + (int)strlen(names[i]) / 3;
        if (distance <= allowed && distance < least && distance < (int)strlen(word)) {
            least = distance;
            best = names[i];
        }
    }
    return best;
}
