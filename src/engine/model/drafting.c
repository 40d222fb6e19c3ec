/*
 * drafting.c - see drafting.h.
 *
 *     batch:   token  guess  guess  guess        n_batch = 4
 *     rows:      0      1      2      3          row r tells what follows batch[r]
 *     held:   |-- n_taken + 1 --|                the others are dropped when another token is chosen
 */
#include "engine/model/drafting.h"

#include "base/clock.h"
#include "base/status.h"
#include "engine/llama/speculation_shim.h"
#include "engine/model/model.h"
#include "engine/prepare/speculation.h"

#include <stdlib.h>
#include <string.h>

struct hypura_drafting {
    hypura_speculation speculation;
    uint32_t n_guessed;        /* at once at most */
    struct llama_model *llama; /* the draft model and its context; NULL: none */
    struct llama_context *ctx;
    hypura_model *model;
    hypura_shim_speculator *speculator;
    llama_token *batch; /* 1 + n_guessed */
    uint32_t n_batch;   /* 0: nothing was computed since the prompt */
    uint32_t n_taken;   /* guesses that came to be */
    hypura_result told;
};

static hypura_status check_memory(const struct llama_model *llama, const char *path, hypura_error *error)
{
    return llama_model_is_recurrent(llama) || llama_model_is_hybrid(llama)
               ? hypura_fail(
                     error, HYPURA_ERR_UNSUPPORTED,
                     "%s keeps a state that cannot be taken back token by token, as guessing needs: run it without "
                     "speculation, or as a model of hypura serve",
                     path)
               : HYPURA_OK;
}

hypura_status hypura_drafting_open(const hypura_speculation *speculation, uint32_t n_guessed, hypura_drafting **opened,
                                   hypura_error *error)
{
    hypura_drafting *d = calloc(1, sizeof(*d));
    hypura_status status = HYPURA_OK;
    *opened = NULL;
    if (d) {
        d->speculation = *speculation;
        d->n_guessed = n_guessed;
        d->batch = malloc((1 + (size_t)n_guessed) * sizeof(*d->batch));
    }
    if (!d || !d->batch) {
        hypura_drafting_close(d);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to guess %u tokens", n_guessed);
    }
    if (speculation->draft) {
        hypura_load_lock();
        status = hypura_speculation_load(speculation->draft, &d->llama, error);
        hypura_load_unlock();
    }
    if (status == HYPURA_OK && d->llama) {
        status = check_memory(d->llama, speculation->draft, error);
    }
    if (status != HYPURA_OK) {
        hypura_drafting_close(d);
        return status;
    }
    *opened = d;
    return HYPURA_OK;
}

static hypura_status open_context(hypura_drafting *d, hypura_error *error)
{
    hypura_context_options options = d->model->prepared.context;
    options.n_outputs = 1;
    options.n_adapters = 0;
    options.kv_cache = (hypura_kv_cache){.type_k = NULL}; /* a worse guess costs more than its small cache */
    options.sends_weights = false;
    options.on_node = NULL;
    options.on_node_user = NULL;
    hypura_load_lock();
    const hypura_status status = hypura_load_context(d->llama, &options, &d->ctx, error);
    hypura_load_unlock();
    if (status == HYPURA_OK) {
        llama_attach_threadpool(d->ctx, d->model->threadpool, d->model->threadpool); /* the model waits meanwhile */
    }
    return status;
}

hypura_status hypura_drafting_attach(hypura_drafting *d, hypura_model *model, hypura_error *error)
{
    char reason[256];
    d->model = model;
    hypura_status status = check_memory(model->llama, model->prepared.map->path, error);
    if (status == HYPURA_OK && d->llama) {
        status = open_context(d, error);
    }
    if (status == HYPURA_OK) {
        d->speculator = hypura_shim_speculator_open(&d->speculation, model->ctx, d->ctx, reason, sizeof(reason));
        status = d->speculator ? HYPURA_OK
                               : hypura_fail(error, HYPURA_ERR_BACKEND, "llama.cpp cannot speculate: %s", reason);
    }
    return status;
}

void hypura_drafting_close(hypura_drafting *d)
{
    if (d) {
        hypura_shim_speculator_close(d->speculator);
        llama_free(d->ctx);
        llama_model_free(d->llama);
        free(d->batch);
        free(d);
    }
}

