/*
 * defaults.c - see defaults.h.
 */
#include "worker/defaults.h"

#include "base/status.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef enum default_kind { DEFAULT_INTEGER, DEFAULT_REAL, DEFAULT_TEXTS } default_kind;

static const struct {
    const char *name;
    const char *option;
    default_kind kind;
} defaults[] = {
    {"temperature", "--temp", DEFAULT_REAL},
    {"top_k", "--top-k", DEFAULT_INTEGER},
    {"top_p", "--top-p", DEFAULT_REAL},
    {"min_p", "--min-p", DEFAULT_REAL},
    {"typical_p", "--typical", DEFAULT_REAL},
    {"seed", "--seed", DEFAULT_INTEGER},
    {"n_predict", "--predict", DEFAULT_INTEGER},
    {"n_keep", "--keep", DEFAULT_INTEGER},
    {"repeat_penalty", "--repeat-penalty", DEFAULT_REAL},
    {"repeat_last_n", "--repeat-last-n", DEFAULT_INTEGER},
    {"presence_penalty", "--presence-penalty", DEFAULT_REAL},
    {"frequency_penalty", "--frequency-penalty", DEFAULT_REAL},
    {"mirostat", "--mirostat", DEFAULT_INTEGER},
    {"mirostat_tau", "--mirostat-ent", DEFAULT_REAL},
    {"mirostat_eta", "--mirostat-lr", DEFAULT_REAL},
    {"stop", "--reverse-prompt", DEFAULT_TEXTS},
};

static hypura_status add_number(hypura_worker_words *words, size_t which, const json_t *value, hypura_error *error)
{
    char text[32];
    const double number = json_number_value(value);
    if (!json_is_number(value)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the default of %s is no number", defaults[which].name);
    }
    if (defaults[which].kind == DEFAULT_REAL) {
        snprintf(text, sizeof text, "%.9g", number);
    } else if (number < INT32_MIN || number > UINT32_MAX) { /* seeds are counted up to there */
        return hypura_fail(error, HYPURA_ERR_USAGE, "%.9g as the default of %s is out of range", number,
                           defaults[which].name);
    } else {
        snprintf(text, sizeof text, "%lld", (long long)number);
    }
    hypura_worker_add_copy(words, defaults[which].option, text);
    return HYPURA_OK;
}

static hypura_status add_texts(hypura_worker_words *words, size_t which, const json_t *texts, hypura_error *error)
{
    size_t i;
    const json_t *text;
    if (!json_is_array(texts)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the default of %s is no list", defaults[which].name);
    }
    json_array_foreach(texts, i, text)
    {
        if (!json_is_string(text)) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "the default of %s is no list of texts", defaults[which].name);
        }
        hypura_worker_add_text(words, defaults[which].option, json_string_value(text));
    }
    return HYPURA_OK;
}

hypura_status hypura_worker_add_defaults(const char *json, hypura_worker_words *words, void **kept, hypura_error *error)
{
    json_t *all = json_loads(json, 0, NULL);
    const char *name;
    const json_t *value;
    hypura_status status = HYPURA_OK;
    *kept = all;
    if (!json_is_object(all)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "--defaults is no JSON object");
    }
    json_object_foreach(all, name, value)
    {
        size_t which = 0;
        while (which < sizeof defaults / sizeof *defaults && strcmp(defaults[which].name, name) != 0) {
            which++;
        }
        if (which == sizeof defaults / sizeof *defaults) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "there is no default of %s", name);
        }
        status = defaults[which].kind == DEFAULT_TEXTS ? add_texts(words, which, value, error)
                                                       : add_number(words, which, value, error);
        if (status != HYPURA_OK) {
            return status;
        }
    }
    return words->n == HYPURA_WORKER_MAX_WORDS
               ? hypura_fail(error, HYPURA_ERR_USAGE, "the model has too many texts that end its answers")
               : HYPURA_OK;
}
