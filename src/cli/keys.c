/*
 * keys.c - see keys.h.
 */
#include "cli/keys.h"

#include "base/status.h"
#include "cli/prompt.h"

#include <stdlib.h>
#include <string.h>

hypura_option hypura_option_api_key(hypura_key_arguments *arguments, const char *help)
{
    return (hypura_option){"api-key", "LIST", help, HYPURA_OPTION_STRINGS, .to.strings = &arguments->words};
}

hypura_option hypura_option_api_key_file(hypura_key_arguments *arguments, const char *help)
{
    return (hypura_option){"api-key-file", "FILE", help, HYPURA_OPTION_STRING, .to.string = &arguments->file};
}

/* Takes text over: keys between what parts them, without blanks at their sides. */
static hypura_status take_text(hypura_key_arguments *a, char *text, const char *parts, bool remarks, hypura_error *error)
{
    static const char blanks[] = " \t\r";
    if (!text) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for keys");
    }
    a->texts[a->n_texts++] = text;
    for (char *at = text, *key; (key = strsep(&at, parts)) != NULL;) {
        key += strspn(key, blanks);
        size_t length = strlen(key);
        while (length > 0 && strchr(blanks, key[length - 1])) {
            key[--length] = '\0';
        }
        if (length == 0 || (remarks && key[0] == '#')) {
            continue;
        }
        if (a->n_keys == HYPURA_MAX_KEYS) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "there are more than %d API keys", HYPURA_MAX_KEYS);
        }
        a->keys[a->n_keys++] = key;
    }
    return HYPURA_OK;
}

hypura_status hypura_keys_resolve(const hypura_environment *environment, hypura_key_arguments *a, hypura_error *error)
{
    hypura_status status = HYPURA_OK;
    for (int i = 0; i < a->words.n && status == HYPURA_OK; i++) {
        status = take_text(a, strdup(a->words.items[i]), ",", false, error);
    }
    if (status == HYPURA_OK && a->words.n > 0 && a->n_keys == 0) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "option --api-key: it is empty");
    }
    if (status == HYPURA_OK && a->file) {
        const int n_before = a->n_keys;
        char *text = NULL;
        status = hypura_prompt_read(a->file, &text, error);
        status = status == HYPURA_OK ? take_text(a, text, "\n", true, error) : status;
        if (status == HYPURA_OK && a->n_keys == n_before) {
            status = hypura_fail(error, HYPURA_ERR_USAGE, "option --api-key-file: there is no key in %s", a->file);
        }
    }
    if (status == HYPURA_OK && a->words.n == 0 && !a->file && environment->api_keys) {
        status = take_text(a, strdup(environment->api_keys), ",", false, error);
    }
    return status;
}

void hypura_keys_clear(hypura_key_arguments *a)
{
    for (int i = 0; i < a->n_texts; i++) {
        free(a->texts[i]);
    }
    a->n_texts = a->n_keys = 0;
}
