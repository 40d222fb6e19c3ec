/*
 * amend.c - see amend.h: which answers, and those of /v1/chat/completions.
 */
#include "server/dialect/amend_internal.h"

#include <stdlib.h>
#include <string.h>

void amend_skip(const json_t *given, json_t *object, const char *key)
{
    const json_t *text = json_object_get(object, key);
    if (given_bytes(given, text) > 0) {
        json_object_set_new(object, key, given_skip(given, text));
    }
}

void amend_skip_first(const json_t *given, uint64_t *begun, json_int_t choice, json_t *object, const char *key)
{
    const uint64_t bit = choice >= 0 && choice < AMEND_MAX_CHOICES ? UINT64_C(1) << choice : 0;
    if (json_string_length(json_object_get(object, key)) > 0 && (*begun & bit) == 0 && bit != 0) {
        *begun |= bit;
        amend_skip(given, object, key);
    }
}

/* ---- /v1/chat/completions -------------------------------------------------------------- */

static void chat_whole(server_amendment *amendment, json_t *answer)
{
    size_t i;
    const json_t *choice;
    json_array_foreach(json_object_get(answer, "choices"), i, choice)
    {
        json_t *message = json_object_get(choice, "message");
        amend_skip(amendment->given.text, message, "content");
        amend_skip(amendment->given.thought, message, "reasoning_content");
        const json_t *thought = json_object_get(message, "reasoning_content");
        if (json_is_string(thought) && json_string_length(thought) == 0) {
            json_object_del(message, "reasoning_content");
        }
    }
}

static void chat_event(server_amendment *amendment, json_t *event, json_t *to)
{
    size_t i;
    const json_t *choice;
    json_array_foreach(json_object_get(event, "choices"), i, choice)
    {
        const json_int_t index = json_integer_value(json_object_get(choice, "index"));
        json_t *delta = json_object_get(choice, "delta");
        amend_skip_first(amendment->given.text, &amendment->text_begun, index, delta, "content");
        amend_skip_first(amendment->given.thought, &amendment->thought_begun, index, delta, "reasoning_content");
    }
    json_array_append(to, event);
}

/* ---- all of them --------------------------------------------------------------------------- */

static const amend_form forms[] = {
    {CALL_CHAT, "messages", false, true, chat_whole, chat_event},
    {CALL_COMPLETIONS, NULL, false, true, amend_completions_whole, amend_completions_event},
    {CALL_MESSAGES, "messages", true, false, amend_messages_whole, amend_messages_event},
    {CALL_RESPONSES, "input", true, false, amend_responses_whole, amend_responses_event},
};

const amend_form *amend_form_of(const char *path)
{
    const call_kind kind = call_of(path)->kind;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (forms[i].kind == kind) {
            return &forms[i];
        }
    }
    return NULL;
}

/* "echo" asks for the message as well. */
static given_parts find_given(const amend_form *form, const json_t *sent)
{
    const json_t *messages = form->messages ? json_object_get(sent, form->messages) : NULL;
    if (!messages || json_is_true(json_object_get(sent, "echo"))) {
        return (given_parts){0};
    }
    return strcmp(form->messages, "input") == 0 ? given_of_input(messages) : given_of_messages(messages);
}

/* Where the request says itself that its last message is gone on with, the pieces of a stream are without it. */
static bool has_bare_pieces(const json_t *sent)
{
    const json_t *said = json_object_get(sent, "continue_final_message");
    return json_is_true(json_object_get(sent, "stream")) && (json_is_true(said) || json_is_string(said));
}

server_amendment *amend_open(const char *path, const json_t *asked, const json_t *sent, const amend_about *about)
{
    const amend_form *form = amend_form_of(path);
    if (!form || !sent) {
        return NULL;
    }
    given_parts given = find_given(form, sent);
    const bool tells = !form->messages && json_is_integer(json_object_get(sent, "logprobs"));
    const bool counts = form->counts && amend_count_each(sent) * amend_count_prompts(sent) > 1;
    if (!form->always && !tells && !counts && !given.text && !given.thought) {
        return NULL;
    }
    /* /v1/messages does not pass that on. */
    const bool is_bare = has_bare_pieces(sent) && form->kind != CALL_MESSAGES;
    server_amendment *amendment = calloc(1, sizeof(*amendment));
    if (!amendment) {
        given_clear(&given);
        return NULL;
    }
    *amendment = (server_amendment){.form = form,
                                    .about = *about,
                                    .model = strdup(about->model),
                                    .asked = json_incref((json_t *)(uintptr_t)asked),
                                    .sent = json_incref((json_t *)(uintptr_t)sent),
                                    .given = given,
                                    .n_each = amend_count_each(sent),
                                    .n_results = counts ? amend_count_each(sent) * amend_count_prompts(sent) : 1,
                                    .text_begun = is_bare ? UINT64_MAX : 0,
                                    .thought_begun = is_bare ? UINT64_MAX : 0,
                                    .block = -1,
                                    .items = json_array(),
                                    .held = json_array()};
    amendment->about.model = amendment->model ? amendment->model : "";
    return amendment;
}

void amend_close(server_amendment *amendment)
{
    if (!amendment) {
        return;
    }
    given_clear(&amendment->given);
    json_decref(amendment->asked);
    json_decref(amendment->sent);
    json_decref(amendment->items);
    json_decref(amendment->held);
    json_decref(amendment->whole);
    free(amendment->model);
    free(amendment);
}

void amend_whole(server_amendment *amendment, json_t *answer)
{
    amendment->form->whole(amendment, answer);
}

json_t *amend_event(server_amendment *amendment, json_t *event)
{
    json_t *events = json_array();
    if (amendment->n_results == 1 || amend_several_event(amendment, event)) {
        amendment->form->event(amendment, event, events);
    }
    return events;
}
