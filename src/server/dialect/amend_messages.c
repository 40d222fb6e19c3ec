/*
 * amend_messages.c - see amend.h: answers of Anthropic's API.
 *
 * llama.cpp's server ends the blocks of a stream all together, begins one once more where something of it comes at the
 * very end, and leaves the message's own beginning out where the first token is half a letter. Here
 *
 *     message_start (block_start block_delta... block_stop)... message_delta message_stop
 *
 * always holds. What it says of a thing that stopped the answer is its own word for it, also where that is a word of the
 * model's template.
 */
#include "server/dialect/amend_internal.h"

#define MAX_BLOCKS 64

static void add_stop(json_t *to, json_int_t block, bool thinks)
{
    if (thinks) {
        json_array_append_new(to, json_pack("{s:s, s:I, s:{s:s, s:s}}", "type", "content_block_delta", "index", block,
                                            "delta", "type", "signature_delta", "signature", ""));
    }
    json_array_append_new(to, json_pack("{s:s, s:I}", "type", "content_block_stop", "index", block));
}

static void close_block(server_amendment *amendment, json_t *to)
{
    if (amendment->block >= 0) {
        add_stop(to, amendment->block, amendment->thinks);
    }
    amendment->block = -1;
}

/* object: of the answer or of its last event. */
static void tell_stop(const server_amendment *amendment, json_t *object)
{
    const json_t *stopped_by = json_object_get(object, "stop_sequence");
    bool asked = false;
    size_t i;
    const json_t *word;
    json_array_foreach(json_object_get(amendment->asked, "stop_sequences"), i, word)
    {
        asked = asked || json_equal(word, stopped_by);
    }
    if (!asked) {
        json_object_set_new(object, "stop_sequence", json_null());
    } else if (text_is(object, "stop_reason", "end_turn")) {
        json_object_set_new(object, "stop_reason", json_string("stop_sequence"));
    }
}

static bool is_empty(const json_t *block, const char *key)
{
    const json_t *text = json_object_get(block, key);
    return json_is_string(text) && json_string_length(text) == 0;
}

/* The prompt alone was asked for; llama.cpp's server computes one token all the same. */
static bool is_prompt_alone(const json_t *asked)
{
    const json_t *most = json_object_get(asked, "max_tokens");
    return json_is_number(most) && !(json_number_value(most) > 0);
}

void amend_messages_whole(server_amendment *amendment, json_t *answer)
{
    json_t *content = json_object_get(answer, "content");
    for (size_t i = 0; i < json_array_size(content);) {
        json_t *block = json_array_get(content, i);
        amend_skip(amendment->given.text, block, "text");
        amend_skip(amendment->given.thought, block, "thinking");
        if (is_empty(block, "text") || is_empty(block, "thinking")) {
            json_array_remove(content, i);
        } else {
            i++;
        }
    }
    if (json_object_get(answer, "stop_reason")) {
        tell_stop(amendment, answer);
    }
    if (content && is_prompt_alone(amendment->asked)) {
        json_array_clear(content);
        json_object_set_new(answer, "stop_reason", json_string("max_tokens"));
        json_object_set_new(answer, "stop_sequence", json_null());
        json_object_set_new(json_object_get(answer, "usage"), "output_tokens", json_integer(0));
    }
}

static void begin_message(server_amendment *amendment, json_t *to)
{
    json_array_append_new(
        to, json_pack("{s:s, s:{s:s, s:s, s:s, s:[], s:s, s:n, s:n, s:{s:i, s:i}}}", "type", "message_start", "message",
                      "id", "msg_0", "type", "message", "role", "assistant", "content", "model", amendment->about.model,
                      "stop_reason", "stop_sequence", "usage", "input_tokens", 0, "output_tokens", 0));
}

static void begin_block(server_amendment *amendment, json_t *event, json_int_t index, json_t *to)
{
    const uint64_t bit = index >= 0 && index < MAX_BLOCKS ? UINT64_C(1) << index : 0;
    json_t *block = json_object_get(event, "content_block");
    if (amendment->blocks & bit) {
        return;
    }
    close_block(amendment, to);
    amendment->blocks |= bit;
    amendment->block = index;
    amendment->thinks = text_is(block, "type", "thinking");
    if (amendment->thinks) {
        json_object_set_new(block, "signature", json_string(""));
    } else if (text_is(block, "type", "tool_use") && !json_object_get(block, "input")) {
        json_object_set_new(block, "input", json_object());
    }
    json_array_append(to, event);
}

void amend_messages_event(server_amendment *amendment, json_t *event, json_t *to)
{
    const json_int_t index = json_integer_value(json_object_get(event, "index"));
    json_t *delta = json_object_get(event, "delta");
    const bool is_start = text_is(event, "type", "message_start");
    if (!is_start && !amendment->begun && !json_object_get(event, "error")) {
        begin_message(amendment, to);
    }
    amendment->begun = true;
    if (text_is(event, "type", "content_block_start")) {
        begin_block(amendment, event, index, to);
    } else if (text_is(event, "type", "content_block_stop")) {
        if (amendment->block == index) {
            close_block(amendment, to);
        }
    } else if (text_is(delta, "type", "signature_delta")) {
        return; /* comes with the end of its block */
    } else {
        amend_skip_first(amendment->given.text, &amendment->text_begun, 0, delta, "text");
        amend_skip_first(amendment->given.thought, &amendment->thought_begun, 0, delta, "thinking");
        if (text_is(event, "type", "message_delta")) {
            close_block(amendment, to);
            tell_stop(amendment, delta);
        }
        json_array_append(to, event);
    }
}
