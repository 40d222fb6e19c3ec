/*
 * conversation.c - see conversation.h.
 *
 * What always holds: tokens[0 .. n_tokens) are exactly what the context's memory
 * holds for sequence 0, at positions from 0 on; shown tells what stands where tokens
 * are LLAMA_TOKEN_NULL, and which of these take fewer positions. Each turn renders and
 * tokenises all messages anew and keeps the beginning that is unchanged: templates
 * may rewrite earlier messages (dropping reasoning, say), and tokens do not
 * concatenate like text.
 */
#include "engine/answer/conversation.h"

#include "base/buffer.h"
#include "base/status.h"
#include "engine/answer/thinking.h"
#include "engine/llama/llama_shim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct message {
    const char *role; /* a literal */
    char *text;
    char *thought; /* NULL: none */
    hypura_medium *media; /* names and data are owned */
    int n_media;
} message;

struct hypura_conversation {
    const struct llama_model *model;
    struct llama_context *ctx;
    hypura_shim_chat *chat; /* opened by the first render */
    char *template;         /* NULL: the model's own */
    hypura_shim_reply *reply; /* to the last render; NULL: none */
    message *messages;
    size_t n_messages;
    size_t capacity;
    llama_token *tokens; /* n_context of them */
    uint32_t n_tokens;
    hypura_shown *shown;
    uint32_t n_shown;
    uint32_t shown_capacity;
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
    hypura_shim_reply_close(c->reply);
    hypura_shim_chat_close(c->chat);
    free(c->template);
    free(c->messages);
    free(c->tokens);
    free(c->shown);
    free(c);
}

void hypura_conversation_clear(hypura_conversation *c)
{
    while (c->n_messages > 0) {
        hypura_conversation_pop(c);
    }
    hypura_conversation_empty(c);
}

static void free_message(message *m)
{
    for (int i = 0; i < m->n_media; i++) {
        free((char *)(uintptr_t)m->media[i].name);
        free((void *)(uintptr_t)m->media[i].data);
    }
    free(m->media);
    free(m->text);
    free(m->thought);
}

static bool copy_media(message *to, const hypura_message *said)
{
    to->media = said->n_media > 0 ? calloc((size_t)said->n_media, sizeof(*to->media)) : NULL;
    if (said->n_media > 0 && !to->media) {
        return false;
    }
    for (int i = 0; i < said->n_media; i++) {
        char *name = strdup(said->media[i].name);
        void *data = malloc(said->media[i].bytes + 1);
        to->media[i] = (hypura_medium){name, data, said->media[i].bytes};
        to->n_media++;
        if (!name || !data) {
            return false;
        }
        memcpy(data, said->media[i].data, said->media[i].bytes);
    }
    return true;
}

hypura_status hypura_conversation_push(hypura_conversation *c, const hypura_message *said, hypura_error *error)
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
    message copy = {
        .role = said->role, .text = strdup(said->text), .thought = said->thought ? strdup(said->thought) : NULL};
    if (!copy.text || (said->thought && !copy.thought) || !copy_media(&copy, said)) {
        free_message(&copy);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a message of %zu bytes", strlen(said->text));
    }
    c->messages[c->n_messages++] = copy;
    return HYPURA_OK;
}

void hypura_conversation_pop(hypura_conversation *c)
{
    free_message(&c->messages[--c->n_messages]);
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

static hypura_status begin(hypura_conversation *c, const hypura_generate_options *options, hypura_error *error)
{
    static const char *const roles[] = {"system", "user", "assistant"};
    hypura_status status = hypura_conversation_choose_template(c, options->chat_template, error);
    for (int i = 0; i < options->n_history && status == HYPURA_OK; i++) {
        const hypura_message *said = &options->history[i];
        int role = 0;
        while (role < 3 && strcmp(said->role, roles[role]) != 0) {
            role++;
        }
        hypura_message copy = *said;
        copy.role = role < 3 ? roles[role] : NULL;
        status = role < 3 ? hypura_conversation_push(c, &copy, error)
                          : hypura_fail(error, HYPURA_ERR_USAGE, "message %d is of %s: there are system, user and assistant",
                                        i + 1, said->role);
    }
    if (status == HYPURA_OK && options->system && options->n_history == 0) {
        const hypura_message said = {.role = "system", .text = options->system};
        status = hypura_conversation_push(c, &said, error);
    }
    return status;
}

hypura_status hypura_conversation_ask(hypura_conversation *c, const hypura_generate_options *options, hypura_error *error)
{
    hypura_status status = HYPURA_OK;
    if (c->n_messages == 0) {
        status = begin(c, options, error);
    }
    const hypura_message said = {
        .role = "user", .text = options->prompt, .media = options->media, .n_media = options->n_media};
    return status == HYPURA_OK ? hypura_conversation_push(c, &said, error) : status;
}

hypura_status hypura_conversation_open_template(hypura_conversation *c, hypura_error *error)
{
    char reason[256];
    if (c->chat) {
        return HYPURA_OK;
    }
    c->chat = hypura_shim_chat_open(c->model, c->template, reason, sizeof(reason));
    if (!c->chat && reason[0] == '\0') {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "this model has no chat template: give one (--template), or the text to continue (--raw)");
    }
    return c->chat ? HYPURA_OK
                   : hypura_fail(error, HYPURA_ERR_FORMAT, "%s chat template cannot be used: %s",
                                 c->template ? "the given" : "the model's", reason);
}

