/*
 * check.c - see check.h.
 */
#include "worker/check.h"

#include "base/buffer.h"
#include "base/status.h"
#include "engine/llama_shim.h"

#include <stdlib.h>

static hypura_status check(const char *text, hypura_error *error)
{
    static const char *const roles[] = {"user"};
    static const char *const contents[] = {"Hello"};
    char reason[400] = "";
    hypura_shim_chat *chat = text[0] ? hypura_shim_chat_open(NULL, text, reason, sizeof reason) : NULL;
    char *written = chat ? hypura_shim_chat_apply(chat, roles, contents, 1, reason, sizeof reason) : NULL;
    const hypura_status status =
        written ? HYPURA_OK
                : hypura_fail(error, HYPURA_ERR_USAGE, "the template cannot be used: %s", reason[0] ? reason : "it is empty");
    free(written);
    hypura_shim_chat_close(chat);
    return status;
}

hypura_status hypura_worker_check_template(FILE *from, hypura_error *error)
{
    hypura_buffer text = {0};
    char piece[4096];
    hypura_status status = HYPURA_OK;
    for (size_t n; status == HYPURA_OK && (n = fread(piece, 1, sizeof piece, from)) > 0;) {
        status = hypura_buffer_add(&text, piece, n) ? HYPURA_OK
                                                    : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a template");
    }
    status = status == HYPURA_OK ? check(hypura_buffer_text(&text), error) : status;
    hypura_buffer_clear(&text);
    hypura_shim_flush_common(); /* the front reads there why a template cannot be read */
    return status;
}
