/*
 * generate.c - answering a prompt: text -> tokens -> prompt in pieces -> one token
 * at a time -> text.
 *
 * What always holds: text is passed on only for tokens that a successful decode
 * produced, in whole UTF-8 characters. A failed answer leaves the conversation as
 * it was before its prompt. Between two tokens nothing is allocated here except
 * when the answer's buffer doubles, and what llama.cpp's parser of answers takes where a model thinks.
 */
#include "engine/model/model.h"
#include "engine/prepare/experience.h"

#include "base/clock.h"
#include "base/status.h"
#include "engine/answer/answer.h"
#include "engine/answer/prompt.h"
#include "engine/answer/sampler.h"
#include "hw/since.h"
#include "os/os.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_PIECE_BYTES = 4096, /* text of one token */
};

/* ---- the prompt --------------------------------------------------------- */

/* With an encoder, the prompt is its input and the decoder begins with one token. */
static hypura_status encode_prompt(hypura_model *model, llama_token *tokens, uint32_t *n, hypura_error *error)
{
    const uint32_t limit = model->prepared.context.n_ubatch;
    if (*n > limit) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "the encoder takes at most %u tokens at once, the prompt has %u: give a larger ubatch",
                           limit, *n);
    }
    hypura_conversation_empty(model->conversation);
    hypura_status status = hypura_model_encode(model, tokens, *n, error);
    if (status == HYPURA_OK) {
        llama_token start = llama_model_decoder_start_token(model->llama);
        tokens[0] = start != LLAMA_TOKEN_NULL ? start : llama_vocab_bos(llama_model_get_vocab(model->llama));
        *n = 1;
    }
    return status;
}

/* Ends what is computed when the caller wants it: between the nodes of a graph on the
 * processor, between the parts of a prompt on GPUs. */
typedef struct brake_wire {
    const hypura_generate_options *options;
    uint32_t n_prompt; /* to be read */
    uint32_t n_read;
    bool pulled;
} brake_wire;

static bool is_pulled(void *user)
{
    brake_wire *wire = user;
    const hypura_generate_options *o = wire->options;
    wire->pulled =
        wire->pulled || (o->progress && !o->progress(o->progress_user, "reading the prompt", wire->n_read, wire->n_prompt));
    return wire->pulled;
}

/* n tokens of the prompt from `done` on, or what is shown there. */
static hypura_status decode_piece(hypura_model *model, const hypura_prompt *prompt, const hypura_shown *shown,
                                  uint32_t done, uint32_t n, hypura_error *error)
{
    model->next_place = hypura_conversation_next_place(model->conversation);
    if (shown) {
        const hypura_status status = hypura_model_show(model, shown, error);
        if (status == HYPURA_OK) {
            hypura_conversation_show(model->conversation, shown);
        } else {
            hypura_conversation_forget_rest(model->conversation); /* some of its batches may have been decoded */
        }
        return status;
    }
    hypura_status status = hypura_model_decode_part(model, prompt->tokens + done, n, done + n == prompt->n, error);
    if (status == HYPURA_OK && model->drafting) {
        status = hypura_drafting_read(model->drafting, prompt->tokens + done, n, done, error);
    }
    if (status == HYPURA_OK) {
        hypura_conversation_extend(model->conversation, prompt->tokens + done, n);
    }
    return status;
}

static hypura_status decode_prompt(hypura_model *model, hypura_prompt *prompt, brake_wire *wire, hypura_result *result,
                                   hypura_error *error)
{
    const hypura_context_options *context = &model->prepared.context;
    if (llama_model_has_encoder(model->llama)) {
        result->prompt_tokens = prompt->n;
        hypura_status status = encode_prompt(model, prompt->tokens, &prompt->n, error);
        if (status != HYPURA_OK) {
            return status;
        }
    }
    const uint32_t n = prompt->n;
    if (hypura_prompt_check(prompt, context->n_context, error) != HYPURA_OK) {
        return HYPURA_ERR_USAGE;
    }
    if (!hypura_conversation_make_room(model->conversation, prompt)) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %u pictures", prompt->n_shown);
    }
    uint32_t done = hypura_conversation_reuse(model->conversation, prompt);
    if (model->drafting && !hypura_drafting_reuse(model->drafting, done) && done > 0) {
        hypura_conversation_empty(model->conversation);
        done = 0;
    }
    wire->n_prompt = n - done;
    uint32_t next = 0; /* of what is shown */
    while (done < n) {
        while (next < prompt->n_shown && prompt->shown[next].begin < done) {
            next++;
        }
        const hypura_shown *shown = next < prompt->n_shown ? &prompt->shown[next] : NULL;
        const uint32_t end = shown ? shown->begin : n;
        const bool shows = shown && end == done;
        const uint32_t text = end - done < context->n_ubatch ? end - done : context->n_ubatch;
        const uint32_t piece = shows ? shown->n_tokens : text;
        const hypura_status status = is_pulled(wire)
                                         ? hypura_fail(error, HYPURA_ERR_CANCELLED, "reading the prompt was stopped")
                                         : decode_piece(model, prompt, shows ? shown : NULL, done, piece, error);
        if (status != HYPURA_OK) {
            return status;
        }
        done += piece;
        wire->n_read += piece;
        result->prompt_tokens += llama_model_has_encoder(model->llama) ? 0 : piece;
    }
    return HYPURA_OK;
}

