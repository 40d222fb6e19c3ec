/*
 * go_template.c - see go_template.h. One walk over the source.
 */
#include "server/dialect/go_template.h"

#include "base/buffer.h"
#include "base/status.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 16

typedef struct rendering {
    const go_template_values *values;
    hypura_buffer text;
    bool shown[MAX_DEPTH + 1]; /* at each depth of ifs; [0]: outside of all */
    int depth;
    bool done; /* .Response was met */
    bool no_memory;
} rendering;

static void put(rendering *r, const char *data, size_t bytes)
{
    if (r->shown[r->depth] && !r->no_memory) {
        r->no_memory = !hypura_buffer_add(&r->text, data, bytes);
    }
}

static bool is_word(const char *word, size_t n, const char *wanted)
{
    return strlen(wanted) == n && strncmp(word, wanted, n) == 0;
}

/* The value of ".Name", "" where it was not given; NULL when there is no such name. */
static const char *value_of(const rendering *r, const char *name, size_t n)
{
    const struct {
        const char *name;
        const char *value;
    } known[] = {{".Prompt", r->values->prompt},
                 {".System", r->values->system},
                 {".Suffix", r->values->suffix},
                 {".Response", r->values->response}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (is_word(name, n, known[i].name)) {
            return known[i].value ? known[i].value : "";
        }
    }
    return NULL;
}

static bool begin_if(rendering *r, const char *name, size_t n)
{
    const char *value = value_of(r, name, n);
    if (!value || r->depth == MAX_DEPTH) {
        return false;
    }
    r->shown[r->depth + 1] = r->shown[r->depth] && value[0] != '\0';
    r->depth++;
    return true;
}

/* What stands between the braces, without the space around it. False when it is not understood. */
static bool act(rendering *r, const char *action, size_t n)
{
    if (n > 3 && strncmp(action, "if", 2) == 0 && isspace((unsigned char)action[2])) {
        const char *name = action + 2;
        while (isspace((unsigned char)*name)) {
            name++;
        }
        return begin_if(r, name, n - (size_t)(name - action));
    }
    if (is_word(action, n, "else") && r->depth > 0) {
        r->shown[r->depth] = r->shown[r->depth - 1] && !r->shown[r->depth];
        return true;
    }
    if (is_word(action, n, "end") && r->depth > 0) {
        r->depth--;
        return true;
    }
    const char *value = value_of(r, action, n);
    if (!value) {
        return false;
    }
    r->done = !r->values->response && is_word(action, n, ".Response") && r->shown[r->depth];
    put(r, value, strlen(value));
    return true;
}

static size_t trimmed(const char *text, size_t n)
{
    while (n > 0 && isspace((unsigned char)text[n - 1])) {
        n--;
    }
    return n;
}

static bool render(rendering *r, const char *at, const char **bad, size_t *bad_bytes)
{
    while (!r->done) {
        const char *open = strstr(at, "{{");
        const size_t n = open ? (size_t)(open - at) : strlen(at);
        put(r, at, open && open[2] == '-' ? trimmed(at, n) : n);
        if (!open) {
            return r->depth == 0;
        }
        const char *close = strstr(open, "}}");
        const char *action = open + 2 + (open[2] == '-');
        *bad = open;
        *bad_bytes = close ? (size_t)(close - open) + 2 : strlen(open);
        if (!close || close < action) {
            return false;
        }
        const bool trims = close > action && close[-1] == '-';
        while (action < close && isspace((unsigned char)*action)) {
            action++;
        }
        if (!act(r, action, trimmed(action, (size_t)(close - trims - action)))) {
            return false;
        }
        at = close + 2;
        while (trims && isspace((unsigned char)*at)) {
            at++;
        }
    }
    return true;
}

hypura_status go_template_render(const char *source, const go_template_values *values, char **text, hypura_error *error)
{
    rendering r = {.values = values, .shown = {true}};
    const char *bad = "";
    size_t bad_bytes = 0;
    *text = NULL;
    put(&r, "", 0);
    const bool good = render(&r, source, &bad, &bad_bytes);
    if (r.no_memory) {
        hypura_buffer_clear(&r.text);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a prompt");
    }
    if (!good) {
        hypura_buffer_clear(&r.text);
        return hypura_fail(
            error, HYPURA_ERR_UNSUPPORTED,
            "the template is not understood at \"%.*s\": it may use .System, .Prompt, .Suffix, .Response, "
            "if, else and end; for conversations the model's own template is used (/api/chat)",
            (int)(bad_bytes < 60 ? bad_bytes : 60), bad);
    }
    *text = r.text.data;
    return HYPURA_OK;
}

bool go_template_is_jinja(const char *source)
{
    return strstr(source, "{%") != NULL;
}

hypura_status go_template_check(const char *source, hypura_error *error)
{
    char *text;
    const go_template_values values = {.system = "", .prompt = "", .suffix = "", .response = ""};
    const hypura_status status = go_template_render(source, &values, &text, error);
    free(text);
    return status;
}