static bool has(const char *text, const char *marker)
{
    return text && strstr(text, marker);
}

/* One that neither a message nor a thought has in it, which templates may show as well. */
static void choose_marker(const hypura_conversation *c, char *marker, size_t capacity)
{
    size_t i;
    for (unsigned k = 0;; k++) {
        snprintf(marker, capacity, "<__media_%u__>", k);
        for (i = 0; i < c->n_messages && !has(c->messages[i].text, marker) && !has(c->messages[i].thought, marker); i++) {
        }
        if (i == c->n_messages) {
            return;
        }
    }
}

/* The text of a message, markers first. */
static bool add_shown(hypura_buffer *text, const message *m, const char *marker)
{
    bool added = true;
    for (int i = 0; i < m->n_media && added; i++) {
        added = hypura_buffer_add(text, marker, strlen(marker));
    }
    return added && hypura_buffer_add(text, m->text, strlen(m->text) + 1);
}

hypura_shim_reply *hypura_conversation_reply(hypura_conversation *c)
{
    return c->reply;
}

static hypura_status render(hypura_conversation *c, const hypura_generate_options *options, const char *marker, char **text,
                            hypura_error *error)
{
    const hypura_thinking thinking = hypura_thinking_of(options);
    char reason[256];
    hypura_buffer contents = {0};
    hypura_shim_message *parts = malloc(c->n_messages * sizeof(*parts));
    bool added = parts != NULL;
    *text = NULL;
    for (size_t i = 0; i < c->n_messages && added; i++) {
        added = add_shown(&contents, &c->messages[i], marker);
    }
    if (!added) {
        hypura_buffer_clear(&contents);
        free(parts);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to render %zu messages", c->n_messages);
    }
    const char *at = hypura_buffer_text(&contents);
    for (size_t i = 0; i < c->n_messages; i++) {
        parts[i] = (hypura_shim_message){c->messages[i].role, at, c->messages[i].thought};
        at += strlen(at) + 1;
    }
    hypura_shim_reply_close(c->reply);
    c->reply = NULL;
    const bool has_grammar = options->grammar || options->json_schema;
    *text = hypura_shim_chat_apply(c->chat, parts, c->n_messages, thinking != HYPURA_THINKING_OFF,
                                   hypura_thinking_effort(thinking), has_grammar ? NULL : &c->reply, reason, sizeof(reason));
    hypura_buffer_clear(&contents);
    free(parts);
    if (!*text) {
        return hypura_fail(error, HYPURA_ERR_FORMAT, "the chat template rejects the conversation: %s", reason);
    }
    if (!c->reply && thinking != HYPURA_THINKING_AUTO && thinking != HYPURA_THINKING_OFF) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "this model's chat template knows no thoughts: leave --think out (/set nothink)");
    }
    return HYPURA_OK;
}

static hypura_status tokenise(hypura_conversation *c, const hypura_media *media, const char *text, const char *marker,
                              size_t n, hypura_prompt *prompt, hypura_error *error)
{
    if (n == 0) {
        return hypura_prompt_of_text(llama_model_get_vocab(c->model), text, prompt, error);
    }
    const hypura_medium **list = malloc(n * sizeof(*list));
    if (!list) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %zu pictures", n);
    }
    size_t at = 0;
    for (size_t i = 0; i < c->n_messages; i++) {
        for (int k = 0; k < c->messages[i].n_media; k++) {
            list[at++] = &c->messages[i].media[k];
        }
    }
    const hypura_status status = hypura_media_prompt(media, text, marker, list, n, prompt, error);
    free(list);
    return status;
}

