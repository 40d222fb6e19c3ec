/*
 * check.c - see check.h.
 */
#include "worker/check.h"

#include "base/buffer.h"
#include "base/status.h"
#include "engine/llama/chat_shim.h"
#include "engine/llama/llama_shim.h"

#include <jansson.h>
#include <stdlib.h>

static hypura_status check(const char *text, hypura_error *error)
{
    static const hypura_shim_message hello = {.role = "user", .text = "Hello"};
    char reason[400] = "";
    hypura_shim_chat *chat = text[0] ? hypura_shim_chat_open(NULL, text, reason, sizeof reason) : NULL;
    char *written = chat ? hypura_shim_chat_apply(chat, &hello, 1, true, NULL, NULL, reason, sizeof reason) : NULL;
    const hypura_status status =
        written ? HYPURA_OK
                : hypura_fail(error, HYPURA_ERR_USAGE, "the template cannot be used: %s", reason[0] ? reason : "it is empty");
    free(written);
    hypura_shim_chat_close(chat);
    return status;
}

/* *text: to be cleared. */
static hypura_status read_all(FILE *from, hypura_buffer *text, hypura_error *error)
{
    char piece[4096];
    hypura_status status = HYPURA_OK;
    for (size_t n; status == HYPURA_OK && (n = fread(piece, 1, sizeof piece, from)) > 0;) {
        status = hypura_buffer_add(text, piece, n) ? HYPURA_OK
                                                   : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for what is to be checked");
    }
    return status;
}

hypura_status hypura_worker_check_template(FILE *from, hypura_error *error)
{
    hypura_buffer text = {0};
    hypura_status status = read_all(from, &text, error);
    status = status == HYPURA_OK ? check(hypura_buffer_text(&text), error) : status;
    hypura_buffer_clear(&text);
    hypura_shim_flush_common(); /* the front reads there why a template cannot be read */
    return status;
}

static hypura_status check_grammar(const json_t *told, hypura_error *error)
{
    const char *grammar = json_string_value(json_object_get(told, "grammar"));
    const json_t *schema = json_object_get(told, "json_schema");
    char *text = schema ? json_dumps(schema, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    char reason[400] = "";
    if (!grammar && !text) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "there is neither a grammar nor a schema");
    }
    struct llama_sampler *made = hypura_shim_grammar_open(NULL, grammar, text, reason, sizeof reason);
    if (made) {
        llama_sampler_free(made);
    }
    free(text);
    return made ? HYPURA_OK
                : hypura_fail(error, HYPURA_ERR_USAGE, "the %s cannot be used: %s", grammar ? "grammar" : "JSON schema", reason);
}

hypura_status hypura_worker_check_grammar(FILE *from, hypura_error *error)
{
    hypura_buffer text = {0};
    hypura_status status = read_all(from, &text, error);
    json_t *told = status == HYPURA_OK ? json_loadb(hypura_buffer_text(&text), text.bytes, 0, NULL) : NULL;
    status = status == HYPURA_OK ? check_grammar(told, error) : status;
    json_decref(told);
    hypura_buffer_clear(&text);
    return status;
}
