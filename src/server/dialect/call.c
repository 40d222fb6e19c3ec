/*
 * call.c - see call.h.
 */
#include "server/dialect/call.h"

#include <stddef.h>
#include <string.h>

static const server_call calls[] = {
    {"/v1/chat/completions", CALL_CHAT, FORM_CHAT, LORA_TOLD, .openai = true},
    {"/chat/completions", CALL_CHAT, FORM_CHAT, LORA_TOLD, .openai = true},
    {"/v1/chat/completions/control", .form = FORM_CHAT, .openai = true},
    {"/v1/chat/completions/input_tokens", .form = FORM_CHAT, .openai = true},
    {"/chat/completions/input_tokens", .form = FORM_CHAT},
    {"/v1/completions", CALL_COMPLETIONS, .lora = LORA_TOLD, .openai = true},
    {"/completions", CALL_COMPLETION, .lora = LORA_TOLD},
    {"/completion", CALL_COMPLETION, .lora = LORA_TOLD},
    {"/v1/responses", CALL_RESPONSES, FORM_RESPONSES, LORA_TOLD, .openai = true},
    {"/responses", CALL_RESPONSES, FORM_RESPONSES, LORA_TOLD, .openai = true},
    {"/v1/responses/input_tokens", .form = FORM_RESPONSES, .openai = true},
    {"/responses/input_tokens", .form = FORM_RESPONSES},
    {"/v1/messages", CALL_MESSAGES, FORM_MESSAGES, .lora = LORA_NOT_TOLD},
    {"/v1/messages/count_tokens", .form = FORM_MESSAGES},
    {"/apply-template", CALL_TEMPLATE, .form = FORM_CHAT},
    {"/infill", .lora = LORA_TOLD},
    {"/v1/embeddings", CALL_EMBEDDINGS, .lora = LORA_NOT_TOLD, .openai = true, .embeds = true},
    {"/embeddings", .lora = LORA_NOT_TOLD, .embeds = true},
    {"/embedding", .lora = LORA_NOT_TOLD, .embeds = true},
    {"/v1/rerank", .lora = LORA_NOT_TOLD, .openai = true, .reranks = true},
    {"/v1/reranking", .lora = LORA_NOT_TOLD, .openai = true, .reranks = true},
    {"/rerank", .lora = LORA_NOT_TOLD, .reranks = true},
    {"/reranking", .lora = LORA_NOT_TOLD, .reranks = true},
    {"/v1/audio/transcriptions", .lora = LORA_NOT_TOLD, .openai = true},
    {"/audio/transcriptions", .lora = LORA_NOT_TOLD},
    {"/v1/systemone", .lora = LORA_NOT_TOLD, .openai = true},
};

const server_call *call_of(const char *path)
{
    static const server_call other = {.path = ""};
    const size_t n = strcspn(path, "?");
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (strlen(calls[i].path) == n && strncmp(calls[i].path, path, n) == 0) {
            return &calls[i];
        }
    }
    return &other;
}
