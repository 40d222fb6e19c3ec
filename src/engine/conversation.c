/*
 * conversation.c - see conversation.h.
 *
 * What always holds: tokens[0 .. n_tokens) are exactly what the context's memory
 * holds for sequence 0, at positions 0 .. n_tokens - 1. Each turn renders and
 * tokenises all messages anew and keeps the beginning that is unchanged: templates
 * may rewrite earlier messages (dropping reasoning, say), and tokens do not
 * concatenate like text.
 */
#include "engine/conversation.h"

#include "base/status.h"

#include <stdlib.h>
#include <string.h>

typedef struct message {
    const char *role; /* a literal */
    char *text;
} message;

struct hypura_conversation {
    const struct llama_model *model;
    struct llama_context *ctx;
    hypura_shim_chat *chat; /* opened by the first render */
    char *template;         /* NULL: the model's own */
    message *messages;
    size_t n_messages;
    size_t capacity;
    llama_token *tokens; /* n_context of them */
    uint32_t n_tokens;
    uint32_t n_context;
};

hypura_status hypura_conversation_open(const struct llama_model *model, struct llama_context *ctx, uint32_t n_context,
                                       hypura_conversation **out, hypura_error *error)
{
    hypura_conversation *c = calloc(1, sizeof(*c));
    *out = NULL;
    if (c) {
        c->tokens = malloc((size_t)n_context * sizeof(*c->tokens));
    }
    if (!c || !c->tokens) {
        hypura_conversation_close(c);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a conversation of %u tokens", n_context);
    }
    c->model = model;
    c->ctx = ctx;
    c->n_context = n_context;
    *out = c;
    return HYPURA_OK;
}

void hypura_conversation_close(hypura_conversation *c)
{
    if (!c) {
        return;
    }
    while (c->n_messages > 0) {
        hypura_conversation_pop(c);
    }
    hypura_shim_chat_close(c->chat);
    free(c->template);
    free(c->messages);
    free(c->tokens);
    free(c);
}

void hypura_conversation_clear(hypura_conversation *c)
{
    while (c->n_messages > 0) {
        hypura_conversation_pop(c);
    }
    hypura_conversation_empty(c);
}

hypura_status hypura_conversation_push(hypura_conversation *c, const char *role, const char *text, hypura_error *error)
{
    if (c->n_messages == c->capacity) {
        size_t capacity = c->capacity > 0 ? 2 * c->capacity : 16;
        message *messages = realloc(c->messages, capacity * sizeof(*messages));
        if (!messages) {
            return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for another message");
        }
        c->messages = messages;
        c->capacity = capacity;
    }
    char *copy = strdup(text);
    if (!copy) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a message of %zu bytes", strlen(text));
    }
    c->messages[c->n_messages++] = (message){role, copy};
    return HYPURA_OK;
}

void hypura_conversation_pop(hypura_conversation *c)
{
    free(c->messages[--c->n_messages].text);
}

size_t hypura_conversation_messages(const hypura_conversation *c)
{
    return c->n_messages;
}

hypura_status hypura_conversation_choose_template(hypura_conversation *c, const char *text, hypura_error *error)
{
    const bool same = text && c->template ? strcmp(text, c->template) == 0 : !text && !c->template;
    if (same) {
        return HYPURA_OK;
    }
    char *copy = text ? strdup(text) : NULL;
    if (text && !copy) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a chat template of %zu bytes", strlen(text));
    }
    hypura_shim_chat_close(c->chat);
    free(c->template);
    c->chat = NULL;
    c->template = copy;
    return HYPURA_OK;
}

hypura_status hypura_conversation_render(hypura_conversation *c, char **text, hypura_error *error)
{
    char reason[256];
    *text = NULL;
    if (!c->chat) {
        c->chat = hypura_shim_chat_open(c->model, c->template, reason, sizeof(reason));
        if (!c->chat && reason[0] == '\0') {
            return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                               "this model has no chat template: give one (--template), or the text to continue (--raw)");
        }
        if (!c->chat) {
            return hypura_fail(error, HYPURA_ERR_FORMAT, "%s chat template cannot be used: %s",
                               c->template ? "the given" : "the model's", reason);
        }
    }
    const char **parts = malloc(2 * c->n_messages * sizeof(*parts));
    if (!parts) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to render %zu messages", c->n_messages);
    }
    for (size_t i = 0; i < c->n_messages; i++) {
        parts[i] = c->messages[i].role;
        parts[c->n_messages + i] = c->messages[i].text;
    }
    *text = hypura_shim_chat_apply(c->chat, parts, parts + c->n_messages, c->n_messages, reason, sizeof(reason));
    free(parts);
    if (!*text) {
        return hypura_fail(error, HYPURA_ERR_FORMAT, "the chat template rejects the conversation: %s", reason);
    }
    return HYPURA_OK;
}

uint32_t hypura_conversation_reuse(hypura_conversation *c, const llama_token *tokens, uint32_t n)
{
    llama_memory_t memory = llama_get_memory(c->ctx);
    uint32_t keep = 0;
    while (keep < c->n_tokens && keep < n && c->tokens[keep] == tokens[keep]) {
        keep++;
    }
    if (keep == n && keep > 0) {
        keep--; /* the last token's logits are needed */
    }
    /* A sliding window no longer holds what lies before it, and a recurrent state
     * cannot go back at all: then everything is computed again. */
    const llama_pos window = llama_model_n_swa(c->model) > 1 ? llama_model_n_swa(c->model) : 1;
    const llama_pos oldest = llama_memory_seq_pos_min(memory, 0);
    const llama_pos needed = (llama_pos)keep > window ? (llama_pos)keep - window : 0;
    if (keep == 0 || oldest > needed || (keep < c->n_tokens && !llama_memory_seq_rm(memory, 0, (llama_pos)keep, -1))) {
        hypura_conversation_empty(c);
        return 0;
    }
    c->n_tokens = keep;
    return keep;
}

void hypura_conversation_extend(hypura_conversation *c, const llama_token *tokens, uint32_t n)
{
    memcpy(c->tokens + c->n_tokens, tokens, (size_t)n * sizeof(*tokens));
    c->n_tokens += n;
}

uint32_t hypura_conversation_length(const hypura_conversation *c)
{
    return c->n_tokens;
}

const llama_token *hypura_conversation_tokens(const hypura_conversation *c)
{
    return c->tokens;
}

void hypura_conversation_empty(hypura_conversation *c)
{
    if (llama_get_memory(c->ctx)) {
        (void)hypura_shim_forget(c->ctx); /* who computes next is told of a GPU that is lost */
    }
    c->n_tokens = 0;
}