hypura_status hypura_conversation_prompt(hypura_conversation *c, const hypura_generate_options *options,
                                         const hypura_media *media, hypura_prompt *prompt, hypura_error *error)
{
    if (options->raw) {
        return hypura_prompt_of_text(llama_model_get_vocab(c->model), options->prompt, prompt, error);
    }
    char marker[32] = "";
    char *text = NULL;
    size_t n = 0;
    hypura_status status = hypura_conversation_open_template(c, error);
    for (size_t i = 0; i < c->n_messages; i++) {
        n += (size_t)c->messages[i].n_media;
    }
    if (status == HYPURA_OK && n > 0 && !media) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "pictures and sound take a projector, and the model was opened without one");
    }
    if (status == HYPURA_OK) {
        choose_marker(c, marker, sizeof(marker));
        status = render(c, options, marker, &text, error);
    }
    if (status == HYPURA_OK) {
        status = tokenise(c, media, text, marker, n, prompt, error);
    }
    free(text);
    return status;
}

/* Of the first n tokens. */
static llama_pos place_of(const hypura_conversation *c, uint32_t n)
{
    llama_pos place = (llama_pos)n;
    for (uint32_t i = 0; i < c->n_shown && c->shown[i].begin < n; i++) {
        place -= (llama_pos)c->shown[i].n_tokens - (llama_pos)c->shown[i].n_places;
    }
    return place;
}

/* So many tokens are the same in both. What is shown is so as a whole, or not at all. */
static uint32_t common(const hypura_conversation *c, const hypura_prompt *prompt)
{
    uint32_t keep = 0;
    while (keep < c->n_tokens && keep < prompt->n && c->tokens[keep] == prompt->tokens[keep]) {
        keep++;
    }
    if (keep == prompt->n && keep > 0) {
        keep--; /* the last token's logits are needed */
    }
    for (uint32_t i = 0; i < prompt->n_shown && prompt->shown[i].begin < keep; i++) {
        const hypura_shown *wanted = &prompt->shown[i];
        const hypura_shown *there = i < c->n_shown ? &c->shown[i] : NULL;
        if (!there || there->begin != wanted->begin || there->n_tokens != wanted->n_tokens ||
            wanted->begin + wanted->n_tokens > keep || strcmp(there->id, wanted->id) != 0) {
            return wanted->begin;
        }
    }
    return keep;
}

uint32_t hypura_conversation_reuse(hypura_conversation *c, const hypura_prompt *prompt)
{
    llama_memory_t memory = llama_get_memory(c->ctx);
    const uint32_t keep = common(c, prompt);
    const llama_pos place = place_of(c, keep);
    /* A sliding window no longer holds what lies before it, and a recurrent state
     * cannot go back at all: then everything is computed again. */
    const llama_pos window = llama_model_n_swa(c->model) > 1 ? llama_model_n_swa(c->model) : 1;
    const llama_pos oldest = llama_memory_seq_pos_min(memory, 0);
    const llama_pos needed = place > window ? place - window : 0;
    if (keep == 0 || oldest > needed || (keep < c->n_tokens && !llama_memory_seq_rm(memory, 0, place, -1))) {
        hypura_conversation_empty(c);
        return 0;
    }
    c->n_tokens = keep;
    while (c->n_shown > 0 && c->shown[c->n_shown - 1].begin >= keep) {
        c->n_shown--;
    }
    return keep;
}

bool hypura_conversation_make_room(hypura_conversation *c, const hypura_prompt *prompt)
{
    if (prompt->n_shown <= c->shown_capacity) {
        return true;
    }
    hypura_shown *shown = realloc(c->shown, prompt->n_shown * sizeof(*shown));
    if (!shown) {
        return false;
    }
    c->shown = shown;
    c->shown_capacity = prompt->n_shown;
    return true;
}

void hypura_conversation_show(hypura_conversation *c, const hypura_shown *shown)
{
    c->shown[c->n_shown] = *shown;
    c->shown[c->n_shown++].chunk = NULL;
    for (uint32_t i = 0; i < shown->n_tokens; i++) {
        c->tokens[c->n_tokens++] = LLAMA_TOKEN_NULL;
    }
}

llama_pos hypura_conversation_next_place(const hypura_conversation *c)
{
    return c->n_shown > 0 ? place_of(c, c->n_tokens) : -1;
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

void hypura_conversation_forget_rest(hypura_conversation *c)
{
    llama_memory_t memory = llama_get_memory(c->ctx);
    if (!llama_memory_seq_rm(memory, 0, place_of(c, c->n_tokens), -1)) {
        hypura_conversation_empty(c);
    }
}

void hypura_conversation_empty(hypura_conversation *c)
{
    if (llama_get_memory(c->ctx)) {
        (void)hypura_shim_forget(c->ctx); /* who computes next is told of a GPU that is lost */
    }
    c->n_tokens = 0;
    c->n_shown = 0;
}