bool hypura_drafting_reuse(hypura_drafting *d, uint32_t n)
{
    /* Where windows slide, what lies before them is gone. */
    if (d->ctx && n > 0) {
        const llama_pos window = llama_model_n_swa(d->llama) > 1 ? llama_model_n_swa(d->llama) : 1;
        const llama_pos needed = (llama_pos)n > window ? (llama_pos)n - window : 0;
        n = llama_memory_seq_pos_min(llama_get_memory(d->ctx), 0) > needed ? 0 : n;
    }
    const bool held = hypura_shim_speculator_cut(d->speculator, n);
    return held && (n > 0 || !d->ctx);
}

hypura_status hypura_drafting_read(hypura_drafting *d, const llama_token *tokens, uint32_t n, uint32_t first,
                                   hypura_error *error)
{
    const uint64_t begin_us = hypura_clock_us();
    const bool told = hypura_shim_speculator_decoded(d->speculator, tokens, n, first);
    d->told.draft_s += (double)(hypura_clock_us() - begin_us) * 1e-6;
    return told ? HYPURA_OK
                : hypura_fail(error, HYPURA_ERR_BACKEND, "the draft model %s failed to decode %u tokens",
                              d->speculation.draft, n);
}

hypura_status hypura_drafting_begin(hypura_drafting *d, hypura_error *error)
{
    const hypura_conversation *conversation = d->model->conversation;
    d->n_batch = d->n_taken = 0;
    memset(&d->told, 0, sizeof(d->told));
    return hypura_shim_speculator_begin(d->speculator, hypura_conversation_tokens(conversation),
                                        hypura_conversation_length(conversation))
               ? HYPURA_OK
               : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to look for what was said before");
}

int32_t hypura_drafting_row(const hypura_drafting *d)
{
    return d->n_batch > 0 ? (int32_t)d->n_taken : -1;
}

/* What was computed and is not part of the answer goes; what is, the guessers learn of. */
static void settle(hypura_drafting *d)
{
    if (d->n_batch > 0) {
        const uint32_t held = hypura_conversation_length(d->model->conversation);
        if (d->n_taken + 1 < d->n_batch) {
            (void)llama_memory_seq_rm(llama_get_memory(d->model->ctx), 0, (llama_pos)held, -1);
            (void)hypura_shim_speculator_cut(d->speculator, held);
        }
        hypura_shim_speculator_keep(d->speculator, d->batch, d->n_taken + 1, d->n_batch - 1);
        d->n_batch = d->n_taken = 0;
    }
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* How many may be guessed after a token, as llama.cpp's server has it. */
static uint32_t room(const hypura_drafting *d, uint32_t n_more)
{
    const hypura_context_options *context = &d->model->prepared.context;
    const uint32_t held = hypura_conversation_length(d->model->conversation);
    const uint32_t free = context->n_context > held + 2 ? context->n_context - held - 2 : 0;
    return least(least(d->n_guessed, context->n_ubatch - 1), least(free, n_more));
}

static hypura_status compute(hypura_drafting *d, llama_token token, uint32_t n_more, hypura_error *error)
{
    const uint32_t held = hypura_conversation_length(d->model->conversation);
    const uint32_t n_most = room(d, n_more);
    const uint64_t begin_us = hypura_clock_us();
    uint32_t n = 0;
    d->batch[0] = token;
    if (n_most > 0) {
        n = hypura_shim_speculator_guess(d->speculator, token, n_most, d->batch + 1);
    }
    d->told.draft_s += (double)(hypura_clock_us() - begin_us) * 1e-6;
    hypura_status status = hypura_model_decode(d->model, d->batch, 1 + n, true, error);
    if (status == HYPURA_OK) {
        status = hypura_drafting_read(d, d->batch, 1 + n, held, error);
    }
    if (status != HYPURA_OK) {
        return status;
    }
    d->n_batch = 1 + n;
    d->told.n_passes++;
    d->told.n_drafted += n;
    return HYPURA_OK;
}

hypura_status hypura_drafting_next(hypura_drafting *d, llama_token token, uint32_t n_more, hypura_error *error)
{
    if (d->n_batch > 0 && d->n_taken + 1 < d->n_batch && d->batch[d->n_taken + 1] == token) {
        d->n_taken++;
        d->told.n_accepted++;
    } else {
        settle(d);
        const hypura_status status = compute(d, token, n_more, error);
        if (status != HYPURA_OK) {
            return status;
        }
    }
    hypura_conversation_extend(d->model->conversation, &token, 1);
    return HYPURA_OK;
}

void hypura_drafting_end(hypura_drafting *d)
{
    settle(d);
}

void hypura_drafting_tell(const hypura_drafting *d, hypura_result *result)
{
    result->n_passes = d->told.n_passes;
    result->n_drafted = d->told.n_drafted;
    result->n_accepted = d->told.n_accepted;
    result->draft_s = d->told.draft_s;
}
