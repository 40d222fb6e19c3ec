/*
 * options.c - see options.h: the command line, its help, and hints for misspelled names. What is behind an option is
 * read in option_values.c.
 */
#include "cli/options.h"

#include "base/status.h"

#include <limits.h>
#include <string.h>

/* Longer ones are nothing that could be meant. */
#define NAME_BYTES 64

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
    char bare[NAME_BYTES] = "";
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
        hypura_status status = hypura_option_take(option, value, error);
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
 * both words are shorter than NAME_BYTES. */
static int edit_distance(const char *a, const char *b)
{
    int row[NAME_BYTES];
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
    if (best || strlen(word) >= NAME_BYTES) {
        return best;
    }
    for (int i = 0; i < n; i++) {
        if (strlen(names[i]) >= NAME_BYTES) {
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