/* ---- the answer --------------------------------------------------------- */

/* The last token is computed too: the next turn then finds the whole answer in the context, and as many tokens were
 * computed as are counted. */
static hypura_status compute_token(hypura_model *model, llama_token token, uint32_t n_more, hypura_result *result,
                                   hypura_error *error)
{
    if (model->drafting) {
        return hypura_drafting_next(model->drafting, token, n_more, error);
    }
    model->next_place = hypura_conversation_next_place(model->conversation);
    const hypura_status status = hypura_model_decode(model, &token, 1, false, error);
    if (status == HYPURA_OK) {
        hypura_conversation_extend(model->conversation, &token, 1);
        result->n_passes++;
    }
    return status;
}

static hypura_status answer(hypura_model *model, const hypura_generate_options *options, hypura_sampler *sampler,
                            hypura_answer *said, hypura_result *result, hypura_error *error)
{
    const struct llama_vocab *vocab = llama_model_get_vocab(model->llama);
    char piece[MAX_PIECE_BYTES];

    while (options->max_tokens == 0 || result->tokens < options->max_tokens) {
        if (hypura_conversation_length(model->conversation) >= model->prepared.context.n_context) {
            result->context_full = true;
            break;
        }
        llama_token token = 0;
        const int32_t row = model->drafting ? hypura_drafting_row(model->drafting) : -1;
        hypura_status sampled = hypura_sampler_next(sampler, model->ctx, row, &token, error);
        if (sampled != HYPURA_OK) {
            return sampled;
        }
        if (llama_vocab_is_eog(vocab, token)) {
            break;
        }
        int32_t bytes = llama_token_to_piece(vocab, token, piece, sizeof(piece), 0, hypura_answer_shows(said, token));
        if (bytes < 0) {
            return hypura_fail(error, HYPURA_ERR_FORMAT, "the text of token %d is %d bytes long", token, -bytes);
        }
        hypura_status status = hypura_answer_add(said, piece, (size_t)bytes, error);
        if (status != HYPURA_OK) {
            return status;
        }
        result->tokens++;
        if (said->stopped || said->ended) {
            break;
        }
        const uint32_t n_more = options->max_tokens > 0 ? options->max_tokens - result->tokens : UINT32_MAX;
        status = compute_token(model, token, n_more > 0 ? n_more - 1 : 0, result, error);
        if (status != HYPURA_OK) {
            return status;
        }
    }
    const hypura_status status = hypura_answer_end(said, error);
    if (status == HYPURA_OK) {
        hypura_answer_pass(said);
        result->stopped_by_user = said->stopped;
    }
    return status;
}

static hypura_status check_model(hypura_model *model, hypura_error *error)
{
    if (llama_vocab_type(llama_model_get_vocab(model->llama)) == LLAMA_VOCAB_TYPE_NONE) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%s has no vocabulary: it cannot read or write text",
                           model->prepared.map->path);
    }
    if (!llama_model_has_decoder(model->llama) || !llama_get_memory(model->ctx)) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "%s is of architecture %s, which does not write text token by token",
                           model->prepared.map->path, model->prepared.map->arch);
    }
    if (!model->conversation) {
        return hypura_conversation_open(model->llama, model->ctx, model->prepared.context.n_context,
                                        &model->conversation, error);
    }
    return HYPURA_OK;
}

/* Fewer tokens than this say little: the first ones read what the prompt left out. */
#define LEAST_TOKENS 16

/* All weights: what a pager holds may have changed in the course of the run. */
static uint64_t held_bytes(const hypura_model *model, const hypura_statistics *before, const hypura_statistics *after)
{
    const hypura_plan *plan = model->prepared.plan;
    const uint64_t first = before->pool_bytes + before->pinned_bytes;
    const uint64_t last = after->pool_bytes + after->pinned_bytes;
    return plan->resident_bytes + plan->ring_bytes + (first + last) / 2;
}

/* Statistics when decoding began, when that was, and when it ended. */
static void learn(const hypura_model *model, const hypura_result *result, const hypura_statistics *began,
                  const hypura_since *begin, const hypura_statistics *ended)
{
    if (!model->cache_dir || model->trace || model->drafting || result->tokens < LEAST_TOKENS) {
        return;
    }
    const double n = result->tokens;
    const hypura_run_costs costs = {
        .held_bytes = held_bytes(model, began, ended),
        .seconds = result->decode_s / n,
        .read_wait_s = (ended->read_wait_s - began->read_wait_s) / n,
        .read_bytes = (double)(ended->bytes_read - began->bytes_read) / n,
        .others = hypura_since_others(begin),
    };
    hypura_experience_add(model->cache_dir, model->prepared.map, model->prepared.plan,
                          model->prepared.context.n_threads, model->prepared.plan->form, model->prepared.direct_bytes_per_s, &costs);
}

/* What was stopped in the middle is not in the context; where that has a state instead of
 * rows for each token, nobody knows what is. */
