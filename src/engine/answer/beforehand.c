/*
 * beforehand.c - see beforehand.h.
 */
#include "engine/answer/beforehand.h"

#include "engine/answer/conversation.h"
#include "engine/answer/sampler.h"

static hypura_status check_prompt(const hypura_generate_options *options, const struct llama_model *model,
                                  const hypura_media *media, hypura_conversation *conversation, uint32_t n_context,
                                  hypura_error *error)
{
    hypura_prompt prompt = {.tokens = NULL};
    hypura_status status = options->raw ? HYPURA_OK : hypura_conversation_ask(conversation, options, error);
    if (status == HYPURA_OK) {
        status = hypura_conversation_prompt(conversation, options, media, &prompt, error);
    }
    if (status == HYPURA_OK && !llama_model_has_encoder(model)) {
        status = hypura_prompt_check(&prompt, n_context, error);
    }
    hypura_prompt_clear(&prompt);
    return status;
}

/* Only what is rendered and cut into tokens of it: it has no context. */
static hypura_status check_conversation(const hypura_generate_options *options, const struct llama_model *model,
                                        const hypura_media *media, uint32_t n_context, hypura_error *error)
{
    hypura_conversation *conversation = NULL;
    hypura_status status = hypura_conversation_open(model, NULL, 1, &conversation, error);
    if (status == HYPURA_OK) {
        status = hypura_conversation_choose_template(conversation, options->chat_template, error);
    }
    if (status == HYPURA_OK && !options->raw) {
        status = hypura_conversation_open_template(conversation, error);
    }
    hypura_generate_options known = *options;
    known.prompt = options->prompt ? options->prompt : "";
    if (status == HYPURA_OK && (options->prompt || options->n_media > 0)) {
        status = check_prompt(&known, model, media, conversation, n_context, error);
    }
    hypura_conversation_close(conversation);
    return status;
}

hypura_status hypura_beforehand_check(const hypura_generate_options *options, const struct llama_model *model,
                                      const hypura_media *media, uint32_t n_context, hypura_error *error)
{
    const struct llama_vocab *vocab = llama_model_get_vocab(model);
    hypura_sampler *sampler = NULL;
    hypura_status status = hypura_sampler_check(options, error);
    if (status != HYPURA_OK || llama_vocab_type(vocab) == LLAMA_VOCAB_TYPE_NONE) {
        return status; /* such a model says by itself that it writes no text */
    }
    if (options->grammar || options->json_schema) {
        status = hypura_sampler_open(vocab, options, NULL, 0, &sampler, error);
        hypura_sampler_close(sampler);
    }
    return status == HYPURA_OK ? check_conversation(options, model, media, n_context, error) : status;
}
