/*
 * refusal.c - see refusal.h.
 */
#include "server/dialect/refusal.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MAX_BYTES (64 * 1024)

/* How the messages begin that llama.cpp's server has for what a request says, with a status of 500. */
static const char *const not_understood[] = {
    "Failed to parse messages:",
    "Failed to parse tools:",
    "Failed to parse tool call arguments",
    "'messages' is required",
    "\"prompt\" is required",
    "Only no echo is supported",
    "Unsupported param:",
    "Unknown reasoning format:",
    "[json.exception.type_error.302]", /* of a field: it is of another type */
    "Cannot use both json_schema and grammar",
    "Cannot specify grammar with tools",
    "Cannot specify both content and content_parts",
    "Failed to load image or audio file",
    "Failed to download image",
    "Failed to tokenize prompt",
    "Invalid base64 value",
    "Multimodal data provided, but model does not support multimodal requests",
    "image input is not supported",
    "audio input is not supported",
    "video input is not supported",
    "vector::_M_range_check:", /* tokens that are none, to /detokenize */
    "input (",
    "the question and its options (",
};

static bool is_not_understood(const char *message)
{
    for (size_t i = 0; i < sizeof not_understood / sizeof *not_understood; i++) {
        if (strncmp(message, not_understood[i], strlen(not_understood[i])) == 0) {
            return true;
        }
    }
    return false;
}

void refusal_add(hypura_buffer *refusal, const char *data, size_t bytes)
{
    if (refusal->bytes + bytes <= MAX_BYTES) {
        (void)hypura_buffer_add(refusal, data, bytes);
    }
}

int refusal_read(int code, const hypura_buffer *refusal, char *message, size_t capacity)
{
    json_t *value = json_loadb(hypura_buffer_text(refusal), refusal->bytes, 0, NULL);
    const char *text = json_string_value(json_object_get(json_object_get(value, "error"), "message"));
    snprintf(message, capacity, "%s", text ? text : "");
    json_decref(value);
    return code == 501 || (code == 500 && is_not_understood(message)) ? 400 : code;
}

bool refusal_is_too_long(const hypura_buffer *refusal, int64_t *n_prompt, int64_t *n_context)
{
    json_t *value = json_loadb(hypura_buffer_text(refusal), refusal->bytes, 0, NULL);
    const json_t *error = json_object_get(value, "error");
    *n_prompt = json_integer_value(json_object_get(error, "n_prompt_tokens"));
    *n_context = json_integer_value(json_object_get(error, "n_ctx"));
    json_decref(value);
    return *n_prompt > 0 && *n_context > 0 && *n_prompt >= *n_context;
}

json_t *refusal_too_long(const hypura_buffer *refusal)
{
    json_t *value = json_loadb(hypura_buffer_text(refusal), refusal->bytes, 0, NULL);
    if (json_object_set_new(json_object_get(value, "error"), "code", json_string("context_length_exceeded")) != 0) {
        json_decref(value);
        return NULL;
    }
    return value;
}