static hypura_status stop(hypura_model *model, hypura_answer *said, hypura_result *result, hypura_error *error)
{
    hypura_error_clear(error);
    if (llama_model_is_recurrent(model->llama) || llama_model_is_hybrid(model->llama)) {
        hypura_conversation_empty(model->conversation);
    }
    result->stopped_by_user = true;
    return hypura_answer_end(said, error);
}

static hypura_status run(hypura_model *model, const hypura_generate_options *options, hypura_answer *said,
                         hypura_result *result, hypura_error *error)
{
    brake_wire wire = {.options = options};
    hypura_prompt prompt = {.tokens = NULL};
    hypura_sampler *sampler = NULL;
    hypura_status status = hypura_conversation_prompt(model->conversation, options, model->media, &prompt, error);
    if (status == HYPURA_OK && !options->raw) {
        said->reply = hypura_conversation_reply(model->conversation);
    }
    if (status == HYPURA_OK) {
        status = hypura_sampler_open(llama_model_get_vocab(model->llama), options, prompt.tokens, prompt.n, &sampler, error);
    }
    llama_set_abort_callback(model->ctx, options->progress ? is_pulled : NULL, &wire);
    if (status == HYPURA_OK) {
        const uint64_t start = hypura_clock_us();
        status = decode_prompt(model, &prompt, &wire, result, error);
        result->prompt_s = (double)(hypura_clock_us() - start) * 1e-6;
        if (status != HYPURA_OK && !wire.pulled) {
            hypura_conversation_empty(model->conversation);
        }
    }
    if (status == HYPURA_OK && model->drafting) {
        status = hypura_drafting_begin(model->drafting, error);
    }
    if (status == HYPURA_OK) {
        hypura_statistics began;
        hypura_statistics ended;
        hypura_model_statistics(model, &began);
        const hypura_since begin = hypura_since_look(hypura_os_others_us);
        const uint64_t start = hypura_clock_us();
        status = answer(model, options, sampler, said, result, error);
        if (model->drafting) {
            hypura_drafting_end(model->drafting);
            hypura_drafting_tell(model->drafting, result);
        }
        /* A terminal that stands still, or who reads slowly, is not the model's time. */
        result->decode_s = (double)(hypura_clock_us() - start - said->passed_us) * 1e-6;
        hypura_model_statistics(model, &ended);
        result->bytes_read = ended.bytes_read - began.bytes_read; /* of an answer that was stopped, too */
        if (status == HYPURA_OK) {
            learn(model, result, &began, &begin, &ended);
        }
        if (status != HYPURA_OK && !wire.pulled) {
            hypura_conversation_empty(model->conversation);
        }
    }
    llama_set_abort_callback(model->ctx, NULL, NULL);
    if (status == HYPURA_ERR_CANCELLED && wire.pulled) {
        status = stop(model, said, result, error);
    }
    hypura_sampler_close(sampler);
    hypura_prompt_clear(&prompt);
    return status;
}

hypura_status hypura_generate(hypura_model *model, const hypura_generate_options *options, hypura_result *result,
                              hypura_error *error)
{
    hypura_answer said = {.options = options};
    memset(result, 0, sizeof(*result));
    hypura_error_clear(error);
    if (!options->prompt) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "there is no prompt");
    }
    if (options->raw && options->n_media > 0) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a raw prompt shows nothing: its text would have to say where");
    }
    if (options->n_media > 0 && !model->media) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s is shown, and the model was opened without a projector",
                           options->media[0].name);
    }
    for (int i = 0; i < options->n_stop; i++) {
        if (options->stop[i][0] == '\0') {
            return hypura_fail(error, HYPURA_ERR_USAGE, "a text that ends the answer is empty");
        }
    }
    hypura_status status = hypura_sampler_check(options, error);
    if (status == HYPURA_OK) {
        status = check_model(model, error);
    }
    if (status != HYPURA_OK) {
        return status;
    }
    const size_t n_before = hypura_conversation_messages(model->conversation);
    if (!options->raw) {
        status = hypura_conversation_ask(model->conversation, options, error);
    }
    if (status == HYPURA_OK) {
        status = run(model, options, &said, result, error);
    }
    const bool answered =
        status == HYPURA_OK && (!result->stopped_by_user || said.text.whole.bytes > 0 || said.thought.bytes > 0);
    if (!options->raw && answered) {
        const hypura_message message = {.role = "assistant", .text = said.text.whole.data, .thought = said.thought.data};
        status = hypura_conversation_push(model->conversation, &message, error);
    }
    while (!(answered && status == HYPURA_OK) && hypura_conversation_messages(model->conversation) > n_before) {
        hypura_conversation_pop(model->conversation);
    }
    result->text = said.text.whole.data;
    result->thought = said.thought.data;
    hypura_answer_close(&said);
    return status;
}

void hypura_result_clear(hypura_result *result)
{
    free(result->text);
    free(result->thought);
    result->text = NULL;
    result->thought = NULL;
}

void hypura_model_reset(hypura_model *model)
{
    if (model->conversation) {
        hypura_conversation_clear(model->conversation);
    }
}
