/*
 * amend_completions.c - see amend.h: probabilities of OpenAI's /v1/completions, which have a form of their own there.
 *
 *     {"content": [{"token", "logprob", "top_logprobs": [..]}, ..]}
 *     {"tokens": [..], "token_logprobs": [..], "top_logprobs": [{TOKEN: LOGPROB, ..}, ..], "text_offset": [..]}
 */
#include "server/dialect/amend_internal.h"

/* Characters, of UTF-8. */
static json_int_t length_of(const json_t *text)
{
    json_int_t n = 0;
    for (size_t i = 0; i < json_string_length(text); i++) {
        n += ((unsigned char)json_string_value(text)[i] & 0xc0) != 0x80;
    }
    return n;
}

static json_t *others_of(const json_t *token)
{
    json_t *others = json_object();
    size_t i;
    const json_t *other;
    json_array_foreach(json_object_get(token, "top_logprobs"), i, other)
    {
        const char *text = json_string_value(json_object_get(other, "token"));
        if (text && !json_object_get(others, text)) { /* pieces of letters may look the same: the likeliest is first */
            json_object_set(others, text, json_object_get(other, "logprob"));
        }
    }
    return others;
}

/* offset: of the first token, and then of what comes after the last. */
static void change(json_t *choice, json_int_t *offset)
{
    const json_t *content = json_object_get(json_object_get(choice, "logprobs"), "content");
    if (!content) {
        return;
    }
    json_t *made = json_pack("{s:[], s:[], s:[], s:[]}", "tokens", "token_logprobs", "top_logprobs", "text_offset");
    size_t i;
    const json_t *token;
    json_array_foreach(content, i, token)
    {
        json_array_append(json_object_get(made, "tokens"), json_object_get(token, "token"));
        json_array_append(json_object_get(made, "token_logprobs"), json_object_get(token, "logprob"));
        json_array_append_new(json_object_get(made, "top_logprobs"), others_of(token));
        json_array_append_new(json_object_get(made, "text_offset"), json_integer(*offset));
        *offset += length_of(json_object_get(token, "token"));
    }
    json_object_set_new(choice, "logprobs", made);
}

void amend_completions_whole(server_amendment *amendment, json_t *answer)
{
    size_t i;
    json_t *choice;
    (void)amendment;
    json_array_foreach(json_object_get(answer, "choices"), i, choice)
    {
        json_int_t offset = 0;
        change(choice, &offset);
    }
}

void amend_completions_event(server_amendment *amendment, json_t *event, json_t *to)
{
    size_t i;
    json_t *choice;
    json_array_foreach(json_object_get(event, "choices"), i, choice)
    {
        const json_int_t index = json_integer_value(json_object_get(choice, "index"));
        json_int_t further = 0;
        change(choice, index >= 0 && index < AMEND_MAX_CHOICES ? &amendment->offsets[index] : &further);
    }
    json_array_append(to, event);
}
